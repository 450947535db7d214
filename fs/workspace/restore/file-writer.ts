import { closeSync, constants, fchmodSync, fchownSync, ftruncateSync, openSync } from 'node:fs';

import { toFsPath, toText } from '../../../store/byte-string.ts';
import type { Chunk } from '../../../store/entry.ts';
import { BentoError, describeSystemError } from '../../../store/errors.ts';
import { faultPoint } from '../../../store/fault-point.ts';
import { chunkOf, endOf, inflateStored, storedBytes, type ChunkPacking } from '../../../store/layers/layer-reader.ts';
import { futimens } from '../../../store/syscalls.ts';
import { BoundedCache } from '../../contents/bounded-cache.ts';
import { damagedLayer, openLayer, readExactly, type OpenLayer } from '../../contents/content-reader.ts';
import { ResumedLayers } from '../../contents/resumed-layers.ts';
import { applyAttributes, writeSparsely } from '../write-node.ts';
import type { FileBatch, FileJob, Refusal, WriteContext } from './file-job.ts';

/** Members this near one another are read in one go, up to so many bytes: one system call for dozens of files. */
const SPAN_GAP_BYTES_MAX = 64 << 10;
const SPAN_BYTES_MAX = 1 << 20;
/** A member of a 4 MiB chunk fits, whatever the chunk is. */
const READ_BYTES_MAX = (4 << 20) + (64 << 10);
/** Inflated spans of a foreign compressed layer: files come in the order of their bytes. */
const RESUMED_BYTES_MAX = 4 << 20;
const NEW_FILE = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW;
const OWN_BITS = 0o777;

/** Kept from batch to batch. */
interface ReadBuffer {
  bytes: Buffer;
}

/** A chunk and how much of its member is wanted for it and for those that follow in the same member. */
interface Want {
  job: FileJob;
  chunk: Chunk;
  endBytes: number;
}

/**
 * Writes files from the layers that hold their bytes, each member read and inflated once and each chunk verified, with as
 * few system calls as can be: open, write, set the time, close. Synchronous, to be run on threads of its own.
 */
