import { noteGarbage } from '../../store/buffer-garbage.ts';
import type { BlobFile } from '../../store/blob-file.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import { SPAN_BYTES_MAX } from '../../store/layers/gzip-scanner.ts';
import { inflateSpan, inflateSpanSync, spanBuffer, type SpanStart } from '../../store/layers/inflate-span.ts';
import { chunkOf, gunzip } from '../../store/layers/layer-reader.ts';
import { brokenPoints, resumePath, ResumePoints, type Span } from '../../store/layers/resume-points.ts';
import { ResumeRecorder } from '../../store/layers/resume-recorder.ts';
import { readBlob, readBlobSync } from '../../store/read-blob.ts';
import type { Store } from '../../store/store.ts';
import { BoundedCache } from './bounded-cache.ts';

/** Layers whose resume points are kept in memory: 40 bytes for each MiB of them. */
const LAYER_COUNT_MAX = 64;

/** A foreign compressed layer, held open by whoever reads it. */
export interface ResumedLayer {
  digest: Digest;
  pointsPath: string;
  blob: BlobFile;
}

/**
 * Reads chunks of foreign compressed layers, for which a chunk is a range of the tar that the layer inflates to. The spans over
 * which it goes are inflated as a whole and kept: whoever reads on, or a neighbour, inflates nothing twice.
 */
export class ResumedLayers {
  readonly #inflated: BoundedCache<string, Buffer>;
  readonly #underWay = new Map<string, Promise<Buffer>>();
  readonly #remaking = new Map<Digest, Promise<void>>();
  readonly #points = new BoundedCache<Digest, ResumePoints>({ weightMax: LAYER_COUNT_MAX, weigh: () => 1 });

  /** @param inflated - the reader's own, which bounds what is kept */
  constructor(inflated: BoundedCache<string, Buffer>) {
    this.#inflated = inflated;
  }

  /** How much has to be inflated for chunks of one layer; without end when the resume points must be made first. */
  inflateBytes(layer: Pick<ResumedLayer, 'digest' | 'pointsPath'>, chunks: readonly Chunk[]): number {
    const points = this.#pointsOf(layer);
    if (points === undefined) return Infinity;
    const spans = new Map(chunks.flatMap((chunk) => spansOf(points, chunk)).map((span) => [span.at, span]));
    const missing = [...spans.values()].filter((span) => !this.#inflated.has(keyOf(layer, span)));
    if (missing.some((span) => this.#startOf(layer, points, span) === undefined)) return Infinity;
    return missing.reduce((sum, { tarBytes }) => sum + tarBytes, 0);
  }

  /**
   * A chunk's bytes, for the caller to verify. Where the resume points are missing or damaged they are made anew, which takes
   * twice as long as inflating the whole layer.
   *
   * @throws BentoError FORMAT_INVALID or DIGEST_MISMATCH of a damaged blob; whatever keeps resume points from being written
   */
  read(layer: ResumedLayer, chunk: Chunk): Buffer {
    try {
      return this.#readSync(layer, chunk);
    } catch (error) {
      if (!isBroken(error)) throw error;
      remakeSync(layer);
      return this.#readSync(layer, chunk);
    }
  }

  #readSync(layer: ResumedLayer, chunk: Chunk): Buffer {
    const points = this.#pointsOf(layer) ?? raise(brokenPoints(layer.pointsPath, layer.digest));
    const parts = spansOf(points, chunk).map((span) => partOf(this.#span(layer, points, span), span, chunk));
    return Buffer.concat(parts);
  }

  /** `read` without blocking, and verified. @throws BentoError as `read`, DIGEST_MISMATCH when the bytes are not the chunk's */
  async readAsync(store: Store, layer: ResumedLayer, chunk: Chunk): Promise<Buffer> {
    try {
      return await this.#readOnThread(layer, chunk);
    } catch (error) {
      if (!isBroken(error)) throw error;
      await this.#remake(store, layer.digest);
      return await this.#readOnThread(layer, chunk);
    }
  }

  async #readOnThread(layer: ResumedLayer, chunk: Chunk): Promise<Buffer> {
    const points = this.#pointsOf(layer) ?? raise(brokenPoints(layer.pointsPath, layer.digest));
    const parts: Buffer[] = [];
    for (const span of spansOf(points, chunk)) {
      parts.push(partOf(await this.#spanShared(layer, points, span), span, chunk));
    }
    return chunkOf(Buffer.concat(parts), chunk);
  }

  #pointsOf({ digest, pointsPath }: Pick<ResumedLayer, 'digest' | 'pointsPath'>): ResumePoints | undefined {
    const known = this.#points.get(digest);
    if (known !== undefined) return known;
    const points = ResumePoints.load(pointsPath, digest);
    if (points !== undefined) this.#points.add(digest, points);
    return points;
  }

  #span(layer: ResumedLayer, points: ResumePoints, span: Span): Buffer {
    const key = keyOf(layer, span);
    const kept = this.#inflated.get(key);
    if (kept !== undefined) return kept;
    const start = this.#startOf(layer, points, span) ?? raise(brokenPoints(layer.pointsPath, layer.digest));
    const { buffer, room } = spanBuffer(start, span.blobBytes);
    const readBytes = readBlobSync(layer.blob, span.blobOffset, buffer.subarray(room));
    const bytes = inflateSpanSync(start, buffer.subarray(0, room + readBytes));
    this.#keep(key, bytes, buffer);
    return bytes;
  }

  /** One who inflates a span does so for all who ask for it meanwhile. */
  async #spanShared(layer: ResumedLayer, points: ResumePoints, span: Span): Promise<Buffer> {
    const key = keyOf(layer, span);
    const known = this.#inflated.get(key) ?? this.#underWay.get(key);
    if (known !== undefined) return await known;
    const made = this.#spanAsync(layer, points, span).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, made);
    return await made;
  }

  async #spanAsync(layer: ResumedLayer, points: ResumePoints, span: Span): Promise<Buffer> {
    const start = this.#startOf(layer, points, span) ?? raise(brokenPoints(layer.pointsPath, layer.digest));
    const { buffer, room } = spanBuffer(start, span.blobBytes);
    const readBytes = await readBlob(layer.blob, span.blobOffset, buffer.subarray(room));
    const bytes = await inflateSpan(start, buffer.subarray(0, room + readBytes));
    this.#keep(keyOf(layer, span), bytes, buffer);
    return bytes;
  }

  #startOf({ digest }: Pick<ResumedLayer, 'digest'>, points: ResumePoints, span: Span): SpanStart | undefined {
    const start = points.start(span);
    if (start === undefined) this.#points.delete(digest); // so that the file is looked at again
    return start;
  }

