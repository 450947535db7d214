import type { ByteSpan } from '../lazy-file.ts';

/** Between two wanted spans so much is fetched along: a request costs more than these bytes. */
const GAP_BYTES_MAX = 64 << 10;
/** Readers wait for a request as a whole. */
const REQUEST_BYTES_MAX = 1 << 20;

const WINDOW_BYTES_MIN = 128 << 10;
const WINDOW_BYTES_MAX = REQUEST_BYTES_MAX;
const WINDOW_GROWTH = 4;
/** Who reads on for so long gets this much more, while it reads what it waited for. */
const AHEAD_BYTES = 3 << 20;
/** So far behind the last span another may begin and still be taken for reading on. */
const SKIP_BYTES_MAX = 256 << 10;
const STREAM_COUNT_MAX = 8;

/** The requests for what is wanted: neighbours in one, none larger than 1 MiB. */
export function planRequests(wanted: readonly ByteSpan[]): ByteSpan[] {
  const merged: ByteSpan[] = [];
  for (const { offset, end } of [...wanted].sort((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    if (last !== undefined && offset - last.end <= GAP_BYTES_MAX) last.end = Math.max(last.end, end);
    else merged.push({ offset, end });
  }
  return merged.flatMap((span) => piecesOf(span, REQUEST_BYTES_MAX));
}

/** Cuts a span into pieces of `sizeBytes`, the last one smaller. */
export function piecesOf({ offset, end }: ByteSpan, sizeBytes: number): ByteSpan[] {
  const pieces: ByteSpan[] = [];
  for (let at = offset; at < end; at += sizeBytes) pieces.push({ offset: at, end: Math.min(at + sizeBytes, end) });
  return pieces;
}

interface Stream {
  offset: number;
  end: number;
  windowBytes: number;
}

/**
 * Guesses from what was missing what will be read next. Files lie in a layer in the order of their paths, so who walks through
 * a directory reads a blob from front to back: each time that turns out true, four times as much is fetched, up to 1 MiB, and
 * from then on more while that is being read.
 */
export class ReadAhead {
  /** Readers that go from front to back, the last one first. */
  #streams: Stream[] = [];

  /**
   * @param span - missing, and somebody waits for it
   * @returns `now` what to fetch with it; `ahead` what to fetch after that, for which nobody waits
   */
  next({ offset, end }: ByteSpan): { now: ByteSpan; ahead: ByteSpan | undefined } {
    const known = this.#streams.find((stream) => offset >= stream.offset && offset <= stream.end + SKIP_BYTES_MAX);
    const grown = known === undefined ? WINDOW_BYTES_MIN : known.windowBytes * WINDOW_GROWTH;
    const windowBytes = Math.min(grown, WINDOW_BYTES_MAX);
    const now = { offset, end: Math.max(end, offset + windowBytes) };
    const ahead = windowBytes < WINDOW_BYTES_MAX ? undefined : { offset: now.end, end: now.end + AHEAD_BYTES };
    const others = this.#streams.filter((stream) => stream !== known);
    this.#streams = [{ offset, end: ahead?.end ?? now.end, windowBytes }, ...others].slice(0, STREAM_COUNT_MAX);
    return { now, ahead };
  }
}
