import type { Chunk } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import type { LazyFetcher } from '../../store/lazy/lazy-fetcher.ts';
import type { ChunkPacking } from '../../store/layers/layer-reader.ts';
import { isPartlyHere, type ByteSpan } from '../../store/lazy-file.ts';
import { memberBytes, type LayerFile } from './content-reader.ts';

/** Errors that bytes cause which are not those of the layer. */
const WRONG_BYTES = ['DIGEST_MISMATCH', 'FORMAT_INVALID'];

/** Brings chunks of files here from the registries that have their layers. */
export class RemoteReader {
  readonly #fetcher: LazyFetcher;
  readonly #patienceMs: number;

  /** @param patienceMs - for how long a registry that cannot be reached is asked again */
  constructor(fetcher: LazyFetcher, patienceMs: number) {
    this.#fetcher = fetcher;
    this.#patienceMs = patienceMs;
  }

  /** Waits until the bytes that a chunk is made from are here. @throws BentoError as `LazyFetcher.ensure` */
  async bring({ storeRoot, digest, packing }: LayerFile, chunk: Chunk): Promise<void> {
    if (packing === 'resumed' || !isPartlyHere(storeRoot, digest)) return; // indexing needed all of a 'resumed' one
    await this.#fetcher.ensure(digest, spanOf(chunk, packing), { patienceMs: this.#patienceMs });
  }

  /**
   * Fetches a chunk again that could not be read, and reads it again.
   *
   * @param error - what was wrong with it; thrown when nothing of the layer is in a registry, or it was something else
   * @throws BentoError REMOTE_INVALID when the registry sends wrong bytes again: they are not kept
   */
  async retry<T>(file: LayerFile, chunk: Chunk, error: BentoError, read: () => Promise<T>): Promise<T> {
    const { storeRoot, digest, packing } = file;
    const isWrong = WRONG_BYTES.includes(error.code);
    if (!isWrong && error.code !== 'BLOB_REMOTE') throw error;
    if (packing === 'resumed' || !isPartlyHere(storeRoot, digest)) throw error;
    const span = spanOf(chunk, packing);
    const options = { patienceMs: this.#patienceMs };
    if (isWrong) await this.#fetcher.again(digest, span, options);
    else await this.#fetcher.ensure(digest, span, options);
    try {
      return await read();
    } catch (again) {
      if (!(again instanceof BentoError) || !WRONG_BYTES.includes(again.code)) throw again;
      await this.#fetcher.forget(digest, span);
      throw new BentoError('REMOTE_INVALID', `${this.#fetcher.sourceOf(digest)} sent wrong bytes`, { cause: again });
    }
  }
}

function spanOf(chunk: Chunk, packing: ChunkPacking): ByteSpan {
  return { offset: chunk.blobOffset, end: chunk.blobOffset + memberBytes(chunk, packing) };
}
