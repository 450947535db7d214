import { numberOf } from '../../index/rows.ts';
import { digestOf } from '../../store/digest.ts';
import type { Chunk, Entry } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import { sharedBytes } from '../../store/layers/earlier-chunk.ts';
import { inflateMember } from '../../store/layers/gzip-member.ts';
import { LARGE_BYTES, type CopiedGroup, type LayerWriter } from '../../store/layers/layer-writer.ts';
import type { PackedChunk } from '../../store/layers/pack-pool.ts';
import { paddingOf } from '../../store/layers/tar-fields.ts';
import { encodeTarHeader } from '../../store/layers/tar-header.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import { damagedLayer, layerFile, openLayer, readExactly, type OpenLayer } from '../contents/content-reader.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';

/** An entry of a layer that is written anew; `stored` is set for a file whose bytes some layer of the head holds. */
export interface StoredEntry {
  entry: Entry;
  stored?: CheckpointNode | undefined;
}

/** More than any member with several files in it inflates to. */
const SHARED_INFLATED_BYTES_MAX = 1 << 20;
/** Entries without content that may come before the first file of a member. */
const LEADING_MAX = 4096;

interface InflatedMember {
  raw: Buffer;
  member: Buffer;
}

/**
 * Writes files into a new layer by copying the compressed members that hold them: a large file's always; one that small
 * files share when it would come out the same, which is when the same entries follow each other and none of their
 * attributes changed. Every copied byte is inflated and checked against its digest on the way.
 */
export class MemberCopier {
  readonly #source: TreeSource;
  /** As many as a checkpoint has layers. */
  readonly #layers = new Map<number, OpenLayer>();
  /** The member that was tried last and did not fit: its other files need not try. */
  #unfit: string | undefined;

  constructor(source: TreeSource) {
    this.#source = source;
  }

  /**
   * Copies what can be copied of `entries`, beginning with the one at `from`.
   *
   * @returns how many entries were written; 0 when that one has to be packed
   */
  async copy(writer: LayerWriter, entries: readonly StoredEntry[], from: number): Promise<number> {
    const first = entries[from];
    if (first === undefined) return 0;
    if (first.stored !== undefined && first.entry.sizeBytes >= LARGE_BYTES) return await this.#copyLarge(writer, first);
    const group = await this.#sharedMember(entries, from);
    if (group === undefined) return 0;
    await writer.addCopied(group);
    return group.entries.length;
  }

