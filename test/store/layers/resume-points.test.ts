import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { inflateSpanSync, spanBuffer } from '../../../store/layers/inflate-span.ts';
import { gunzip } from '../../../store/layers/layer-reader.ts';
import { FOOTER, ResumePoints, resumePath, ROW, tableCrc } from '../../../store/layers/resume-points.ts';
import { ResumeRecorder } from '../../../store/layers/resume-recorder.ts';
import { Random } from '../../fixtures/random.ts';
import { inPieces, noise, tempDir } from './layer-fixtures.ts';

const MIB = 1 << 20;
/** Text, noise, a run, and text again: 5.6 MiB in three members. */
const TEXT = Buffer.alloc(1_700_000, noise(3000));
const PARTS = [
  TEXT,
  Buffer.concat([noise(1_500_000, 2), Buffer.alloc(900_000)]),
  Buffer.concat([TEXT, noise(70_000, 3)]),
];
const RAW = Buffer.concat(PARTS);
const BLOB = Buffer.concat(PARTS.map((part, at) => gzipSync(part, { level: [6, 1, 9][at] ?? 6 })));
const DIGEST = digestOf(BLOB);

async function record(path: string, blob = BLOB, pieceBytes = 64_000): Promise<void> {
  using recorder = ResumeRecorder.create(path, DIGEST);
  for await (const bytes of gunzip(recorder.through(inPieces(blob, pieceBytes)))) recorder.take(bytes);
  recorder.finish();
}

function recordAtOnce(path: string, blob = BLOB): void {
  using recorder = ResumeRecorder.create(path, DIGEST);
  recorder.goOver({ sizeBytes: blob.length, read: (offset, into) => void blob.copy(into, 0, offset) });
  recorder.finish();
}

async function recorded(t: ExecutionContext): Promise<{ path: string; points: ResumePoints }> {
  const path = resumePath(await tempDir(t), DIGEST);
  await record(path);
  const points = ResumePoints.load(path, DIGEST);
  if (points === undefined) throw new Error('cannot be loaded');
  return { path, points };
}

/** How much of the blob has to be read for a stretch of the tar. */
function neededBytes(points: ResumePoints, offset: number, length: number): number {
  const spans = [...points.spans(offset, length)];
  const [first, last] = [spans[0], spans.at(-1)];
  return first === undefined || last === undefined ? 0 : last.blobOffset + last.blobBytes - first.blobOffset;
}

/** A stretch of the tar, from nothing but points and the bytes of the blob that they ask for. */
function read(points: ResumePoints, offset: number, length: number, blob = BLOB): Buffer {
  const spans = [...points.spans(offset, length)];
  const end = (spans[0]?.blobOffset ?? 0) + neededBytes(points, offset, length);
  const parts = spans.map((span) => {
    if (span.blobOffset < (spans[0]?.blobOffset ?? 0) || span.blobOffset + span.blobBytes > end) {
      throw new Error('more than lies between the first and the last span');
    }
    const start = points.start(span) ?? raise('a damaged record');
    const { buffer, room } = spanBuffer(start, span.blobBytes);
    blob.copy(buffer, room, span.blobOffset, span.blobOffset + span.blobBytes);
    const inflated = inflateSpanSync(start, buffer);
    return inflated.subarray(Math.max(offset - span.tarOffset, 0), Math.max(offset + length - span.tarOffset, 0));
  });
  return Buffer.concat(parts);
}

function raise(what: string): never {
  throw new Error(what);
}

test('ResumeRecorder notes from where any stretch of a layer can be inflated, and little of the blob is needed for it', async (t) => {
  const { path, points } = await recorded(t);
  t.is(points.tarBytes, RAW.length);
  t.is(points.count, 6);
  t.true(points.isWhole());
  const random = new Random(5);
  for (let round = 0; round < 60; round += 1) {
    const offset = random.below(RAW.length);
    const length = Math.min(random.below(round % 2 === 0 ? 5000 : 3 * MIB), RAW.length - offset);
    t.true(
      read(points, offset, length).equals(RAW.subarray(offset, offset + length)),
      `${length} bytes from ${offset}`,
    );
  }
  t.true(neededBytes(points, 100, 4096) < BLOB.length / 8);
  t.true(read(points, RAW.length - 3, 3).equals(RAW.subarray(-3)));
  t.is(neededBytes(points, RAW.length, 0), 0);
  t.throws(() => [...points.spans(RAW.length - 3, 4)], { code: 'FORMAT_INVALID' });
  t.true(readFileSync(path).length < RAW.length / 40);
});

