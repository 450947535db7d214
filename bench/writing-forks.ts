import { randomBytes } from 'node:crypto';
import { appendFileSync, closeSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { performance } from 'node:perf_hooks';

import { forkCheckpoint, removeFork } from '../fs/mounts/fork.ts';
import { MountTable } from '../fs/mounts/mount-table.ts';
import { newWorkspaceFiles } from '../fs/workspace/new-workspace.ts';
import { openTree, treeSource } from '../fs/tree/index-checkpoint.ts';
import { IndexDatabase } from '../index/database.ts';
import type { Digest } from '../store/digest.ts';
import { Store } from '../store/store.ts';
import { digestOfRef, workspaceId } from '../test/fixtures/command-checks.ts';
import type { WritingEngine } from '../test/fixtures/fork-engines.ts';
import { makeManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { run, timingOf, type Timing } from './measure.ts';
import { sizeOfProcesses } from './process-size.ts';
import type { WritingSize } from './writing-size.ts';

/** What many forks take together. */
export interface ForksCost {
  timing: Timing;
  /** Of the store, for each fork. */
  diskBytesEach: number;
  memoryBytes: number;
  processCount: number;
}

const MIB = 1 << 20;
const CHANGED_BYTES = 4096;

/** A saved tree in a store and with a daemon of its own. */
export class ForkSubject implements AsyncDisposable {
  readonly sandbox = new Sandbox();
  readonly fileCount: number;

  constructor(fileCount: number) {
    this.fileCount = fileCount;
    makeManyFiles(this.sandbox.workspace, { fileCount });
    this.bento('init');
    this.bento('save');
    this.bento('mount', 'cp-1', this.sandbox.makeFolder('keeps-the-daemon'));
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.sandbox.workspace, env: this.sandbox.env });
  }

  /** Blocks of the store on the disk; what is mounted in it does not count. */
  storeBytes(): number {
    run('sync', []);
    return Number(run('du', ['-sxB1', this.sandbox.storePath]).split('\t')[0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}

/** How long the functions take that the command calls, with a daemon that runs; one turn for each subject, again and again. */
export async function timeForks(
  subjects: readonly ForkSubject[],
  { engine, rounds }: { engine: WritingEngine; rounds: number },
): Promise<Timing[]> {
  const samples = subjects.map(() => [] as number[]);
  for (let round = -1; round < rounds * 4; round += 1) {
    for (const [at, subject] of subjects.entries()) {
      const sampleMs = await timeFork(subject, engine);
      if (round >= 0) samples[at]?.push(sampleMs); // the first one loads and compiles
    }
  }
  return samples.map((all) => timingOf(all));
}

async function timeFork({ sandbox }: ForkSubject, engine: WritingEngine): Promise<number> {
  process.env['XDG_RUNTIME_DIR'] = sandbox.runtimeDir; // by it the daemon is found
  const store = new Store(sandbox.storePath);
  const id = workspaceId(sandbox);
  const manifest = (await digestOfRef(sandbox, 'cp-1')) as Digest;
  const target = sandbox.path('fork');
  const started = performance.now();
  const checkpoint = await store.loadCheckpoint(manifest);
  const files = newWorkspaceFiles(checkpoint, { workspaceId: id, storeRoot: store.root, head: manifest });
  const request = { manifest, head: manifest, ref: 'cp-1', workspaceId: id, files, engine };
  let index: IndexDatabase | undefined;
  const openIndexed = async (): ReturnType<typeof openTree> => {
    index = await IndexDatabase.open(store.cacheDir);
    return await openTree(treeSource(store, index), checkpoint);
  };
  await forkCheckpoint(store, [target], request, { openTree: openIndexed });
  const elapsedMs = performance.now() - started;
  index?.close();
  const made = await new MountTable(store).at(target);
  if (made?.mounted !== true || made.engine !== engine) throw new Error(`${target} is no fork of ${engine}`);
  await removeFork(store, made, false);
  return elapsedMs;
}

/** Forks of one checkpoint, made by one command, and looked at. */
export function manyForks(
  subject: ForkSubject,
  { engine, rounds, size }: { engine: WritingEngine; rounds: number; size: WritingSize },
): ForksCost {
  const targets = Array.from({ length: size.forkCount }, (_, at) => subject.sandbox.path(`fork-${at}`));
  const samples: number[] = [];
  const costs: Omit<ForksCost, 'timing'>[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const beforeBytes = subject.storeBytes();
    const started = performance.now();
    subject.bento('fork', 'cp-1', ...targets, '--engine', engine);
    samples.push(performance.now() - started);
    for (const target of targets) run('ls', ['-lR', path.join(target, 'node_modules', 'package-0000')]);
    const { pssBytes, processCount } = sizeOfProcesses(subject.sandbox.processes());
    const diskBytesEach = (subject.storeBytes() - beforeBytes) / targets.length;
    costs.push({ diskBytesEach, memoryBytes: pssBytes, processCount });
    for (const target of targets) subject.bento('close', target, '--discard');
  }
  const most = (values: number[]): number => Math.max(...values);
  return {
    timing: timingOf(samples),
    diskBytesEach: most(costs.map((cost) => cost.diskBytesEach)),
    memoryBytes: most(costs.map((cost) => cost.memoryBytes)),
    processCount: most(costs.map((cost) => cost.processCount)),
  };
}

/** What a store grows by when 4 KiB of a large file of random bytes are changed in a fork, and when that is saved. */
export async function growthOfSmallChange(
  engine: WritingEngine,
  { changedMib }: WritingSize,
): Promise<{ byWritingBytes: number; bySavingBytes: number }> {
  await using subject = new ForkSubject(1);
  const file = path.join(subject.sandbox.workspace, 'random.bin');
  const fd = openSync(file, 'w');
  for (let at = 0; at < changedMib; at += 1) writeSync(fd, randomBytes(MIB));
  closeSync(fd);
  subject.bento('save');
  const fork = subject.sandbox.path('fork');
  subject.bento('fork', 'latest', fork, '--engine', engine);
  const beforeBytes = subject.storeBytes();
  const changed = openSync(path.join(fork, 'random.bin'), 'r+');
  writeSync(changed, randomBytes(CHANGED_BYTES), 0, CHANGED_BYTES, Math.floor(changedMib / 2) * MIB + 12_345);
  closeSync(changed);
  const writtenBytes = subject.storeBytes();
  subject.bento('save', '--dir', fork);
  return { byWritingBytes: writtenBytes - beforeBytes, bySavingBytes: subject.storeBytes() - writtenBytes };
}

/** Opening another checkpoint in a fork, and going back, with unsaved work in it. */
export async function timeOpening(
  engine: WritingEngine,
  { rounds, size }: { rounds: number; size: WritingSize },
): Promise<{ open: Timing; undo: Timing }> {
  await using subject = new ForkSubject(size.openFiles);
  const { workspace } = subject.sandbox;
  appendFileSync(path.join(workspace, 'main.js'), '// second\n');
  rmSync(path.join(workspace, 'node_modules/package-0001'), { recursive: true });
  subject.bento('save');
  const fork = subject.sandbox.path('fork');
  subject.bento('fork', 'cp-2', fork, '--engine', engine);
  const samples = { open: [] as number[], undo: [] as number[] };
  for (let round = 0; round <= rounds; round += 1) {
    writeFileSync(path.join(fork, 'unsaved'), `${round}\n`);
    for (const step of ['open', 'undo'] as const) {
      const started = performance.now();
      subject.bento('open', step === 'open' ? 'cp-1' : 'undo', '--dir', fork);
      if (round > 0) samples[step].push(performance.now() - started);
    }
  }
  return { open: timingOf(samples.open), undo: timingOf(samples.undo) };
}
