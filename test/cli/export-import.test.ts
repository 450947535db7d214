import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { encodeTarHeader } from '../../store/layers/tar-header.ts';
import {
  assertFails,
  assertTidy,
  digestOfRef,
  saveSmallWorkspace,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const OCI_LAYOUT = '{"imageLayoutVersion":"1.0.0"}';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';

function sha256(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

interface Member {
  name: string;
  /** File content; a link's target with `link`. */
  content?: string | Uint8Array;
  link?: string;
  dir?: boolean;
}

/** A tar of these members, in this order, under exactly these names. */
function makeTar(members: readonly Member[]): Buffer {
  const parts = members.flatMap(({ name, content = '', link, dir }) => {
    const bytes = Buffer.from(content);
    const type = dir === true ? 'dir' : link === undefined ? 'file' : 'symlink';
    const header = encodeTarHeader({
      path: name,
      type,
      mode: dir === true ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      mtimeSec: 1_000_000,
      mtimeNsec: 0,
      sizeBytes: bytes.length,
      ...(link !== undefined && { link }),
    });
    return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

interface Image {
  blobs: Map<string, Buffer>;
  descriptor: { mediaType: string; digest: string; size: number };
}

/** An image of plain and compressed layers, as nobody's own tool makes it. */
function makeImage(layers: readonly (readonly Member[])[], mediaType = MANIFEST): Image {
  const blobs = new Map<string, Buffer>();
  const put = (bytes: Buffer): { digest: string; size: number } => {
    blobs.set(sha256(bytes), bytes);
    return { digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const tars = layers.map(makeTar);
  const isDocker = mediaType.includes('docker');
  const layerType = isDocker
    ? 'application/vnd.docker.image.rootfs.diff.tar.gzip'
    : 'application/vnd.oci.image.layer.v1.tar+gzip';
  const config = {
    architecture: 'amd64',
    os: 'linux',
    created: '2020-01-01T00:00:00Z',
    rootfs: { type: 'layers', diff_ids: tars.map((tar) => `sha256:${sha256(tar)}`) },
  };
  const manifest = {
    schemaVersion: 2,
    mediaType,
    config: {
      mediaType: isDocker
        ? 'application/vnd.docker.container.image.v1+json'
        : 'application/vnd.oci.image.config.v1+json',
      ...put(Buffer.from(JSON.stringify(config))),
    },
    layers: tars.map((tar) => ({ mediaType: layerType, ...put(gzipSync(tar)) })),
  };
  return { blobs, descriptor: { mediaType, ...put(Buffer.from(JSON.stringify(manifest))) } };
}

function layoutMembers(blobs: ReadonlyMap<string, Buffer>, manifests: readonly unknown[]): Member[] {
  return [
    { name: 'oci-layout', content: OCI_LAYOUT },
    { name: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests }) },
    ...[...blobs].map(([hex, content]) => ({ name: `blobs/sha256/${hex}`, content })),
  ];
}

const tagged = (descriptor: object, tag: string): object => ({
  ...descriptor,
  annotations: { 'org.opencontainers.image.ref.name': tag },
});

const MERGED: readonly (readonly Member[])[] = [
  [
    { name: 'etc', dir: true },
    { name: 'etc/keep', content: 'keep\n' },
    { name: 'etc/gone', content: 'gone\n' },
    { name: 'opt', dir: true },
    { name: 'opt/old', content: 'old\n' },
  ],
];
const CHANGES: readonly Member[] = [
  { name: 'etc/new', content: 'new\n' },
  { name: 'etc/keep', content: 'changed\n' },
];

test('export and import take a workspace to another store with the same digests, as folder and as archive', async (t) => {
  const from = newSandbox(t);
  await saveSmallWorkspace(from);
  writeFiles(from.workspace, { 'src/main.js': 'changed\n' });
  (await from.bento(['save'])).ok();
  const digests = [await digestOfRef(from, 'cp-1'), await digestOfRef(from, 'cp-2')];
  const id = workspaceId(from);
  const [folder, archive] = [from.path('out'), from.path('out.tar')];
  t.regex((await from.bento(['export', 'cp-1', folder])).ok().stdout, /^Exported cp-1 to \S+\/out \(\S+ written\)\n$/);
  t.regex((await from.bento(['export', 'cp-2', folder])).ok().stdout, /^Exported cp-2 /);
  (await from.bento(['export', '--all', archive])).ok();
  (await from.bento(['export', '--all', from.path('again.tar')])).ok();
  t.deepEqual(readFileSync(from.path('again.tar')), readFileSync(archive), 'the same bytes');
  for (const source of [folder, archive, `file://${archive}`]) {
    const to = newSandbox(t);
    const { images } = (await to.bento(['import', source, '--json'])).ok().json<{
      images: { store: string; tag: string; digest: string; addedBytes: number }[];
    }>();
    const found = images.filter(({ tag }) => tag !== 'latest').map(({ store, tag, digest }) => [store, tag, digest]);
    t.deepEqual(found, [
      [id, 'cp-1', digests[0]],
      [id, 'cp-2', digests[1]],
    ]);
    (await to.bento(['open', '--copy', `${id}:cp-2`, '../opened'])).ok();
    t.deepEqual(compareByWalk(from.workspace, to.path('opened'), { ignore: OWN_FILES }), []);
    (await to.bento(['verify'])).ok();
    const again = (await to.bento(['import', source, '--json'])).ok().json<{ images: { addedBytes: number }[] }>();
    t.true(again.images.every(({ addedBytes }) => addedBytes === 0));
    assertTidy(t, to);
  }
});

test('export refuses folders of others, files that are there and stores; a tag in a layout moves', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFiles(sandbox.path('full'), { file: 'mine\n' });
  writeFileSync(sandbox.path('there.tar'), 'mine');
  const fails = async (target: string, code: 'TARGET_NOT_EMPTY' | 'TARGET_INVALID', says: RegExp): Promise<void> =>
    assertFails(t, await sandbox.bento(['export', 'cp-1', target]), { code, says });
  await fails(sandbox.path('full'), 'TARGET_NOT_EMPTY', /full is neither empty nor an image layout/);
  t.deepEqual(readdirSync(sandbox.path('full')), ['file']);
  await fails(sandbox.path('there.tar'), 'TARGET_NOT_EMPTY', /there\.tar is there already/);
  t.is(readFileSync(sandbox.path('there.tar'), 'utf8'), 'mine');
  await fails(sandbox.path('new.tar.gz'), 'TARGET_INVALID', /new\.tar\.gz would have to be compressed/);
  await fails(path.join(sandbox.storePath, workspaceId(sandbox)), 'TARGET_INVALID', /belongs to a store of bento/);
  assertFails(t, await sandbox.bento(['export', 'cp-1']), { code: 'USAGE', says: /reference and a target/ });

  const layout = sandbox.path('layout');
  (await sandbox.bento(['export', 'cp-1', `oci:${layout}:mine`])).ok();
  const first = await digestOfRef(sandbox, 'cp-1');
  writeFiles(sandbox.workspace, { 'src/main.js': 'changed\n' });
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['export', 'cp-1', `oci:${layout}:other`])).ok();
  (await sandbox.bento(['export', 'cp-2', `oci:${layout}:mine`])).ok();
  const { manifests } = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations: Record<string, string> }[];
  };
  const listed = manifests.map(({ digest, annotations }) => [annotations['org.opencontainers.image.ref.name'], digest]);
  t.deepEqual(listed, [
    ['other', first],
    ['mine', await digestOfRef(sandbox, 'cp-2')],
  ]);
});

