import { randomBytes } from 'node:crypto';
import { execFileSync, type ExecFileSyncOptions } from 'node:child_process';
import { chmodSync, linkSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { blobPath, makeSmallWorkspace, readManifest, workspaceId, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk, compareWithRsync } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** What eStargz adds to every layer, and container tools unpack like any other file. */
const LANDMARKS = ['.no.prefetch.landmark', '.prefetch.landmark'];
const MARKERS = ['stargz.index.json', ...LANDMARKS];
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore', ...MARKERS];

interface Stack {
  sandbox: Sandbox;
  /** The layout as other tools name it: `<path>:<tag>`. */
  image: (tag: string) => string;
  /** Manifest digests of cp-1, and of cp-2 with its delta layers. */
  digests: string[];
}

/** cp-1 with every kind of file; cp-2 with deltas: deletions, changed types, new and changed files. */
async function saveStack(t: ExecutionContext): Promise<Stack> {
  const sandbox = newSandbox(t);
  const { workspace } = sandbox;
  const at = (name: string): string => path.join(workspace, name);
  const run = (tool: string, ...args: string[]): void => void execFileSync(tool, args, { cwd: workspace });
  makeSmallWorkspace(workspace);
  writeFiles(workspace, {
    'kinds/empty': '',
    'kinds/large': Buffer.alloc(9_000_000, 'more than two chunks '),
    'kinds/file-to-directory': 'file\n',
    'kinds/directory-to-file/below/deep': 'deep\n',
    'kinds/gone': 'gone\n',
    'kinds/gone-directory/below': 'gone\n',
    'kinds/made-again/old': 'old\n',
    'kinds/żółć and space': 'name\n',
    [`kinds/${'n'.repeat(150)}/${'m'.repeat(150)}`]: 'long\n',
    'node_modules/left-pad/gone.js': 'gone\n',
    // Among those that layers put first, before their directories.
    '.git/HEAD': 'ref: refs/heads/main\n',
    '.git/refs/heads/main': '0'.repeat(40),
    'node_modules/.package-lock.json': '{}\n',
  });
  mkdirSync(at('kinds/empty-directory'));
  linkSync(at('src/main.js'), at('kinds/hard-link'));
  symlinkSync('../src/main.js', at('kinds/symlink'));
  run('mkfifo', 'kinds/fifo');
  run('mknod', 'kinds/device', 'c', '1', '3');
  run('chown', '123:456', 'kinds/empty');
  chmodSync(at('kinds/large'), 0o4751);
  run('setfattr', '-n', 'user.text', '-v', 'value', 'kinds/large');
  chmodSync(at('.git/refs/heads'), 0o550);
  run('touch', '-d', '2001-09-09 01:46:40.123456789 UTC', 'kinds/empty', 'kinds/empty-directory', '.git', '.git/refs');
  (await sandbox.bento(['init'])).ok();
  const first = (await sandbox.bento(['save', '--json'])).ok().json<{ digest: string }>();

  rmSync(at('kinds/file-to-directory'));
  mkdirSync(at('kinds/file-to-directory'));
  writeFileSync(at('kinds/file-to-directory/inside'), 'inside\n');
  rmSync(at('kinds/directory-to-file'), { recursive: true });
  writeFileSync(at('kinds/directory-to-file'), 'a file now\n');
  for (const name of ['kinds/gone', 'kinds/gone-directory', 'kinds/made-again', 'node_modules/left-pad/gone.js'])
    rmSync(at(name), { recursive: true });
  writeFiles(workspace, { 'kinds/made-again/new': 'new\n', 'src/main.js': 'changed\n', 'CLAUDE.md': '# changed\n' });
  writeFiles(workspace, { '.git/HEAD': 'ref: refs/heads/other\n', '.git/refs/heads/other': '1'.repeat(40) });
  rmSync(at('kinds/symlink'));
  writeFileSync(at('kinds/symlink'), 'no link any more\n');
  const second = (await sandbox.bento(['save', '--json'])).ok().json<{ digest: string }>();
  t.true(readManifest(sandbox, second.digest).layers.length > 3, 'cp-2 has delta layers');
  const layout = path.join(sandbox.storePath, workspaceId(sandbox));
  return { sandbox, image: (tag) => `${layout}:${tag}`, digests: [first.digest, second.digest] };
}

/** @throws Error with what the tool wrote to stderr */
function run(tool: string, args: readonly string[], options: ExecFileSyncOptions = {}): string {
  return execFileSync(tool, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options, encoding: 'utf8' });
}

