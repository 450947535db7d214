import { closeSync, mkdirSync, readdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { mountAsRoot } from '../../../fs/mounts/dev-fuse.ts';
import { MountTable, recordId, type MountRecord } from '../../../fs/mounts/mount-table.ts';
import { bootId, mountNamespace } from '../../../fs/mounts/namespaces.ts';
import { digestOf } from '../../../store/digest.ts';
import { Store } from '../../../store/store.ts';
import { mount, umount2 } from '../../../store/syscalls.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { Namespaces } from '../../fixtures/other-machine.ts';
import { newSandbox } from '../../fixtures/sandbox.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

function record(target: string, more: Partial<MountRecord> = {}): MountRecord {
  return {
    id: recordId(target),
    kind: 'mount',
    engine: 'bind',
    target,
    manifest: digestOf('manifest'),
    ref: 'cp-1',
    workspaceId: 'ws-1',
    created: '2026-01-02T03:04:05Z',
    user: 'somebody',
    madeTarget: false,
    ...more,
  };
}

function newTable(t: Parameters<typeof newFolder>[0]): MountTable {
  const root = join(newFolder(t), 'store');
  mkdirSync(root);
  return new MountTable(new Store(root));
}

test('MountTable of a store without mounts is empty, and asking makes nothing', async (t) => {
  const root = newFolder(t);
  const table = new MountTable(new Store(root));
  t.deepEqual(await table.list(), []);
  t.is(await table.at('/somewhere'), undefined);
  t.deepEqual(readdirSync(root), []);
});

test('MountTable gives back what was added, oldest first, and replaces the record of a target', async (t) => {
  const table = newTable(t);
  const late = record('/mnt/żółć 漢字\nline', {
    created: '2026-02-02T00:00:00Z',
    message: 'a "message"',
    kind: 'fork',
  });
  const early = record('/mnt/a', { madeTarget: true });
  await table.add(late);
  await table.add(early);
  t.deepEqual(await table.list(), [
    { ...early, mounted: false, elsewhere: false },
    { ...late, mounted: false, elsewhere: false },
  ]);
  await table.add({ ...early, ref: 'cp-2' });
  t.is((await table.at('/mnt/a'))?.ref, 'cp-2');
  t.is((await table.list()).length, 2);
  await table.remove(early);
  await table.remove(early);
  t.deepEqual(
    (await table.list()).map(({ target }) => target),
    [late.target],
  );
});

test('MountTable keeps its records private: they name paths', async (t) => {
  const table = newTable(t);
  const it = record('/mnt/a');
  await table.add(it);
  t.is(statSync(join(table.dir, `${it.id}.json`)).mode & 0o777, 0o600);
  t.is(statSync(table.dir).mode & 0o777, 0o700);
});

test('MountTable leaves out a record that was cut off and what is none', async (t) => {
  const table = newTable(t);
  await table.add(record('/mnt/a'));
  writeFileSync(join(table.dir, 'cut.json'), '{"id": "cut", "tar');
  writeFileSync(join(table.dir, 'empty.json'), '');
  writeFileSync(join(table.dir, '.tmp-1-abc'), '{}');
  t.deepEqual(
    (await table.list()).map(({ target }) => target),
    ['/mnt/a'],
  );
});

test('MountTable counts a copy as mounted as long as it is there', async (t) => {
  const table = newTable(t);
  const target = newFolder(t);
  await table.add(record(target, { engine: 'copy', kind: 'fork' }));
  t.true((await table.at(target))?.mounted);
  rmdirSync(target);
  t.false((await table.at(target))?.mounted);
});

testSerialNeeding({ root: true, fuse: true })(
  'MountTable tells from the kernel whether a target is mounted',
  async (t) => {
    const table = newTable(t);
    const target = join(newFolder(t), 'mount point');
    mkdirSync(target);
    await table.add(record(target));
    t.false((await table.at(target))?.mounted);
    mount('test', target, 'tmpfs');
    try {
      t.false((await table.at(target))?.mounted, "somebody else's");
      closeSync(mountAsRoot({ target }));
      t.true((await table.at(target))?.mounted, 'also when nobody serves it');
      mount('test', target, 'tmpfs');
      t.true((await table.at(target))?.mounted, 'also below something else');
    } finally {
      umount2(target);
      umount2(target);
      umount2(target);
    }
    t.false((await table.at(target))?.mounted);
  },
);

testSerialNeeding({ root: true, tools: ['unshare'] })(
  'MountTable says what may be mounted in another mount namespace, as long as somebody is in it',
  async (t) => {
    const table = newTable(t);
    const sandbox = newSandbox(t);
    const other = await Namespaces.ofMounts(t, sandbox);
    const asked = await other.run(['readlink', '/proc/self/ns/mnt']);
    const namespace = /\d+/.exec(asked.ok().stdout)?.[0] ?? '';
    const boot = bootId() ?? '';
    await table.add(record('/mnt/there', { namespace, bootId: boot }));
    await table.add(record('/mnt/copy', { namespace, bootId: boot, engine: 'copy' }));
    await table.add(record('/mnt/before', { namespace, bootId: 'another boot' }));
    await table.add(record('/mnt/here', { namespace: mountNamespace() ?? '', bootId: boot }));
    const elsewhere = async (): Promise<string[]> =>
      (await table.list()).filter((status) => status.elsewhere).map(({ target }) => target);
    t.deepEqual(await elsewhere(), ['/mnt/there']);
    await other.leave();
    t.deepEqual(await elsewhere(), []);
  },
);

test('recordId() is one for each target and a usable file name', (t) => {
  t.not(recordId('/a'), recordId('/a/'));
  t.is(recordId('/a'), recordId('/a'));
  t.regex(recordId('/a/../b\n'), /^[0-9a-f]{16}$/);
});
