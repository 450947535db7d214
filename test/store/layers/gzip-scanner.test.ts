import { constants, deflateRawSync, gunzipSync, gzipSync, type ZlibOptions } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { BentoError } from '../../../store/errors.ts';
import {
  GzipScanner,
  SPAN_BLOB_BYTES_MAX,
  SPAN_BYTES_MAX,
  type ResumeMark,
} from '../../../store/layers/gzip-scanner.ts';
import { inflateSpan, inflateSpanSync, spanBuffer, type SpanStart } from '../../../store/layers/inflate-span.ts';
import { Random } from '../../fixtures/random.ts';

interface Scanned {
  marks: ResumeMark[];
  tarBytes: number;
}

/** @param cut - how many bytes the next piece has */
function scan(stream: Buffer, spanBytes?: number, cut = (): number => 65_536): Scanned {
  const marks: ResumeMark[] = [];
  const scanner = new GzipScanner((mark) => marks.push(mark), spanBytes === undefined ? {} : { spanBytes });
  for (let at = 0; at < stream.length;) {
    const piece = stream.subarray(at, at + cut());
    at += piece.length;
    scanner.write(Buffer.from(piece));
  }
  scanner.end();
  return { marks, tarBytes: scanner.tarBytes };
}

/** The span behind a mark, as it would be read from a blob. */
function spanAt(stream: Buffer, raw: Buffer, { marks }: Scanned, at: number): { start: SpanStart; buffer: Buffer } {
  const [mark, next] = [marks[at], marks[at + 1]];
  if (mark === undefined) throw new RangeError(`no mark ${at}`);
  const { tarOffset, windowBytes, blobOffset, prefix } = mark;
  const end = next === undefined ? stream.length : next.blobOffset + Number(next.prefix.sharedBits > 0);
  const tarBytes = (next?.tarOffset ?? raw.length) - tarOffset;
  const start = { prefix, window: raw.subarray(tarOffset - windowBytes, tarOffset), tarBytes };
  const { buffer, room } = spanBuffer(start, end - blobOffset);
  stream.copy(buffer, room, blobOffset, end);
  return { start, buffer };
}

function assertResumable(t: ExecutionContext, stream: Buffer, raw: Buffer, scanned: Scanned, what: string): void {
  t.is(scanned.tarBytes, raw.length, what);
  t.is(scanned.marks[0]?.tarOffset, 0, what);
  for (const [at, { tarOffset }] of scanned.marks.entries()) {
    const { start, buffer } = spanAt(stream, raw, scanned, at);
    const expected = raw.subarray(tarOffset, tarOffset + start.tarBytes);
    t.true(inflateSpanSync(start, buffer).equals(expected), `${what}, mark ${at} of ${scanned.marks.length}`);
  }
}

/** Bytes as files have them: words, runs, noise and copies from far back. */
function content(random: Random, sizeBytes: number): Buffer {
  const words = Array.from({ length: 200 }, () => random.bytes(1 + random.below(9)));
  const parts: Buffer[] = [];
  for (let length = 0; length < sizeBytes;) {
    const part = random.chance(0.96)
      ? Buffer.concat(Array.from({ length: 20 }, () => random.pick(words)))
      : random.chance(0.5)
        ? random.bytes(1 + random.below(3000))
        : Buffer.alloc(1 + random.below(20_000), random.below(256));
    parts.push(random.chance(0.05) ? random.pick(parts.length === 0 ? [part] : parts) : part);
    length += parts.at(-1)?.length ?? 0;
  }
  return Buffer.concat(parts).subarray(0, sizeBytes);
}

const STRATEGIES = [
  constants.Z_DEFAULT_STRATEGY,
  constants.Z_FILTERED,
  constants.Z_HUFFMAN_ONLY,
  constants.Z_RLE,
  constants.Z_FIXED,
];

function randomOptions(random: Random): ZlibOptions {
  return {
    level: random.below(10),
    strategy: random.pick(STRATEGIES),
    memLevel: 1 + random.below(9),
    windowBits: 9 + random.below(7),
  };
}

test('GzipScanner marks places from which what zlib packed can be inflated, whatever the level and strategy', (t) => {
  const random = new Random(20_261);
  const phases = new Set<number>();
  let midBlock = 0;
  for (let run = 0; run < 60; run += 1) {
    const parts = Array.from({ length: 1 + random.below(3) }, () => content(random, random.below(90_000)));
    const raw = Buffer.concat(parts);
    const options = parts.map(() => randomOptions(random));
    const stream = Buffer.concat(parts.map((part, at) => gzipSync(part, options[at])));
    const cut = random.chance(0.3) ? (): number => 1 + random.below(50) : (): number => 1 + random.below(70_000);
    const scanned = scan(stream, 500 + random.below(20_000), cut);
    assertResumable(t, stream, raw, scanned, `run ${run}: ${JSON.stringify(options)}`);
    for (const { prefix } of scanned.marks) {
      phases.add(prefix.sharedBits);
      midBlock += Number(prefix.bytes.length > 25);
    }
  }
  t.is(phases.size, 8, 'marks at every bit of a byte');
  t.true(midBlock > 25, 'and in the midst of blocks with codes of their own');
});

test('GzipScanner and zlib agree on which damaged streams can be read', (t) => {
  const random = new Random(7);
  const counts = { both: 0, neither: 0, zlib: 0 };
  for (let run = 0; run < 1500; run += 1) {
    const raw = content(random, random.below(3000));
    const stream = gzipSync(raw, randomOptions(random));
    const damaged = damage(random, stream);
    const [ours, theirs] = [orNothing(() => scan(damaged, 1000).tarBytes), orNothing(() => gunzipSync(damaged).length)];
    if (theirs !== undefined) t.is(ours, theirs, `run ${run}: ${damaged.toString('base64')}`);
    counts[theirs !== undefined ? 'both' : ours === undefined ? 'neither' : 'zlib'] += 1;
  }
  t.true(counts.both > 20 && counts.neither > 500, JSON.stringify(counts));
});

