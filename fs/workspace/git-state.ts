import { readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import type { RepoState } from '../../store/checkpoint-meta.ts';

/** Reads the state of the repository at the root of a workspace from its files; undefined when there is none. */
export async function readGitState(dir: string): Promise<RepoState | undefined> {
  const gitDir = await findGitDir(dir);
  if (gitDir === undefined) return undefined;
  const head = (await read(join(gitDir, 'HEAD')))?.trim();
  if (head === undefined) return undefined;
  const common = resolve(gitDir, (await read(join(gitDir, 'commondir')))?.trim() ?? '.');
  const ref = /^ref: (\S+)$/.exec(head)?.[1];
  const sha = ref === undefined ? head : await resolveRef(gitDir, common, ref);
  const remote = originUrl((await read(join(common, 'config'))) ?? '');
  return {
    path: '.',
    ...(remote !== undefined && { remote }),
    branch: ref?.replace(/^refs\/heads\//, '') ?? 'HEAD',
    ...(sha !== undefined && /^[0-9a-f]{40,64}$/.test(sha) && { sha }),
  };
}

/** `.git` is a directory, or in worktrees and submodules a file that names one. */
async function findGitDir(dir: string): Promise<string | undefined> {
  const path = join(dir, '.git');
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) return path;
  const target = /^gitdir: (.+)$/m.exec((await read(path)) ?? '')?.[1];
  return target === undefined ? undefined : resolve(dir, target);
}

async function resolveRef(gitDir: string, common: string, ref: string): Promise<string | undefined> {
  const loose = (await read(join(gitDir, ref))) ?? (await read(join(common, ref)));
  if (loose !== undefined) return loose.trim();
  const packed = (await read(join(common, 'packed-refs'))) ?? '';
  return packed
    .split('\n')
    .find((line) => line.endsWith(` ${ref}`))
    ?.slice(0, -ref.length - 1);
}

/** Credentials in the address stay here. */
function originUrl(config: string): string | undefined {
  const section = /\[remote "origin"\]([^[]*)/.exec(config)?.[1] ?? '';
  const url = /^\s*url\s*=\s*(.+)$/m.exec(section)?.[1]?.trim();
  return url?.replace(/^([a-z+]+:\/\/)[^/]*@/i, '$1'); // up to the last @: a password may have one
}

async function read(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch(() => undefined);
}
