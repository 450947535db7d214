import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { headOf, saveSmallWorkspace, workspaceId } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

function skopeo(...args: string[]): string {
  return execFileSync('skopeo', ['--insecure-policy', ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

testNeeding({ tools: ['skopeo', 'docker-registry'] })(
  'skopeo copies a checkpoint that has attachments out of the store, an export and a registry, and the attachment itself',
  async (t) => {
    await using registry = await startDebianRegistry();
    const remote = `${registry.host}/me/ws`;
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    writeFileSync(sandbox.path('note'), 'a note');
    const attached = await sandbox.bento(['attach', 'cp-1', sandbox.path('note'), '--type', 'text/plain', '--json']);
    const { digest, fileDigest } = attached.ok().json<{ digest: string; fileDigest: string }>();
    (await sandbox.bento(['push', remote])).ok();
    (await sandbox.bento(['export', 'cp-1', sandbox.path('exported')])).ok();
    (await sandbox.bento(['export', 'cp-1', sandbox.path('exported.tar'), '--attachments'])).ok();
    const store = path.join(sandbox.storePath, workspaceId(sandbox));
    const sources = [`oci:${store}:cp-1`, `oci:${sandbox.path('exported')}:cp-1`, `docker://${remote}:cp-1`];
    for (const [at, source] of [...sources, `oci-archive:${sandbox.path('exported.tar')}:cp-1`].entries()) {
      const target = sandbox.path(`copy-${at}`);
      skopeo('copy', '-q', '--src-tls-verify=false', source, `oci:${target}:cp-1`);
      const other = newSandbox(t);
      (await other.bento(['import', target])).ok();
      (await other.bento(['open', '--copy', `${workspaceId(sandbox)}:cp-1`, other.path('opened')])).ok();
      const ignore = ['.', 'bento.yaml', '.bentoignore'];
      t.deepEqual(compareByWalk(sandbox.workspace, other.path('opened'), { ignore }), [], source);
    }
    skopeo('copy', '-q', '--src-tls-verify=false', `docker://${remote}@${digest}`, `oci:${sandbox.path('artifact')}`);
    const blob = path.join(sandbox.path('artifact'), 'blobs/sha256', fileDigest.slice('sha256:'.length));
    t.is(readFileSync(blob, 'utf8'), 'a note');
    const index = skopeo(
      'inspect',
      '--raw',
      '--tls-verify=false',
      `docker://${remote}:${headOf(sandbox.workspace).replace(':', '-')}`,
    );
    t.is((JSON.parse(index) as { manifests: { digest: string }[] }).manifests[0]?.digest, digest);
  },
);

testNeeding({ tools: ['skopeo'] })(
  'what skopeo puts into a store leaves the attachments that are listed there',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    writeFileSync(sandbox.path('note'), 'a note');
    (await sandbox.bento(['attach', 'cp-1', sandbox.path('note'), '--type', 'text/plain'])).ok();
    const store = path.join(sandbox.storePath, workspaceId(sandbox));
    cpSync(path.join(store, 'index.json'), sandbox.path('before'));
    skopeo('copy', '-q', `oci:${store}:cp-1`, `oci:${store}:copied`);
    const listed = (file: string): unknown[] =>
      (JSON.parse(readFileSync(file, 'utf8')) as { manifests: { artifactType?: string }[] }).manifests.filter(
        ({ artifactType }) => artifactType !== undefined,
      );
    t.deepEqual(listed(path.join(store, 'index.json')), listed(sandbox.path('before')));
    t.is((await sandbox.bento(['attach', 'get', 'copied', 'note', '-o', '-'])).ok().stdout, 'a note');
  },
);