  close(): void {
    for (const { blob } of this.#layers.values()) blob.close();
    this.#layers.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #copyLarge(writer: LayerWriter, { entry, stored }: StoredEntry): Promise<number> {
    if (stored === undefined) return 0;
    const layer = this.#open(stored);
    const chunks = this.#chunks(stored);
    if (layer.packing !== 'gzip' || chunks.some(({ innerOffset }) => innerOffset !== 0)) return 0;
    const file = { ...entry, ...(stored.digest && { digest: stored.digest }) };
    await writer.addCopiedFile(file, () => this.#readLarge(layer, chunks));
    return 1;
  }

  async *#readLarge(layer: OpenLayer, chunks: readonly Chunk[]): AsyncGenerator<PackedChunk, void, undefined> {
    for (const chunk of chunks) {
      const { raw, member } = await inflate(layer, chunk, chunk.sizeBytes);
      const digest = digestOf(raw);
      if (digest !== chunk.digest) throw damagedLayer(layer.digest, chunk.blobOffset);
      const ranges = layer.blob.ranges(chunk.blobOffset, member.length);
      const shared = sharedBytes([{ at: 0, from: 0, lengthBytes: member.length }], { ranges });
      yield { raw, member, digest, shared };
    }
  }

  /** The member that begins with the first entry, if it holds exactly the entries that follow. */
  async #sharedMember(entries: readonly StoredEntry[], from: number): Promise<CopiedGroup | undefined> {
    const firstFile = firstPayload(entries, from);
    if (firstFile?.stored === undefined || firstFile.entry.sizeBytes >= LARGE_BYTES) return undefined;
    const layer = this.#open(firstFile.stored);
    const [chunk] = this.#chunks(firstFile.stored);
    if (layer.packing !== 'gzip' || chunk === undefined) return undefined;
    const key = `${layer.digest}@${chunk.blobOffset}`;
    if (key === this.#unfit || chunk.innerOffset + chunk.sizeBytes > SHARED_INFLATED_BYTES_MAX) return undefined;
    const inflated = await inflate(layer, chunk, SHARED_INFLATED_BYTES_MAX).catch((error: unknown) => {
      if (error instanceof BentoError && error.code === 'FORMAT_INVALID') return undefined; // a foreign member, too long
      throw error;
    });
    const found = inflated && this.#match(entries, from, inflated.raw, { layer: numberOf(firstFile.stored.id), chunk });
    this.#unfit = found === undefined ? key : undefined;
    return found && { ...inflated, entries: found };
  }

  /** Compares the records of a member with those that would be written now. */
  #match(
    entries: readonly StoredEntry[],
    from: number,
    raw: Buffer,
    at: { layer: number; chunk: Chunk },
  ): CopiedGroup['entries'] | undefined {
    const found: { entry: Entry; innerOffset: number }[] = [];
    let offset = 0;
    for (let i = from; i < entries.length && offset < raw.length; i += 1) {
      const { entry, stored } = entries[i] ?? raise(i);
      const header = encodeTarHeader(entry);
      if (!raw.subarray(offset, offset + header.length).equals(header)) return undefined;
      offset += header.length;
      const payload = entry.type === 'file' ? entry.sizeBytes : 0;
      if (payload > 0 && !this.#isHere(stored, raw, offset, at)) return undefined;
      const digest = entry.type === 'file' ? (stored?.digest ?? digestOf('')) : undefined;
      found.push({ entry: { ...entry, ...(digest && { digest }) }, innerOffset: offset });
      offset += payload + paddingOf(payload);
    }
    return offset === raw.length && found.length > 0 ? found : undefined;
  }

  /** Whether a file's payload lies at this place of this member, undamaged. */
  #isHere(
    stored: CheckpointNode | undefined,
    raw: Buffer,
    offset: number,
    at: { layer: number; chunk: Chunk },
  ): boolean {
    if (stored === undefined || numberOf(stored.id) !== at.layer) return false;
    const chunks = this.#chunks(stored);
    const [chunk] = chunks;
    if (chunks.length !== 1 || chunk?.blobOffset !== at.chunk.blobOffset || chunk.innerOffset !== offset) return false;
    return digestOf(raw.subarray(offset, offset + chunk.sizeBytes)) === chunk.digest;
  }

  #chunks(stored: CheckpointNode): readonly Chunk[] {
    return this.#source.entries.chunks(stored.id);
  }

  #open({ id }: CheckpointNode): OpenLayer {
    const number = numberOf(id);
    const open = this.#layers.get(number) ?? openLayer(layerFile(this.#source.store, this.#source.entries, number));
    this.#layers.set(number, open);
    return open;
  }
}

function firstPayload(entries: readonly StoredEntry[], from: number): StoredEntry | undefined {
  for (let i = from; i < Math.min(entries.length, from + LEADING_MAX); i += 1) {
    const entry = entries[i]?.entry;
    if (entry?.type === 'file' && entry.sizeBytes > 0) return entries[i];
  }
  return undefined;
}

function raise(position: number): never {
  throw new RangeError(`no entry at ${position}`);
}

/** @throws BentoError FORMAT_INVALID when the member inflates to more than `sizeMax` bytes */
async function inflate(layer: OpenLayer, chunk: Chunk, sizeMax: number): Promise<InflatedMember> {
  const stored = readExactly(layer, chunk.blobOffset, chunk.blobBytes);
  const { bytes: raw, memberBytes } = await inflateMember(stored, { sizeMax });
  return { raw, member: Buffer.from(stored.subarray(0, memberBytes)) };
}
