import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { assertTidy, headOf, readManifest, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk, compareWithRsync } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { EMPTY_LAYER, EMPTY_LAYER_DIGEST, makeOriginalStore, originalConfig } from '../fixtures/original-format.ts';
import { makeUmociImage } from '../fixtures/image-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const ID = 'ws-0123456789abcdef';
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const testMounting = testSerialNeeding({ root: true, fuse: true });

/** A workspace that the original saved twice and whose files are as it restored them. */
async function originalWorkspace(t: ExecutionContext): Promise<{ sandbox: Sandbox; digests: string[] }> {
  const sandbox = newSandbox(t);
  const deps = {
    'node_modules/pad/index.js': { content: 'module.exports = 1;\n' },
    'node_modules/pad/run.sh': { content: '#!/bin/sh\n', mode: 0o755 },
    'node_modules/.bin/pad': { link: '../pad/run.sh' },
    'node_modules/pad/large.bin': { content: Buffer.alloc(5_000_000, 'large ') },
  };
  const long = `src/${'long-directory-name/'.repeat(12)}${'x'.repeat(200)}.txt`; // needs a PAX header
  const { digests } = await makeOriginalStore(sandbox.storePath, {
    id: ID,
    checkpoints: [
      {
        message: 'first',
        layers: {
          deps,
          project: {
            'package.json': { content: '{}\n' },
            'src/a.js': { content: 'a\n' },
            [long]: { content: 'deep\n' },
          },
        },
      },
      {
        message: 'second',
        layers: {
          deps,
          agent: { 'CLAUDE.md': { content: '# notes\n' } },
          project: {
            'package.json': { content: '{}\n' },
            'src/a.js': { content: 'a, changed\n' },
            'src/żółć.js': { content: 'b\n', mode: 0o600 },
          },
        },
      },
    ],
  });
  const config = originalConfig({ id: ID, head: digests[1] ?? '', store: sandbox.storePath });
  writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), config);
  return { sandbox, digests };
}

test.serial('the fixture writes the empty layer of the original', (t) => {
  t.is(`sha256:${createHash('sha256').update(EMPTY_LAYER).digest('hex')}`, EMPTY_LAYER_DIGEST);
});

test.serial("list, inspect, diff and open read the original's checkpoints", async (t) => {
  const { sandbox, digests } = await originalWorkspace(t);
  const json = async <T>(...args: string[]): Promise<T> => (await sandbox.bento([...args, '--json'])).ok().json<T>();
  const rows =
    await json<{ tags: string[]; digest: string; parent: string | null; message: string; head: boolean }[]>('list');
  t.deepEqual(
    rows.map(({ tags, digest, parent, message, head }) => [tags.join(), digest, parent, message, head]),
    [
      ['cp-1', digests[0], null, 'first', false],
      ['cp-2,latest', digests[1], digests[0], 'second', true],
    ],
  );
  const inspected = await json<{ layers: { title: string; fileCount: number; digests: string[]; files: string[] }[] }>(
    'inspect',
    'cp-1',
    '--files',
  );
  t.deepEqual(
    inspected.layers.map(({ title, fileCount }) => [title, fileCount]),
    [
      ['deps', 4],
      ['agent', 0],
      ['project', 3],
    ],
  );
  t.deepEqual(inspected.layers[1]?.digests, [EMPTY_LAYER_DIGEST]);
  t.true(inspected.layers[0]?.files.includes('node_modules/.bin/pad'));
  const { layers } = await json<{ layers: { changes: { kind: string; path: string }[] }[] }>('diff', 'cp-1', 'cp-2');
  const changes = layers.flatMap((layer) =>
    layer.changes.map(({ kind, path: name }) => `${kind} ${name.slice(0, 12)}`),
  );
  t.deepEqual(changes.sort(), ['added CLAUDE.md', 'added src/żółć.js', 'modified src/a.js', 'removed src/long-dir']);

  (await sandbox.bento(['open', '--copy', 'cp-2', '../opened'])).ok();
  const opened = sandbox.path('opened');
  t.is(readFileSync(path.join(opened, 'src/a.js'), 'utf8'), 'a, changed\n');
  t.is(readFileSync(path.join(opened, 'node_modules/pad/large.bin')).length, 5_000_000);
  t.is(readlinkSync(path.join(opened, 'node_modules/.bin/pad')), '../pad/run.sh');
  t.is(lstatSync(path.join(opened, 'node_modules/pad/run.sh')).mode & 0o7777, 0o755);
  t.is(lstatSync(path.join(opened, 'src/żółć.js')).mode & 0o7777, 0o600);
  t.is(lstatSync(path.join(opened, 'src/a.js')).mtimeMs, 0);
  t.false(existsSync(path.join(opened, 'stargz.index.json')));
  t.deepEqual(headOf(opened), digests[1]);
  t.is((await sandbox.bento(['save', '--dir', opened])).ok().stdout, 'No changes detected, skipping checkpoint.\n');
  assertTidy(t, sandbox);
});

