import { toText, type ByteString } from '../byte-string.ts';
import { digestOf, type Digest } from '../digest.ts';
import type { Chunk, Entry, PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import type { LayerSink } from './blob-output.ts';
import { adoptMembers, packContent, type ContentSource, type PackedContent, type PackedMember } from './content.ts';
import { encodeFooter } from './footer.ts';
import { InFlight, Lane } from './in-flight.ts';
import { gzipMemberSync } from './gzip-member.ts';
import { MemberStream } from './member-stream.ts';
import { LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, TOC_NAME } from './reserved-names.ts';
import { encodeFormatFileHeader, encodeTarHeader, MARKER_METADATA } from './tar-header.ts';
import { checkPath } from './tar-name.ts';
import { CHUNK_BYTES, encodeFormatFileEntry, encodeToc, encodeTocEntry } from './toc.ts';

/** Entries being read and compressed ahead of the one being written. */
const IN_FLIGHT_BYTES_MAX = 16 * 1024 * 1024;
const IN_FLIGHT_COUNT_MAX = 32;

export interface LayerWriterOptions {
  /** Where the compressed form of a large file waits while its size is not known yet. */
  tempDir: string;
  /** Called for each entry once it is written, in archive order, with the digest and chunks of what was read. */
  onEntry?: (entry: PackedEntry) => void;
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

type PackStep = () => Promise<PackedContent> | PackedContent | undefined;

/**
 * Writes an eStargz layer: a tar+gzip for everyone, seekable for us. The same entries and contents give the same bytes,
 * on any machine with the same zlib.
 *
 * Await each `add` before the next: it resolves as soon as there is room for more, while the entry is still being read
 * and compressed beside others. Written entries come out through `onEntry`, in the order they were added. What fails in
 * the background makes the next call reject, and every one after it; a layer is whole only when `finish` has returned.
 */
export class LayerWriter {
  readonly #stream: MemberStream;
  readonly #options: LayerWriterOptions;
  readonly #inFlight = new InFlight({ bytesMax: IN_FLIGHT_BYTES_MAX, countMax: IN_FLIGHT_COUNT_MAX });
  readonly #largeFiles = new Lane();
  readonly #paths = new Set<ByteString>();
  #tocLines: string[] = [];
  #written: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  readonly #stop = new AbortController();
  #isClosed = false;
  #fileCount = 0;

  private constructor(sink: LayerSink, options: LayerWriterOptions) {
    this.#stream = new MemberStream(sink);
    this.#options = options;
  }

  static async create(sink: LayerSink, options: LayerWriterOptions): Promise<LayerWriter> {
    const writer = new LayerWriter(sink, options);
    await writer.#writeLandmark();
    return writer;
  }

  /**
   * Adds an entry. Entries come in archive order: depth-first, parents before children.
   *
   * @param content - of a file, read to its end: the archived size is what was read, not what `entry` says
   * @throws RangeError when the path was added before; BentoError FORMAT_INVALID when the path cannot be archived;
   *   whatever went wrong with an earlier entry
   */
  async add(entry: Entry, content?: ContentSource): Promise<void> {
    if ((entry.type === 'file') !== (content !== undefined))
      throw new TypeError('a file has content, nothing else has');
    const where = { lane: this.#largeFiles, tempDir: this.#options.tempDir, signal: this.#stop.signal };
    const heldBytes = content ? Math.min(entry.sizeBytes, CHUNK_BYTES) : 0;
    await this.#enqueue(entry, heldBytes, () => content && packContent(content, where));
  }

  /**
   * Adds a file whose chunks are already compressed, as by an earlier LayerWriter: they are copied, not compressed again.
   *
   * @throws as `add` does; later, from the next call, BentoError DIGEST_MISMATCH when a member is not the chunk it
   *   should be, FORMAT_INVALID when it holds more
   */
  async addPacked(entry: Entry, members: readonly PackedMember[]): Promise<void> {
    if (entry.type !== 'file') throw new TypeError('only files have packed members');
    await this.#enqueue(entry, 0, () => adoptMembers(members, entry.digest));
  }

  /** Writes the table of contents and the footer, once everything before them is written. */
  async finish(): Promise<PackedLayer> {
    this.#assertOpen();
    this.#isClosed = true;
    await this.#written;
    this.#throwFailure();
    const toc = encodeToc(this.#tocLines);
    this.#tocLines = [];
    const tocFile = Buffer.concat([encodeFormatFileHeader(TOC_NAME, toc.length), toc]);
    const digests = await this.#stream.finish(tocFile, encodeFooter);
    const { sizeBytes, uncompressedBytes } = this.#stream;
    return { ...digests, sizeBytes, tocDigest: digestOf(toc), uncompressedBytes, fileCount: this.#fileCount };
  }

  /** Gives up on an unfinished layer and waits until nothing of it is open any more. Harmless after `finish`. */
  async close(): Promise<void> {
    if (!this.#isClosed) this.#fail(new Error('the layer writer was closed'));
    this.#isClosed = true;
    await this.#written;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #enqueue(entry: Entry, heldBytes: number, pack: PackStep): Promise<void> {
    this.#assertOpen();
    this.#claimPath(entry);
    await this.#inFlight.enter(heldBytes);
    const content = this.#failure ? undefined : Promise.resolve(pack());
    content?.catch(() => undefined); // looked at when the turn of this entry comes
    this.#written = this.#written
      .then(() => this.#writeNext(entry, content))
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#inFlight.leave(heldBytes));
    this.#throwFailure();
  }

  #claimPath(entry: Entry): void {
    checkPath(entry.path);
    if (entry.type === 'hardlink') checkPath(entry.link ?? '');
    if (this.#paths.has(entry.path)) throw new RangeError(`"${toText(entry.path)}" is already in the layer`);
    this.#paths.add(entry.path);
  }

  async #writeNext(entry: Entry, pending: Promise<PackedContent | undefined> | undefined): Promise<void> {
    const content = await pending;
    try {
      this.#throwFailure();
      const packed = content ? await this.#writeFile(entry, content) : await this.#writeHeader(entry);
      this.#options.onEntry?.(packed);
    } finally {
      await content?.close();
    }
  }

  async #writeHeader(entry: Entry): Promise<PackedEntry> {
    const packed: PackedEntry =
      entry.type === 'whiteout'
        ? { path: entry.path, type: 'whiteout', ...MARKER_METADATA, chunks: [] }
        : { ...entry, sizeBytes: 0, chunks: [] };
    await this.#stream.header(encodeTarHeader(packed));
    this.#record(packed);
    return packed;
  }

  async #writeFile(entry: Entry, content: PackedContent): Promise<PackedEntry> {
    const file = { ...entry, sizeBytes: content.sizeBytes };
    await this.#stream.header(encodeTarHeader(file));
    const chunks: Chunk[] = [];
    let fileOffset = 0;
    for await (const { raw, member, digest } of content.members()) {
      const place = await this.#stream.payload(raw, member);
      chunks.push({ fileOffset, sizeBytes: raw.length, digest, ...place, innerOffset: 0 });
      fileOffset += raw.length;
    }
    if (fileOffset !== file.sizeBytes) throw sizeMismatch(file, fileOffset);
    await this.#stream.pad();
    const packed: PackedEntry = { ...file, ...(content.digest && { digest: content.digest }), chunks };
    this.#record(packed);
    return packed;
  }

  #record(packed: PackedEntry): void {
    if (packed.type !== 'dir' && packed.type !== 'whiteout') this.#fileCount++;
    this.#tocLines.push(...encodeTocEntry(packed));
  }

  async #writeLandmark(): Promise<void> {
    await this.#stream.header(encodeFormatFileHeader(NO_PREFETCH_LANDMARK, LANDMARK_CONTENT.length));
    const { blobOffset } = await this.#stream.payload(LANDMARK_CONTENT, gzipMemberSync(LANDMARK_CONTENT));
    await this.#stream.pad();
    this.#tocLines.push(encodeFormatFileEntry(NO_PREFETCH_LANDMARK, LANDMARK_CONTENT, blobOffset));
  }

  #assertOpen(): void {
    this.#throwFailure();
    if (this.#isClosed) throw new TypeError('the layer is already finished');
  }

  /** Keeps the first failure for every later caller, and stops what is being read. */
  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stop.abort();
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error;
  }
}

function sizeMismatch(file: Entry, readBytes: number): BentoError {
  const path = toText(file.path);
  return new BentoError(
    'DIGEST_MISMATCH',
    `the packed members of "${path}" hold ${readBytes} bytes, not ${file.sizeBytes}`,
  );
}
