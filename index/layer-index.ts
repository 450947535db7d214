import { parentPath, baseName, toText, type ByteString } from '../store/byte-string.ts';
import { digestToBytes, type Digest } from '../store/digest.ts';
import type { EntryType, PackedEntry } from '../store/entry.ts';
import { BentoError } from '../store/errors.ts';
import type { IndexDatabase } from './database.ts';
import {
  encodeDigest,
  encodeXattrs,
  ENTRY_TYPES,
  entryId,
  FLAG_IMPLICIT,
  FLAG_OPAQUE,
  NUMBER_MAX,
  POSITION_MAX,
  ROOT_POSITION,
} from './rows.ts';

/** Where the bytes of a layer's chunks lie: in the blob as gzip members, in the blob as they are, or in what the blob inflates to. */
export type LayerKind = 'estargz' | 'tar' | 'tar+gzip';

export interface LayerToIndex {
  digest: Digest;
  kind: LayerKind;
  /** As `collectLayer` gives them: one for each path, in archive order. */
  entries: readonly PackedEntry[];
  /** Directories that hide their lower namesakes, with or without an entry of their own. */
  opaqueDirs: readonly ByteString[];
  /** All this is from a table of contents of this digest, which a manifest says is that of the layer. Nobody has seen the layer. */
  claimedToc?: Digest | undefined;
}

interface Draft {
  position: number;
  parent: number;
  entry: PackedEntry;
  flags: number;
  nlink: number;
  target: number | null;
  /** It changed since it was made, or written. */
  isLate: boolean;
}

/** What a row of `layers` says about all its entries. */
interface LayerTotals {
  entryCount: number;
  contentBytes: number;
  hasLowerLinks: boolean;
  hasXattrs: boolean;
  hasOwners: boolean;
}

/** Turns a layer's entries into rows: gives positions, makes up missing parents, joins hard links. */
class LayerDraft {
  readonly drafts: Draft[] = [];
  readonly #byPath = new Map<ByteString, Draft>();

  constructor() {
    this.#append(implicitDir(''), FLAG_IMPLICIT);
  }

  add(entry: PackedEntry): void {
    const flags = entry.opaque === true ? FLAG_OPAQUE : 0;
    const madeUp = this.#byPath.get(entry.path);
    if (madeUp === undefined) this.#append(entry, flags);
    else if ((madeUp.flags & FLAG_IMPLICIT) !== 0 && entry.type === 'dir')
      Object.assign(madeUp, { entry, flags, isLate: true });
    else throw new RangeError(`two entries for ${toText(entry.path)}`);
  }

  markOpaque(path: ByteString): void {
    const draft = this.#byPath.get(path) ?? this.#append(implicitDir(path), FLAG_IMPLICIT);
    draft.flags |= FLAG_OPAQUE;
  }

  totals(): LayerTotals {
    const { drafts } = this;
    const shown = drafts.filter(({ entry }) => entry.type !== 'whiteout');
    return {
      entryCount: drafts.length,
      contentBytes: drafts.reduce((sum, { entry }) => sum + entry.sizeBytes, 0),
      hasLowerLinks: drafts.some(({ entry, target }) => entry.type === 'hardlink' && target === null),
      hasXattrs: shown.some(({ entry }) => entry.xattrs !== undefined && entry.xattrs.size > 0),
      hasOwners: shown.some(({ entry }) => entry.uid !== 0 || entry.gid !== 0),
    };
  }

  #append(entry: PackedEntry, flags: number): Draft {
    const parent = entry.path === '' ? undefined : this.#parentOf(entry.path);
    const position = this.drafts.length + ROOT_POSITION;
    if (position > POSITION_MAX) throw tooManyEntries();
    const isDir = entry.type === 'dir';
    const nlink = isDir ? 2 : 1;
    const draft: Draft = { position, parent: parent?.position ?? 0, entry, flags, nlink, target: null, isLate: false };
    draft.target = this.#targetOf(entry);
    if (isDir && parent !== undefined) countName(parent);
    this.drafts.push(draft);
    this.#byPath.set(entry.path, draft);
    return draft;
  }

  #parentOf(path: ByteString): Draft {
    const parent = parentPath(path);
    const draft = this.#byPath.get(parent) ?? this.#append(implicitDir(parent), FLAG_IMPLICIT);
    if (draft.entry.type !== 'dir') {
      throw new BentoError(
        'FORMAT_INVALID',
        `layer holds "${toText(path)}" below "${toText(parent)}", which is no directory`,
      );
    }
    return draft;
  }

  /** The position a hardlink names, following links to links; null when it is in a lower layer. */
  #targetOf(entry: PackedEntry): number | null {
    if (entry.type !== 'hardlink' || entry.link === undefined) return null;
    const named = this.#byPath.get(entry.link);
    if (named === undefined) return null;
    if (named.entry.type === 'dir' || named.entry.type === 'whiteout') {
      throw new BentoError('FORMAT_INVALID', `layer links "${toText(entry.path)}" to a ${named.entry.type}`);
    }
    const target = named.target === null ? named : this.drafts[named.target - ROOT_POSITION];
    if (target === undefined) return null;
    countName(target);
    return target.position;
  }
}

