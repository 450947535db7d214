import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';

import type { ExecutionContext } from 'ava';

import { digestOf } from '../../store/digest.ts';
import { formatPlatform, thisPlatform } from '../../store/platform.ts';
import { assertFails, digestOfRef, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import {
  anyImagePolicy,
  makeUmociImage,
  OWN_FILES,
  putImage,
  run,
  skopeo,
  storageFlags,
  withRepository,
} from '../fixtures/image-tools.ts';
import { makeOriginalStore } from '../fixtures/original-format.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const TOOLS = ['docker-registry', 'skopeo', 'umoci'];
const testMounting = testSerialNeeding({ root: true, fuse: true, tools: TOOLS });

/** A reference mounts, forks and opens as this tree; what is changed in the fork can be saved. */
async function assertShows(t: ExecutionContext, sandbox: Sandbox, ref: string, tree: string): Promise<void> {
  const name = ref.replace(/[^a-z0-9]+/gi, '-').slice(-60);
  const [mounted, fork, opened] = [sandbox.makeFolder(`m${name}`), sandbox.path(`f${name}`), sandbox.path(`o${name}`)];
  (await sandbox.bento(['mount', '--owners', ref, mounted])).ok();
  t.deepEqual(compareByWalk(tree, mounted, { ignore: OWN_FILES }), [], `mount ${ref}`);
  (await sandbox.bento(['fork', ref, fork])).ok();
  t.deepEqual(compareByWalk(tree, fork, { ignore: OWN_FILES }), [], `fork ${ref}`);
  writeFiles(fork, { 'etc/keep': 'changed in the fork\n' });
  const { digest } = (await sandbox.bento(['save', '--json', '--dir', fork])).ok().json<{ digest: string }>();
  const compared = await sandbox.bento(['diff', ref, digest, '--name-status'], { cwd: fork });
  t.is(compared.ok().stdout, 'M\tetc/keep\n', ref);
  (await sandbox.bento(['open', '--copy', ref, opened])).ok();
  t.deepEqual(compareByWalk(tree, opened, { ignore: OWN_FILES }), [], `open ${ref}`);
  const inspected = await sandbox.bento(['inspect', ref, '--files']);
  t.regex(inspected.ok().stdout, /^ {4}etc\/keep$/m, `inspect ${ref}`);
  (await sandbox.bento(['unmount', mounted])).ok();
  (await sandbox.bento(['close', fork])).ok();
}

/** The tars of an image in a layout, lowest first. */
function plainLayers(image: string): Buffer[] {
  const layout = image.slice(0, image.lastIndexOf(':'));
  const read = (digest: string): Buffer =>
    readFileSync(path.join(layout, 'blobs/sha256', digest.slice('sha256:'.length)));
  const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
    manifests: { digest: string }[];
  };
  const manifest = JSON.parse(read(index.manifests[0]?.digest ?? '').toString()) as { layers: { digest: string }[] };
  return manifest.layers.map(({ digest }) => gunzipSync(read(digest)));
}

testMounting('images that skopeo pushed in OCI and in Docker form mount, fork, open and compare', async (t) => {
  await using registry = await startDebianRegistry();
  const sandbox = newSandbox(t);
  const { image, rootfs } = await makeUmociImage(sandbox);
  const repository = `${registry.host}/their/image`;
  await skopeo(sandbox, `oci:${image}`, `docker://${repository}:oci`);
  await skopeo(sandbox, `oci:${image}`, `docker://${repository}:docker`, ['--format', 'v2s2']);
  await assertShows(t, sandbox, `${repository}:oci`, rootfs);
  await assertShows(t, sandbox, `docker://${repository}:docker`, rootfs);
  t.not(await digestOfRef(sandbox, `${repository}:oci`), await digestOfRef(sandbox, `${repository}:docker`));
  const compared = await sandbox.bento(['diff', `${repository}:oci`, `${repository}:docker`]);
  t.regex(compared.ok().stdout, /No changes between checkpoints/);

  // What was pulled of Docker's form is still that, for whoever reads the layout or gets it pushed.
  (await sandbox.bento(['init', '--id', 'theirs'])).ok();
  (await sandbox.bento(['pull', `${repository}:docker`])).ok();
  const there = await digestOfRef(sandbox, 'docker');
  const index = readFileSync(path.join(sandbox.storePath, 'theirs/index.json'), 'utf8');
  t.true(index.includes(`"mediaType":"${DOCKER_MANIFEST}","digest":"${there}"`), index);
  (await sandbox.bento(['push', `${registry.host}/our/copy`, '--tag', 'docker'])).ok();
  t.is(await digestOfRef(sandbox, `${registry.host}/our/copy:docker`), there);
  await skopeo(sandbox, `docker://${registry.host}/our/copy:docker`, `oci:${sandbox.path('copied')}:v2`);
});

