import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';

import { run } from './measure.ts';

/** A program that does what bento does, told what to do with one directory. */
export interface BackupTool {
  name: string;
  /** An empty repository. */
  init(): void;
  save(): void;
  /** @param target - an existing, empty directory */
  restore(target: string): void;
}

export interface ToolPlaces {
  /** The directory that is saved. */
  tree: string;
  /** Where repositories and caches go. */
  scratch: string;
}

type Env = Record<string, string>;

/** Debian's restic, borg and casync, as their manuals say to use them; without encryption where that can be had. */
export function backupTools({ tree, scratch }: ToolPlaces): BackupTool[] {
  const home = path.join(scratch, 'home');
  mkdirSync(home, { recursive: true });
  const base: Env = { HOME: home, PATH: process.env['PATH'] ?? '', LC_ALL: 'C' };
  return [restic(tree, scratch, base), borg(tree, scratch, base), casync(tree, scratch, base)];
}

function restic(tree: string, scratch: string, base: Env): BackupTool {
  const repo = path.join(scratch, 'restic');
  const cache = path.join(scratch, 'restic-cache');
  const env = { ...base, RESTIC_PASSWORD: 'bench', RESTIC_REPOSITORY: repo, RESTIC_CACHE_DIR: cache };
  return {
    name: 'restic',
    init: () => {
      for (const dir of [repo, cache]) rmSync(dir, { recursive: true, force: true });
      run('restic', ['init', '-q'], { env });
    },
    save: () => void run('restic', ['backup', '-q', '.'], { env, cwd: tree }),
    restore: (target) => void run('restic', ['restore', '-q', 'latest', '--target', target], { env }),
  };
}

function borg(tree: string, scratch: string, base: Env): BackupTool {
  const repo = path.join(scratch, 'borg');
  const env = {
    ...base,
    BORG_REPO: repo,
    BORG_BASE_DIR: path.join(scratch, 'borg-base'),
    BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
    BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
  };
  let count = 0;
  return {
    name: 'borg',
    init: () => {
      for (const dir of [repo, env.BORG_BASE_DIR]) rmSync(dir, { recursive: true, force: true });
      run('borg', ['init', '-e', 'none'], { env });
    },
    save: () => void run('borg', ['create', `::s${(count += 1)}`, '.'], { env, cwd: tree }),
    restore: (target) => void run('borg', ['extract', `::s${count}`], { env, cwd: target }),
  };
}

function casync(tree: string, scratch: string, base: Env): BackupTool {
  const repo = path.join(scratch, 'casync');
  const index = path.join(repo, 'tree.caidx');
  const store = `--store=${path.join(repo, 'store.castr')}`;
  return {
    name: 'casync',
    init: () => {
      rmSync(repo, { recursive: true, force: true });
      mkdirSync(repo);
    },
    save: () => void run('casync', ['make', store, index, tree], { env: base }),
    restore: (target) => void run('casync', ['extract', store, index, target], { env: base }),
  };
}

/** Everything tracked, with the repository outside the tree. */
export class GitRepository {
  readonly #tree: string;
  readonly #env: Env;

  constructor({ tree, scratch }: ToolPlaces) {
    this.#tree = tree;
    const dir = path.join(scratch, 'git');
    const who = { GIT_AUTHOR_NAME: 'b', GIT_AUTHOR_EMAIL: 'b@b', GIT_COMMITTER_NAME: 'b', GIT_COMMITTER_EMAIL: 'b@b' };
    const env = { HOME: path.join(scratch, 'home'), PATH: process.env['PATH'] ?? '' };
    this.#env = { ...env, ...who, GIT_DIR: dir, GIT_WORK_TREE: tree };
    run('git', ['init', '-q'], { env: this.#env });
    this.addAndCommit();
  }

  addAndCommit(): void {
    run('sh', ['-c', 'git add -A && git commit -q --allow-empty -m x'], { env: this.#env, cwd: this.#tree });
  }

  status(): void {
    run('git', ['status', '--short'], { env: this.#env, cwd: this.#tree });
  }
}
