import { makeManyFiles } from '../fixtures/many-files.ts';
import { writeFiles } from '../fixtures/command-checks.ts';
import { shell, testInForks } from './tool-runs.ts';

const LINES = Array.from({ length: 2000 }, (_, at) => `line ${at}\n`).join('');

/** Everything twice: on files of the checkpoint, and on new ones. */
const PREPARED = ['saved', 'new'] as const;

function twice(script: string): string {
  return `mkdir new\ncp -a saved/. new\n${PREPARED.map((dir) => `(\ncd ${dir}\n${script}\n)`).join('\n')}`;
}

const prepare = ({ dir }: { dir: string }): void => {
  writeFiles(dir, {
    'saved/text': LINES,
    'saved/same': LINES,
    'saved/blocks': Buffer.alloc(1 << 20, 'b'),
    'saved/empty': '',
  });
};

testInForks(
  'dd, truncate and fallocate write, cut, reserve and punch files',
  ['dd', 'truncate', 'fallocate', 'stat', 'cmp'],
  {
    prepare,
    work: async (place) =>
      await shell(
        place,
        twice(`
dd if=/dev/zero of=blocks bs=4k count=3 seek=5 conv=notrunc status=none
dd if=text of=blocks bs=1000 seek=2 oflag=append conv=notrunc status=none
dd if=/dev/zero of=sparse bs=1 count=1 seek=5000000 status=none
dd if=blocks of=synced bs=64k conv=fsync status=none
dd if=blocks of=direct bs=4k count=16 oflag=sync status=none
head -c 3000000 /dev/zero | tr '\\0' x > long
truncate -s 100 text
truncate -s +5000 text
truncate -s 0 same && truncate -s 300000 same
fallocate -l 2M reserved
fallocate -n -o 1M -l 4M reserved
fallocate -p -o 4096 -l 8192 long
fallocate -z -o 100000 -l 50000 long
fallocate -l 100000 empty
stat -c '%n %s %h %F' *
sha256sum *
`),
      ),
  },
);

testInForks("an editor's save, sed -i, patch and ed change files", ['sed', 'patch', 'ed', 'diff', 'install', 'sync'], {
  prepare,
  work: async (place) =>
    await shell(
      place,
      twice(`
sed 's/line 5$/LINE 5/' text > .text.swp && sync .text.swp && mv .text.swp text
cp -p text text~ && echo saved >> text && sync text && rm text~
ln text text.orig && sed 's/7/seven/' text > text.tmp && mv text.tmp text
sed -i.bak -e 's/line 1/first/' -e '2d' same
printf '3d\\nw\\nq\\n' | ed -s same
diff -u same text > changes.patch || true
patch -s -b same changes.patch
patch -s -R same changes.patch
patch --dry-run same changes.patch
install -m 0711 -D same deep/er/installed
stat -c '%n %s %h %a' $(find . -type f | sort)
sha256sum $(find . -type f ! -name '*.patch' | sort)
grep -v '^[-+][-+]' changes.patch | sha256sum
rm changes.patch
`),
    ),
});

testInForks('flock keeps others out of a saved file and of a new one', ['flock'], {
  prepare,
  work: async (place) =>
    await shell(
      place,
      twice(`
flock -x text sh -c 'flock -n -x text true || echo "exclusive: not twice ($?)"; flock -n -s text true || echo "nor shared ($?)"'
flock -s text sh -c 'flock -n -s text echo "shared: twice"; flock -n -x text true || echo "not exclusive ($?)"'
flock -x text sh -c 'echo more >> text; flock -n -x text true || echo "still locked after a write ($?)"'
flock -n -x . echo 'a directory, too'
echo 0 > count
for client in 1 2 3 4; do
  (for turn in $(seq 25); do flock count sh -c 'echo $(($(cat count) + 1)) > count'; done) &
done
wait
cat count
`),
    ),
});

testInForks('mv, find and rm -rf of large directories', ['mv', 'find', 'rm', 'du'], {
  prepare: ({ dir }) => void makeManyFiles(`${dir}/saved`, { fileCount: 2000 }),
  work: async (place) =>
    await shell(
      place,
      `
find . -name bento.yaml -prune -o -printf '%P %y %m %s %l\\n' | grep -v '^ \\|bentoignore' | sort | sha256sum
mv saved moved
[ ! -e saved ]
mv moved/node_modules/package-0003 moved/node_modules/package-0003-renamed
mkdir other && mv moved/node_modules/package-000[4-9] other
mv other moved/node_modules/other
find moved -type f -size +20k ! -name '*.large' -exec mv {} {}.large ';'
find moved -name '*.md' -delete
find moved -depth -type d -empty -delete
cp -r moved/node_modules copied
mv moved saved
find saved -type f -newer saved/package.json | wc -l
rm -rf copied saved/node_modules/package-001*
mkdir saved/node_modules/package-0010 && echo again > saved/node_modules/package-0010/again
find saved -type f | sort | xargs -d '\\n' sha256sum | sha256sum
`,
    ),
});

testInForks('rm -rf of everything leaves an empty directory that can be filled again', ['rm', 'find'], {
  prepare: ({ dir }) => void makeManyFiles(`${dir}/saved`, { fileCount: 1500 }),
  work: async (place) =>
    await shell(
      place,
      `
rm -rf saved
[ ! -e saved ]
find . -mindepth 1 -delete
ls -A
mkdir saved && echo new > saved/package.json
find . | sort
rm -rf saved
ls -A
`,
    ),
  saves: false, // nothing is left that says it is a workspace
});
