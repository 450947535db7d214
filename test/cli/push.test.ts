import { readFileSync } from 'node:fs';
import path from 'node:path';

import test from 'ava';

import { assertFails, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

test('push and pull without a remote say how to name one, and need a workspace', async (t) => {
  const sandbox = newSandbox(t);
  for (const command of ['push', 'pull']) {
    assertFails(t, await sandbox.bento([command, 'localhost:1/me/ws']), {
      code: 'CONFIG_MISSING',
      says: /bento\.yaml/,
    });
  }
  await saveSmallWorkspace(sandbox);
  for (const command of ['push', 'pull']) {
    const says = /no remote configured\. Set 'remote' in bento\.yaml or pass a registry URL/;
    assertFails(t, await sandbox.bento([command]), { code: 'CONFIG_INVALID', says });
    assertFails(t, await sandbox.bento([command, 'nowhere']), {
      code: 'REF_INVALID',
      says: /invalid remote reference/,
    });
    const both = await sandbox.bento([command, 'localhost:1/me/ws:a', '--tag', 'b']);
    assertFails(t, both, { code: 'USAGE', says: /different checkpoints/ });
  }
});

test('push without a checkpoint or with an unknown tag contacts nobody', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  const empty = await sandbox.bento(['push', 'localhost:1/me/ws']);
  assertFails(t, empty, { code: 'REF_NOT_FOUND', says: /no checkpoints found/ });
});

test('push to where nobody listens fails, and does not remember the remote', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const before = readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8');
  const failed = await sandbox.bento(['push', 'localhost:1/me/ws']);
  t.is(failed.code, 50, failed.toString());
  t.is(readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8'), before);
});
