import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { digestOfRef, readManifest, saveSmallWorkspace, workspaceId, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeUmociImage } from '../fixtures/image-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** What eStargz adds to every layer, and container tools unpack like any other file. */
const MARKERS = ['stargz.index.json', '.no.prefetch.landmark', '.prefetch.landmark'];
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore', ...MARKERS];

/** @throws Error with what the tool wrote to stderr */
function run(tool: string, args: readonly string[], env?: Readonly<Record<string, string>>): string {
  return execFileSync(tool, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', ...(env && { env }) }).trim();
}

function skopeo(from: string, to: string, sandbox: Sandbox): void {
  run('skopeo', ['--insecure-policy', 'copy', '-q', from, to], sandbox.env);
}

/** cp-1, and cp-2 with deltas and a deletion. */
async function twoCheckpoints(sandbox: Sandbox): Promise<void> {
  await saveSmallWorkspace(sandbox);
  writeFiles(sandbox.workspace, { 'src/main.js': 'changed\n', 'src/żółć.js': 'new\n' });
  rmSync(path.join(sandbox.workspace, 'src/other.js'));
  (await sandbox.bento(['save'])).ok();
}

testSerialNeeding({ tools: ['skopeo'] })(
  'skopeo copies exported folders and archives, and import takes its copies back with the same digest',
  async (t) => {
    const sandbox = newSandbox(t);
    await twoCheckpoints(sandbox);
    const digest = await digestOfRef(sandbox, 'cp-2');
    const at = (name: string): string => sandbox.path(name);
    (await sandbox.bento(['export', '--all', at('folder')])).ok();
    (await sandbox.bento(['export', 'cp-2', at('archive.tar')])).ok();
    skopeo(`oci:${at('folder')}:cp-2`, `oci-archive:${at('from-folder.tar')}:cp-2`, sandbox);
    skopeo(`oci-archive:${at('archive.tar')}:cp-2`, `oci:${at('from-archive')}:cp-2`, sandbox);
    for (const source of ['from-folder.tar', 'from-archive']) {
      const other = newSandbox(t);
      (await other.bento(['import', at(source)])).ok();
      const ref = `${workspaceId(sandbox)}:cp-2`;
      t.is(await digestOfRef(other, ref), digest);
      (await other.bento(['open', '--copy', ref, '../opened'])).ok();
      t.deepEqual(compareByWalk(sandbox.workspace, other.path('opened'), { ignore: OWN_FILES }), []);
    }
  },
);

testSerialNeeding({ tools: ['skopeo'] })('export writes layers whole that the store keeps as recipes', async (t) => {
  const sandbox = newSandbox(t);
  const large = Buffer.alloc(5_000_000);
  for (let at = 0; at < large.length; at += 4) large.writeUInt32LE(Math.imul(at, 2_654_435_761) >>> 0, at);
  writeFiles(sandbox.workspace, { 'large.bin': large });
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  large.fill('changed', 3_000_000, 3_004_096);
  writeFiles(sandbox.workspace, { 'large.bin': large });
  (await sandbox.bento(['save'])).ok();
  t.is(readdirSync(path.join(sandbox.storePath, 'thin/sha256')).length, 1, 'a layer is a recipe');
  (await sandbox.bento(['export', 'cp-2', '../out'])).ok();
  skopeo(`oci:${sandbox.path('out')}:cp-2`, `oci-archive:${sandbox.path('out.tar')}:cp-2`, sandbox);
  const other = newSandbox(t);
  (await other.bento(['import', sandbox.path('out.tar')])).ok();
  (await other.bento(['open', '--copy', `${workspaceId(sandbox)}:cp-2`, '../opened'])).ok();
  t.deepEqual(readFileSync(other.path('opened/large.bin')), large);
});

testSerialNeeding({ root: true, tools: ['umoci'] })('umoci unpacks an exported folder', async (t) => {
  const sandbox = newSandbox(t);
  await twoCheckpoints(sandbox);
  (await sandbox.bento(['export', 'cp-2', `oci:${sandbox.path('out')}:mine`])).ok();
  run('umoci', ['unpack', '--image', `${sandbox.path('out')}:mine`, sandbox.path('bundle')]);
  t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('bundle/rootfs'), { ignore: OWN_FILES }), []);
});