test.serial("save() goes on from the original's head: same numbers, same layers where nothing changed", async (t) => {
  const { sandbox, digests } = await originalWorkspace(t);
  (await sandbox.bento(['open', '--copy', 'cp-2', '../opened'])).ok();
  const opened = sandbox.path('opened');
  writeFiles(opened, { 'src/new.js': 'new\n' });
  rmSync(path.join(opened, 'src/a.js'));
  const saved = (await sandbox.bento(['save', '--json', '--dir', opened])).ok().json<{ tag: string; digest: string }>();
  t.is(saved.tag, 'cp-3');
  const [before, after] = [digests[1] ?? '', saved.digest].map((digest) => readManifest(sandbox, digest).layers);
  t.deepEqual(
    after?.slice(0, 3).map(({ digest }) => digest),
    before?.map(({ digest }) => digest),
    'one delta upon the layers there were',
  );
  (await sandbox.bento(['open', '--copy', 'cp-3', '../again', '--dir', opened])).ok();
  t.deepEqual(compareByWalk(opened, sandbox.path('again'), { ignore: OWN_FILES }), []);
});

testMounting("mount and fork read the original's checkpoints, also after the resume points are deleted", async (t) => {
  const { sandbox } = await originalWorkspace(t);
  (await sandbox.bento(['open', '--copy', 'cp-1', '../opened'])).ok();
  const [mounted, fork, opened] = [sandbox.makeFolder('mounted'), sandbox.path('fork'), sandbox.path('opened')];
  (await sandbox.bento(['mount', '--owners', 'cp-1', mounted])).ok();
  t.deepEqual(compareByWalk(opened, mounted, { ignore: OWN_FILES }), []);
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  t.deepEqual(compareByWalk(opened, fork, { ignore: OWN_FILES }), []);
  writeFiles(fork, { 'node_modules/pad/index.js': 'changed\n' });
  rmSync(path.join(fork, 'src'), { recursive: true });
  (await sandbox.bento(['save', '--dir', fork])).ok();
  (await sandbox.bento(['open', '--copy', 'cp-3', '../saved'])).ok();
  t.deepEqual(compareByWalk(fork, sandbox.path('saved'), { ignore: OWN_FILES }), []);
  (await sandbox.bento(['close', fork])).ok();
  (await sandbox.bento(['unmount', '--all'])).ok();

  rmSync(path.join(sandbox.storePath, 'cache'), { recursive: true });
  (await sandbox.bento(['mount', '--owners', 'cp-1', mounted])).ok();
  t.deepEqual(compareByWalk(opened, mounted, { ignore: OWN_FILES }), []);
});

testSerialNeeding({ root: true, fuse: true, tools: ['umoci', 'skopeo', 'rsync'] })(
  'an image of umoci, plain layers with whiteouts, mounts and opens as umoci unpacks it',
  async (t) => {
    const sandbox = newSandbox(t);
    const { image, rootfs } = await makeUmociImage(sandbox);
    mkdirSync(path.join(sandbox.storePath, 'blobs/sha256'), { recursive: true });
    mkdirSync(path.join(sandbox.storePath, 'their-image'));
    symlinkSync('../blobs', path.join(sandbox.storePath, 'their-image/blobs'));
    const copy = ['--insecure-policy', 'copy', '-q', `oci:${image}`, `oci:${sandbox.storePath}/their-image:v1`];
    execFileSync('skopeo', copy, { stdio: ['ignore', 'pipe', 'pipe'] });

    const mounted = sandbox.makeFolder('mounted');
    (await sandbox.bento(['mount', 'their-image:v1', mounted])).ok();
    t.false(existsSync(path.join(mounted, 'etc/gone')));
    t.deepEqual(compareByWalk(rootfs, mounted, { ignore: ['.'] }), []);
    t.deepEqual(await compareWithRsync(rootfs, mounted, { ignore: ['.'] }), []);
    (await sandbox.bento(['open', '--copy', 'their-image:v1', '../opened'])).ok();
    t.deepEqual(compareByWalk(rootfs, sandbox.path('opened'), { ignore: OWN_FILES }), []);
    (await sandbox.bento(['inspect', 'their-image:v1', '--files'])).ok();
  },
);