test('import never moves a tag of another checkpoint unasked: DIVERGED names both, --tag and --force help', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const first = await digestOfRef(sandbox, 'cp-1');
  (await sandbox.bento(['export', 'cp-1', sandbox.path('one.tar')])).ok();
  const id = workspaceId(sandbox);
  writeFiles(sandbox.workspace, { 'src/main.js': 'changed\n' });
  (await sandbox.bento(['save', '--tag', 'cp-1'])).ok();
  const second = await digestOfRef(sandbox, 'cp-1');
  t.not(second, first);
  const refused = await sandbox.bento(['import', sandbox.path('one.tar')]);
  assertFails(t, refused, {
    code: 'DIVERGED',
    says: new RegExp(`${id}:cp-1 is ${second} here, and ${first} there`),
    hint: /--force/,
  });
  t.is(await digestOfRef(sandbox, 'cp-1'), second);
  (await sandbox.bento(['import', sandbox.path('one.tar'), '--tag', 'theirs'])).ok();
  t.is(await digestOfRef(sandbox, 'theirs'), first);
  t.regex((await sandbox.bento(['import', sandbox.path('one.tar'), '--force'])).ok().stdout, /, was sha256:/);
  t.is(await digestOfRef(sandbox, 'cp-1'), first);
  (await sandbox.bento(['import', sandbox.path('one.tar'), '--name', 'other'])).ok();
  t.is(await digestOfRef(sandbox, 'other:cp-1'), first);
});

