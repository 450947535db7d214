import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  assertFails,
  assertTidy,
  assertUsable,
  namesIn,
  saveSmallWorkspace,
  watchTree,
  type ExpectedFailure,
} from '../fixtures/command-checks.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** Runs commands that must all fail alike and change nothing: neither the workspace, nor the store, nor what is around. */
async function assertAllFail(
  t: ExecutionContext,
  sandbox: Sandbox,
  commands: readonly (readonly string[])[],
  expected: ExpectedFailure,
): Promise<void> {
  const changed = watchTree(sandbox.root, {
    ignore: ['run', 'tmp', 'home', 'data/bento/store/cache', 'other-store', '.'],
  });
  for (const command of commands) {
    assertFails(t, await sandbox.bento(command), expected);
    t.deepEqual(changed(), [], `bento ${command.join(' ')} changed something`);
  }
  t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []], 'no daemon is started for nothing');
}

test.serial('a missing bento.yaml: CONFIG_MISSING, and init as the next step', async (t) => {
  const sandbox = newSandbox(t);
  await assertAllFail(t, sandbox, [['save'], ['list'], ['diff'], ['tag', 'cp-1', 'x']], {
    code: 'CONFIG_MISSING',
    says: /bento\.yaml/,
  });
  await assertAllFail(
    t,
    sandbox,
    [
      ['open', 'cp-1'],
      ['mount', 'cp-1', 'x'],
      ['fork', 'cp-1', 'x'],
      ['inspect', 'cp-1'],
    ],
    { code: 'REF_NOT_FOUND', says: /no bento workspace/, hint: /bento init/ },
  );
  t.regex((await sandbox.bento(['save'])).stderr, /bento init/);
});

for (const [what, text] of [
  ['is not YAML', 'id: [x\n  : :'],
  ['is a list', '- a\n- b\n'],
  ['has a value of the wrong kind', 'id: ws-1\nlayers: yes\n'],
  ['fails validation', 'id: ws-1\nlayers:\n  - name: a\n    patterns: ["x"]\n  - name: a\n    patterns: ["y"]\n'],
  ['leaves the store', 'id: ../../elsewhere\n'],
  ['is binary', '\x00\x01\xff'],
] as const) {
  test.serial(`a bento.yaml that ${what}: CONFIG_INVALID, and it is left as it is`, async (t) => {
    const sandbox = newSandbox(t);
    writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), text, 'latin1');
    const commands = [['save'], ['list'], ['open', 'cp-1']];
    await assertAllFail(t, sandbox, commands, { code: 'CONFIG_INVALID', says: /bento\.yaml/ });
  });
}

test.serial('init() in a workspace leaves its bento.yaml alone', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await assertAllFail(t, sandbox, [['init'], ['init', '--task', 'x']], {
    code: 'FAILED',
    says: /bento\.yaml already exists in /,
  });
});

test.serial('an unknown reference: REF_NOT_FOUND, whatever the command', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const zeros = `sha256:${'0'.repeat(64)}`;
  sandbox.makeFolder('empty');
  const commandsOn = (ref: string) => [
    ['open', ref],
    ['open', '--copy', ref, '../new'],
    ['inspect', ref],
    ['tag', ref, 'x'],
    ['diff', ref],
    ['diff', 'cp-1', ref],
    ['mount', ref, '../empty'],
    ['fork', ref, '../fork'],
  ];
  await assertAllFail(t, sandbox, commandsOn('nope'), { code: 'REF_NOT_FOUND', says: /nope/, hint: /bento list/ });
  for (const ref of ['cp-2', zeros, 'sha256:0123456', 'ws-0000000000000000:cp-1']) {
    const tag = ref.split(':').at(-1) ?? '';
    await assertAllFail(t, sandbox, [['open', '--copy', ref, '../new']], {
      code: 'REF_NOT_FOUND',
      says: new RegExp(tag),
      hint: /bento list/,
    });
  }
  await assertAllFail(t, sandbox, [['open', 'undo']], { code: 'REF_NOT_FOUND', says: /nothing to undo/ });
  await assertUsable(t, sandbox);
});

test.serial('a malformed reference: REF_INVALID, and what is wrong with it', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  sandbox.makeFolder('empty');
  for (const ref of [
    ':',
    'x:',
    ':x',
    'a:b:',
    'sha256:xyz',
    'with space',
    'x!',
    '../../etc/passwd',
    '..:cp-1',
    'cp-1\nx',
    'ж',
    'x'.repeat(200),
  ]) {
    await assertAllFail(t, sandbox, [['inspect', ref]], { code: 'REF_INVALID', says: /invalid ref/ });
  }
  const commands = [
    ['open', '--copy', ':', '../new'],
    ['tag', ':', 'x'],
    ['diff', ':'],
    ['mount', ':', '../empty'],
    ['fork', ':', '../fork'],
  ];
  await assertAllFail(t, sandbox, commands, { code: 'REF_INVALID', says: /invalid ref/ });
  for (const tag of ['a b', 'x:y', '../x', 'cp-9', 'latest', '']) {
    await assertAllFail(t, sandbox, [['tag', 'cp-1', '--', tag]], {
      code: 'REF_INVALID',
      says: /is not a valid tag|gives itself/,
    });
  }
  await assertAllFail(t, sandbox, [['save', '--tag', 'a b']], { code: 'REF_INVALID', says: /"a b"/ });
});