export class FileWriter {
  readonly #context: WriteContext;
  #layer: OpenLayer | undefined;
  readonly #span: ReadBuffer = { bytes: Buffer.allocUnsafeSlow(SPAN_BYTES_MAX) };
  readonly #resumed = new ResumedLayers(
    new BoundedCache({ weightMax: RESUMED_BYTES_MAX, weigh: (bytes: Buffer) => bytes.length }),
  );

  constructor(context: WriteContext) {
    this.#context = context;
  }

  /**
   * @returns which attributes could not be set
   * @throws BentoError naming the file when its bytes are lost or damaged, or it cannot be written
   */
  write({ layer, jobs }: FileBatch): Refusal[] {
    const refused: Refusal[] = [];
    const sorted = jobs.length > 1 ? jobs.toSorted(byPlaceInBlob) : jobs;
    const contents = new Contents(this.#open(layer), sorted, { span: this.#span, resumed: this.#resumed });
    for (const job of sorted) this.#writeFile(job, contents, refused);
    return refused;
  }

  close(): void {
    this.#layer?.blob.close();
    this.#layer = undefined;
  }

  #open(layer: FileBatch['layer']): OpenLayer {
    if (this.#layer?.path === layer.path) return this.#layer;
    this.close();
    return (this.#layer = openLayer(layer));
  }

  #writeFile(job: FileJob, contents: Contents, refused: Refusal[]): void {
    const first = job.chunks.length === 0 ? undefined : contents.next(); // verified before there is a file to put it in
    try {
      const fd = openSync(toFsPath(job.place), NEW_FILE, this.#isExact(job) ? job.mode : 0o600);
      try {
        writeChunks(fd, job, first, contents);
        if (this.#isExact(job)) futimens(fd, { sec: job.mtimeSec, nsec: job.mtimeNsec });
        else this.#describe(fd, job, refused);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw describeSystemError(error, `writing ${toText(job.place)}`);
    }
    faultPoint('open.file-written');
  }

  /** Whether a new file has the wanted owner and mode from the start, and there is nothing else to set. */
  #isExact({ mode, uid, gid, xattrs }: FileJob): boolean {
    const { fresh, owner, isRoot } = this.#context;
    if (!fresh.isPlain || xattrs !== undefined || (mode & ~OWN_BITS) !== 0 || (mode & fresh.umask) !== 0) return false;
    if (!isRoot) return uid === 0 && gid === 0;
    return (uid === 0 ? owner.uid : uid) === fresh.uid && (gid === 0 ? owner.gid : gid) === fresh.gid;
  }

  #describe(fd: number, job: FileJob, refused: Refusal[]): void {
    const { owner, fresh, isRoot } = this.#context;
    if (!fresh.isPlain || job.xattrs !== undefined || !isRoot) {
      const onRefused = (_: string, what: string): void => void refused.push([job.path, what]);
      applyAttributes(job.place, { ...job, type: 'file', xattrs: job.xattrs ?? new Map() }, { owner, onRefused });
      return;
    }
    const uid = job.uid === 0 ? owner.uid : job.uid;
    const gid = job.gid === 0 ? owner.gid : job.gid;
    if (uid !== fresh.uid || gid !== fresh.gid) fchownSync(fd, uid, gid);
    fchmodSync(fd, job.mode);
    futimens(fd, { sec: job.mtimeSec, nsec: job.mtimeNsec });
  }
}

function byPlaceInBlob(a: FileJob, b: FileJob): number {
  const [x, y] = [a.chunks[0], b.chunks[0]];
  if (x === undefined || y === undefined) return (x === undefined ? 0 : 1) - (y === undefined ? 0 : 1);
  return x.blobOffset - y.blobOffset || x.innerOffset - y.innerOffset;
}

function writeChunks(fd: number, job: FileJob, first: Buffer | undefined, contents: Contents): void {
  let hasHole = false;
  for (const [i, chunk] of job.chunks.entries()) {
    const piece = i === 0 && first !== undefined ? first : contents.next();
    hasHole = writeSparsely(fd, piece, chunk.fileOffset) || hasHole;
  }
  if (hasHole) ftruncateSync(fd, job.sizeBytes);
}

/** The chunks of a batch's files, one after the other: reads ahead, and inflates a member once for all that lies in it. */
class Contents {
  readonly #layer: OpenLayer;
  readonly #wants: Want[];
  readonly #span: ReadBuffer;
  readonly #resumed: ResumedLayers;
  #at = 0;
  #member: { offset: number; inflated: Buffer } | undefined;
  #read: { offset: number; bytes: Buffer } | undefined;

  /** @param kept - from batch to batch */
  constructor(
    layer: OpenLayer,
    jobs: readonly FileJob[],
    { span, resumed }: { span: ReadBuffer; resumed: ResumedLayers },
  ) {
    this.#layer = layer;
    this.#span = span;
    this.#resumed = resumed;
    this.#wants = jobs.flatMap((job) => job.chunks.map((chunk) => ({ job, chunk, endBytes: endOf(chunk) })));
    for (let i = this.#wants.length - 2; i >= 0; i -= 1) {
      const [want, next] = [this.#wants[i], this.#wants[i + 1]];
      if (want === undefined || next === undefined || next.chunk.blobOffset !== want.chunk.blobOffset) continue;
      want.endBytes = Math.max(want.endBytes, next.endBytes);
    }
  }

  /** @throws BentoError as `ContentReader` does, naming the file, too */
  next(): Buffer {
    const at = this.#at++;
    const want = this.#wants[at];
    if (want === undefined) throw new RangeError('all chunks of this batch have been read');
    try {
      return chunkOf(this.#inflate(at, want), want.chunk);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      const damaged = damagedLayer(this.#layer.digest, want.chunk.blobOffset, error);
      throw new BentoError(damaged.code, `${toText(want.job.path)}: ${damaged.message}`, {
        hint: 'open another checkpoint, or this one without that layer (--skip-layers)',
        cause: error,
      });
    }
  }

  #inflate(at: number, { chunk, endBytes }: Want): Buffer {
    const { packing } = this.#layer;
    if (packing === 'resumed') return this.#resumed.read(this.#layer, chunk);
    const kept = this.#member;
    if (kept?.offset === chunk.blobOffset && kept.inflated.length >= endBytes) return kept.inflated;
    this.#member = undefined; // before the next one comes: memory holds one at a time
    const stored = this.#stored(at, packing, storedBytes(chunk, packing, endBytes));
    const inflated = inflateStored(stored, packing, endBytes);
    if (packing === 'gzip') this.#member = { offset: chunk.blobOffset, inflated };
    return inflated;
  }

  #stored(at: number, packing: ChunkPacking, lengthBytes: number): Buffer {
    const offset = this.#wants[at]?.chunk.blobOffset ?? 0;
    const kept = this.#read;
    if (kept !== undefined && offset >= kept.offset && offset + lengthBytes <= kept.offset + kept.bytes.length) {
      return kept.bytes.subarray(offset - kept.offset, offset - kept.offset + lengthBytes);
    }
    this.#read = undefined;
    const bytes = readExactly(
      this.#layer,
      offset,
      this.#spanFrom(at, packing, lengthBytes),
      this.#bufferFor(lengthBytes),
    );
    this.#read = { offset, bytes };
    return bytes.subarray(0, lengthBytes);
  }

  /** One buffer for all that is read: it grows to the largest member there is, up to a limit. */
  #bufferFor(lengthBytes: number): Buffer | undefined {
    if (lengthBytes > READ_BYTES_MAX) return undefined;
    if (lengthBytes > this.#span.bytes.length) this.#span.bytes = Buffer.allocUnsafeSlow(READ_BYTES_MAX);
    return this.#span.bytes;
  }

  /** How far to read from here: over the members that follow closely. */
  #spanFrom(at: number, packing: ChunkPacking, lengthBytes: number): number {
    const from = this.#wants[at]?.chunk.blobOffset ?? 0;
    let end = from + lengthBytes;
    for (let i = at + 1; i < this.#wants.length; i += 1) {
      const want = this.#wants[i];
      if (want === undefined || want.chunk.blobOffset < from) break;
      const next = want.chunk.blobOffset + storedBytes(want.chunk, packing, want.endBytes);
      if (want.chunk.blobOffset - end > SPAN_GAP_BYTES_MAX || next - from > SPAN_BYTES_MAX) break;
      end = Math.max(end, next);
    }
    return end - from;
  }
}