test('import takes images of Docker media types from a nested index, for this platform', async (t) => {
  const sandbox = newSandbox(t);
  const image = makeImage([...MERGED, CHANGES], 'application/vnd.docker.distribution.manifest.v2+json');
  const other = makeImage([[{ name: 'wrong', content: 'wrong\n' }]]);
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const inner = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.docker.distribution.manifest.list.v2+json',
      manifests: [
        { ...other.descriptor, platform: { os: 'windows', architecture } },
        { ...image.descriptor, platform: { os: 'linux', architecture } },
      ],
    }),
  );
  const blobs = new Map([...image.blobs, ...other.blobs, [sha256(inner), inner]]);
  const index = { mediaType: INDEX, digest: `sha256:${sha256(inner)}`, size: inner.length };
  writeFileSync(
    sandbox.path('their image.tar'),
    makeTar(layoutMembers(blobs, [tagged(index, 'docker.io/library/x:v1')])),
  );
  const line = (await sandbox.bento(['import', '../their image.tar'])).ok().stdout;
  t.regex(line, /^Imported their-image:v1 \(sha256:\w+\.\.\., 2 layer\(s\), \S+ new\)\n$/);
  t.is(await digestOfRef(sandbox, 'their-image:v1'), image.descriptor.digest);
  (await sandbox.bento(['open', '--copy', 'their-image:v1', '../opened'])).ok();
  t.is(readFileSync(sandbox.path('opened/etc/keep'), 'utf8'), 'changed\n');
  t.is(readFileSync(sandbox.path('opened/opt/old'), 'utf8'), 'old\n');
  t.false(existsSync(sandbox.path('opened/wrong')));
  (await sandbox.bento(['export', 'their-image:v1', '../out.tar'])).ok();
  (await sandbox.bento(['import', '../out.tar', '--name', 'back'])).ok();
  t.is(await digestOfRef(sandbox, 'back:v1'), image.descriptor.digest);
});

test('import merges plain layers with whiteouts of an archive that GNU tar made', async (t) => {
  const sandbox = newSandbox(t);
  const tarOf = (name: string, files: Record<string, string>): Buffer => {
    writeFiles(sandbox.path(name), files);
    return execFileSync('tar', ['-C', sandbox.path(name), '-cf', '-', '.']);
  };
  const lower = tarOf('lower', { 'etc/keep': 'keep\n', 'etc/gone': 'gone\n', 'opt/a': 'a\n' });
  const upper = tarOf('upper', { 'etc/.wh.gone': '', 'etc/new': 'new\n', 'opt/.wh..wh..opq': '', 'opt/b': 'b\n' });
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [lower, upper].map((tar) => `sha256:${sha256(tar)}`) },
  });
  const members = [
    { name: 'one/layer.tar', content: lower },
    { name: 'two/layer.tar', content: upper },
    { name: 'three/layer.tar', link: '../two/layer.tar' },
    { name: 'config.json', content: config },
    {
      name: 'manifest.json',
      content: JSON.stringify([
        { Config: 'config.json', RepoTags: ['localhost:5000/name:v2'], Layers: ['one/layer.tar', 'three/layer.tar'] },
      ]),
    },
  ];
  writeFileSync(sandbox.path('saved.tar'), makeTar(members));
  (await sandbox.bento(['import', 'docker-archive:../saved.tar'])).ok();
  (await sandbox.bento(['open', '--copy', 'saved:v2', '../opened'])).ok();
  const opened = sandbox.path('opened');
  t.is(readFileSync(path.join(opened, 'etc/keep'), 'utf8'), 'keep\n');
  t.deepEqual(readdirSync(path.join(opened, 'etc')).sort(), ['keep', 'new']);
  t.deepEqual(readdirSync(path.join(opened, 'opt')), ['b']);
  t.regex((await sandbox.bento(['inspect', 'saved:v2'])).ok().stdout, /layer-1[\s\S]*layer-2/);
});