test.serial('the reference of another workspace: its store name is needed, and is enough', async (t) => {
  const sandbox = newSandbox(t);
  const other = sandbox.makeFolder('other');
  await saveSmallWorkspace(sandbox);
  (await sandbox.bento(['init', '--id', 'other-store'], { cwd: other })).ok();
  writeFileSync(path.join(other, 'mine'), 'of the other workspace\n');
  (await sandbox.bento(['save', '--tag', 'theirs'], { cwd: other })).ok();
  await assertAllFail(t, sandbox, [['inspect', 'theirs']], { code: 'REF_NOT_FOUND', says: /theirs/ });
  (await sandbox.bento(['inspect', 'other-store:theirs'])).ok();
  (await sandbox.bento(['open', '--copy', 'other-store:theirs', '../opened'])).ok();
  t.is(readFileSync(sandbox.path('opened/mine'), 'utf8'), 'of the other workspace\n');
  t.regex(readFileSync(sandbox.path('opened/bento.yaml'), 'utf8'), /^id: other-store$/m);
});

test.serial('a workspace of another store root is no target', async (t) => {
  const sandbox = newSandbox(t);
  const other = sandbox.makeFolder('other');
  await saveSmallWorkspace(sandbox);
  (await sandbox.bento(['init', '--store', sandbox.path('other-store')], { cwd: other })).ok();
  await assertAllFail(t, sandbox, [['open', '--copy', 'cp-1', other]], {
    code: 'TARGET_INVALID',
    says: /another store/,
  });
});

/** A saved workspace, and beside it what no command may overwrite: a file, a directory that is not empty, a dangling link. */
async function saveBesidePreciousFiles(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFileSync(sandbox.path('a-file'), 'precious\n');
  mkdirSync(sandbox.path('full'));
  writeFileSync(sandbox.path('full/precious'), 'precious\n');
  symlinkSync('nowhere', sandbox.path('dangling'));
  return sandbox;
}

test.serial(
  'open() into a target that is not empty, is a file, lies below one or has no parent changes nothing',
  async (t) => {
    const sandbox = await saveBesidePreciousFiles(t);
    await assertAllFail(t, sandbox, [['open', 'cp-1', '../full']], {
      code: 'TARGET_NOT_EMPTY',
      says: /full is not empty/,
    });
    await assertAllFail(t, sandbox, [['open', 'cp-1', '../a-file']], {
      code: 'TARGET_INVALID',
      says: /a-file is not a directory/,
    });
    await assertAllFail(t, sandbox, [['open', 'cp-1', '../no/parent']], {
      code: 'TARGET_INVALID',
      says: /\/no does not exist/,
      hint: /mkdir -p/,
    });
    await assertAllFail(t, sandbox, [['open', 'cp-1', '../a-file/x']], { code: 'TARGET_INVALID', says: /a-file/ });
    await assertUsable(t, sandbox);
  },
);

test.serial('mount() and fork() on a bad mount point change nothing', async (t) => {
  const sandbox = await saveBesidePreciousFiles(t);
  const both = (target: string) => [
    ['mount', 'cp-1', target],
    ['fork', 'cp-1', target],
  ];
  await assertAllFail(t, sandbox, both('../full'), { code: 'TARGET_NOT_EMPTY', says: /full is not empty/ });
  await assertAllFail(t, sandbox, both('../a-file'), { code: 'TARGET_INVALID', says: /a-file is not a directory/ });
  await assertAllFail(t, sandbox, both('../a-file/below'), { code: 'TARGET_INVALID', says: /a-file/ });
  await assertAllFail(t, sandbox, both('../no/parent'), {
    code: 'MOUNT_POINT_MISSING',
    says: /\/no/,
    hint: /mkdir -p/,
  });
  await assertAllFail(t, sandbox, [['mount', 'cp-1', '../none']], {
    code: 'MOUNT_POINT_MISSING',
    says: /none does not exist/,
    hint: /mkdir -p/,
  });
  await assertAllFail(t, sandbox, both('../dangling'), { code: 'MOUNT_POINT_MISSING', says: /dangling/ });
  await assertAllFail(t, sandbox, both('../ws'), { code: 'TARGET_NOT_EMPTY', says: /ws is not empty/ });
  assertTidy(t, sandbox);
});

test.serial('unmount() and close() of what is not mounted: NOT_MOUNTED', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const commands = ['../nowhere', sandbox.workspace, '/proc'].flatMap((place) => [
    ['unmount', '--force', place],
    ['close', place],
  ]);
  await assertAllFail(t, sandbox, commands, {
    code: 'NOT_MOUNTED',
    says: /nothing of bento's is mounted on \//,
    hint: /bento mounts/,
  });
  await assertAllFail(t, sandbox, [['unmount']], { code: 'USAGE', says: /accepts 1 arg/, hint: /--all/ });
});

test.serial(
  'a directory named like nothing that a shell would tolerate is saved, opened and named on one line',
  async (t) => {
    const sandbox = newSandbox(t);
    const odd = sandbox.makeFolder('new\nline, comma: colon \\ ж');
    writeFileSync(path.join(odd, 'file'), 'x\n');
    (await sandbox.bento(['init'], { cwd: odd })).ok();
    (await sandbox.bento(['save'], { cwd: odd })).ok();
    const target = `${odd}/../opened\nhere`;
    (await sandbox.bento(['open', 'cp-1', target], { cwd: odd })).ok();
    assertFails(t, await sandbox.bento(['open', 'cp-1', path.dirname(target)], { cwd: odd }), {
      code: 'TARGET_NOT_EMPTY',
      says: /not empty/,
    });
    t.deepEqual(namesIn(path.resolve(target)).sort(), ['.bentoignore', 'bento.yaml', 'file']);
    (await sandbox.bento(['close', target], { cwd: odd })).ok();
    t.false(existsSync(path.resolve(target)));
  },
);
