import { randomBytes } from 'node:crypto';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { formatMs, measure, run, type Arm, type Report } from './measure.ts';
import type { BenchOptions } from './run.ts';

const FILE_BYTES = 50_000_000;
const CHANGED_BYTES = 4096;
/** Prime, so that each change is somewhere else, over the ends of chunks too. */
const STRIDE_BYTES = 7_654_321;
const ADDED_BYTES_MAX = 1_000_000;

/** What a change of 4 KiB in a file of 50 MB that does not compress costs, with recipes and without. */
export async function largeChange({ rounds }: BenchOptions): Promise<Report> {
  await using sandbox = new Sandbox();
  const thin = new LargeFile(sandbox, { name: 'thin', env: {} });
  const whole = new LargeFile(sandbox, { name: 'whole', env: { BENTO_THIN: 'off' } });
  const subjects = { 'bento save': thin, 'BENTO_THIN=off bento save': whole };
  const arms = Object.entries(subjects).map(([what, subject]) => [what, subject.arm()] as const);
  const timings = measure(Object.fromEntries(arms), rounds);
  const rows = Object.entries(subjects).flatMap(([what, { addedBytesMax }]) => {
    const timing = timings[what];
    return timing === undefined ? [] : [[what, formatMs(timing), formatMegabytes(addedBytesMax)]];
  });
  const goal = {
    what: '4 KiB changed in a file of 50 MB: added to the store, at most',
    goal: `under ${formatMegabytes(ADDED_BYTES_MAX)}`,
    measured: formatMegabytes(thin.addedBytesMax),
    met: thin.addedBytesMax < ADDED_BYTES_MAX,
  };
  const about = 'A file of 50 MB of random bytes, in which 4 KiB are written somewhere else before each save.';
  return { name: 'large-change', about, columns: ['What', 'Median', 'Added'], rows, goals: [goal], timings };
}

/** A workspace with one large file, and a store of its own. */
class LargeFile {
  readonly #dir: string;
  readonly #store: string;
  readonly #env: Record<string, string>;
  #changeCount = 0;
  #before = 0;
  addedBytesMax = 0;

  constructor(sandbox: Sandbox, { name, env }: { name: string; env: Record<string, string> }) {
    this.#dir = sandbox.makeFolder(name);
    this.#store = sandbox.path(`${name}-store`);
    this.#env = { ...sandbox.env, ...env };
    writeFileSync(path.join(this.#dir, 'large.bin'), randomBytes(FILE_BYTES));
    this.#bento('init', '--store', this.#store);
    this.#bento('save');
  }

  arm(): Arm {
    return {
      prepare: () => this.#change(),
      run: () => this.#bento('save'),
      cleanUp: () => (this.addedBytesMax = Math.max(this.addedBytesMax, this.#storeBytes() - this.#before)),
    };
  }

  #change(): void {
    this.#before = this.#storeBytes();
    const fd = openSync(path.join(this.#dir, 'large.bin'), 'r+');
    const at = (this.#changeCount++ * STRIDE_BYTES) % (FILE_BYTES - CHANGED_BYTES);
    writeSync(fd, randomBytes(CHANGED_BYTES), 0, CHANGED_BYTES, at);
    closeSync(fd);
  }

  #bento(...args: string[]): void {
    run(process.execPath, [CLI_PATH, ...args], { cwd: this.#dir, env: this.#env });
  }

  /** All of it, the index included. */
  #storeBytes(): number {
    return Number(run('du', ['-sb', this.#store]).split('\t')[0]);
  }
}

function formatMegabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(2)} MB`;
}
