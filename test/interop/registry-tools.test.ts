import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { digestOfRef, makeSmallWorkspace, readManifest, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { anyImagePolicy, MARKERS, OWN_FILES, run, skopeo, storageFlags } from '../fixtures/image-tools.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** What other tools see of a checkpoint besides its files. */
const IGNORED = [...OWN_FILES, ...MARKERS];

const REGISTRIES: readonly [what: string, start: () => Promise<AsyncDisposable & { host: string }>, tools: string[]][] =
  [
    ["Debian's registry", startDebianRegistry, ['docker-registry']],
    [
      'a registry that redirects to storage',
      async () => await OddRegistry.start({ faults: { redirect: 'storage' } }),
      [],
    ],
  ];

/** cp-1, and cp-2 with deltas and deletions, pushed. */
async function pushTwo(sandbox: Sandbox, remote: string): Promise<void> {
  const { workspace } = sandbox;
  makeSmallWorkspace(workspace);
  writeFiles(workspace, {
    'kinds/gone': 'gone\n',
    'kinds/again/old': 'old\n',
    'kinds/large': Buffer.alloc(2_500_000, 'x y '),
  });
  mkdirSync(path.join(workspace, 'kinds/empty'));
  symlinkSync('large', path.join(workspace, 'kinds/link'));
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  for (const name of ['kinds/gone', 'kinds/again']) rmSync(path.join(workspace, name), { recursive: true });
  writeFiles(workspace, { 'kinds/again/new': 'new\n', 'src/main.js': 'changed\n', 'src/żółć.js': 'new\n' });
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['push', remote])).ok();
}

for (const [what, start, tools] of REGISTRIES) {
  testSerialNeeding({ root: true, tools: ['skopeo', 'umoci', 'podman', 'buildah', ...tools] })(
    `skopeo, umoci, podman and buildah read checkpoints from ${what}`,
    async (t) => {
      await using registry = await start();
      const remote = `${registry.host}/me/ws`;
      const sandbox = newSandbox(t);
      await pushTwo(sandbox, remote);
      const digest = await digestOfRef(sandbox, 'cp-2');
      const asked = ['--tls-verify=false', '--format', '{{.Digest}}', `docker://${remote}:cp-2`];
      t.is(await run('skopeo', ['inspect', ...asked], sandbox), digest);

      const layout = sandbox.path('copied');
      await skopeo(sandbox, `docker://${remote}:cp-2`, `oci:${layout}:cp-2`, ['--preserve-digests']);
      await run('umoci', ['unpack', '--image', `${layout}:cp-2`, sandbox.path('bundle')], sandbox);
      t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('bundle/rootfs'), { ignore: IGNORED }), [], 'umoci');
      t.is(await digestOfRef(sandbox, `oci:${layout}:cp-2`), digest, 'and back');

      const policy = ['--tls-verify=false', '--signature-policy', anyImagePolicy(sandbox)];
      const podman = async (...args: string[]): Promise<string> =>
        await run('podman', [...storageFlags(sandbox), ...args], sandbox);
      t.teardown(async () => await podman('image', 'umount', '--all', '--force'));
      const id = await podman('pull', '-q', ...policy, `${remote}:cp-2`);
      t.is(`sha256:${id}`, readManifest(sandbox, digest).config.digest);
      t.deepEqual(
        compareByWalk(sandbox.workspace, await podman('image', 'mount', id), { ignore: IGNORED }),
        [],
        'podman',
      );

      writeFileSync(sandbox.path('Containerfile'), `FROM scratch\nCOPY --from=${remote}:cp-2 / /ours\n`);
      const buildah = async (...args: string[]): Promise<string> =>
        await run('buildah', [...storageFlags(sandbox), ...args], sandbox);
      await buildah(
        'build',
        '-q',
        ...policy,
        '-t',
        'built',
        '-f',
        sandbox.path('Containerfile'),
        sandbox.makeFolder('context'),
      );
      const container = await buildah('from', '--pull-never', 'built');
      t.teardown(async () => await buildah('rm', '--all'));
      const built = path.join(await buildah('mount', container), 'ours');
      const times = { ignore: IGNORED, ignoreAttributes: ['mtimeNs'] as const };
      t.deepEqual(compareByWalk(sandbox.workspace, built, times), [], 'buildah COPY --from');
    },
  );
}
