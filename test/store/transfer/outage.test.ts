import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { RegistryClient } from '../../../store/registry/client.ts';
import type { TimeLimits } from '../../../store/registry/limits.ts';
import type { Repository } from '../../../store/registry/repository.ts';
import { pullTags } from '../../../store/transfer/pull.ts';
import { pushTags } from '../../../store/transfer/push.ts';
import { OddRegistry } from '../../fixtures/registry/odd-registry.ts';
import { ShapedProxy } from '../../fixtures/registry/shaped-proxy.ts';
import { newMachine, saveCheckpoint, tagsOf } from './transfer-fixtures.ts';

/** Of all that is sent, so that a cut comes in the middle. */
const LAYER_BYTES = 400_000;
const LAYER_COUNT = 5;
const BYTES_PER_SEC = 2_000_000;
/** The real ones, a hundred times shorter, but for how long a network may be away. */
const LIMITS: Partial<TimeLimits> = {
  connectMs: 300,
  headersMs: 300,
  idleMs: 300,
  commitMs: 3_000,
  pauseMs: 5,
  pauseMaxMs: 80,
  tryCountMax: 3,
};
/** Longer than every limit above, and than all tries together. */
const OUTAGE_MS = 2_000;

function open(t: ExecutionContext, registry: string): { repository: Repository; notes: string[] } {
  const notes: string[] = [];
  const credentials = { find: async () => await Promise.resolve(undefined) };
  const client = new RegistryClient({ credentials, limits: LIMITS, onRetry: (note) => notes.push(note) });
  t.teardown(async () => await client.close());
  return { repository: client.repository({ registry, repository: 'me/ws' }), notes };
}

/** Cuts the network as soon as half of everything has gone through, and mends it later. */
async function cutInTheMiddle(proxy: ShapedProxy, mode: 'refuse' | 'hang', passed: () => number): Promise<void> {
  while (passed() < (LAYER_BYTES * LAYER_COUNT) / 2) await sleep(1);
  await proxy.cut(mode);
  await sleep(OUTAGE_MS);
  await proxy.heal();
}

for (const mode of ['refuse', 'hang'] as const) {
  test.serial(`push and pull go on by themselves after a network that was away (${mode})`, async (t) => {
    await using registry = await OddRegistry.start();
    await using proxy = await ShapedProxy.start(registry.host, {
      upBytesPerSec: BYTES_PER_SEC,
      downBytesPerSec: BYTES_PER_SEC,
    });
    const from = newMachine(t);
    const layers = Array.from({ length: LAYER_COUNT }, () => randomBytes(LAYER_BYTES));
    await saveCheckpoint(from, layers, { tags: ['cp-1'], sequence: 1 });

    const up = open(t, proxy.host);
    const pushing = pushTags(from, up.repository, { tags: ['cp-1'] });
    await Promise.all([pushing, cutInTheMiddle(proxy, mode, () => proxy.upBytes)]);
    t.true(up.notes.length > (LIMITS.tryCountMax ?? 0), 'it was tried more often than anything else is');

    const to = newMachine(t);
    const down = open(t, proxy.host);
    const startBytes = proxy.downBytes;
    const pulling = pullTags(to, down.repository);
    await Promise.all([pulling, cutInTheMiddle(proxy, mode, () => proxy.downBytes - startBytes)]);
    t.true(down.notes.length > (LIMITS.tryCountMax ?? 0));
    t.deepEqual(await tagsOf(to), await tagsOf(from));
    t.deepEqual(await to.store.blobs.list(), await from.store.blobs.list());
    for (const bytes of layers)
      t.true((await to.store.blobs.read({ digest: digestOf(bytes) }, LAYER_BYTES)).equals(bytes));
    t.deepEqual(registry.defects, []);
  });
}
