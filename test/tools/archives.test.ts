import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';

import { makeOddTree } from '../fixtures/odd-tree.ts';
import { runTool, shell, testInForks, type Place } from './tool-runs.ts';

/** Everything but the times of reading and of changing attributes, which no tool can set. */
const ALL = '--acls --xattrs --numeric-owner -p --format=pax --pax-option=delete=atime,delete=ctime';

/** Beside the place, so that it is on the same disk for all. */
const outside = (place: Place, name: string): string => path.join(place.dir, '..', name);

async function prepare({ dir }: Place): Promise<void> {
  mkdirSync(`${dir}/odd`);
  const { sockets } = await makeOddTree(`${dir}/odd`);
  for (const socket of sockets) rmSync(`${dir}/odd/${socket}`); // a checkpoint holds none
}

/** What a directory holds, by a tool that knows nothing of us. */
async function describe(place: Place, dir: string): Promise<string> {
  return await shell(place, `tar -c ${ALL} --sort=name -C '${dir}' . | tar -tv --numeric-owner --full-time`);
}

testInForks('tar x and tar c of a tree with every kind of file', ['tar', 'setfattr', 'setfacl'], {
  prepare,
  work: async (place) => {
    const archive = outside(place, 'odd.tar');
    await shell(place, `tar -c ${ALL} --sort=name --sparse -f ${archive} -C odd .`);
    await shell(place, `mkdir new && tar -x ${ALL} -f ${archive} -C new`);
    await shell(place, `tar -d --numeric-owner -f ${archive} -C new`);
    await shell(place, `tar -x ${ALL} -f ${archive} -C odd`); // over what is there
    await shell(place, `tar -x ${ALL} --overwrite -f ${archive} -C new`);
    return (await listing(place, archive)) + (await listing(place));
  },
  ignore: ['odd/special', 'new/special'].map((name) => `${name}/socket`),
  setsTimes: true,
});

/** Names, kinds, sizes, owners, times and links of an archive, or of one that is made now. */
async function listing(place: Place, archive = '-'): Promise<string> {
  const source = archive === '-' ? `tar -c ${ALL} --sort=name odd new | ` : '';
  return await shell(place, `${source}tar -tv --numeric-owner --full-time -f ${archive} | sort`);
}

testInForks('rsync -aHAX brings a tree with every kind of file in and out', ['rsync', 'setfattr', 'setfacl'], {
  prepare,
  work: async (place) => {
    const out = outside(place, 'out');
    const sync = async (from: string, to: string): Promise<string> =>
      await runTool(place, 'rsync', ['-aHAX', '--numeric-ids', '--delete', `${from}/`, `${to}/`]);
    const differences = async (from: string, to: string): Promise<string> =>
      await runTool(place, 'rsync', ['-naHAXi', '--numeric-ids', '--checksum', '--delete', `${from}/`, `${to}/`]);
    await sync('odd', out);
    await sync(out, 'in');
    await sync(out, 'odd');
    const found = (await differences('odd', out)) + (await differences(out, 'in')) + (await differences('in', 'odd'));
    await shell(place, 'echo changed > in/foo; rm -r in/names; mkdir in/foo.d');
    await sync(out, 'in');
    const last = await differences(out, 'in');
    rmSync(out, { recursive: true });
    return found + last;
  },
  setsTimes: true,
});

testInForks('cp -a of a tree with every kind of file', ['cp', 'tar', 'setfattr', 'setfacl'], {
  prepare,
  work: async (place) => {
    const out = outside(place, 'copied');
    await shell(place, `cp -a odd copy\ncp -a copy ${out}\ncp -a --remove-destination ${out}/. odd\ncp -al copy links`);
    const found = await Promise.all(['odd', 'copy', out].map(async (dir) => await describe(place, dir)));
    rmSync(out, { recursive: true });
    await shell(place, 'rm -rf links');
    return found.join('');
  },
  setsTimes: true,
});