testMounting(
  'layers that are not compressed mount and open; those of zstd are refused before they are fetched',
  async (t) => {
    await using registry = await startDebianRegistry();
    const sandbox = newSandbox(t);
    const { image, rootfs } = await makeUmociImage(sandbox);
    const tars = plainLayers(image);
    await withRepository(registry.host, 'odd/layers', async (repository) => {
      const plain = tars.map((bytes) => ({ mediaType: OCI_LAYER, bytes, diffId: digestOf(bytes) }));
      await putImage(repository, 'plain', plain);
      const pressed = tars.map((tar) => {
        const bytes = execFileSync('zstd', ['-q', '-c'], { input: tar });
        return { mediaType: `${OCI_LAYER}+zstd`, bytes, diffId: digestOf(tar) };
      });
      await putImage(repository, 'zstd', pressed);
    });
    await assertShows(t, sandbox, `${registry.host}/odd/layers:plain`, rootfs);
    for (const command of [['open', '--copy'], ['mount'], ['fork']]) {
      const refused = await sandbox.bento([...command, `${registry.host}/odd/layers:zstd`, sandbox.path('x')]);
      assertFails(t, refused, {
        code: 'FORMAT_UNSUPPORTED',
        says: /has a layer of type \S+\+zstd/,
        hint: /skopeo copy/,
      });
    }
    t.false(registry.log.some((line) => line.includes('panic')));
  },
);

testSerialNeeding({ root: true, fuse: true, tools: [...TOOLS, 'buildah'] })(
  'of a list that buildah pushed the image for this machine is taken, or the one that is asked for',
  async (t) => {
    await using registry = await startDebianRegistry();
    const sandbox = newSandbox(t);
    const { image, rootfs } = await makeUmociImage(sandbox);
    const parts = `${registry.host}/parts`;
    await skopeo(sandbox, `oci:${image}`, `docker://${parts}/here:v1`, ['--format', 'v2s2']);
    writeFiles(sandbox.path('there'), { 'etc/keep': 'for another machine\n' });
    const tar = execFileSync('tar', ['-C', sandbox.path('there'), '-cf', '-', 'etc']);
    await withRepository(registry.host, 'parts/there', async (repository) => {
      await putImage(repository, 'v1', [{ mediaType: OCI_LAYER, bytes: tar, diffId: digestOf(tar) }]);
    });
    const ref = `${registry.host}/their/list:v1`;
    const buildah = async (...args: string[]): Promise<string> =>
      await run('buildah', [...storageFlags(sandbox), ...args], sandbox);
    const { architecture } = thisPlatform();
    await buildah('manifest', 'create', 'list');
    const add = ['manifest', 'add', '--tls-verify=false', '--os', 'linux', '--arch'];
    await buildah(...add, 's390x', 'list', `docker://${parts}/there:v1`);
    await buildah(...add, architecture, 'list', `docker://${parts}/here:v1`);
    const pushing = ['--tls-verify=false', '--signature-policy', anyImagePolicy(sandbox), '--all', '--quiet'];
    await buildah('manifest', 'push', ...pushing, 'list', `docker://${ref}`);

    const inspected = await sandbox.bento(['inspect', ref, '--json']);
    const { digest } = inspected.ok().json<{ digest: string }>();
    t.is(digest, await digestOfRef(sandbox, `${parts}/here:v1`), 'the manifest as it was pushed');
    const list = await withRepository(registry.host, 'their/list', async (one) => await one.headManifest('v1'));
    const index = list?.digest ?? '';
    const says = `note: ${index.slice(0, 19)}... is a list of images: ${formatPlatform(thisPlatform())} is ${digest}`;
    t.true(inspected.stderr.includes(says), inspected.stderr);
    await assertShows(t, sandbox, ref, rootfs);
    t.is(await digestOfRef(sandbox, `${ref}@${index}`), digest);

    const other = newSandbox(t);
    const mounted = other.makeFolder('mounted');
    (await other.bento(['mount', ref, mounted, '--platform', 'linux/s390x'])).ok();
    t.is(readFileSync(path.join(mounted, 'etc/keep'), 'utf8'), 'for another machine\n');
    (await other.bento(['init', '--id', 'theirs'])).ok();
    (await other.bento(['pull', `${ref}@${index}`.replace(':v1@', '@')])).ok();
    const tag = `remote-${index.slice('sha256:'.length, 'sha256:'.length + 12)}`;
    t.is(await digestOfRef(other, tag), digest, 'what was asked for by the digest of the list is found by it again');
    assertFails(t, await other.bento(['inspect', ref, '--platform', 'linux/riscv64']), {
      code: 'FORMAT_UNSUPPORTED',
      says: new RegExp(
        `in \\S+their/list has no image for linux/riscv64: it has linux/s390x, linux/${architecture}$`,
        'm',
      ),
      hint: /--platform/,
    });
    assertFails(t, await other.bento(['inspect', tag, '--platform', 'linux/amd64']), {
      code: 'USAGE',
      says: /is none$/m,
    });
    (await other.bento(['import', `docker://${ref}`, '--platform', 'linux/s390x', '--name', 'imported'])).ok();
    const theirs = await other.bento(['inspect', ref, '--platform', 'linux/s390x', '--json']);
    t.is(await digestOfRef(other, 'imported:v1'), theirs.ok().json<{ digest: string }>().digest);
  },
);

