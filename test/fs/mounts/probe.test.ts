import { closeSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { mountAsRoot, unmount } from '../../../fs/mounts/dev-fuse.ts';
import { answers, probe } from '../../../fs/mounts/probe.ts';
import { checkMountPoint } from '../../../fs/mounts/targets.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

test('probe() of nothing asks nobody', async (t) => {
  t.deepEqual([...(await probe([]))], []);
});

test('probe() knows plain directories, and names that are not ASCII', async (t) => {
  const dir = join(newFolder(t), 'żółć 漢字\nline');
  mkdirSync(dir);
  t.deepEqual([...(await probe([dir]))], [[dir, 'answers']]);
  t.true(await answers(dir));
});

testSerialNeeding({ root: true, fuse: true })(
  'probe() tells a server that answers from one that is silent and one that is gone, however many are silent',
  async (t) => {
    const folder = newFolder(t);
    const make = (name: string): string => {
      mkdirSync(join(folder, name));
      return join(folder, name);
    };
    const plain = make('plain');
    // Nobody reads from these descriptors: whoever touches the mounts waits.
    const silent = Array.from({ length: 10 }, (_, number) => make(`silent-${number}`));
    const gone = make('gone');
    const fds = silent.map((target) => mountAsRoot({ target }));
    try {
      closeSync(mountAsRoot({ target: gone }));
      const found = await probe([...silent, plain, gone]);
      t.deepEqual([found.get(plain), found.get(gone)], ['answers', 'gone']);
      t.deepEqual(
        silent.map((target) => found.get(target)),
        silent.map(() => 'silent'),
      );
      t.throws(() => checkMountPoint(silent[0] ?? ''), { code: 'MOUNT_POINT_BUSY' }, 'without looking into it');
      t.throws(() => checkMountPoint(join(gone, 'inside')), { code: 'NOT_MOUNTED' });
    } finally {
      for (const fd of fds) closeSync(fd);
      for (const target of [...silent, gone]) unmount(target, { lazy: true });
    }
  },
);
