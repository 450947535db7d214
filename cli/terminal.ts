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
}

const REDRAW_MS = 100;
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

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  update(event: ProgressEvent, nowMs = performance.now()): void {
    if (!this.#stream.isTTY || nowMs - this.#drawnAtMs < REDRAW_MS) return;
    this.#drawnAtMs = nowMs;
    this.#isShown = true;
    this.#stream.write(CLEAR_LINE + formatProgress(event).slice(0, this.#stream.columns - 1));
  }

  /** Before anything else is printed. */
  clear(): void {
    if (!this.#isShown) return;
    this.#isShown = false;
    this.#drawnAtMs = -Infinity;
    this.#stream.write(CLEAR_LINE);
  }
}

/** `Packing deps: 120/3000` or `Fetching: 1.5MB/12.0MB`. */
export function formatProgress({ label, done, total, unit }: ProgressEvent): string {
  const show = (amount: number) => (unit === 'bytes' ? formatSize(amount) : String(amount));
  if (done === undefined) return oneLine(`${label}...`);
  return oneLine(`${label}: ${show(done)}${total === undefined ? '' : `/${show(total)}`}`);
}