test('ResumeRecorder writes the same whatever the pieces are, and needs nothing behind the last member', async (t) => {
  const { path, points } = await recorded(t);
  const expected = readFileSync(path);
  for (const pieceBytes of [150, 3000, 1 << 20]) {
    await record(path, BLOB, pieceBytes);
    t.true(readFileSync(path).equals(expected), `pieces of ${pieceBytes}`);
  }
  rmSync(path);
  recordAtOnce(path);
  t.true(readFileSync(path).equals(expected), 'without a stream');
  await record(path, Buffer.concat([BLOB, Buffer.alloc(3 * MIB)]));
  t.true(readFileSync(path).equals(expected), 'zeros behind it');
  t.is(points.spanAt(RAW.length + 5).at, points.count - 1);
});

test('ResumeRecorder leaves nothing behind when the layer is cut off, damaged or no gzip stream', async (t) => {
  const path = resumePath(await tempDir(t), DIGEST);
  const damaged = Buffer.from(BLOB);
  damaged.fill(0x55, 200_000, 200_100);
  for (const blob of [BLOB.subarray(0, -1), BLOB.subarray(0, 100_000), damaged, Buffer.from('no gzip'), TEXT]) {
    await t.throwsAsync(record(path, blob), { instanceOf: BentoError, code: 'FORMAT_INVALID' });
    const error = t.throws(() => recordAtOnce(path, blob), { instanceOf: BentoError });
    t.is(error.code, blob === damaged ? 'DIGEST_MISMATCH' : 'FORMAT_INVALID');
    t.deepEqual(readdirSync(dirname(path)), []);
  }
});

test('ResumePoints.load() and start() notice every damaged byte, and points of another layer', async (t) => {
  const { path, points } = await recorded(t);
  const bytes = readFileSync(path);
  t.is(ResumePoints.load(path, digestOf('another')), undefined);
  const isUsable = (changed: Buffer): boolean => {
    writeFileSync(path, changed);
    return ResumePoints.load(path, DIGEST)?.isWhole() === true;
  };
  t.true(isUsable(bytes));
  const random = new Random(8);
  const places = Array.from({ length: 150 }, () => random.below(bytes.length));
  const behindRecords = bytes.length - FOOTER.bytes - points.count * ROW.bytes;
  for (let at = behindRecords; at < bytes.length; at += 1) places.push(at);
  for (const at of places) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ (1 << random.below(8));
    t.false(isUsable(changed), `byte ${at} of ${bytes.length}`);
  }
  for (let round = 0; round < 30; round += 1) t.false(isUsable(bytes.subarray(0, random.below(bytes.length))));
  rmSync(path);
  t.is(ResumePoints.load(path, DIGEST), undefined);
  const [span] = points.spans(2 * MIB, 1);
  t.is(span && points.start(span), undefined, 'gone while it is in use');
});

test('ResumePoints.load() takes no table that is sealed and cannot be true', async (t) => {
  const { path, points } = await recorded(t);
  const bytes = readFileSync(path);
  const tableAt = bytes.length - FOOTER.bytes - points.count * ROW.bytes;
  const rowAt = (row: number): number => tableAt + row * ROW.bytes;
  const huge = 2n ** 63n - 1n;
  const lies: Record<string, (changed: Buffer) => void> = {
    'spans that overlap': (changed) => changed.writeBigUInt64LE(huge, rowAt(1) + ROW.tarOffset),
    'a first span not at the start': (changed) => changed.writeBigUInt64LE(1n, rowAt(0) + ROW.tarOffset),
    'a span that is too long': (changed) =>
      changed.writeBigUInt64LE(huge, bytes.length - FOOTER.bytes + FOOTER.tarBytes),
    'too much of the blob': (changed) =>
      changed.writeBigUInt64LE(huge, bytes.length - FOOTER.bytes + FOOTER.streamBytes),
    'a blob that goes back': (changed) => changed.writeBigUInt64LE(huge, rowAt(2) + ROW.blobOffset),
    'a record that is too long': (changed) => changed.writeUInt32LE(0xffffffff, rowAt(3) + ROW.storedWindowBytes),
  };
  for (const [what, lie] of Object.entries(lies)) {
    const changed = Buffer.from(bytes);
    lie(changed);
    const [table, footer] = [changed.subarray(tableAt, -FOOTER.bytes), changed.subarray(-FOOTER.bytes)];
    footer.writeUInt32LE(tableCrc(table, footer), FOOTER.crc);
    writeFileSync(path, changed);
    t.is(ResumePoints.load(path, DIGEST), undefined, what);
  }
  writeFileSync(join(dirname(path), 'empty'), '');
  t.is(ResumePoints.load(join(dirname(path), 'empty'), DIGEST), undefined);
});
