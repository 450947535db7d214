import type { Statement } from 'better-sqlite3';

import type { ByteString } from '../store/byte-string.ts';
import { digestFromBytes, type Digest } from '../store/digest.ts';
import type { Chunk } from '../store/entry.ts';
import { BentoError } from '../store/errors.ts';
import type { IndexDatabase } from './database.ts';
import type { LayerKind } from './layer-index.ts';
import {
  decodeRow,
  ENTRY_COLUMNS,
  entryId,
  LARGE_BYTES_MIN,
  POSITION_SPAN,
  ROOT_POSITION,
  SHOWN_COLUMNS,
  type EntryRow,
  type RawEntryRow,
  type ShownRow,
} from './rows.ts';

/** A layer the index knows. */
export interface IndexedLayer {
  number: number;
  digest: Digest;
  kind: LayerKind;
  entryCount: number;
  contentBytes: number;
  /** Some hard link in it names a file of the layers below, whatever that is there. */
  hasLowerLinks: boolean;
  /** Something it shows has extended attributes. */
  hasXattrs: boolean;
  /** Something it shows belongs to another than the owner of the workspace. */
  hasOwners: boolean;
  /** What it was read from, as long as nobody has seen the layer itself: `LayerToIndex.claimedToc`. */
  claimedToc: Digest | undefined;
}

interface LayerRow {
  number: number;
  digest: Digest;
  kind: LayerKind;
  entry_count: number;
  content_bytes: number;
  lower_links: number;
  has_xattrs: number;
  has_owners: number;
  claimed_toc: Digest | null;
}

export type ChunkPlace = Pick<Chunk, 'blobOffset' | 'blobBytes' | 'innerOffset'>;

interface OnlyChunkRow {
  size: number;
  digest: Buffer | null;
  blob_offset: number | null;
  blob_bytes: number | null;
  inner_offset: number | null;
}

interface RawChunkRow {
  file_offset: number;
  size: number;
  digest: Buffer;
  blob_offset: number;
  blob_bytes: number;
  inner_offset: number;
}

/** The questions a tree asks of the index; every statement is prepared once. */
export class Entries {
  readonly #index: IndexDatabase;
  readonly #byId: Statement<[number], RawEntryRow>;
  readonly #child: Statement<[number, string], RawEntryRow>;
  readonly #children: Statement<[number], RawEntryRow>;
  readonly #linked: Statement<[number], RawEntryRow>;
  readonly #chunks: Statement<[number], RawChunkRow>;
  readonly #onlyChunk: Statement<[number], OnlyChunkRow>;
  readonly #shown: Statement<[number], ShownRow>;
  readonly #shownChild: Statement<[number, string], ShownRow>;
  readonly #shownChildren: Statement<[number], ShownRow>;
  readonly #names: Statement<[number, number], ByteString>;
  readonly #large: Statement<[number, number], RawEntryRow>;
  readonly #layer: Statement<[string], LayerRow>;
  readonly #layerDigest: Statement<[number], { digest: Digest; kind: LayerKind }>;

