import { testSerialIf } from '../fixtures/external-tools.ts';
import { WRITING_ENGINES } from '../fixtures/fork-engines.ts';
import { whatIsMissing } from '../fixtures/machine.ts';
import { missingNpmPackages } from '../fixtures/npm-project.ts';
import { Random } from '../fixtures/random.ts';
import { missingForReading } from './reading-world.ts';
import { killWhileWriting } from './writing-kills.ts';
import { filesWorkload, npmWorkload, type Workload } from './writing-workloads.ts';
import { WritingWorld } from './writing-world.ts';

const [SEED = 11] = (process.env['BENTO_RANDOM_SEEDS'] ?? '11').split(',').map(Number);
const SIZE = { untarFiles: 2_000, rounds: 240, sqliteRows: 120 };
const KILL_COUNT_MAX = 8;

const missing = missingForReading() ?? whatIsMissing({ tools: ['tar', 'cp'] });
const missingForNpm = missing ?? whatIsMissing({ tools: ['npm', 'cc'] }) ?? missingNpmPackages();

for (const engine of WRITING_ENGINES) {
  const kill = async (makeWorkload: (outside: string) => Workload): Promise<string> => {
    const random = new Random(SEED);
    await using world = await WritingWorld.create(makeWorkload);
    const { killCount, commandCount } = await killWhileWriting(world, { engine, random, killCountMax: KILL_COUNT_MAX });
    if (killCount === 0) throw new Error('nothing was killed');
    return `killed ${killCount} times during ${commandCount} commands, seed ${SEED}`;
  };

  testSerialIf(missing === undefined, missing ?? '')(
    `killing the server while tar, git, SQLite and others write in a fork fails none and loses nothing (${engine})`,
    async (t) => {
      t.log(await kill((outside) => filesWorkload(outside, SIZE)));
      t.pass();
    },
  );

  testSerialIf(missingForNpm === undefined, missingForNpm ?? '')(
    `killing the server while npm ci writes in a fork does not fail it and loses nothing (${engine})`,
    async (t) => {
      t.log(await kill(npmWorkload));
      t.pass();
    },
  );
}
