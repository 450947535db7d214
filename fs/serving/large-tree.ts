import type { Entries } from '../../index/entries.ts';
import { ENTRY_TYPES, LARGE_BYTES_MIN, type ShownRow } from '../../index/rows.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Xattrs } from '../../store/entry.ts';
import type { ContentReader } from '../contents/content-reader.ts';
import { entryOfNode, hasRecordedOwners, withRecordedOwners } from './node-ids.ts';
import type { ServedDirent, ServedNode, ServedTotals, ServedTree } from './served-tree.ts';
import { nodeOfRow, type Owner } from './shown-nodes.ts';

const ROOT_NODE_ID = 1;
/** An entry's id; with an `o` after it, the file belongs to whom its checkpoint says. */
const NAME = /^([1-9]\d{0,15})(o?)$/;

/** The name under which `LargeTree` has an entry. */
export function largeFileName(id: number, keepOwners: boolean): string {
  return keepOwners ? `${id}o` : String(id);
}

/**
 * The large files of all checkpoints in one flat directory, by their entries' ids. It cannot be listed: whoever knows an id
 * mounts the file over its place in a checkpoint.
 */
export class LargeTree implements ServedTree {
  readonly #entries: Entries;
  readonly #reader: ContentReader;
  readonly #owner: Owner;

  constructor(entries: Entries, reader: ContentReader, { owner }: { owner: Owner }) {
    this.#entries = entries;
    this.#reader = reader;
    this.#owner = owner;
  }

  lookup(parent: number, name: ByteString): ServedNode | undefined {
    const [, digits, mark] = (parent === ROOT_NODE_ID && NAME.exec(name)) || [];
    const id = Number(digits ?? 0);
    if (!Number.isSafeInteger(id) || id !== entryOfNode(id)) return undefined;
    return this.getattr(mark === 'o' ? withRecordedOwners(id) : id);
  }

  getattr(nodeId: number): ServedNode | undefined {
    if (nodeId === ROOT_NODE_ID) return this.#root();
    const row = this.#row(nodeId);
    if (row === undefined) return undefined;
    const ownership = { owner: this.#owner, keepOwners: hasRecordedOwners(nodeId) };
    return { ...nodeOfRow(row, ownership), nodeId };
  }

  readdir(nodeId: number): readonly ServedDirent[] | undefined {
    return nodeId === ROOT_NODE_ID ? [] : undefined;
  }

  readlink(): Buffer | undefined {
    return undefined;
  }

  read(nodeId: number, offset: number, out: Buffer): number | 'slow' {
    return this.#reader.readNow(entryOfNode(nodeId), offset, out);
  }

  xattrs(nodeId: number): Xattrs | undefined {
    return this.#row(nodeId) && this.#entries.find(entryOfNode(nodeId))?.xattrs;
  }

  statfs(nodeId: number): ServedTotals {
    return { totalBytes: this.#row(nodeId)?.[8] ?? 0, fileCount: 1 };
  }

  #row(nodeId: number): ShownRow | undefined {
    const row = this.#entries.shown(entryOfNode(nodeId));
    if (row === undefined) return undefined;
    return ENTRY_TYPES[row[2]] === 'file' && row[8] >= LARGE_BYTES_MIN ? row : undefined;
  }

  #root(): ServedNode {
    const base = { type: 'dir', mode: 0o755, mtimeSec: 0, mtimeNsec: 0, sizeBytes: 0 } as const;
    return { ...base, ...this.#owner, nodeId: ROOT_NODE_ID, ino: ROOT_NODE_ID, nlink: 2 };
  }
}
