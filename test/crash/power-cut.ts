import { strict as assert } from 'node:assert';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { forkWith, type WritingEngine } from '../fixtures/fork-engines.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import type { Random } from '../fixtures/random.ts';
import { Sandbox } from '../fixtures/sandbox.ts';
import { assertFileClaim, contentOf, lineOf, type Claim } from './power-claims.ts';
import type { DiskKind, PowerDisk, Snapshot } from './power-disk.ts';
import { GIT_ENV } from './writing-workloads.ts';

export interface PowerOptions {
  engine: WritingEngine;
  random: Random;
  snapshotCount: number;
}

/** What was on the disk when the power went, and what had been promised by then. */
interface Cut {
  snapshot: Snapshot;
  claims: readonly Claim[];
}

const WRITER = fileURLToPath(new URL('power-writer.js', import.meta.url));
const SQLITE_CLIENT = fileURLToPath(new URL('../tools/sqlite-client.js', import.meta.url));
const CUT_WITHIN_MS = 1_000;
const ARCHIVE_FILES = 40;
const DOOMED_FILES = 200;
const MANY_ROWS = 1_000_000;
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

/** Unpacks again and again, and says so once all of it is synced. */
const UNTAR = `
for at in $(seq 10000); do
  mkdir "tree-$at"
  tar -xf "$ARCHIVE" -C "tree-$at"
  find "tree-$at" -exec sync {} +
  sync .
  echo "{\\"kind\\":\\"tree\\",\\"path\\":\\"tree-$at\\"}"
done`;

/** Commits again and again. git syncs what it writes, if it is told to, but not the folders. */
const COMMIT = `
cd repo
git config core.fsync all
git config core.fsyncMethod fsync
for at in $(seq 10000); do
  echo "$at" >> file
  echo "$at" > "file-$at"
  git add -A
  git commit -q -m "$at"
  find .git -type d -exec sync {} +
  echo "{\\"kind\\":\\"commit\\",\\"path\\":\\"repo\\",\\"hash\\":\\"$(git rev-parse HEAD)\\"}"
done`;

/**
 * Cuts the power at random moments while programs write in a fork and note what the kernel promised them; then brings back
 * each of these moments: the fork opens, all that was promised is there, and it can be saved.
 *
 * @returns how many promises were looked at
 */
export async function cutPower(kind: DiskKind, options: PowerOptions): Promise<number> {
  await using world = await PowerWorld.create(kind);
  const cuts = await world.writeAndCut(options);
  for (const cut of cuts) await world.assertKept(cut);
  return cuts.reduce((sum, { claims }) => sum + claims.length, 0);
}

class PowerWorld {
  readonly #sandbox = new Sandbox();
  readonly #dir = this.#sandbox.path('work');
  readonly #kind: DiskKind;
  readonly #disk: PowerDisk;

  private constructor(kind: DiskKind) {
    this.#kind = kind;
    this.#disk = kind.make(this.#sandbox);
  }