function countName(draft: Draft): void {
  draft.nlink += 1;
  draft.isLate = true;
}

function tooManyEntries(): BentoError {
  return new BentoError('FORMAT_INVALID', `a layer has more than ${POSITION_MAX} files and directories`);
}

/**
 * Adds a layer's rows in one transaction. Does nothing when the layer is indexed already; but rows that are from another table
 * of contents, only claimed, make way: under another number, since who knows their ids has something else in mind.
 *
 * @returns its number
 */
export function indexLayer(index: IndexDatabase, layer: LayerToIndex): number {
  const draft = draftOf(layer);
  return index.db
    .transaction(() => {
      const claims = index.db.prepare('SELECT number, claimed_toc FROM layers WHERE digest = ?');
      const existing = claims.get(layer.digest) as { number: number; claimed_toc: Digest | null } | undefined;
      const isOther = existing !== undefined && ![null, layer.claimedToc].includes(existing.claimed_toc);
      if (existing !== undefined && !isOther) return existing.number;
      if (existing !== undefined) deleteLayer(index, existing.number);
      const number = takeNumbers(index, 1);
      insertLayer(index, number, layer, draft);
      return number;
    })
    .immediate();
}

/** Rows written in one transaction of a streamed layer: other processes get their turn in between. */
const STREAM_BATCH = 1024;

/**
 * Indexes a layer while it is being written, when its digest is not known yet. Until `finish` nothing refers to the rows;
 * those of a process that was killed go with the next `gc`. For layers without whiteouts, whose entries come in the order
 * of the table of contents, each path once.
 */
export class StreamedLayer {
  readonly #index: IndexDatabase;
  readonly #draft = new LayerDraft();
  #number: number | undefined;
  #written = 0;

  constructor(index: IndexDatabase) {
    this.#index = index;
  }

