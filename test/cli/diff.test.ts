import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { CLI_PATH, newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface ShownChange {
  path: string;
  kind: string;
  from?: string;
  type: string;
  differences: string[];
  insertions?: number;
  deletions?: number;
}

interface Comparison {
  from: string;
  to: string;
  differs: boolean;
  layers: { title: string; changes: ShownChange[]; moves: { from: string; path: string; files: number }[] }[];
  patch: string | null;
}

interface Subject {
  sandbox: Sandbox;
  /** Writes a file of the workspace, folders included. */
  write: (name: string, text: string) => void;
  at: (name: string) => string;
  diff: (...args: string[]) => Promise<string>;
  json: (...args: string[]) => Promise<Comparison>;
  save: () => Promise<void>;
}

/** A workspace with nothing in it but what a test writes. */
async function newSubject(t: ExecutionContext, ignore = ''): Promise<Subject> {
  const sandbox = newSandbox(t);
  const at = (name: string) => path.join(sandbox.workspace, name);
  (await sandbox.bento(['init'])).ok();
  writeFileSync(at('.bentoignore'), ignore);
  return {
    sandbox,
    at,
    write: (name, text) => {
      mkdirSync(path.dirname(at(name)), { recursive: true });
      writeFileSync(at(name), text);
    },
    diff: async (...args) => (await sandbox.bento(['diff', ...args])).ok().stdout,
    json: async (...args) => (await sandbox.bento(['diff', ...args, '--json'])).ok().json<Comparison>(),
    save: async () => void (await sandbox.bento(['save'])).ok(),
  };
}

function changesIn({ layers }: Comparison): string[] {
  return layers.flatMap(({ title, changes }) =>
    changes.map(({ kind, path: name, from }) => `${title}: ${kind} ${from === undefined ? '' : `${from} -> `}${name}`),
  );
}

test.serial(
  'diff lists what was added, removed, modified and renamed, with what differs besides the content',
  async (t) => {
    const { write, at, save, diff, json } = await newSubject(t);
    for (const name of ['gone', 'old-name', 'changed', 'script', 'touched']) write(name, `this is ${name}\n`);
    symlinkSync('here', at('link'));
    await save();
    write('new', 'new\n');
    rmSync(at('gone'));
    renameSync(at('old-name'), at('new-name'));
    write('changed', 'other\n');
    chmodSync(at('script'), 0o755);
    utimesSync(at('touched'), 1, 1);
    rmSync(at('link'));
    symlinkSync('there', at('link'));
    mkdirSync(at('empty'));
    const expected = [
      '  [3/3] project: 8 changes (2 added, 1 removed, 4 modified, 1 renamed)',
      '    + empty/',
      '    + new',
      '    - gone',
      '    ~ changed',
      '    ~ link  (→ there)',
      '    ~ script  (mode 644 → 755)',
      '    ~ touched  (time)',
      '    R old-name → new-name',
    ];
    const [header, blank, ...lines] = (await diff()).trimEnd().split('\n');
    t.deepEqual([header, blank], ['Comparing workspace → cp-1', '']);
    t.deepEqual(lines.slice(-expected.length), expected);
    const { layers } = await json();
    t.deepEqual(layers.at(-1)?.changes.at(-1), {
      path: 'new-name',
      kind: 'renamed',
      from: 'old-name',
      type: 'file',
      differences: [],
      remark: '',
    } as never);
    const split = changesIn(await json('--no-renames'));
    t.true(split.includes('project: added new-name') && split.includes('project: removed old-name'));
    await save();
    t.regex(await diff('cp-1', 'cp-2'), /^Comparing cp-1 → cp-2\n[^]*\n {4}R old-name → new-name\n$/);
  },
);

test.serial('diff shows a directory that moved in one line, and what changed in it besides', async (t) => {
  const { write, at, save, diff, json } = await newSubject(t);
  for (let i = 0; i < 30; i += 1) write(`lib/parts/file-${i}`, `content ${i}\n`);
  write('lib/README', 'about\n');
  await save();
  mkdirSync(at('packages'));
  renameSync(at('lib'), at('packages/core'));
  write('packages/core/README', 'about, changed\n');
  t.regex(
    await diff(),
    /project: 32 changes \(1 added, 1 removed, 30 renamed\)\n {4}\+ packages\/core\/README\n {4}- lib\/README\n {4}R lib\/ → packages\/core\/ {2}\(30 files\)\n$/,
  );
  const layer = (await json()).layers.at(-1);
  t.deepEqual(layer?.moves, [{ from: 'lib/', path: 'packages/core/', files: 30 }]);
  t.is(layer?.changes.filter(({ kind }) => kind === 'renamed').length, 30);
});

test.serial('diff --name-only and --name-status: one path a line, or raw bytes with -z', async (t) => {
  const { sandbox, write, at, save, diff } = await newSubject(t);
  for (const name of ['a', 'b', 'dir/c', 'moving']) write(name, `${name}\n`);
  await save();
  rmSync(at('a'));
  write('b', 'changed\n');
  renameSync(at('moving'), at('dir/moved'));
  writeFileSync(Buffer.from(at('new\xff\n'), 'latin1'), 'x');
  t.is(await diff('--name-only'), 'a\nb\ndir/moved\nnew\\xff\\x0a\n');
  t.is(await diff('--name-status'), 'D\ta\nM\tb\nR100\tmoving\tdir/moved\nA\tnew\\xff\\x0a\n');
  t.is(await diff('--name-only', '--file', 'dir'), 'dir/moved\n');
  const { stdout } = spawnSync(process.execPath, [CLI_PATH, 'diff', '--name-only', '-z'], {
    cwd: sandbox.workspace,
    env: sandbox.env,
  });
  t.deepEqual(stdout, Buffer.from('a\0b\0dir/moved\0new\xff\n\0', 'latin1'));
  t.is((await sandbox.bento(['diff', '--null'])).code, 2);
  t.is((await sandbox.bento(['diff', '--name-only', '--patch'])).code, 2);
});

test.serial('diff --stat counts lines, and --json has the counts', async (t) => {
  const { write, save, diff, json, sandbox } = await newSubject(t);
  write('src/a', 'one\ntwo\nthree\n');
  write('CLAUDE.md', '# notes\n');
  await save();
  write('src/a', 'one\n2\nthree\nfour\n');
  write('CLAUDE.md', '');
  t.is(
    await diff('--stat'),
    ' CLAUDE.md | 1 -\n src/a     | 3 ++-\n 2 files changed, 2 insertions(+), 2 deletions(-)\n',
  );
  const { layers } = await json('--stat');
  const counts = layers.flatMap(({ changes }) => changes.map(({ insertions, deletions }) => [insertions, deletions]));
  t.deepEqual(counts, [
    [0, 1],
    [2, 1],
  ]);
  t.is((await json()).layers.at(-1)?.changes[0]?.insertions, undefined, 'nothing is counted unless asked for');
  const both = await diff('--stat', '--patch', '--file', './src/');
  t.regex(both, /^ src\/a \| 3 \+\+-\n 1 file changed, .*\n\ndiff --git a\/src\/a b\/src\/a\n--- a\/src\/a\n/);
  await sandbox.bento(['save']);
  t.is(await diff('--stat'), '', 'nothing to count');
});

test.serial('diff --file: one file line by line, and what is said when there is nothing to show', async (t) => {
  const { sandbox, write, at, save, diff, json } = await newSubject(t);
  write('text', 'one\ntwo\n');
  write('dir/inner', 'inner\n');
  write('binary', 'a\0b');
  symlinkSync('here', at('link'));
  await save();
  t.is(await diff('--file', 'text'), 'No changes in text\n');
  t.is(await diff('--file', 'binary'), 'No changes in binary\n');
  write('text', 'one\n2\n');
  write('binary', 'a\0c');
  write('dir/inner', 'changed\n');
  rmSync(at('link'));
  symlinkSync('there', at('link'));
  t.is(await diff('--file', 'text'), '--- a/text (cp-1)\n+++ b/text (workspace)\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n');
  t.is(await diff('--file', 'binary'), 'Binary files a/binary and b/binary differ\n');
  t.regex(await diff('--file', 'link'), /\n-here\n\\ No newline at end of file\n\+there\n/);
  t.regex(await diff('--file', 'dir'), /^diff --git a\/dir\/inner b\/dir\/inner\n--- a\/dir\/inner\n/);
  t.regex((await json('--file', 'text')).patch ?? '', /^--- a\/text \(cp-1\)\n/);
  const missing = await sandbox.bento(['diff', '--file', 'nope']);
  t.is(missing.code, 1);
  t.regex(missing.stderr, /^Error: file nope not found in cp-1 or workspace\n {2}\S/);
});

test.serial('diff --exit-code: 1 when something differs, 0 when nothing does', async (t) => {
  const { sandbox, write, save } = await newSubject(t);
  write('a', 'a\n');
  await save();
  const codeOf = async (...args: string[]) => (await sandbox.bento(['diff', '--exit-code', ...args])).code;
  t.is(await codeOf(), 0);
  write('a', 'b\n');
  t.deepEqual(
    [await codeOf(), await codeOf('--name-only'), await codeOf('--file', 'a'), await codeOf('--json')],
    [1, 1, 1, 1],
  );
  t.is((await sandbox.bento(['diff'])).code, 0);
});

test.serial('diff of a file beyond the limit of text says so, having read none of it', async (t) => {
  const { sandbox, write, at, save, diff } = await newSubject(t);
  write('log', 'small\n');
  await save();
  truncateSync(at('log'), 600 << 20); // a hole: takes no space, but would take long to read
  t.regex((await sandbox.bento(['diff', '--file', 'log'])).stderr, /^Error: log has more than 512 MiB/);
  t.regex(await diff('--patch'), /\nBinary files a\/log and b\/log differ\n$/);
  t.regex(
    (await sandbox.bento(['diff', '--patch'])).stderr,
    /^note: log is shown as binary: it has more than 512 MiB\n$/,
  );
  t.regex(await diff('--stat'), / log \| Bin 6 -> 629145600 bytes\n/);
});

// U7: the original paired layers by position, so that a layer more on one side shifted all after it.
test.serial('diff compares the layers of one title, wherever they stand', async (t) => {
  const { sandbox, at, write, save, json } = await newSubject(t);
  write('doc', 'doc\n');
  write('data/x', 'x\n');
  await save();
  const layers = 'layers:\n  - name: data\n    patterns: ["data/**"]\n  - name: project\n    patterns: ["**"]\n';
  writeFileSync(at('bento.yaml'), readFileSync(at('bento.yaml'), 'utf8') + layers);
  write('data/y', 'y\n');
  (await sandbox.bento(['save'])).ok();
  const changes = changesIn(await json('cp-1', 'cp-2'));
  t.deepEqual(changes, ['data: added data/y']);
});

// D15: the original listed the removal, and then saved nothing.
test.serial('diff and save agree when all files of one layer are gone', async (t) => {
  const { sandbox, write, at, save, json } = await newSubject(t);
  write('CLAUDE.md', '# notes\n');
  write('kept', 'kept\n');
  await save();
  rmSync(at('CLAUDE.md'));
  t.deepEqual(changesIn(await json()), ['agent: removed CLAUDE.md']);
  t.regex((await sandbox.bento(['save'])).ok().stdout, /Tagged: cp-2/);
  t.deepEqual(changesIn(await json()), []);
  t.deepEqual(changesIn(await json('cp-1', 'cp-2')), ['agent: removed CLAUDE.md']);
});

// U6: what .bentoignore leaves out was reported as removed or changed.
test.serial('diff says nothing of ignored files, before and after a save', async (t) => {
  const { write, save, json } = await newSubject(t, 'secret/\n*.log\n');
  write('a', 'a\n');
  write('secret/key', 'k\n');
  write('run.log', 'log\n');
  await save();
  write('secret/key', 'other\n');
  write('run.log', 'more\n');
  t.deepEqual(changesIn(await json()), []);
  t.false((await json()).differs);
});
