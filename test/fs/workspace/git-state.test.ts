import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { readGitState } from '../../../fs/workspace/git-state.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { newSandbox } from '../../fixtures/sandbox.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

const SHA = '0123456789abcdef0123456789abcdef01234567';
const testWithGit = testNeeding({ tools: ['git'] });

function git(dir: string, ...args: string[]): string {
  const identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'init.defaultBranch=main'];
  return execFileSync('git', [...identity, ...args], { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

test('readGitState() is undefined where there is no repository', async (t) => {
  const dir = newFolder(t);
  t.is(await readGitState(dir), undefined);
  writeFileSync(join(dir, '.git'), 'neither a directory nor a pointer to one');
  t.is(await readGitState(dir), undefined);
  t.is(await readGitState(join(dir, 'missing')), undefined);
});

testWithGit('readGitState() has no sha before the first commit, and inspect says so (weakness U1)', async (t) => {
  const sandbox = newSandbox(t);
  git(sandbox.workspace, 'init', '--quiet');
  t.deepEqual(await readGitState(sandbox.workspace), { path: '.', branch: 'main' });
  writeFileSync(join(sandbox.workspace, 'main.ts'), 'one');
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  t.regex((await sandbox.bento(['inspect'])).ok().stdout, /Git: +main \(no commits\)/);
});

testWithGit('readGitState() agrees with git: branch, packed refs, detached head, worktree', async (t) => {
  const dir = newFolder(t);
  git(dir, 'init', '--quiet');
  git(dir, 'commit', '--quiet', '--allow-empty', '-m', 'first');
  git(dir, 'checkout', '--quiet', '-b', 'topic/one');
  git(dir, 'commit', '--quiet', '--allow-empty', '-m', 'second');
  const sha = git(dir, 'rev-parse', 'HEAD').trim();
  t.deepEqual(await readGitState(dir), { path: '.', branch: 'topic/one', sha });
  git(dir, 'pack-refs', '--all');
  t.deepEqual(await readGitState(dir), { path: '.', branch: 'topic/one', sha });
  const tree = join(newFolder(t), 'tree');
  git(dir, 'worktree', 'add', '--quiet', tree, 'main');
  t.deepEqual(await readGitState(tree), { path: '.', branch: 'main', sha: git(tree, 'rev-parse', 'HEAD').trim() });
  git(dir, 'checkout', '--quiet', '--detach');
  t.deepEqual(await readGitState(dir), { path: '.', branch: 'HEAD', sha });
});

for (const [written, remote] of [
  ['https://github.com/me/ws.git', 'https://github.com/me/ws.git'],
  ['https://user:token@example.org/ws', 'https://example.org/ws'],
  ['https://user:pass@word@example.org/ws', 'https://example.org/ws'],
  ['HTTPS://token@example.org/ws@2', 'HTTPS://example.org/ws@2'],
  ['git+ssh://git@example.org/ws', 'git+ssh://example.org/ws'],
  ['git@github.com:me/ws.git', 'git@github.com:me/ws.git'],
  ['/srv/git/ws', '/srv/git/ws'],
] as const) {
  test(`readGitState() reads the remote ${written} without its credentials`, async (t) => {
    const dir = newFolder(t);
    mkdirSync(join(dir, '.git'));
    writeFileSync(join(dir, '.git/HEAD'), `${SHA}\n`);
    const config = `[core]\n\tbare = false\n[remote "fork"]\n\turl = no\n[remote "origin"]\n\tfetch = +x\n\turl = ${written}\n`;
    writeFileSync(join(dir, '.git/config'), `${config}[branch "main"]\n\tremote = origin\n`);
    t.deepEqual(await readGitState(dir), { path: '.', remote, branch: 'HEAD', sha: SHA });
  });
}

test('readGitState() takes nothing for a sha that is none', async (t) => {
  const dir = newFolder(t);
  mkdirSync(join(dir, '.git'));
  writeFileSync(join(dir, 'secret'), 'a password\n');
  writeFileSync(join(dir, '.git/HEAD'), 'ref: ../secret\n');
  t.deepEqual(await readGitState(dir), { path: '.', branch: '../secret' });
});