testMounting("the original's checkpoints mount, fork, open and compare from a registry", async (t) => {
  await using registry = await startDebianRegistry();
  const from = newSandbox(t);
  const id = 'ws-0123456789abcdef';
  const deps = {
    'node_modules/pad/index.js': { content: 'module.exports = 1;\n' },
    'node_modules/pad/run.sh': { content: '#!/bin/sh\n', mode: 0o755 },
    'node_modules/.bin/pad': { link: '../pad/run.sh' },
    'node_modules/pad/large.bin': { content: Buffer.alloc(3_000_000, 'large ') },
  };
  const keep = { 'etc/keep': { content: 'keep\n' } };
  const { digests } = await makeOriginalStore(from.storePath, {
    id,
    checkpoints: [
      { message: 'first', layers: { deps, project: { ...keep, 'src/a.js': { content: 'a\n' } } } },
      { message: 'second', layers: { deps, project: { ...keep, 'src/a.js': { content: 'changed\n' } } } },
    ],
  });
  const remote = `${registry.host}/original/ws`;
  for (const tag of ['cp-1', 'cp-2'])
    await skopeo(from, `oci:${from.storePath}/${id}:${tag}`, `docker://${remote}:${tag}`);
  const here = newSandbox(t);
  for (const [at, tag] of ['cp-1', 'cp-2'].entries()) {
    (await from.bento(['open', '--copy', `${id}:${tag}`, from.path(tag)])).ok();
    t.is(await digestOfRef(here, `${remote}:${tag}`), digests[at] ?? '');
    await assertShows(t, here, `${remote}:${tag}`, from.path(tag));
  }
  const compared = await here.bento(['diff', `${remote}:cp-1`, `${remote}:cp-2`, '--name-status']);
  t.is(compared.ok().stdout, 'M\tsrc/a.js\n');
  const fresh = newSandbox(t);
  (await fresh.bento(['init', '--id', id])).ok();
  t.regex((await fresh.bento(['pull', remote])).ok().stdout, /pulled cp-1\n {2}pulled cp-2\n/);
  t.is(await digestOfRef(fresh, 'cp-2'), digests[1] ?? '');
});

testMounting('images of layouts and archives mount and fork, imported or where they lie', async (t) => {
  const sandbox = newSandbox(t);
  const { image, rootfs } = await makeUmociImage(sandbox);
  await skopeo(sandbox, `oci:${image}`, `oci-archive:${sandbox.path('oci.tar')}:img`);
  await skopeo(sandbox, `oci:${image}`, `docker-archive:${sandbox.path('docker.tar')}:localhost/x:img`);
  for (const name of ['umoci', 'oci.tar', 'docker.tar']) {
    (await sandbox.bento(['import', `../${name}`])).ok();
    await assertShows(t, sandbox, `${name.replace('.tar', '')}:img`, rootfs);
  }
  const other = newSandbox(t);
  for (const ref of [
    `oci:${image}`,
    `file://${sandbox.path('oci.tar')}:img`,
    `docker-archive:${sandbox.path('docker.tar')}`,
  ])
    await assertShows(t, other, ref.includes(':img') ? ref : `${ref}:img`, rootfs);
});
