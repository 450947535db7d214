import type { ByteString } from '../../store/byte-string.ts';
import type { Entry } from '../../store/entry.ts';
import { whiteoutEntry, type PlannedEntry } from './plan-layers.ts';
import type { OpenContent, WorkNode } from './work-tree.ts';

/** An entry as it is going to be written, with the bytes of a file. */
export interface PresentEntry {
  entry: Entry;
  content?: OpenContent;
}

/**
 * Opens the files of a plan one by one, just before they are packed. Agents and compilers do not stop for a save: a file
 * that disappeared since it was planned is left out, and what it had replaced is hidden as if it had been removed.
 */
export class PresentFiles {
  readonly gone: ByteString[] = [];
  readonly #open: (node: WorkNode) => OpenContent | undefined;
  readonly #unread = new Set<OpenContent>();
  /** First names of files that are gone, and the name that holds the bytes in their stead. */
  readonly #heirs = new Map<ByteString, ByteString | undefined>();

  constructor(open: (node: WorkNode) => OpenContent | undefined) {
    this.#open = open;
  }

  /** What is left of a planned entry; undefined when there is nothing to write. */
  take({ entry, content: node, replaces }: PlannedEntry<WorkNode>): PresentEntry | undefined {
    if (node === undefined) return { entry };
    const first = entry.type === 'hardlink' ? entry.link : undefined;
    if (first !== undefined && !this.#heirs.has(first)) return { entry };
    const heir = first === undefined ? undefined : this.#heirs.get(first);
    if (heir !== undefined) return { entry: { ...entry, link: heir } };
    const content = this.#open(node);
    if (content === undefined) return this.#leaveOut(entry, { isFirst: first === undefined, replaces });
    this.#unread.add(content);
    if (first === undefined) return { entry, content };
    this.#heirs.set(first, entry.path);
    const { link: _link, ...shared } = entry;
    return { entry: { ...shared, type: 'file', sizeBytes: node.sizeBytes }, content };
  }

  *read(content: OpenContent): Generator<Buffer> {
    this.#unread.delete(content);
    yield* content.pieces();
  }

  /** Closes what nobody read: the layer was given up. */
  [Symbol.dispose](): void {
    for (const content of this.#unread) content.close();
    this.#unread.clear();
  }

  #leaveOut({ path }: Entry, { isFirst, replaces }: { isFirst: boolean; replaces: boolean }): PresentEntry | undefined {
    this.gone.push(path);
    if (isFirst) this.#heirs.set(path, undefined);
    return replaces ? { entry: whiteoutEntry(path) } : undefined;
  }
}