testSerialNeeding({ root: true, tools: ['podman', 'skopeo'] })(
  'podman loads an exported archive, and import takes what podman saves, OCI and docker archives alike',
  async (t) => {
    const sandbox = newSandbox(t);
    await twoCheckpoints(sandbox);
    const digest = await digestOfRef(sandbox, 'cp-2');
    const note = sandbox.path('note');
    writeFileSync(note, 'a note');
    (await sandbox.bento(['attach', 'cp-2', note, '--type', 'text/plain'])).ok(); // of an archive, both want the only image
    (await sandbox.bento(['export', 'cp-2', '../out.tar'])).ok();
    skopeo(`oci-archive:${sandbox.path('out.tar')}`, `oci:${sandbox.path('unnamed')}:x`, sandbox);
    const [root, runRoot] = [sandbox.path('podman'), sandbox.path('podman-run')];
    const storage = ['--root', root, '--runroot', runRoot, '--storage-driver', 'vfs'];
    const podman = (...args: string[]): string => run('podman', [...storage, ...args], sandbox.env);
    const loaded = podman('load', '-q', '-i', sandbox.path('out.tar')).split(' ').at(-1) ?? '';
    const id = podman('image', 'inspect', '--format', '{{.Id}}', loaded);
    t.is(`sha256:${id}`, readManifest(sandbox, digest).config.digest);
    podman('tag', loaded, 'localhost/mine:v1');
    for (const format of ['oci-archive', 'docker-archive']) {
      const saved = sandbox.path(`${format}.tar`);
      podman('save', '-q', '--format', format, '-o', saved, 'localhost/mine:v1');
      const other = newSandbox(t);
      const { images } = (await other.bento(['import', saved, '--json'])).ok().json<{
        images: { store: string; tag: string }[];
      }>();
      t.deepEqual(
        images.map(({ store, tag }) => [store, tag]),
        [[workspaceId(sandbox), 'v1']],
        format,
      );
      (await other.bento(['open', '--copy', `${workspaceId(sandbox)}:v1`, '../opened'])).ok();
      t.deepEqual(compareByWalk(sandbox.workspace, other.path('opened'), { ignore: OWN_FILES }), [], format);
    }
  },
);

testSerialNeeding({ root: true, tools: ['umoci', 'skopeo'] })(
  'import takes an image of umoci, from its layout and from archives of both kinds, and open merges its layers',
  async (t) => {
    const sandbox = newSandbox(t);
    const { image, rootfs } = await makeUmociImage(sandbox);
    skopeo(`oci:${image}`, `oci-archive:${sandbox.path('oci.tar')}:img`, sandbox);
    skopeo(`oci:${image}`, `docker-archive:${sandbox.path('docker.tar')}:localhost/x:img`, sandbox);
    for (const name of ['umoci', 'oci.tar', 'docker.tar']) {
      (await sandbox.bento(['import', `../${name}`])).ok();
      const ref = `${name.replace('.tar', '')}:img`;
      const opened = sandbox.path(`opened-${name}`);
      (await sandbox.bento(['open', '--copy', ref, opened])).ok();
      t.deepEqual(compareByWalk(rootfs, opened, { ignore: OWN_FILES }), [], name);
    }
    const { layers } = (await sandbox.bento(['diff', 'oci:img', 'docker:img', '--json'])).ok().json<{
      layers: { changes: unknown[] }[];
    }>();
    t.true(layers.every(({ changes }) => changes.length === 0));
    (await sandbox.bento(['export', 'docker:img', '../again.tar'])).ok();
    skopeo(`oci-archive:${sandbox.path('again.tar')}:img`, `oci:${sandbox.path('again')}:img`, sandbox);
    (await sandbox.bento(['verify'])).ok();
  },
);
