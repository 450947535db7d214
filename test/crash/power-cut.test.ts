import { testSerialIf } from '../fixtures/external-tools.ts';
import { WRITING_ENGINES } from '../fixtures/fork-engines.ts';
import { whatIsMissing } from '../fixtures/machine.ts';
import { Random } from '../fixtures/random.ts';
import { cutPower } from './power-cut.ts';
import { COPIED_FOLDER, IMAGE_DISK } from './power-disk.ts';

const [SEED = 11] = (process.env['BENTO_RANDOM_SEEDS'] ?? '11').split(',').map(Number);
const SNAPSHOT_COUNT = 2;

for (const kind of [IMAGE_DISK, COPIED_FOLDER]) {
  const missing = whatIsMissing({ root: true, fuse: true, tools: ['git', 'tar', 'find', 'sync'] }) ?? kind.missing();
  for (const engine of WRITING_ENGINES) {
    testSerialIf(missing === undefined, missing ?? '')(
      `after a power cut a fork opens, and what was synced is there (${engine}, ${kind.name})`,
      async (t) => {
        const options = { engine, random: new Random(SEED), snapshotCount: SNAPSHOT_COUNT };
        t.log(`${await cutPower(kind, options)} promises were kept, seed ${SEED}`);
        t.pass();
      },
    );
  }
}