  #keep(key: string, bytes: Buffer, stored: Buffer): void {
    noteGarbage(stored.length + bytes.length);
    this.#inflated.add(key, bytes);
  }

  async #remake(store: Store, digest: Digest): Promise<void> {
    let made = this.#remaking.get(digest);
    if (made === undefined) {
      made = remakeResumePoints(store, digest).finally(() => this.#remaking.delete(digest));
      this.#remaking.set(digest, made);
    }
    await made;
  }
}

/** Goes over a whole layer to note from where it can be inflated. @throws BentoError as `Blobs.stream`, FORMAT_INVALID */
export async function remakeResumePoints(store: Store, digest: Digest): Promise<void> {
  using recorder = ResumeRecorder.create(resumePath(store.cacheDir, digest), digest);
  for await (const bytes of gunzip(recorder.through(store.blobs.stream({ digest })))) recorder.take(bytes);
  recorder.finish();
}

/** The same for who cannot wait for a stream. */
function remakeSync({ digest, pointsPath, blob }: ResumedLayer): void {
  using recorder = ResumeRecorder.create(pointsPath, digest);
  const read = (offset: number, into: Buffer): void => {
    if (readBlobSync(blob, offset, into) < into.length) throw cutOff(digest);
  };
  recorder.goOver({ sizeBytes: blob.sizeBytes, read });
  recorder.finish();
}

/** Whether resume points are missing or damaged: nothing else that readers here do says so. */
function isBroken(error: unknown): boolean {
  return error instanceof BentoError && error.code === 'INDEX_BROKEN';
}

function cutOff(digest: Digest): BentoError {
  return new BentoError('FORMAT_INVALID', `layer ${shortDigest(digest)} is cut off`);
}

/** Bytes in memory while a chunk is read, those that are kept before it included. */
export function resumedWeight(chunk: Chunk): number {
  return chunk.sizeBytes + 2 * SPAN_BYTES_MAX;
}

function spansOf(points: ResumePoints, chunk: Chunk): Span[] {
  return [...points.spans(chunk.blobOffset, chunk.sizeBytes)];
}

function keyOf({ digest }: Pick<ResumedLayer, 'digest'>, span: Span): string {
  return `${digest}+${span.at}`;
}

/** What of a chunk lies in a span. */
function partOf(bytes: Buffer, { tarOffset }: Span, { blobOffset, sizeBytes }: Chunk): Buffer {
  return bytes.subarray(Math.max(blobOffset - tarOffset, 0), Math.max(blobOffset + sizeBytes - tarOffset, 0));
}

function raise(error: BentoError): never {
  throw error;
}
