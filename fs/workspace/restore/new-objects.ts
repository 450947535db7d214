import type { ChunkPlace, Entries } from '../../../index/entries.ts';
import { numberOf } from '../../../index/rows.ts';
import type { ByteString } from '../../../store/byte-string.ts';
import type { Chunk } from '../../../store/entry.ts';
import type { Store } from '../../../store/store.ts';
import type { CheckpointNode } from '../../tree/checkpoint-tree.ts';
import { layerFile, type LayerFile } from '../../contents/content-reader.ts';
import { applyAttributes, createNode, linkNode, type AttributeOptions } from '../write-node.ts';
import type { WriteContext } from './file-job.ts';
import { FilePool } from './file-pool.ts';

/** Where checkpoints' bytes are found. */
export interface ContentSource {
  store: Store;
  entries: Entries;
}

/** Told for every attribute that could not be set. */
export type OnRefused = (path: ByteString, what: string) => void;

export interface NewObjectsOptions {
  source: ContentSource;
  context: WriteContext;
  onRefused?: OnRefused | undefined;
  /** Nearly all files of the layers will be wanted, so their places are looked up at once. */
  wantsAll: boolean;
}

/** Makes a checkpoint's objects where nothing is: all but directories, which whoever walks the tree makes first. */
export class NewObjects {
  readonly attributes: AttributeOptions;
  readonly #options: NewObjectsOptions;
  readonly #pool: FilePool;
  /** Where the first name of a file with several lies. */
  readonly #linked = new Map<string, ByteString>();
  readonly #links: { first: ByteString; place: ByteString }[] = [];
  readonly #layers = new Map<number, LayerFile>();
  readonly #onlyChunks = new Map<number, ReadonlyMap<number, ChunkPlace>>();

  constructor(options: NewObjectsOptions) {
    const { context } = options;
    this.#options = options;
    this.#pool = new FilePool(context);
    this.attributes = { owner: context.owner, onRefused: () => undefined };
  }

  /** @param place - absolute */
  add(place: ByteString, path: ByteString, node: CheckpointNode): void {
    const first = node.linkKey === undefined ? undefined : this.#linked.get(node.linkKey);
    if (first !== undefined) {
      this.#links.push({ first, place });
      return;
    }
    if (node.linkKey !== undefined) this.#linked.set(node.linkKey, place);
    if (node.type === 'file') this.#addFile(place, path, node);
    else this.#make(place, path, node);
  }

  /** Lets the threads' answers in, and waits when they cannot keep up. */
  async room(): Promise<void> {
    await this.#pool.room();
  }

  /** @throws BentoError naming the file whose bytes are lost or that cannot be written */
  async finish(): Promise<void> {
    await this.#pool.finish();
    for (const { first, place } of this.#links) linkNode(first, place);
    for (const [path, what] of this.#pool.refused) this.#options.onRefused?.(path, what);
  }

  /** Sets what belongs to a directory, when nothing more is going to be made in it. */
  describe(place: ByteString, path: ByteString, node: CheckpointNode): void {
    const onRefused = (_: ByteString, what: string): void => this.#options.onRefused?.(path, what);
    applyAttributes(place, node, { ...this.attributes, onRefused });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.close();
  }

  #make(place: ByteString, path: ByteString, node: CheckpointNode): void {
    createNode(place, node, []);
    this.describe(place, path, node);
  }

  #addFile(place: ByteString, path: ByteString, node: CheckpointNode): void {
    const { id, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, xattrs } = node;
    const job = { place, path, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, xattrs, chunks: this.#chunksOf(node) };
    this.#pool.add(this.#layerOf(numberOf(id)), job);
  }

  #chunksOf({ id, sizeBytes, digest }: CheckpointNode): readonly Chunk[] {
    if (sizeBytes === 0) return [];
    const { source, wantsAll } = this.#options;
    if (!wantsAll || digest === undefined) return source.entries.chunks(id);
    const layer = numberOf(id);
    const all = this.#onlyChunks.get(layer) ?? source.entries.onlyChunks(layer);
    this.#onlyChunks.set(layer, all);
    const only = all.get(id);
    return only === undefined ? source.entries.chunks(id) : [{ fileOffset: 0, sizeBytes, digest, ...only }];
  }

  #layerOf(number: number): LayerFile {
    const found =
      this.#layers.get(number) ?? layerFile(this.#options.source.store, this.#options.source.entries, number);
    this.#layers.set(number, found);
    return found;
  }
}
