import type { ByteString } from '../../store/byte-string.ts';
import type { Entry } from '../../store/entry.ts';
import type { LayerContent } from '../../store/layers/layer-writer.ts';
import { openRegular } from '../../store/regular-file.ts';
import { CHUNK_BYTES } from '../../store/layers/toc.ts';
import type { ContentReader } from '../contents/content-reader.ts';
import type { EarlierFiles } from './earlier-files.ts';
import { whiteoutEntry, type PlannedEntry } from './plan-layers.ts';
import type { WorkNode, WorkTree } from './work-tree.ts';

/** An entry as it is going to be written, with where the bytes of a file are. */
export interface PresentEntry {
  entry: Entry;
  content?: LayerContent;
  /** What to write when the file is gone by the time it is read. */
  ifGone?: Entry;
}

/**
 * Finds the bytes of planned files just before they are packed. Agents and compilers do not stop for a save: a file that
 * disappeared since it was planned is left out, and what it had replaced is hidden as if it had been removed.
 *
 * A file with one name is opened when its turn to be read comes. One with several is opened here, because when it is gone
 * another name, if that is still there, has to hold the bytes in its stead.
 */
export class PresentFiles {
  readonly gone: ByteString[] = [];
  readonly #tree: WorkTree;
  readonly #reader: ContentReader;
  readonly #earlier: EarlierFiles;
  /** First names of files that are gone, and the name that holds the bytes in their stead. */
  readonly #heirs = new Map<ByteString, ByteString | undefined>();

  constructor(tree: WorkTree, reader: ContentReader, earlier: EarlierFiles) {
    this.#tree = tree;
    this.#reader = reader;
    this.#earlier = earlier;
  }

  /** What is left of a planned entry; undefined when there is nothing to write. */
  take(planned: PlannedEntry<WorkNode>): PresentEntry | undefined {
    const present = this.#find(planned);
    const { earlier } = planned;
    if (present?.content === undefined || earlier === undefined || earlier.sizeBytes < CHUNK_BYTES) return present;
    return { ...present, content: { ...present.content, earlier: this.#earlier.of(earlier) } };
  }

  #find({ entry, content: node, stored, linkKey, replaces }: PlannedEntry<WorkNode>): PresentEntry | undefined {
    if (node === undefined || (stored !== undefined && entry.type !== 'file')) return { entry };
    if (stored !== undefined) return { entry, content: { read: () => this.#reader.pieces(stored.id) } };
    const first = entry.type === 'hardlink' ? entry.link : undefined;
    if (first === undefined && linkKey === undefined) {
      return { entry, content: this.#locate(node), ...(replaces && { ifGone: whiteoutEntry(entry.path) }) };
    }
    if (first !== undefined && !this.#heirs.has(first)) return { entry };
    const heir = first === undefined ? undefined : this.#heirs.get(first);
    if (heir !== undefined) return { entry: { ...entry, link: heir } };
    const content = this.#open(node);
    if (content === undefined) return this.#leaveOut(entry, { isFirst: first === undefined, replaces });
    if (first === undefined) return { entry, content };
    this.#heirs.set(first, entry.path);
    const { link: _link, ...shared } = entry;
    return { entry: { ...shared, type: 'file', sizeBytes: node.sizeBytes }, content };
  }

  /** Where the bytes are: on the disk, or in the layer below a fork. */
  #locate({ path, stamp, lower }: WorkNode): LayerContent {
    if (stamp === undefined && lower !== undefined) return { read: () => this.#reader.pieces(lower.id) };
    return { path: this.#tree.absolute(path), ...(stamp && { times: stamp }) };
  }

  #open(node: WorkNode): LayerContent | undefined {
    const located = this.#locate(node);
    if (!('path' in located)) return located;
    const fd = openRegular(located.path);
    return fd === undefined ? undefined : { fd, ...(located.times && { times: located.times }) };
  }

  #leaveOut({ path }: Entry, { isFirst, replaces }: { isFirst: boolean; replaces: boolean }): PresentEntry | undefined {
    this.gone.push(path);
    if (isFirst) this.#heirs.set(path, undefined);
    return replaces ? { entry: whiteoutEntry(path) } : undefined;
  }
}
