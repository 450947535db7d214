import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';

import { readManifest } from '../test/fixtures/command-checks.ts';
import { findTool } from '../test/fixtures/machine.ts';
import { makeManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { dropCaches, formatBytes, formatMs, measure, run, type Arm, type Goal, type Report } from './measure.ts';
import { git } from './reading-tree.ts';
import { shell } from './reading-subject.ts';
import type { RegistryLineData, RegistryLineMessage } from './registry-line.ts';
import type { BenchOptions } from './run.ts';

/** Each way, so that a request takes 20 ms; 100 Mbit/s. */
const DELAY_MS = 10;
const BYTES_PER_SEC = 12_500_000;
const SOURCE_FILES = 2000;
const LARGE_BYTES = 60e6;
const LARGE_DIR = 'node_modules/large';
const WHOLE_BYTES = 300e6;

const LS_MS_MAX = 1500;
const PART_MAX = 0.1;
const TIMES_MIN = 5;
const PUSH_BYTES_MAX = 128 << 10;

/** A checkpoint at a registry behind a slow line: how long until one can work in it, and what goes over the line. */
export async function registry({ fileCounts, rounds }: BenchOptions): Promise<Report> {
  await using subject = await RegistrySubject.create(fileCounts[1]);
  const timings = measure(armsOf(subject), rounds);
  const medianOf = (name: string): number => timings[name]?.medianMs ?? NaN;
  const part = partRead(subject);
  const quiet = afterBackground(subject);
  const pushed = pushedBytes(subject);
  const times = medianOf(PULLED) / medianOf(WORKED);
  const goals: Goal[] = [
    under('mount and ls of the root', medianOf(LISTED), LS_MS_MAX, (ms) => `${ms.toFixed(0)} ms`),
    under('git status and ten files: part of the bytes', part, PART_MAX, (one) => `${(one * 100).toFixed(1)} %`),
    {
      what: 'the same work after fetching and extracting all of it, times as long',
      goal: `at least ${TIMES_MIN}`,
      measured: times.toFixed(1),
      met: times >= TIMES_MIN,
    },
    under('requests after the background fetch', quiet, 0, String),
    under('a save with one changed file: bytes sent', pushed.first, PUSH_BYTES_MAX, formatBytes),
    under('pushed again: blobs sent', pushed.again, 0, String),
  ];
  return {
    name: 'registry',
    about: subject.about,
    columns: ['What', 'Median', 'Fastest', 'Times the first result of a mount'],
    rows: Object.entries(timings).map(([what, timing]) => [
      what,
      formatMs(timing),
      formatMs({ ...timing, medianMs: timing.minMs }),
      (timing.medianMs / medianOf(WORKED)).toFixed(2),
    ]),
    goals,
    timings,
  };
}

const LISTED = 'bento mount --lazy=only, ls';
const WORKED = 'bento mount --lazy=only, git status, ten files';
const FORKED = 'bento open (a fork), git status, ten files';
const PULLED = 'bento open --copy, git status, ten files';
const UNPACKED = 'skopeo copy, umoci unpack, git status, ten files';

function armsOf(subject: RegistrySubject): Record<string, Arm> {
  const fresh = { prepare: () => subject.begin(), cleanUp: () => subject.end() };
  const { ref } = subject;
  return {
    [LISTED]: {
      ...fresh,
      run: () => {
        subject.bento('mount', ref, subject.target, '--lazy=only');
        shell('ls', subject.target);
      },
    },
    [WORKED]: {
      ...fresh,
      run: () => {
        subject.bento('mount', ref, subject.target, '--lazy=only');
        subject.work(subject.target);
      },
    },
    [FORKED]: {
      ...fresh,
      run: () => {
        subject.bento('open', ref, subject.target);
        subject.work(subject.target);
      },
    },
    [PULLED]: {
      ...fresh,
      run: () => {
        subject.bento('open', ref, subject.target, '--copy');
        subject.work(subject.target);
      },
    },
    ...(findTool('skopeo') !== undefined &&
      findTool('umoci') !== undefined && {
        [UNPACKED]: {
          ...fresh,
          run: () => subject.work(path.join(subject.unpack(), 'rootfs')),
        },
      }),
  };
}

/** Of all bytes of the layers: what mounting, `git status` and ten files cost. */
function partRead(subject: RegistrySubject): number {
  subject.begin();
  const before = subject.downBytes();
  subject.bento('mount', subject.ref, subject.target, '--lazy=only');
  subject.work(subject.target);
  const part = (subject.downBytes() - before) / subject.layerBytes;
  subject.end();
  return part;
}

/** @returns bytes that were sent to the registry, requests that is, by work after everything was fetched */
function afterBackground(subject: RegistrySubject): number {
  subject.begin();
  subject.bento('mount', subject.ref, subject.target);
  while (subject.isFetching()) run('sleep', ['0.2']);
  const before = subject.upBytes();
  shell('cat -- $(find . -type f) | wc -c', subject.target);
  const after = subject.upBytes() - before;
  subject.end();
  return after;
}

/** @returns bytes sent by pushing a save with one changed file; whether pushing again sends a blob */
function pushedBytes(subject: RegistrySubject): { first: number; again: number } {
  appendFileSync(path.join(subject.here.workspace, 'src/f1.js'), '// changed\n');
  run(process.execPath, [CLI_PATH, 'save'], { cwd: subject.here.workspace, env: subject.here.env });
  const push = (): { bytes: number; text: string } => {
    const before = subject.upBytes();
    const text = run(process.execPath, [CLI_PATH, 'push', subject.remote], {
      cwd: subject.here.workspace,
      env: subject.here.env,
    });
    return { bytes: subject.upBytes() - before, text };
  };
  const { bytes: first } = push();
  const again = /^\s*(\d+) blob\(s\) sent/m.exec(push().text); // it is not said when no tag moved
  return { first, again: Number(again?.[1] ?? 0) };
}

/** The checkpoint, the registry, the line to it, and a machine that has nothing yet. */
class RegistrySubject implements AsyncDisposable {
  readonly here = new Sandbox();
  #there: Sandbox | undefined;
  readonly #line: Worker;
  readonly #counts: Float64Array;
  readonly #host: string;
  readonly about: string;
  readonly layerBytes: number;

  private constructor(line: Worker, counts: Float64Array, hosts: RegistryLineMessage, fileCount: number) {
    this.#line = line;
    this.#counts = counts;
    this.#host = hosts.slow;
    const sizeBytes = this.#fill(fileCount);
    run(process.execPath, [CLI_PATH, 'init'], { cwd: this.here.workspace, env: this.here.env });
    const saved = this.#here('save', '--json');
    this.#here('push', `${hosts.direct}/me/ws`);
    const { digest } = JSON.parse(saved) as { digest: string };
    this.layerBytes = readManifest(this.here, digest).layers.reduce((sum, { size }) => sum + size, 0);
    this.about =
      `${fileCount} files of ${formatBytes(sizeBytes)} (${SOURCE_FILES} of them in a git repository, one large ` +
      `and random), ${formatBytes(this.layerBytes)} in layers, at Debian's docker-registry behind a line ` +
      `with ${DELAY_MS} ms each way and ${(BYTES_PER_SEC * 8) / 1e6} Mbit/s. Every sample begins with an empty store and ` +
      'without a daemon.';
  }

  static async create(fileCount: number): Promise<RegistrySubject> {
    const counts = new SharedArrayBuffer(3 * Float64Array.BYTES_PER_ELEMENT);
    const data: RegistryLineData = { delayMs: DELAY_MS, bytesPerSec: BYTES_PER_SEC, counts };
    const line = new Worker(new URL('./registry-line.js', import.meta.url), { workerData: data });
    const [hosts] = (await once(line, 'message')) as [RegistryLineMessage];
    return new RegistrySubject(line, new Float64Array(counts), hosts, fileCount);
  }

  get remote(): string {
    return `${this.#host}/me/ws`;
  }

  get ref(): string {
    return `${this.remote}:cp-1`;
  }

  get target(): string {
    return this.#sandbox.path('target');
  }

  /** Until the thread has counted what went by last. */
  #count(at: number): number {
    run('sleep', ['0.1']);
    return this.#counts[at] ?? NaN;
  }

  upBytes(): number {
    return this.#count(0);
  }

  downBytes(): number {
    return this.#count(1);
  }

  begin(): void {
    this.#there?.disposeNow();
    this.#there = new Sandbox();
    mkdirSync(this.target);
    dropCaches();
  }

  end(): void {
    run('sh', ['-c', `${process.execPath} ${CLI_PATH} unmount --all --force || true`], {
      cwd: '/',
      env: this.#sandbox.env,
    });
    this.#sandbox.disposeNow();
    this.#there = undefined;
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.#sandbox.workspace, env: this.#sandbox.env });
  }

  isFetching(): boolean {
    const dir = path.join(this.#sandbox.storePath, 'lazy', 'sha256');
    return existsSync(dir) && readdirSync(dir).some((name) => name.endsWith('.json'));
  }

  /** What somebody does first in a project. */
  work(dir: string): void {
    git(dir, 'status', '--short');
    const packages = readdirSync(path.join(dir, 'node_modules')).filter((name) => name !== path.basename(LARGE_DIR));
    packages.sort();
    for (let i = 0; i < 10; i += 1) {
      const chosen = path.join(dir, 'node_modules', packages[Math.floor((i * packages.length) / 10)] ?? '');
      const file = readdirSync(chosen, { recursive: true, withFileTypes: true }).find((entry) => entry.isFile());
      if (file !== undefined) run('cat', [path.join(file.parentPath, file.name)]);
    }
  }

  /** @returns the folder of the unpacked bundle */
  unpack(): string {
    const image = this.#sandbox.path('image');
    const bundle = this.#sandbox.path('bundle');
    run('skopeo', ['copy', '--quiet', '--src-tls-verify=false', `docker://${this.ref}`, `oci:${image}:cp-1`]);
    run('umoci', ['unpack', '--image', `${image}:cp-1`, bundle]);
    return bundle;
  }

  get #sandbox(): Sandbox {
    if (this.#there === undefined) throw new RangeError('nothing was begun');
    return this.#there;
  }

  #here(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.here.workspace, env: this.here.env });
  }

  /** @returns the size of all files */
  #fill(fileCount: number): number {
    const { workspace } = this.here;
    const made = makeManyFiles(workspace, { fileCount: fileCount - SOURCE_FILES - 1 });
    mkdirSync(path.join(workspace, 'src'));
    const source = makeManyFiles(path.join(workspace, '.source'), { fileCount: SOURCE_FILES, seed: 2 });
    shell(
      'find .source -type f | awk \'{ print; print "src/f" NR ".js" }\' | xargs -n2 mv && rm -r .source',
      workspace,
    );
    const rest = Math.max(WHOLE_BYTES - made.sizeBytes - source.sizeBytes, LARGE_BYTES);
    mkdirSync(path.join(workspace, LARGE_DIR));
    shell(`head -c ${rest} /dev/urandom > ${LARGE_DIR}/large.bin`, workspace);
    writeFileSync(path.join(workspace, '.gitignore'), 'node_modules\n');
    git(workspace, 'init', '-q');
    git(workspace, 'add', '-A');
    git(workspace, '-c', 'user.name=bench', '-c', 'user.email=bench@example.org', 'commit', '-qm', 'one');
    return made.sizeBytes + source.sizeBytes + rest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#there?.disposeNow();
    this.#line.postMessage('end');
    await once(this.#line, 'exit');
    await this.here.dispose();
    rmSync(this.here.root, { recursive: true, force: true });
  }
}

function under(what: string, value: number, limit: number, format: (value: number) => string): Goal {
  return { what, goal: `at most ${format(limit)}`, measured: format(value), met: value <= limit };
}