/** What a layout says that a tag is. */
function digestInLayout(layout: string, tag: string): string | undefined {
  const index = JSON.parse(readFileSync(path.join(layout, 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations?: Record<string, string> }[];
  };
  return index.manifests.find(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === tag)?.digest;
}

testSerialNeeding({ root: true, tools: ['skopeo', 'setfattr'] })(
  'skopeo copies checkpoints to another layout and back with the same digests',
  async (t) => {
    const { sandbox, image, digests } = await saveStack(t);
    const skopeo = (from: string, to: string): string =>
      run('skopeo', ['--insecure-policy', 'copy', '-q', `oci:${from}`, `oci:${to}`]);
    const returned = sandbox.path('returned/store/ws-returned');
    mkdirSync(path.join(returned, '../blobs/sha256'), { recursive: true });
    mkdirSync(returned);
    symlinkSync('../blobs', path.join(returned, 'blobs'));
    for (const [at, tag] of ['cp-1', 'cp-2'].entries()) {
      skopeo(image(tag), `${sandbox.path('other')}:${tag}`);
      t.is(digestInLayout(sandbox.path('other'), tag), digests[at], 'the manifest itself');
      skopeo(`${sandbox.path('other')}:${tag}`, `${returned}:${tag}`);
      t.is(digestInLayout(returned, tag), digests[at]);
      for (const { digest } of readManifest(sandbox, digests[at] ?? '').layers) {
        const copy = path.join(returned, 'blobs/sha256', digest.slice(7));
        t.deepEqual(readFileSync(copy), readFileSync(blobPath(sandbox, digest)));
      }
    }
    const elsewhere = sandbox.makeFolder('elsewhere');
    (await sandbox.bento(['init', '--store', path.dirname(returned)], { cwd: elsewhere })).ok();
    (await sandbox.bento(['open', '--copy', 'ws-returned:cp-2', '../opened'], { cwd: elsewhere })).ok();
    t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('opened'), { ignore: OWN_FILES }), []);
  },
);

testSerialNeeding({ tools: ['skopeo'] })(
  'skopeo copies a checkpoint of which a layer was a recipe, once that was made whole',
  async (t) => {
    const sandbox = newSandbox(t);
    const large = path.join(sandbox.workspace, 'large.bin');
    writeFileSync(large, randomBytes(5_000_000));
    (await sandbox.bento(['init'])).ok();
    (await sandbox.bento(['save'])).ok();
    const bytes = readFileSync(large);
    bytes.fill('changed', 3_000_000, 3_004_096);
    writeFileSync(large, bytes);
    const { digest } = (await sandbox.bento(['save', '--json'])).ok().json<{ digest: string }>();
    const image = (tag: string): string => `oci:${path.join(sandbox.storePath, workspaceId(sandbox))}:${tag}`;
    const copy = (tag: string): string =>
      run('skopeo', ['--insecure-policy', 'copy', '-q', image(tag), `oci:${sandbox.path('other')}:${tag}`]);
    copy('cp-1');
    t.throws(() => copy('cp-2'), undefined, 'which is what the option is for');
    t.regex((await sandbox.bento(['gc', '--whole', '-n'])).ok().stdout, /^Would make 1 layer\(s\) whole, 4\.8MB:\n/);
    t.throws(() => copy('cp-2'));
    t.is((await sandbox.bento(['gc', '--whole'])).ok().stdout, 'Made 1 layer(s) whole, 4.8MB.\n');
    copy('cp-2');
    t.is(digestInLayout(sandbox.path('other'), 'cp-2'), digest);
    bytes.fill('again', 1_000_000, 1_004_096);
    writeFileSync(large, bytes);
    (await sandbox.bento(['save'])).ok();
    t.throws(() => copy('cp-3'));
    (await sandbox.bento(['save', '--flat'])).ok();
    copy('cp-4');
    (await sandbox.bento(['open', '--copy', 'cp-4', sandbox.path('opened')])).ok();
    t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('opened'), { ignore: OWN_FILES }), []);
  },
);