const image = makeImage(MERGED);
const [layerHex = ''] = [...image.blobs.keys()].filter((hex) => image.blobs.get(hex)?.[0] === 0x1f);
const manifestHex = image.descriptor.digest.slice(7);
const good = layoutMembers(image.blobs, [tagged(image.descriptor, 'v1')]);
const without = (name: string): Member[] => good.filter((member) => member.name !== name);
const blobName = `blobs/sha256/${layerHex}`;
const layerBytes = image.blobs.get(layerHex) ?? Buffer.alloc(0);
const flipped = Buffer.from(layerBytes);
flipped[30] = (flipped[30] ?? 0) ^ 1;
const rawName = (tar: Buffer, from: string, to: string): Buffer => {
  const at = tar.indexOf(from);
  tar.write(to, at, 'latin1');
  tar.fill(0x20, at + 148, at + 156);
  const sum = tar.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1');
  return tar;
};
const deep = (() => {
  const blobs = new Map(image.blobs);
  let descriptor: object = image.descriptor;
  for (let depth = 0; depth < 6; depth++) {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [descriptor] }));
    blobs.set(sha256(bytes), bytes);
    descriptor = { mediaType: INDEX, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  }
  return layoutMembers(blobs, [tagged(descriptor, 'v1')]);
})();
const both = Buffer.from(
  JSON.stringify({
    ...(JSON.parse(image.blobs.get(manifestHex)?.toString() ?? '{}') as object),
    manifests: [image.descriptor],
  }),
);
const huge = Buffer.concat([Buffer.from('{"schemaVersion":2,"x":"'), Buffer.alloc(5 << 20, 'x'), Buffer.from('"}')]);
const listing = (bytes: Buffer): Member[] =>
  layoutMembers(new Map([...image.blobs, [sha256(bytes), bytes]]), [
    tagged({ mediaType: MANIFEST, digest: `sha256:${sha256(bytes)}`, size: bytes.length }, 'v1'),
  ]);