  add(entry: PackedEntry): void {
    this.#draft.add(entry);
    if (this.#draft.drafts.length - this.#written < STREAM_BATCH) return;
    this.#index.db.transaction(() => this.#write()).immediate();
  }

  /** @returns the layer's number: another one when the same layer is indexed already */
  finish({ digest, kind }: Pick<LayerToIndex, 'digest' | 'kind'>): number {
    const { db } = this.#index;
    return db
      .transaction(() => {
        const existing = layerNumber(this.#index, digest);
        if (existing !== undefined) {
          this.#forget();
          return existing;
        }
        const late = this.#draft.drafts.slice(0, this.#written).filter(({ isLate }) => isLate);
        const number = this.#write();
        insertRows(this.#index, number, late);
        insertLayerRow(this.#index, number, { digest, kind, ...this.#draft.totals() });
        this.#number = undefined;
        return number;
      })
      .immediate();
  }

  /** Takes back what a layer that came to nothing has written. Where that fails, too, on a full disk say, the next `gc` does. */
  [Symbol.dispose](): void {
    if (this.#number === undefined) return;
    try {
      this.#index.db.transaction(() => this.#forget()).immediate();
    } catch {
      // The error that ended the layer is the one to tell.
    }
  }

  #write(): number {
    const number = (this.#number ??= takeNumbers(this.#index, 1));
    const { drafts } = this.#draft;
    const unwritten = drafts.slice(this.#written);
    insertRows(this.#index, number, unwritten);
    for (const draft of unwritten) draft.isLate = false;
    this.#written = drafts.length;
    return number;
  }

  #forget(): void {
    if (this.#number !== undefined) deleteRows(this.#index, this.#number);
    this.#number = undefined;
  }
}

/** Writes a layer's rows anew under the number it has: whoever knows their ids finds the same things there. */
export function reindexLayer(index: IndexDatabase, layer: LayerToIndex): number {
  const draft = draftOf(layer);
  return index.db
    .transaction(() => {
      const number = layerNumber(index, layer.digest) ?? takeNumbers(index, 1);
      deleteLayer(index, number);
      insertLayer(index, number, layer, draft);
      return number;
    })
    .immediate();
}

function deleteLayer(index: IndexDatabase, number: number): void {
  deleteRows(index, number);
  index.db.prepare('DELETE FROM layers WHERE number = ?').run(number);
}

function deleteRows(index: IndexDatabase, number: number): void {
  const range = [entryId(number, 0), entryId(number + 1, 0)];
  index.db.prepare('DELETE FROM entries WHERE id >= ? AND id < ?').run(...range);
  index.db.prepare('DELETE FROM chunks WHERE entry >= ? AND entry < ?').run(...range);
}

function draftOf(layer: LayerToIndex): LayerDraft {
  const draft = new LayerDraft();
  for (const entry of layer.entries) draft.add(entry);
  for (const path of layer.opaqueDirs) draft.markOpaque(path);
  return draft;
}

function insertLayer(index: IndexDatabase, number: number, layer: LayerToIndex, draft: LayerDraft): void {
  insertRows(index, number, draft.drafts);
  const { digest, kind, claimedToc } = layer;
  insertLayerRow(index, number, { digest, kind, claimedToc, ...draft.totals() });
}

function insertLayerRow(
  index: IndexDatabase,
  number: number,
  layer: Pick<LayerToIndex, 'digest' | 'kind' | 'claimedToc'> & LayerTotals,
): void {
  const { digest, kind, entryCount, contentBytes, claimedToc = null } = layer;
  const flags = [layer.hasLowerLinks, layer.hasXattrs, layer.hasOwners].map(Number);
  index.db
    .prepare('INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)')
    .run(number, digest, kind, entryCount, contentBytes, ...flags, claimedToc);
}

/** The layer is here, and has the table of contents that was claimed. */
export function confirmToc({ db }: IndexDatabase, digest: Digest): void {
  db.prepare('UPDATE layers SET claimed_toc = NULL WHERE digest = ?').run(digest);
}

export function layerNumber(index: IndexDatabase, digest: Digest): number | undefined {
  const row = index.db.prepare('SELECT number FROM layers WHERE digest = ?').get(digest) as
    { number: number } | undefined;
  return row?.number;
}

/** Hands out `count` consecutive numbers that nothing else ever gets. Call inside a transaction. */
export function takeNumbers(index: IndexDatabase, count: number): number {
  const { next } = index.db.prepare('SELECT next FROM numbers').get() as { next: number };
  if (next + count > NUMBER_MAX) {
    throw new BentoError('INDEX_BROKEN', `index ${index.path} has no numbers left`, {
      hint: 'it is a cache: unmount everything, delete it and run the command again',
    });
  }
  index.db.prepare('UPDATE numbers SET next = ?').run(next + count);
  return next;
}

function insertRows(index: IndexDatabase, number: number, drafts: readonly Draft[]): void {
  const insertEntry = index.db.prepare(
    'INSERT OR REPLACE INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)',
  );
  const insertChunk = index.db.prepare('INSERT OR REPLACE INTO chunks VALUES (?,?,?,?,?,?,?)');
  for (const { position, parent, entry, flags, nlink, target } of drafts) {
    const id = entryId(number, position);
    const [only] = entry.chunks.length === 1 ? entry.chunks : [];
    insertEntry.run(
      id,
      parent === 0 ? 0 : entryId(number, parent),
      baseName(entry.path),
      typeNumber(entry.type),
      flags,
      entry.mode,
      entry.uid,
      entry.gid,
      entry.mtimeSec,
      entry.mtimeNsec,
      entry.sizeBytes,
      nlink,
      target === null ? null : entryId(number, target),
      entry.link ?? null,
      entry.rdev?.major ?? null,
      entry.rdev?.minor ?? null,
      encodeXattrs(entry.xattrs),
      encodeDigest(entry.digest),
      only?.blobOffset ?? null,
      only?.blobBytes ?? null,
      only?.innerOffset ?? null,
    );
    if (entry.chunks.length < 2) continue;
    for (const c of entry.chunks) {
      insertChunk.run(id, c.fileOffset, c.sizeBytes, digestToBytes(c.digest), c.blobOffset, c.blobBytes, c.innerOffset);
    }
  }
}

function typeNumber(type: EntryType): number {
  return ENTRY_TYPES.indexOf(type);
}

function implicitDir(path: ByteString): PackedEntry {
  return { path, type: 'dir', mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0, sizeBytes: 0, chunks: [] };
}
