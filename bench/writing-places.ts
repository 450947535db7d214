import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { WRITING_ENGINES, type WritingEngine } from '../test/fixtures/fork-engines.ts';
import { findTool } from '../test/fixtures/machine.ts';
import { makeManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { run } from './measure.ts';
import { git } from './reading-tree.ts';
import { makeProject, type NpmProject } from './writing-npm.ts';
import type { WritingSize } from './writing-size.ts';

/** The same files in a directory of its own kind. */
export interface Place {
  name: string;
  dir: string;
  /** Whose goals it has to meet. */
  engine?: WritingEngine;
}

export const EXT4 = 'ext4';
/** Of three files one differs between the branches. */
const DIFFERING = 3;

/** What is saved and written to: a repository and a project, on the disk, in a fork of each engine, in fuse-overlayfs. */
export class WritingPlaces implements AsyncDisposable {
  readonly sandbox = new Sandbox();
  readonly places: readonly Place[];
  readonly missing: string[] = [];
  readonly npm: NpmProject;
  readonly #size: WritingSize;
  readonly #fuseOverlay: string | undefined;

  constructor(size: WritingSize) {
    process.stderr.write('making and saving trees\n');
    this.#size = size;
    this.npm = makeProject(path.join(this.sandbox.workspace, 'npm'), size.npmFiles);
    this.#makeArchive();
    makeRepository(path.join(this.sandbox.workspace, 'repo'), size.repoFiles);
    this.bento('init', '--dir', this.sandbox.workspace);
    this.bento('save', '--dir', this.sandbox.workspace);
    const ext4 = this.sandbox.path('ext4');
    run('cp', ['-a', this.sandbox.workspace, ext4]);
    const forks = WRITING_ENGINES.map((engine) => ({ name: `bento fork, ${engine}`, dir: this.#fork(engine), engine }));
    this.#fuseOverlay = this.#mountFuseOverlay(ext4);
    const other = this.#fuseOverlay === undefined ? [] : [{ name: 'fuse-overlayfs', dir: this.#fuseOverlay }];
    this.places = [{ name: EXT4, dir: ext4 }, ...forks, ...other];
    for (const { dir } of this.places) git(path.join(dir, 'repo'), 'status'); // notes the inode numbers of this place
  }

  get archive(): string {
    return this.sandbox.path('many.tar');
  }

  #makeArchive(): void {
    const many = this.sandbox.path('many');
    makeManyFiles(many, { fileCount: this.#size.untarFiles });
    run('tar', ['-cf', this.archive, '-C', many, '.']);
    run('rm', ['-rf', many]);
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.sandbox.workspace, env: this.sandbox.env });
  }

  #fork(engine: WritingEngine): string {
    const dir = this.sandbox.path(`fork-${engine}`);
    this.bento('fork', 'cp-1', dir, '--engine', engine);
    return dir;
  }

  /** Over a copy, which nobody else changes. */
  #mountFuseOverlay(ext4: string): string | undefined {
    if (findTool('fuse-overlayfs') === undefined) {
      this.missing.push('fuse-overlayfs is not installed');
      return undefined;
    }
    const [lower, upper, work, dir] = ['lower', 'upper', 'work', 'merged'].map((name) =>
      this.sandbox.path('fuse-overlayfs', name),
    ) as [string, string, string, string];
    for (const folder of [upper, work, dir]) mkdirSync(folder, { recursive: true });
    run('cp', ['-a', ext4, lower]);
    run('fuse-overlayfs', ['-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`, dir]);
    return dir;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#fuseOverlay !== undefined) spawnSync('umount', ['-l', this.#fuseOverlay]);
    await this.sandbox.dispose();
  }
}

/** Two branches, `main` and `other`, of which a third of the files differ. */
function makeRepository(root: string, fileCount: number): void {
  makeManyFiles(root, { fileCount, seed: 2 });
  const commit = (message: string): void => {
    git(root, 'add', '-A');
    git(root, '-c', 'user.name=b', '-c', 'user.email=b@b', '-c', 'gc.auto=0', 'commit', '-q', '-m', message);
  };
  git(root, 'init', '-q', '-b', 'main');
  commit('main');
  git(root, 'checkout', '-q', '-b', 'other');
  const script = `git ls-files -z | awk 'BEGIN { RS = "\\0" } NR % ${DIFFERING} == 0' | while read -r file; do echo '// other' >> "$file"; done`;
  run('sh', ['-euc', script], { cwd: root });
  commit('other');
  git(root, 'checkout', '-q', 'main');
  git(root, 'gc', '-q');
}
