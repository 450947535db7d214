import test, { type ExecutionContext } from 'ava';

import { compareWithRemote, type SyncState } from '../../../store/transfer/compare.ts';
import { pullTags } from '../../../store/transfer/pull.ts';
import { pushTags } from '../../../store/transfer/push.ts';
import { MemoryRepository } from '../../fixtures/memory-registry.ts';
import { newMachine, saveCheckpoint, type Machine, type Saved } from './transfer-fixtures.ts';

async function save(machine: Machine, sequence: number, content: string, parent?: Saved): Promise<Saved> {
  return await saveCheckpoint(machine, [Buffer.from(content)], {
    tags: [`cp-${sequence}`, 'latest'],
    sequence,
    ...(parent && { parent: parent.digest }),
  });
}

async function compare(
  { store, layout }: Machine,
  remote: MemoryRepository,
  head?: { digest: Saved['digest']; sequence: number },
  timeoutMs = 60_000,
): Promise<SyncState> {
  return await compareWithRemote({ pool: store.blobs, layout }, remote, { head, timeoutMs });
}

async function twoPushed(t: ExecutionContext): Promise<{
  machine: Machine;
  remote: MemoryRepository;
  first: Saved;
  second: Saved;
}> {
  const machine = newMachine(t);
  const remote = new MemoryRepository();
  const first = await save(machine, 1, 'one');
  const second = await save(machine, 2, 'two', first);
  await pushTags(machine, remote, { tags: ['cp-1', 'cp-2', 'latest'] });
  return { machine, remote, first, second };
}

test('compareWithRemote() tells up to date, ahead and behind by digests', async (t) => {
  const { machine, remote, first, second } = await twoPushed(t);
  t.deepEqual(await compare(machine, remote, { digest: second.digest, sequence: 2 }), {
    kind: 'up-to-date',
    sequence: 2,
  });
  t.deepEqual(await compare(machine, remote, { digest: first.digest, sequence: 1 }), {
    kind: 'behind',
    count: 1,
    head: 1,
    remote: 2,
    isFetched: true,
  });
  const third = await save(machine, 3, 'three', second);
  const fourth = await save(machine, 4, 'four', third);
  t.deepEqual(await compare(machine, remote, { digest: fourth.digest, sequence: 4 }), {
    kind: 'ahead',
    count: 2,
    head: 4,
    remote: 2,
  });
  t.deepEqual(await compare(machine, new MemoryRepository(), { digest: second.digest, sequence: 2 }), {
    kind: 'ahead',
    count: 2,
    head: 2,
    remote: undefined,
  });
  t.deepEqual(await compare(machine, new MemoryRepository()), { kind: 'both-empty' });
});

test('compareWithRemote() finds the line of parents in the registry when it is not here', async (t) => {
  const { machine, remote, first, second } = await twoPushed(t);
  const other = newMachine(t);
  await pullTags(other, remote, { reference: 'cp-1' });
  await save(machine, 3, 'three', second);
  await pushTags(machine, remote, { tags: ['cp-3'] });
  t.deepEqual(await compare(other, remote, { digest: first.digest, sequence: 1 }), {
    kind: 'behind',
    count: 2,
    head: 1,
    remote: 3,
    isFetched: false,
  });
});

// U6: the original compared numbers, so two different cp-2 were "up to date".
test('compareWithRemote() tells two cp-2 of different machines apart (weakness U6)', async (t) => {
  const { remote, second } = await twoPushed(t);
  const other = newMachine(t);
  await pullTags(other, remote, { reference: 'cp-1' });
  const own = await save(other, 2, 'other two');
  t.deepEqual(await compare(other, remote, { digest: own.digest, sequence: 2 }), {
    kind: 'diverged',
    head: 2,
    remote: 2,
    here: own.digest,
    there: second.digest,
  });
});

test('compareWithRemote() takes a second line of the same workspace for ahead, not for diverged', async (t) => {
  const { machine, remote, first, second } = await twoPushed(t);
  const third = await save(machine, 3, 'three', first);
  t.like(await compare(machine, remote, { digest: third.digest, sequence: 3 }), { kind: 'ahead', count: 1 });
  await pushTags(machine, remote, { tags: ['cp-3', 'latest'] });
  t.like(await compare(machine, remote, { digest: second.digest, sequence: 2 }), { kind: 'behind', count: 1 });
});

test('compareWithRemote() gives up a remote that does not answer', async (t) => {
  const { machine, remote, second } = await twoPushed(t);
  remote.hangs = true;
  const timer = setInterval(() => undefined, 1_000); // the time limit alone keeps no process alive
  t.teardown(() => clearInterval(timer));
  const state = await compare(machine, remote, { digest: second.digest, sequence: 2 }, 50);
  t.is(state.kind, 'unreachable');
});
