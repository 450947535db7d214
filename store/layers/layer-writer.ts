import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';

import { toText, type ByteString } from '../byte-string.ts';
import { digestOf, type Digest } from '../digest.ts';
import type { Chunk, Entry, PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import type { EarlierContent } from './earlier-chunk.ts';
import { encodeFooter } from './footer.ts';
import { gzipMember, gzipMemberSync } from './gzip-member.ts';
import { LargeFile, LargePieces, type LargeContent } from './large-file.ts';
import { LayerOutput, type LayerSink } from './layer-output.ts';
import type { FileJob, RecordItem } from './pack-job.ts';
import type { PackedChunk, PackedFile, PackedGroup, PackPool } from './pack-pool.ts';
import { LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME } from './reserved-names.ts';
import type { ChangedFile, FileTimes } from './steady-read.ts';
import { BLOCK_BYTES, paddingOf } from './tar-fields.ts';
import { encodeFormatFileHeader, encodeTarHeader, MARKER_METADATA } from './tar-header.ts';
import { checkPath } from './tar-name.ts';
import { TaskChain } from './task-chain.ts';
import { CHUNK_BYTES, encodeFormatFileEntry, TocBuilder } from './toc.ts';

/** Entries gather in one gzip member until their tar records are this long. Part of the format, like the gzip level. */
export const GROUP_BYTES = 128 * 1024;
/** A file of this size or more has members of its own. Part of the format, too. */
export const LARGE_BYTES = 64 * 1024;
/** What a header takes in a group, pax header included, for deciding where the group ends. */
const HEADER_BYTES = 3 * BLOCK_BYTES;
/** Groups under way for each thread: one being packed, one waiting, one being written. */
const GROUPS_PER_THREAD = 3;

/** The bytes of a file. */
export type LayerContent = (
  | /** A file on disk; `onGone` tells that it had disappeared when it was to be read. */
    { path: ByteString; times?: FileTimes }
    /** An open file, which the writer closes. */
  | { fd: number; times?: FileTimes }
  /** Pieces of any size; called again when there turn out to be more or fewer bytes than `entry.sizeBytes`. */
  | { read: () => AsyncIterable<Buffer> | Iterable<Buffer> }
) & {
  /** What a large file was before, readable until the layer is finished or closed. */
  earlier?: EarlierContent | undefined;
};

type FileSource = FileJob['source'];

/** What else is known of a large file. */
interface LargeRest {
  ifGone?: Entry | undefined;
  earlier?: EarlierContent | undefined;
}

export interface LayerWriterOptions {
  /** Where the work is done. */
  pool: PackPool;
  /** Some files are wanted first: they are added before anything else, until `endPrioritised`. */
  hasPrioritised?: boolean;
  /** Called for each entry once it is written, in archive order, with the digest and chunks of what was read. */
  onEntry?: (entry: PackedEntry) => void;
  /** Called for each file that was not there any more; what was added as `ifGone` is written in its place. */
  onGone?: (path: ByteString) => void;
  /** Called for each file that is recorded otherwise than it was added, because it changed meanwhile. */
  onChanged?: (path: ByteString, changed: ChangedFile) => void;
}

/** A finished layer. */
export interface PackedLayer {
  digest: Digest;
  sizeBytes: number;
  /** Digest of the uncompressed tar, for the image config. */
  diffId: Digest;
  /** For the annotation `containerd.io/snapshot/stargz/toc.digest`. */
  tocDigest: Digest;
  uncompressedBytes: number;
  /** Entries that are neither directories nor whiteouts. */
  fileCount: number;
}

/** A member of an earlier layer that is taken over as it is. */
export interface CopiedGroup {
  /** Inflated and verified by the caller: exactly the tar records of `entries`. */
  raw: Buffer;
  member: Buffer;
  entries: readonly { entry: Entry; innerOffset: number }[];
}

/**
 * Writes an eStargz layer: a tar+gzip for everyone, seekable for us. The same entries and contents give the same bytes,
 * on any machine with the same zlib, and however many threads work on it.
 *
 * Await each `add` before the next: it resolves as soon as there is room for more, while the entry is still being read
 * and compressed beside others. Written entries come out through `onEntry`, in the order they were added. What fails in
 * the background makes the next call reject, and every one after it; a layer is whole only when `finish` has returned.
 */
export class LayerWriter {
  readonly #out: LayerOutput;
  readonly #options: LayerWriterOptions;
  readonly #chain: TaskChain;
  readonly #paths = new Set<ByteString>();
  /** What is added now is wanted first. */
  #isAhead: boolean;
  #group: RecordItem[] = [];
  #groupBytes = 0;
  readonly #toc = new TocBuilder();
  #fileCount = 0;
  /** Open files handed to us that are not read yet. */
  readonly #fds = new Set<number>();

  private constructor(sink: LayerSink, options: LayerWriterOptions) {
    this.#out = new LayerOutput(sink);
    this.#options = options;
    this.#isAhead = options.hasPrioritised === true;
    this.#chain = new TaskChain(options.pool.width * GROUPS_PER_THREAD);
  }

  static async create(sink: LayerSink, options: LayerWriterOptions): Promise<LayerWriter> {
    const writer = new LayerWriter(sink, options);
    if (!writer.#isAhead) await writer.#writeLandmark(NO_PREFETCH_LANDMARK);
    return writer;
  }

  /**
   * Adds an entry. Entries come in archive order: depth-first, parents before children. Only files that are wanted first come
   * before, in their own order and without their directories: `tar` sets a directory's time when it leaves it, so each
   * stands with the rest of what is in it.
   *
   * @param content - of a file, read to its end: the archived size is what was read, not what `entry` says
   * @param ifGone - what to write when a file given by its path is gone
   * @throws RangeError when the path was added before; BentoError FORMAT_INVALID when the path cannot be archived;
   *   whatever went wrong with an earlier entry
   */
  async add(entry: Entry, content?: LayerContent, ifGone?: Entry): Promise<void> {
    this.#chain.assertOpen();
    if ((entry.type === 'file') !== (content !== undefined))
      throw new TypeError('a file has content, nothing else has');
    this.#claimPath(entry);
    if (content === undefined) {
      await this.#addToGroup({ entry }, 0);
      return;
    }
    if ('fd' in content) this.#fds.add(content.fd);
    if ('read' in content) {
      await this.#addPieces(entry, content);
      return;
    }
    const source: FileSource =
      'path' in content
        ? { kind: 'path', path: content.path, times: content.times }
        : { kind: 'fd', fd: content.fd, times: content.times };
    const { earlier } = content;
    if (entry.sizeBytes >= LARGE_BYTES) await this.#addLargeFile(entry, source, { ifGone, earlier });
    else await this.#addToGroup({ entry, source, ifGone }, entry.sizeBytes);
  }

  /** Takes a member of an earlier layer over without compressing it again. */
  async addCopied({ raw, member, entries }: CopiedGroup): Promise<void> {
    this.#chain.assertOpen();
    for (const { entry } of entries) this.#claimPath(entry);
    await this.#endGroup();
    await this.#chain.add(
      () => Promise.resolve(),
      async () => {
        const blobOffset = await this.#out.member(raw, member);
        for (const { entry, innerOffset } of entries) {
          this.#record(packedEntry(entry, { blobOffset, blobBytes: member.length, innerOffset }));
        }
      },
    );
  }

  /** Takes a large file of an earlier layer over, chunk by chunk. The chunks are verified by whoever yields them. */
  async addCopiedFile(entry: Entry, chunks: () => Iterable<PackedChunk> | AsyncIterable<PackedChunk>): Promise<void> {
    this.#chain.assertOpen();
    this.#claimPath(entry);
    await this.#endGroup();
    await this.#chain.add(
      () => Promise.resolve(),
      async () => {
        const written = await this.#writeChunks(entry, chunks());
        if (written.sizeBytes !== entry.sizeBytes) throw sizeMismatch(entry, written.sizeBytes);
        this.#record({ ...entry, chunks: written.chunks });
      },
    );
  }

  /** Ends what is wanted first: a reader that fetches the blob up to here has all of it. Everything else follows. */
  async endPrioritised(): Promise<void> {
    this.#chain.assertOpen();
    if (!this.#isAhead) throw new RangeError('nothing in this layer is wanted first, or not any more');
    await this.#endGroup();
    this.#isAhead = false;
    await this.#chain.add(
      () => Promise.resolve(),
      async () => await this.#writeLandmark(PREFETCH_LANDMARK),
    );
  }

  /** Writes the table of contents and the footer, once everything before them is written. */
  async finish(): Promise<PackedLayer> {
    this.#chain.assertOpen();
    if (this.#isAhead) await this.endPrioritised();
    await this.#endGroup();
    await this.#chain.finish();
    const toc = this.#toc.finish();
    const tocFile = Buffer.concat([encodeFormatFileHeader(TOC_NAME, toc.length), toc]);
    const last = Buffer.concat([tocFile, Buffer.alloc(paddingOf(tocFile.length) + 2 * BLOCK_BYTES)]);
    const tocOffset = await this.#out.member(last, await gzipMember(last));
    await this.#out.bytes(encodeFooter(tocOffset));
    const digests = await this.#out.finish();
    const { sizeBytes, uncompressedBytes } = this.#out;
    return { ...digests, sizeBytes, tocDigest: digestOf(toc), uncompressedBytes, fileCount: this.#fileCount };
  }

  /** Gives up on an unfinished layer and waits until nothing of it is open any more. Harmless after `finish`. */
  async close(): Promise<void> {
    await this.#chain.close();
    for (const fd of this.#fds) this.#closeFd(fd);
  }

  #closeFd(fd: number): void {
    if (this.#fds.delete(fd)) closeSync(fd);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #claimPath(entry: Entry): void {
    checkPath(entry.path);
    if (entry.type === 'hardlink') checkPath(entry.link ?? '');
    if (this.#paths.has(entry.path)) throw new RangeError(`"${toText(entry.path)}" is already in the layer`);
    this.#paths.add(entry.path);
  }

  /** The end of a group follows from what was announced, never from what is read: the same plan gives the same groups. */
  async #addToGroup(item: RecordItem, sizeBytes: number): Promise<void> {
    this.#group.push(item);
    this.#groupBytes += HEADER_BYTES + sizeBytes;
    if (this.#groupBytes >= GROUP_BYTES) await this.#endGroup();
  }

  async #endGroup(): Promise<void> {
    const items = this.#group;
    if (items.length === 0) return;
    this.#group = [];
    this.#groupBytes = 0;
    const pack = async (): Promise<PackedGroup> => {
      try {
        return await this.#options.pool.group(items);
      } finally {
        for (const { source } of items) if (source?.kind === 'fd') this.#closeFd(source.fd);
      }
    };
    await this.#chain.add(pack, async (packed) => await this.#writeGroup(packed, items));
  }

  /** Pieces are held until it is clear whether they make a large file. */
  async #addPieces(entry: Entry, { read, earlier }: Extract<LayerContent, { read: unknown }>): Promise<void> {
    if (entry.sizeBytes >= LARGE_BYTES) {
      await this.#addLarge(entry, () => new LargePieces(read, entry.sizeBytes), { earlier });
      return;
    }
    const pieces: Buffer[] = [];
    let sizeBytes = 0;
    try {
      for await (const piece of read()) {
        sizeBytes += piece.length;
        if (sizeBytes < LARGE_BYTES) pieces.push(piece);
      }
    } catch (error) {
      this.#chain.fail(error);
      throw error;
    }
    if (sizeBytes >= LARGE_BYTES) {
      await this.#addLarge(entry, () => new LargePieces(read, sizeBytes), { earlier });
      return;
    }
    await this.#addToGroup({ entry, source: { kind: 'bytes', bytes: Buffer.concat(pieces) } }, sizeBytes);
  }

  /** Read ahead as groups are, when it is no larger than a chunk; else chunk by chunk when its turn comes. */
  async #addLargeFile(entry: Entry, source: FileSource, rest: LargeRest): Promise<void> {
    if (entry.sizeBytes >= CHUNK_BYTES) {
      await this.#addLarge(entry, () => this.#openLarge(source), rest);
      return;
    }
    await this.#endGroup();
    await this.#chain.add(
      async () => await this.#options.pool.file(source),
      async (packed) => {
        if (packed.kind === 'packed') await this.#writeFile(entry, packed);
        else if (packed.kind === 'gone') await this.#writeGone(entry, rest.ifGone);
        else await this.#writeOpened(entry, this.#openLarge(source), rest);
        if (source.kind === 'fd') this.#closeFd(source.fd);
      },
    );
  }

  #openLarge(source: FileSource): LargeContent | undefined {
    if (source.kind === 'path') return LargeFile.open(source.path, source.times);
    this.#fds.delete(source.fd); // it closes with the large file
    return new LargeFile(source.fd, source.times);
  }

  async #addLarge(entry: Entry, open: () => LargeContent | undefined, rest: LargeRest): Promise<void> {
    await this.#endGroup();
    await this.#chain.add(
      () => Promise.resolve(),
      async () => await this.#writeOpened(entry, open(), rest),
    );
  }

  async #writeOpened(entry: Entry, content: LargeContent | undefined, rest: LargeRest): Promise<void> {
    if (content === undefined) {
      await this.#writeGone(entry, rest.ifGone);
      return;
    }
    try {
      await this.#writeLarge(entry, content, rest.earlier);
    } finally {
      content.close();
    }
  }

  async #writeFile(entry: Entry, { changed, ...chunk }: Extract<PackedFile, { kind: 'packed' }>): Promise<void> {
    const { mode, mtimeSec, mtimeNsec } = changed ?? entry;
    const file = { ...entry, mode, mtimeSec, mtimeNsec, sizeBytes: chunk.raw.length };
    if (changed !== undefined) this.#options.onChanged?.(entry.path, changed);
    const { digest, chunks } = await this.#writeChunks(file, [chunk]);
    this.#record({ ...file, digest, chunks });
  }

  async #writeGone({ path }: Entry, ifGone: Entry | undefined): Promise<void> {
    this.#options.onGone?.(path);
    if (ifGone === undefined) return;
    await this.#writeBare(encodeTarHeader(ifGone));
    this.#record(packedEntry(ifGone));
  }

  /** What was written of a file that changed meanwhile is taken back. */
  async #writeLarge(entry: Entry, content: LargeContent, earlier: EarlierContent | undefined): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const mark = await this.#out.mark();
      const changed = content.changed();
      const { mode, mtimeSec, mtimeNsec } = changed ?? entry;
      const file: Entry = { ...entry, mode, mtimeSec, mtimeNsec, sizeBytes: content.sizeBytes };
      const written = await this.#writeChunks(file, this.#packed(content, earlier));
      if (content.mustRepeat(written.sizeBytes, attempt)) {
        await this.#out.rewind(mark);
        continue;
      }
      if (written.sizeBytes !== file.sizeBytes) throw sizeMismatch(file, written.sizeBytes);
      const isUnsteady = content.changed();
      if (isUnsteady !== undefined) this.#options.onChanged?.(entry.path, isUnsteady);
      this.#record({ ...file, digest: written.digest, chunks: written.chunks });
      return;
    }
  }

  /** Chunks compressed as many at a time as there are threads, in order. */
  async *#packed(
    content: LargeContent,
    earlier: EarlierContent | undefined,
  ): AsyncGenerator<PackedChunk, void, undefined> {
    const ahead: Promise<PackedChunk>[] = [];
    let fileOffset = 0;
    try {
      for await (const source of content.chunks()) {
        this.#chain.assertNotFailed();
        const packed = this.#options.pool.chunk(source, earlier?.chunkAt(fileOffset));
        fileOffset += CHUNK_BYTES;
        packed.catch(() => undefined); // looked at when its turn comes
        ahead.push(packed);
        const oldest = ahead.length >= this.#options.pool.width ? ahead.shift() : undefined;
        if (oldest !== undefined) yield await oldest;
      }
      for (let oldest = ahead.shift(); oldest !== undefined; oldest = ahead.shift()) yield await oldest;
    } finally {
      await Promise.allSettled(ahead);
    }
  }

  async #writeChunks(
    entry: Entry,
    packed: Iterable<PackedChunk> | AsyncIterable<PackedChunk>,
  ): Promise<{ sizeBytes: number; digest: Digest; chunks: Chunk[] }> {
    await this.#writeBare(encodeTarHeader(entry));
    const whole = entry.sizeBytes > CHUNK_BYTES ? createHash('sha256') : undefined; // of one chunk, it has the digest
    const chunks: Chunk[] = [];
    let fileOffset = 0;
    for await (const chunk of packed) {
      const { raw, member, digest, shared } = chunk;
      whole?.update(raw);
      const place = {
        blobOffset: raw.length === 0 ? 0 : await this.#out.member(raw, member, shared),
        blobBytes: member.length,
      };
      if (raw.length > 0) chunks.push({ fileOffset, sizeBytes: raw.length, digest, ...place, innerOffset: 0 });
      fileOffset += raw.length;
      this.#options.pool.release(chunk);
    }
    const digest: Digest = whole === undefined ? (chunks[0]?.digest ?? digestOf('')) : `sha256:${whole.digest('hex')}`;
    const padding = Buffer.alloc(paddingOf(fileOffset));
    if (padding.length > 0) await this.#writeBare(padding);
    return { sizeBytes: fileOffset, digest, chunks };
  }

  /** Tar bytes that are no payload, in a member of their own. */
  async #writeBare(bytes: Buffer): Promise<number> {
    return await this.#out.member(bytes, gzipMemberSync(bytes));
  }

  async #writeGroup(packed: PackedGroup, items: readonly RecordItem[]): Promise<void> {
    const { raw, member, facts } = packed;
    const place = { blobOffset: raw.length === 0 ? 0 : await this.#out.member(raw, member), blobBytes: member.length };
    items.forEach((item, i) => {
      if (facts.isGone(i)) this.#recordGone(item);
      else if (item.source === undefined) this.#record(packedEntry(item.entry));
      else this.#recordFile(item.entry, i, packed, place);
    });
    this.#options.pool.release(packed);
  }

  #recordGone({ entry, ifGone }: RecordItem): void {
    this.#options.onGone?.(entry.path);
    if (ifGone !== undefined) this.#record(packedEntry(ifGone));
  }

  #recordFile(entry: Entry, i: number, packed: PackedGroup, place: { blobOffset: number; blobBytes: number }): void {
    const sizeBytes = packed.facts.sizeBytes(i);
    const changed = packed.changed?.get(i);
    if (changed !== undefined) this.#options.onChanged?.(entry.path, changed);
    const { mode, mtimeSec, mtimeNsec } = changed ?? entry;
    const digest = packed.facts.digest(i);
    const chunk = { fileOffset: 0, sizeBytes, digest, ...place, innerOffset: packed.facts.innerOffset(i) };
    this.#record({ ...entry, mode, mtimeSec, mtimeNsec, sizeBytes, digest, chunks: sizeBytes === 0 ? [] : [chunk] });
  }

  #record(packed: PackedEntry): void {
    if (packed.type !== 'dir' && packed.type !== 'whiteout') this.#fileCount++;
    this.#toc.add(packed);
    this.#options.onEntry?.(packed);
  }

  async #writeLandmark(name: ByteString): Promise<void> {
    await this.#writeBare(encodeFormatFileHeader(name, LANDMARK_CONTENT.length));
    const blobOffset = await this.#writeBare(LANDMARK_CONTENT);
    await this.#writeBare(Buffer.alloc(paddingOf(LANDMARK_CONTENT.length)));
    this.#toc.addLine(encodeFormatFileEntry(name, LANDMARK_CONTENT, blobOffset));
  }
}

/** @param place - of a file's payload */
function packedEntry(entry: Entry, place?: Pick<Chunk, 'blobOffset' | 'blobBytes' | 'innerOffset'>): PackedEntry {
  if (entry.type === 'whiteout') return { path: entry.path, type: 'whiteout', ...MARKER_METADATA, chunks: [] };
  const { digest, sizeBytes } = entry;
  if (entry.type !== 'file') return { ...entry, sizeBytes: 0, chunks: [] };
  if (place === undefined || digest === undefined || sizeBytes === 0) return { ...entry, chunks: [] };
  return { ...entry, chunks: [{ fileOffset: 0, sizeBytes, digest, ...place }] };
}

function sizeMismatch(file: Entry, readBytes: number): BentoError {
  return new BentoError(
    'FAILED',
    `"${toText(file.path)}" had ${file.sizeBytes} bytes and then ${readBytes}: it changes faster than it can be read`,
    { hint: 'save again when it is quiet, or ignore it in .bentoignore' },
  );
}
