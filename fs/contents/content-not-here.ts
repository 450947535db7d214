import type { Digest } from '../../store/digest.ts';
import { BlobNotHere } from '../../store/lazy-file.ts';

/** Part of a file in an indexed layer. */
export interface FilePart {
  /** The file's entry in the index. */
  id: number;
  offset: number;
  lengthBytes: number;
}

/** Part of a file is still in a registry: whoever has the time fetches it, then it can be read. */
export class ContentNotHere extends BlobNotHere {
  readonly part: FilePart;

  /**
   * @param path - of the file in its layer, as text
   * @param blob - the layer
   */
  constructor(part: FilePart, path: string, blob: { storeRoot: string; digest: Digest }) {
    super(`${path} was not fetched yet`, blob);
    this.part = part;
  }
}
