import type { WriteStream } from 'node:tty';
import pc from 'picocolors';

export type Colors = ReturnType<typeof pc.createColors>;

/** How far a long step is. `done` and `total` count items, or bytes with `unit: 'bytes'`. */
export interface ProgressEvent {
  /** What is being done, as in `Packing deps`. */
  label: string;
  done?: number;
  total?: number;
  unit?: 'items' | 'bytes';
  /** Shown beside them, such as the bytes behind a count of files. */
  remark?: string;
}

const REDRAW_MS = 100;
/** The time left is only guessed once this much has been seen of the step. */
const GUESS_MS_MIN = 1000;
/** Some terminals, as of containers and of `script`, say that they have no columns. */
const COLUMNS_UNKNOWN = 80;
const CLEAR_LINE = '\r\x1b[2K';
const SIZE_UNITS = ['KB', 'MB', 'GB'];

/** Colours for one stream: plain text unless it is a terminal that wants them. */
export function colorsFor(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): Colors {
  const isWanted = !env['NO_COLOR'] && env['TERM'] !== 'dumb';
  return pc.createColors(stream.isTTY === true && isWanted);
}

/** `900B`, `1.5KB`, `12.0MB`, `3.2GB`: powers of 1024, one decimal. */
export function formatSize(sizeBytes: number): string {
  if (sizeBytes < 1024) return `${sizeBytes}B`;
  let size = sizeBytes / 1024;
  let unit = 0;
  while (size >= 1024 && unit < SIZE_UNITS.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${size.toFixed(1)}${SIZE_UNITS[unit] ?? ''}`;
}

/** Text from outside (a file name, an answer of a registry) on one line and unable to steer the terminal. */
export function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- those are what it is about
  return text.replace(/\s*[\r\n]+\s*/g, ' ').replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd');
}

/** One line on stderr that is redrawn at most every 100 ms. Does nothing when stderr is not a terminal. */
export class ProgressLine {
  readonly #stream: WriteStream;
  #drawnAtMs = -Infinity;
  #isShown = false;
  /** The step being shown: when and where it began. */
  #step: { label: string; startMs: number; startDone: number } | undefined;

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  update(event: ProgressEvent, nowMs = performance.now()): void {
    if (!this.#stream.isTTY) return;
    if (this.#step?.label !== event.label) {
      this.#step = { label: event.label, startMs: nowMs, startDone: event.done ?? 0 };
    }
    if (nowMs - this.#drawnAtMs < REDRAW_MS) return;
    this.#drawnAtMs = nowMs;
    this.#isShown = true;
    const line = formatProgress(event, secondsLeft(event, this.#step, nowMs));
    const columns = this.#stream.columns > 0 ? this.#stream.columns : COLUMNS_UNKNOWN;
    this.#stream.write(CLEAR_LINE + line.slice(0, columns - 1));
  }

  /** Before anything else is printed. */
  clear(): void {
    if (!this.#isShown) return;
    this.#isShown = false;
    this.#drawnAtMs = -Infinity;
    this.#stream.write(CLEAR_LINE);
  }
}

/** As the step has gone so far; undefined while that says little. */
function secondsLeft(
  { done, total }: ProgressEvent,
  step: { startMs: number; startDone: number },
  nowMs: number,
): number | undefined {
  const passedMs = nowMs - step.startMs;
  const advanced = (done ?? 0) - step.startDone;
  if (done === undefined || total === undefined || passedMs < GUESS_MS_MIN || advanced <= 0) return undefined;
  return (passedMs / 1000) * ((total - done) / advanced);
}

/** `Packing deps: 120/3000 (1.5MB), 4 s left` or `Fetching: 1.5MB/12.0MB`. */
export function formatProgress({ label, done, total, unit, remark }: ProgressEvent, leftSec?: number): string {
  const show = (amount: number): string => (unit === 'bytes' ? formatSize(amount) : String(amount));
  if (done === undefined) return oneLine(`${label}...`);
  const beside = remark === undefined ? '' : ` (${remark})`;
  const left = leftSec === undefined ? '' : `, ${formatSeconds(leftSec)} left`;
  return oneLine(`${label}: ${show(done)}${total === undefined ? '' : `/${show(total)}`}${beside}${left}`);
}

/** `4 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