testSerialNeeding({ root: true, tools: ['umoci', 'rsync', 'setfattr'] })(
  'umoci unpacks checkpoints, base and deltas, into the same tree but for the eStargz markers',
  async (t) => {
    const { sandbox, image } = await saveStack(t);
    for (const tag of ['cp-1', 'cp-2']) {
      const [bundle, opened] = [sandbox.path(`bundle-${tag}`), sandbox.path(`opened-${tag}`)];
      run('umoci', ['unpack', '--image', image(tag), bundle]);
      (await sandbox.bento(['open', '--copy', tag, opened])).ok();
      const rootfs = path.join(bundle, 'rootfs');
      t.deepEqual(compareByWalk(opened, rootfs, { ignore: OWN_FILES }), [], tag);
      t.deepEqual(await compareWithRsync(opened, rootfs, { ignore: OWN_FILES }), [], tag);
    }
  },
);

testSerialNeeding({ root: true, tools: ['podman', 'skopeo', 'rsync', 'setfattr'] })(
  'podman takes and mounts checkpoints, base and deltas, as the same tree but for the eStargz markers',
  async (t) => {
    const { sandbox, image, digests } = await saveStack(t);
    const [root, runRoot] = [sandbox.path('podman'), sandbox.path('podman-run')];
    const storage = ['--root', root, '--runroot', runRoot, '--storage-driver', 'vfs'];
    const podman = (...args: string[]): string =>
      run('podman', [...storage, ...args], { env: { ...sandbox.env } }).trim();
    t.teardown(() => podman('image', 'umount', '--all', '--force'));
    for (const [at, tag] of ['cp-1', 'cp-2'].entries()) {
      const opened = sandbox.path(`opened-${tag}`);
      (await sandbox.bento(['open', '--copy', tag, opened])).ok();
      // `podman pull oci:<path>` makes an image name of the path, which must be lower case then; skopeo can choose the name
      const name = `localhost/checkpoint:${tag}`;
      const target = `containers-storage:[vfs@${root}+${runRoot}]${name}`;
      run('skopeo', ['--insecure-policy', 'copy', '-q', `oci:${image(tag)}`, target], { env: { ...sandbox.env } });
      const id = podman('image', 'inspect', '--format', '{{.Id}}', name);
      t.is(`sha256:${id}`, readManifest(sandbox, digests[at] ?? '').config.digest);
      const rootfs = podman('image', 'mount', name);
      const differences = [
        ...compareByWalk(opened, rootfs, { ignore: OWN_FILES }),
        ...(await compareWithRsync(opened, rootfs, { ignore: OWN_FILES })),
      ];
      t.deepEqual(differences, [], tag);
      podman('image', 'umount', name);
    }
  },
);

testSerialNeeding({ root: true, tools: ['gzip', 'tar', 'setfattr'] })(
  'gzip -t and tar accept every layer, and tar unpacks a stack into the same files',
  async (t) => {
    const { sandbox, digests } = await saveStack(t);
    const { layers } = readManifest(sandbox, digests[1] ?? '');
    for (const { digest, annotations } of layers) {
      const blob = blobPath(sandbox, digest);
      run('gzip', ['-t'], { stdio: 'pipe', input: readFileSync(blob) });
      const listed = run('tar', ['--warning=no-unknown-keyword', '-tzf', blob]).trimEnd().split('\n');
      t.is(listed.filter((name) => LANDMARKS.includes(name)).length, 1, `one landmark in ${digest}`);
      t.is(listed.filter((name) => MARKERS.includes(name)).length, 2, `the table of contents in ${digest}`);
      const files = listed.filter((name) => !name.endsWith('/') && !MARKERS.includes(name) && !name.includes('.wh.'));
      if (annotations['dev.bento.layer.file-count'] !== undefined) {
        t.is(
          Number(annotations['dev.bento.layer.file-count']),
          files.length,
          annotations['org.opencontainers.image.title'],
        );
      }
    }
    const base = sandbox.makeFolder('base');
    (await sandbox.bento(['open', '--copy', 'cp-1', '../opened'])).ok();
    for (const { digest } of readManifest(sandbox, digests[0] ?? '').layers) {
      run('tar', [
        '--warning=no-unknown-keyword',
        '--xattrs',
        '--xattrs-include=*',
        '--same-owner',
        '-xpzf',
        blobPath(sandbox, digest),
        '-C',
        base,
      ]);
    }
    // GNU tar reads no SCHILY.xattr without --xattrs, and sets the times of directories that later layers write to
    t.deepEqual(compareByWalk(sandbox.path('opened'), base, { ignore: OWN_FILES }), []);
  },
);