  constructor(index: IndexDatabase) {
    const { db } = index;
    this.#index = index;
    this.#byId = db.prepare<[number], RawEntryRow>(`SELECT ${ENTRY_COLUMNS} FROM entries WHERE id = ?`).raw();
    this.#child = db
      .prepare<[number, string], RawEntryRow>(`SELECT ${ENTRY_COLUMNS} FROM entries WHERE parent = ? AND name = ?`)
      .raw();
    this.#children = db
      .prepare<[number], RawEntryRow>(`SELECT ${ENTRY_COLUMNS} FROM entries WHERE parent = ? ORDER BY name`)
      .raw();
    this.#linked = db.prepare<[number], RawEntryRow>(`SELECT ${ENTRY_COLUMNS} FROM entries WHERE target = ?`).raw();
    this.#chunks = db.prepare('SELECT * FROM chunks WHERE entry = ? ORDER BY file_offset');
    this.#onlyChunk = db.prepare(
      'SELECT size, digest, blob_offset, blob_bytes, inner_offset FROM entries WHERE id = ? AND blob_offset IS NOT NULL',
    );
    this.#shown = db.prepare<[number], ShownRow>(`SELECT ${SHOWN_COLUMNS} FROM entries WHERE id = ?`).raw();
    this.#shownChild = db
      .prepare<[number, string], ShownRow>(`SELECT ${SHOWN_COLUMNS} FROM entries WHERE parent = ? AND name = ?`)
      .raw();
    this.#shownChildren = db
      .prepare<[number], ShownRow>(`SELECT ${SHOWN_COLUMNS} FROM entries WHERE parent = ? ORDER BY name`)
      .raw();
    this.#names = db
      .prepare<[number, number], ByteString>('SELECT name FROM entries WHERE parent = ? ORDER BY name LIMIT ?')
      .pluck();
    this.#large = db
      .prepare<[number, number], RawEntryRow>(
        `SELECT ${ENTRY_COLUMNS} FROM entries INDEXED BY entry_large WHERE size >= ${LARGE_BYTES_MIN} AND id > ? AND id < ?`,
      )
      .raw();
    this.#layer = db.prepare('SELECT * FROM layers WHERE digest = ?');
    this.#layerDigest = db.prepare('SELECT digest, kind FROM layers WHERE number = ?');
  }

  layer(digest: Digest): IndexedLayer | undefined {
    const row = this.#layer.get(digest);
    if (row === undefined) return undefined;
    const { number, kind, entry_count: entryCount, content_bytes: contentBytes } = row;
    return {
      number,
      digest: row.digest,
      kind,
      entryCount,
      contentBytes,
      hasLowerLinks: row.lower_links !== 0,
      hasXattrs: row.has_xattrs !== 0,
      hasOwners: row.has_owners !== 0,
      claimedToc: row.claimed_toc ?? undefined,
    };
  }

  layerOf(number: number): { digest: Digest; kind: LayerKind } | undefined {
    return this.#layerDigest.get(number);
  }

  root(layer: IndexedLayer): EntryRow {
    return this.get(entryId(layer.number, ROOT_POSITION));
  }

  /** @throws BentoError INDEX_BROKEN when there is no such row: ids come from the index itself */
  get(id: number): EntryRow {
    const row = this.find(id);
    if (row === undefined) throw new BentoError('INDEX_BROKEN', `index ${this.#index.path} has no entry ${id}`);
    return row;
  }

  find(id: number): EntryRow | undefined {
    const row = this.#byId.get(id);
    return row && decodeRow(row);
  }

  child(parent: number, name: ByteString): EntryRow | undefined {
    const row = this.#child.get(parent, name);
    return row && decodeRow(row);
  }

  /** Sorted by name, bytewise. */
  children(parent: number): EntryRow[] {
    return this.#children.all(parent).map(decodeRow);
  }

  /** What is shown of an entry, undecoded: for those who answer thousands of questions a second. */
  shown(id: number): ShownRow | undefined {
    return this.#shown.get(id);
  }

  shownChild(parent: number, name: ByteString): ShownRow | undefined {
    return this.#shownChild.get(parent, name);
  }

  /** Sorted by name, bytewise. */
  shownChildren(parent: number): ShownRow[] {
    return this.#shownChildren.all(parent);
  }

  /** The first names in a directory, at most `countMax`. */
  names(parent: number, countMax: number): ByteString[] {
    return this.#names.all(parent, countMax);
  }

  /** The large files in some layers, each under one of its names, whatever hides them from above. */
  largeFiles(layers: readonly IndexedLayer[]): EntryRow[] {
    const numbers = new Set(layers.map(({ number }) => number));
    const rows = [...numbers].flatMap((number) =>
      this.#large.all(entryId(number, 0), entryId(number, POSITION_SPAN - 1)).map(decodeRow),
    );
    return rows.filter(({ type }) => type === 'file');
  }

  /** The rows of a file with several names, itself first. */
  namesOf(id: number): EntryRow[] {
    return [this.get(id), ...this.#linked.all(id).map(decodeRow)];
  }

  /** The path of a row within its layer. */
  path(row: EntryRow): ByteString {
    const names = [row.name];
    for (let parent = row.parent; parent !== 0;) {
      const dir = this.get(parent);
      if (dir.parent !== 0) names.unshift(dir.name);
      parent = dir.parent;
    }
    return names.join('/');
  }

  /** Where in its layer the only chunk of each file lies that has one, read at once: for those who want nearly all. */
  onlyChunks(layer: number): Map<number, ChunkPlace> {
    const rows = this.#index.db
      .prepare<[number, number], [id: number, blobOffset: number, blobBytes: number, innerOffset: number]>(
        'SELECT id, blob_offset, blob_bytes, inner_offset FROM entries WHERE id > ? AND id < ? AND blob_offset IS NOT NULL',
      )
      .raw()
      .all(entryId(layer, 0), entryId(layer, POSITION_SPAN - 1));
    return new Map(
      rows.map(([id, blobOffset, blobBytes, innerOffset]) => [id, { blobOffset, blobBytes, innerOffset }]),
    );
  }

  /** Where a file's bytes lie, in order; empty for an empty file. */
  chunks(id: number): Chunk[] {
    const only = this.#onlyChunk.get(id);
    if (only !== undefined) return [onlyChunkOf(only)];
    return this.#chunks.all(id).map((row) => ({
      fileOffset: row.file_offset,
      sizeBytes: row.size,
      digest: digestFromBytes(row.digest),
      blobOffset: row.blob_offset,
      blobBytes: row.blob_bytes,
      innerOffset: row.inner_offset,
    }));
  }
}

function onlyChunkOf(row: OnlyChunkRow): Chunk {
  return {
    fileOffset: 0,
    sizeBytes: row.size,
    digest: digestFromBytes(row.digest ?? Buffer.alloc(32)),
    blobOffset: row.blob_offset ?? 0,
    blobBytes: row.blob_bytes ?? 0,
    innerOffset: row.inner_offset ?? 0,
  };
}