const HOSTILE: { what: string; tar: Buffer; code: Parameters<typeof assertFails>[2]['code']; says: RegExp }[] = [
  { what: 'a blob that is missing', tar: makeTar(without(blobName)), code: 'BLOB_MISSING', says: new RegExp(layerHex) },
  {
    what: 'a blob with other bytes',
    tar: makeTar([...without(blobName), { name: blobName, content: flipped }]),
    code: 'DIGEST_MISMATCH',
    says: /integrity check failed/,
  },
  {
    what: 'a blob of another size',
    tar: makeTar([...without(blobName), { name: blobName, content: Buffer.concat([layerBytes, Buffer.alloc(9)]) }]),
    code: 'DIGEST_MISMATCH',
    says: /bytes, its descriptor says/,
  },
  {
    what: 'a blob that is there twice',
    tar: makeTar([...good, { name: blobName, content: flipped }]),
    code: 'FORMAT_INVALID',
    says: /holds "blobs\/sha256\/\w+" twice/,
  },
  {
    what: 'a blob that is a link',
    tar: makeTar([
      ...without(blobName),
      { name: 'x', content: layerBytes },
      { name: `blobs/sha256/${manifestHex}x`, link: '../../../../etc/passwd' },
    ]),
    code: 'FORMAT_INVALID',
    says: /points at "\.\.\/\.\.\/\.\.\/\.\.\/etc\/passwd", outside/,
  },
  {
    what: 'a manifest that is a link',
    tar: makeTar([...without(`blobs/sha256/${manifestHex}`), { name: `blobs/sha256/${manifestHex}`, link: layerHex }]),
    code: 'FORMAT_INVALID',
    says: /is a link, not a file/,
  },
  {
    what: 'a name that climbs',
    tar: rawName(makeTar([...good, { name: 'aa/bb/cc', content: 'x' }]), 'aa/bb/cc', '../../cc'),
    code: 'FORMAT_INVALID',
    says: /climbs with \.\./,
  },
  { what: 'an archive that is cut off', tar: makeTar(good).subarray(0, 2000), code: 'FORMAT_INVALID', says: /cut off/ },
  {
    what: 'no image at all',
    tar: makeTar([{ name: 'a', content: 'b' }]),
    code: 'FORMAT_INVALID',
    says: /holds no image/,
  },
  {
    what: 'no tar at all',
    tar: Buffer.alloc(4096, 'no tar '),
    code: 'FORMAT_INVALID',
    says: /no archive that bento can read/,
  },
  { what: 'compression', tar: gzipSync(makeTar(good)), code: 'FORMAT_UNSUPPORTED', says: /compressed as a whole/ },
  { what: 'indexes in one another', tar: makeTar(deep), code: 'FORMAT_INVALID', says: /more than 4 indexes/ },
  { what: 'an index that is an image too', tar: makeTar(listing(both)), code: 'FORMAT_INVALID', says: /at once/ },
  { what: 'a manifest that is too large', tar: makeTar(listing(huge)), code: 'FORMAT_INVALID', says: /limit 4194304/ },
  {
    what: 'one tag for two images',
    tar: makeTar(
      (() => {
        const second = makeImage([[{ name: 'second', content: 'x' }]]);
        const blobs = new Map([...image.blobs, ...second.blobs]);
        return layoutMembers(blobs, [tagged(image.descriptor, 'v1'), tagged(second.descriptor, 'v1')]);
      })(),
    ),
    code: 'FORMAT_INVALID',
    says: /tag "v1" twice/,
  },
  {
    what: 'a second image that is damaged',
    tar: makeTar(
      (() => {
        const second = makeImage([[{ name: 'second', content: 'x' }]]);
        const blobs = new Map([...second.blobs, ...image.blobs]);
        blobs.set(layerHex, flipped);
        return layoutMembers(blobs, [tagged(second.descriptor, 'fine'), tagged(image.descriptor, 'v1')]);
      })(),
    ),
    code: 'DIGEST_MISMATCH',
    says: /integrity check failed/,
  },
];

for (const { what, tar, code, says } of HOSTILE) {
  test(`import refuses ${what}, and nothing of it is visible`, async (t) => {
    const sandbox = newSandbox(t);
    writeFileSync(sandbox.path('bad.tar'), tar);
    assertFails(t, await sandbox.bento(['import', '../bad.tar']), { code, says });
    t.false(existsSync(path.join(sandbox.storePath, 'bad')));
    assertTidy(t, sandbox);
  });
}

test('import refuses links and pipes in a folder', async (t) => {
  const sandbox = newSandbox(t);
  const folder = sandbox.path('folder');
  writeFiles(folder, Object.fromEntries(good.map(({ name, content = '' }) => [name, content])));
  const blob = path.join(folder, blobName);
  copyFileSync(blob, sandbox.path('elsewhere'));
  rmSync(blob);
  symlinkSync(sandbox.path('elsewhere'), blob);
  assertFails(t, await sandbox.bento(['import', folder]), { code: 'FORMAT_INVALID', says: /is a link, not a file/ });
  rmSync(blob);
  execFileSync('mkfifo', [blob]);
  assertFails(t, await sandbox.bento(['import', folder]), { code: 'FORMAT_INVALID', says: /is not a regular file/ });
  rmSync(blob);
  mkdirSync(blob);
  assertFails(t, await sandbox.bento(['import', folder]), { code: 'FORMAT_INVALID', says: /is not a regular file/ });
  rmSync(blob, { recursive: true });
  copyFileSync(sandbox.path('elsewhere'), blob);
  (await sandbox.bento(['import', folder])).ok();
  t.true(existsSync(path.join(sandbox.storePath, blobName)));
  const missing = await sandbox.bento(['import', `oci:${folder}:v9`]);
  assertFails(t, missing, { code: 'REF_NOT_FOUND', says: /no image with the tag "v9"/, hint: /it has v1/ });
  assertFails(t, await sandbox.bento(['import', '../nowhere']), { code: 'REF_NOT_FOUND', says: /nowhere/ });
});