/** Flips bits, cuts the end off, or puts noise behind the header. */
function damage(random: Random, stream: Buffer): Buffer {
  const kind = random.pick(['flip', 'cut', 'noise', 'append'] as const);
  if (kind === 'cut') return stream.subarray(0, random.below(stream.length));
  if (kind === 'noise') return Buffer.concat([stream.subarray(0, 10), random.bytes(1 + random.below(400))]);
  if (kind === 'append')
    return Buffer.concat([stream, Buffer.alloc(random.below(3)), random.bytes(1 + random.below(9))]);
  const damaged = Buffer.from(stream);
  for (let flips = 1 + random.below(3); flips > 0; flips -= 1) {
    const at = random.below(damaged.length);
    damaged[at] = (damaged[at] ?? 0) ^ (1 << random.below(8));
  }
  return damaged;
}

/** @returns undefined for what is refused as everything malformed must be */
function orNothing<Result>(make: () => Result): Result | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof BentoError && error.code === 'FORMAT_INVALID') return undefined;
    if (String((error as NodeJS.ErrnoException).code).startsWith('Z_')) return undefined;
    throw error;
  }
}

test('GzipScanner goes over every field of a gzip header, and zeros behind the last member', (t) => {
  const raw = content(new Random(3), 20_000);
  const deflated = deflateRawSync(raw);
  const trailer = gzipSync(raw).subarray(-8);
  const fields = { 4: Buffer.from('03006162ff', 'hex'), 8: Buffer.from('name\0'), 16: Buffer.from('a comment\0') };
  for (let flags = 0; flags < 32; flags += 4) {
    const header = Buffer.from(`1f8b08${flags.toString(16).padStart(2, '0')}00000000000f`, 'hex');
    const present = Object.entries(fields).filter(([flag]) => (flags & Number(flag)) !== 0);
    const member = Buffer.concat([header, ...present.map(([, field]) => field), deflated, trailer]);
    const stream = Buffer.concat([member, member, Buffer.alloc(5000), Buffer.from('padding')]);
    t.deepEqual(gunzipSync(stream).length, raw.length * 2);
    for (const pieceBytes of [1, 7, 1 << 20]) {
      const scanned = scan(stream, 4000, () => pieceBytes);
      assertResumable(t, stream, Buffer.concat([raw, raw]), scanned, `flags ${flags}, pieces of ${pieceBytes}`);
    }
  }
  const endless = Buffer.concat([
    Buffer.from('1f8b0808000000000003', 'hex'),
    Buffer.alloc(70_000, 'n'),
    Buffer.alloc(1),
  ]);
  t.throws(() => scan(endless), { code: 'FORMAT_INVALID', message: /more than 65536 bytes/ });
});

test('GzipScanner keeps spans short in what no compressor would write', (t) => {
  const zeros = deflateRawSync(Buffer.alloc(64 << 20), { level: 9 });
  const empty = gzipSync('');
  const header = Buffer.from('1f8b080000000000000f', 'hex');
  const emptyBlocks = Buffer.concat([header, ...new Array<Buffer>(2_000_000).fill(Buffer.from('000000ffff', 'hex'))]);
  const streams = {
    bomb: Buffer.concat([header, zeros, gzipSync(Buffer.alloc(64 << 20)).subarray(-8)]),
    'empty members': Buffer.concat([...new Array<Buffer>(500_000).fill(empty), gzipSync('end')]),
    'empty blocks': Buffer.concat([emptyBlocks, deflateRawSync('end'), gzipSync('end').subarray(-8)]),
  };
  for (const [what, stream] of Object.entries(streams)) {
    const raw = gunzipSync(stream);
    const scanned = scan(stream);
    assertResumable(t, stream, raw, scanned, what);
    t.true(scanned.marks.length > 1, what);
    for (const at of scanned.marks.keys()) {
      const { start, buffer } = spanAt(stream, raw, scanned, at);
      t.true(start.tarBytes <= SPAN_BYTES_MAX && buffer.length <= SPAN_BLOB_BYTES_MAX, `${what}: span ${at}`);
    }
  }
});

test('inflateSpan() gives on a thread what inflateSpanSync() does, and both say when a blob is damaged', async (t) => {
  const random = new Random(11);
  const raw = content(random, 60_000);
  const stream = Buffer.concat([gzipSync(raw.subarray(0, 30_000)), gzipSync(raw.subarray(30_000))]);
  const scanned = scan(stream, 25_000);
  let refused = 0;
  for (const at of scanned.marks.keys()) {
    const { start, buffer } = spanAt(stream, raw, scanned, at);
    const whole = inflateSpanSync(start, Buffer.from(buffer));
    t.true((await inflateSpan(start, Buffer.from(buffer))).equals(whole));
    for (let run = 0; run < 50; run += 1) {
      const damaged = Buffer.from(buffer);
      damaged.fill(random.below(256), random.below(damaged.length), damaged.length);
      const ours = orNothing(() => inflateSpanSync(start, Buffer.from(damaged)));
      const theirs = await inflateSpan(start, Buffer.from(damaged)).catch((error: unknown) =>
        orNothing(() => raise(error)),
      );
      t.deepEqual(ours, theirs);
      if (ours === undefined || !ours.equals(whole)) refused += 1;
    }
  }
  t.true(refused > 20);
});

function raise(error: unknown): never {
  throw error;
}
