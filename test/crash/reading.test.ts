import { testSerialIf } from '../fixtures/external-tools.ts';
import { Random } from '../fixtures/random.ts';
import { crashLoop, killSupervisor, killWhileMounting, killWhileReading } from './reading-kills.ts';
import { missingForReading, ReadingWorld, type ReadingWorldOptions } from './reading-world.ts';

const [SEED = 11] = (process.env['BENTO_RANDOM_SEEDS'] ?? '11').split(',').map(Number);
const READING_MS = 5_000;
/** At least; so that the test tells something on a slow machine too. */
const KILL_COUNT_MIN = 6;
const MOUNT_TIMES = 2;

const missing = missingForReading();
const testWithMounts = testSerialIf(missing === undefined, missing ?? '');

testWithMounts(
  'killing the server again and again while programs read fails no command and changes no byte',
  async (t) => {
    const counts = await inWorld({ largeCount: 1 }, async (world, random) =>
      killWhileReading(world, { random, durationMs: READING_MS, killCountMin: KILL_COUNT_MIN }),
    );
    t.log(`killed ${counts.killCount} times during ${counts.commandCount} commands`);
    t.pass();
  },
);

testWithMounts('killing the server while a command mounts or unmounts makes neither fail', async (t) => {
  const counts = await inWorld({ largeCount: 0 }, async (world, random) =>
    killWhileMounting(world, { random, times: MOUNT_TIMES }),
  );
  t.true(counts.killCount > 0);
});

testWithMounts('a server that dies right after each start is reported, and all works when that ends', async (t) => {
  await inWorld({ largeCount: 0 }, crashLoop);
  t.pass();
});

testWithMounts('killing the supervisor stops no reader, and the next mount starts another daemon', async (t) => {
  await inWorld({ largeCount: 0 }, killSupervisor);
  t.pass();
});

/** @throws what `act` throws, with the seed that does it again */
async function inWorld<Result>(
  options: ReadingWorldOptions,
  act: (world: ReadingWorld, random: Random) => Promise<Result>,
): Promise<Result> {
  const random = new Random(SEED);
  await using world = await ReadingWorld.create(random, options);
  try {
    return await act(world, random);
  } catch (cause) {
    throw new Error(`with BENTO_RANDOM_SEEDS=${SEED}: ${String(cause)}`, { cause });
  }
}
