import test from 'ava';

import { testSerialIf } from '../fixtures/external-tools.ts';
import { WRITING_ENGINES, type WritingEngine } from '../fixtures/fork-engines.ts';
import { whatIsMissing } from '../fixtures/machine.ts';
import { missingNpmPackages } from '../fixtures/npm-project.ts';
import { Random } from '../fixtures/random.ts';
import { missingForReading } from './reading-world.ts';
import { killWhileWriting } from './writing-kills.ts';
import { filesWorkload, npmWorkload, type Workload } from './writing-workloads.ts';
import { WritingWorld } from './writing-world.ts';

const [SEED = 11] = (process.env['BENTO_RANDOM_SEEDS'] ?? '11').split(',').map(Number);
const SIZE = { untarFiles: 1_000, rounds: 160, sqliteRows: 90 };
const KILL_COUNT_MAX = 6;

const missing = missingForReading() ?? whatIsMissing({ tools: ['tar', 'cp'] });
const missingForNpm = missing ?? whatIsMissing({ tools: ['npm', 'cc'] }) ?? missingNpmPackages();

const WORKLOADS = [
  {
    title: 'killing the server while tar, git, SQLite and others write in a fork fails none and loses nothing',
    missing,
    world: worldOnce((outside) => filesWorkload(outside, SIZE)),
  },
  {
    title: 'killing the server while npm ci writes in a fork does not fail it and loses nothing',
    missing: missingForNpm,
    world: worldOnce(npmWorkload),
  },
];

for (const workload of WORKLOADS) {
  for (const engine of WRITING_ENGINES) {
    const declare = testSerialIf(workload.missing === undefined, workload.missing ?? '');
    declare(`${workload.title} (${engine})`, async (t) => {
      const { killCount, commandCount } = await kill(await workload.world(), engine);
      t.log(`killed ${killCount} times during ${commandCount} commands, seed ${SEED}`);
      t.true(killCount > 0);
    });
  }
}

async function kill(world: WritingWorld, engine: WritingEngine): ReturnType<typeof killWhileWriting> {
  return await killWhileWriting(world, { engine, random: new Random(SEED), killCountMax: KILL_COUNT_MAX });
}

/** What all engines are compared with is made once, by the first who asks. */
function worldOnce(makeWorkload: (outside: string) => Workload): () => Promise<WritingWorld> {
  let world: Promise<WritingWorld> | undefined;
  test.after.always(async () => {
    await (await world?.catch(() => undefined))?.[Symbol.asyncDispose]();
  });
  return async () => await (world ??= WritingWorld.create(makeWorkload));
}