  static async create(kind: DiskKind): Promise<PowerWorld> {
    const world = new PowerWorld(kind);
    try {
      await world.#prepare();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #prepare(): Promise<void> {
    const { workspace } = this.#sandbox;
    const doomed = Array.from({ length: DOOMED_FILES }, (_, at) => [`saved/doomed-${at}`, `${at}\n`] as const);
    writeFiles(workspace, {
      ...Object.fromEntries(doomed),
      'saved/replaced-0': contentOf('saved/replaced-0', 0),
      'repo/file': 'first\n',
    });
    mkdirSync(path.join(workspace, 'untar'));
    this.#run('git', ['init', '-q'], path.join(workspace, 'repo'));
    writeFileSync(path.join(workspace, 'saved/log'), '');
    makeManyFiles(this.#archived, { fileCount: ARCHIVE_FILES });
    this.#run('tar', ['-cf', this.#archive, '-C', this.#archived, '.'], '/');
    (await this.#sandbox.bento(['init', '--store', path.join(this.#disk.dir, 'store')])).ok();
    writeFileSync(path.join(workspace, '.bentoignore'), '');
    (await this.#sandbox.bento(['save'])).ok();
  }

  get #archived(): string {
    return this.#sandbox.path('archived');
  }

  get #archive(): string {
    return this.#sandbox.path('archive.tar');
  }

  async writeAndCut({ engine, random, snapshotCount }: PowerOptions): Promise<Cut[]> {
    await forkWith(this.#sandbox, engine, { target: this.#dir });
    const claims: Claim[] = [];
    const writers = this.#startWriters(claims);
    const cuts: Cut[] = [];
    try {
      for (let at = 0; at < snapshotCount; at += 1) {
        const before = claims.length;
        await sleep(random.below(CUT_WITHIN_MS));
        while (claims.length === before) await sleep(10); // a cut before anything was promised tells nothing
        const promised = [...claims];
        cuts.push({ snapshot: this.#disk.snapshot(), claims: promised });
        for (const { exitCode, spawnargs } of writers) assert.equal(exitCode, null, `${spawnargs.join(' ')} ended`);
      }
    } finally {
      await end(writers);
    }
    await this.#powerOff();
    return cuts;
  }

  #startWriters(claims: Claim[]): ChildProcess[] {
    const start = (folder: string, program: string, args: readonly string[]): ChildProcess => {
      const cwd = path.join(this.#dir, folder);
      const child = spawn(program, args, { cwd, env: this.#env, stdio: ['ignore', 'pipe', 'inherit'], detached: true });
      createInterface(child.stdout).on('line', (line) => claims.push(claimOf(line)));
      return child;
    };
    const writers = [start('.', process.execPath, [WRITER]), start('untar', 'sh', ['-euc', UNTAR])];
    if (!this.#kind.isOneMoment) return writers; // the files of a database or a repository are nothing one by one
    writers.push(start('.', 'sh', ['-euc', COMMIT]));
    for (const name of ['writer-1', 'writer-2'])
      writers.push(start('.', process.execPath, [SQLITE_CLIENT, 'write', 'data.db', name, String(MANY_ROWS)]));
    return writers;
  }

  get #env(): Record<string, string> {
    return { ...this.#sandbox.env, ...GIT_ENV, ARCHIVE: this.#archive, LC_ALL: 'C' };
  }

  /** Nothing uses the disk any more. */
  async #powerOff(): Promise<void> {
    (await this.#bento('unmount', '--all', '--force')).ok();
    for (let tries = 0; tries < 500 && this.#sandbox.processes().length > 0; tries += 1) await sleep(20);
    assert.deepEqual(this.#sandbox.processes(), [], 'the daemon ended');
  }

  /** What was promised before the power went is there after it is back, and the fork can be worked with. */
  async assertKept({ snapshot, claims }: Cut): Promise<void> {
    this.#disk.bringBack(snapshot);
    (await this.#bento('mounts', '--restore')).ok();
    for (const claim of claims) assertFileClaim(this.#dir, claim);
    for (const { path: tree } of claims.filter(({ kind }) => kind === 'tree')) {
      const differences = compareByWalk(this.#archived, path.join(this.#dir, 'untar', tree), { ignore: ['.'] });
      assert.deepEqual(differences.slice(0, 10), [], `${tree} was unpacked and synced`);
    }
    this.#assertCommits(claims);
    this.#assertRows(claims);
    await this.#assertUsable();
    await this.#powerOff();
  }

  #assertCommits(claims: readonly Claim[]): void {
    const commit = claims.findLast((claim) => claim.kind === 'commit');
    if (commit === undefined) return;
    const repository = path.join(this.#dir, 'repo');
    rmSync(path.join(repository, '.git/index.lock'), { force: true }); // as git tells people to
    this.#run('git', ['fsck', '--full', '--strict', '--no-dangling'], repository);
    this.#run('git', ['merge-base', '--is-ancestor', commit.hash, 'HEAD'], repository);
  }

  #assertRows(claims: readonly Claim[]): void {
    const rows = claims.flatMap((claim) => (claim.kind === 'rows' ? [claim.rowCount] : []));
    if (rows.length === 0) return;
    const found = this.#run(process.execPath, [SQLITE_CLIENT, 'check', 'data.db'], this.#dir);
    const writers = JSON.parse(found) as { name: string; count: number }[];
    const most = Math.max(...writers.map(({ count }) => count));
    assert.ok(most >= Math.max(...rows), `${found} instead of ${Math.max(...rows)} rows`);
  }

  async #assertUsable(): Promise<void> {
    const opened = this.#sandbox.path('opened');
    (await this.#bento('save', '--dir', this.#dir)).ok();
    (await this.#bento('open', '--copy', 'head', opened, '--dir', this.#dir)).ok();
    assert.deepEqual(compareByWalk(this.#dir, opened, { ignore: OWN_FILES }).slice(0, 10), []);
    rmSync(opened, { recursive: true });
    writeFileSync(path.join(this.#dir, 'after'), lineOf('after', 1));
    assert.ok(readdirSync(this.#dir).includes('after'));
    (await this.#bento('verify', '--quick')).ok();
  }

  async #bento(...args: string[]): ReturnType<Sandbox['bento']> {
    return await this.#sandbox.bento(args);
  }

  /** @returns what it prints @throws Error when it fails */
  #run(program: string, args: readonly string[], cwd: string): string {
    return execFileSync(program, args, { cwd, env: this.#env, encoding: 'utf8' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sandbox.dispose();
  }
}

/** SQLite's clients say it in words. */
function claimOf(line: string): Claim {
  const rowCount = /^committed (\d+)$/.exec(line)?.[1];
  if (rowCount !== undefined) return { kind: 'rows', path: 'data.db', rowCount: Number(rowCount) };
  return JSON.parse(line) as Claim;
}

/** Ends processes with all that they started. */
async function end(writers: readonly ChildProcess[]): Promise<void> {
  const running = writers.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  const ended = running.map(async (writer) => {
    await once(writer, 'close');
  });
  for (const { pid } of running) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  await Promise.all(ended);
}
