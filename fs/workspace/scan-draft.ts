import { FLAG_EQUAL, FLAG_LINKED, KIND_SEEN, type ScanDraft, type ScanRow } from '../../index/scan-cache.ts';
import { joinPath, parentPath, type ByteString } from '../../store/byte-string.ts';
import { isDirectoryMode } from './scan-rows.ts';
import type { Ref, ScanResult } from './scan.ts';

/** What is in the directory of a row: as the scan listed it, else as the cache has it. */
export function refsOfRow({ cache, listings }: ScanResult, row: number): readonly Ref[] {
  const listed = listings.get(row);
  if (listed !== undefined || cache === undefined || row < 0) return listed ?? [];
  const [from, to] = cache.childrenOf(row);
  return Array.from({ length: to - from }, (_, i) => from + i);
}

export interface DraftOptions {
  /** What is to be written for a name: a row, or the number of the row that still holds. */
  rowOf: (ref: Ref) => ScanRow | number;
  /**
   * Which directories equal the checkpoint's: those that did and have not changed, all but the ones with these paths in
   * them, or none.
   */
  equal: 'as before' | { except: readonly ByteString[] } | undefined;
}

/** Puts what a scan found into the order of a cache: directory by directory, from the top. */
export class DraftWriter {
  readonly #scan: ScanResult;
  readonly #options: DraftOptions;
  readonly #draft: ScanDraft & { equal: Set<number> } = { rows: [], parents: [], equal: new Set() };
  /** Number in the draft to path, of directories. */
  readonly #dirs = new Map<number, ByteString>();
  /** Where the names of files with several names are. */
  readonly #linked = new Map<string, number[]>();

  constructor(scan: ScanResult, options: DraftOptions) {
    this.#scan = scan;
    this.#options = options;
  }

  run(): ScanDraft {
    const refs: Ref[] = [this.#scan.root];
    this.#add(this.#scan.root, 0, '');
    for (let at = 0; at < refs.length; at += 1) {
      const path = this.#dirs.get(at);
      if (path === undefined) continue;
      for (const ref of this.#refsIn(refs[at] as Ref)) {
        refs.push(ref);
        this.#add(ref, at, path);
      }
    }
    this.#markEqual(refs);
    return this.#draft;
  }

  #add(ref: Ref, parent: number, dir: ByteString): void {
    const at = this.#draft.rows.push(this.#options.rowOf(ref)) - 1;
    this.#draft.parents.push(parent);
    const { cache } = this.#scan;
    const isSeen = typeof ref === 'number' ? cache?.kindOf(ref) === KIND_SEEN : 'path' in ref;
    if (!isSeen) return;
    const isDir =
      typeof ref === 'number' ? isDirectoryMode(cache?.modeOf(ref) ?? 0) : 'path' in ref && ref.type === 'dir';
    const name = typeof ref === 'number' ? (cache?.nameOf(ref) ?? '') : ref.name;
    if (isDir) this.#dirs.set(at, joinPath(dir, name));
    const key = this.#linkKey(ref);
    if (key !== undefined) this.#linked.set(key, [...(this.#linked.get(key) ?? []), parent]);
  }

  #refsIn(ref: Ref): readonly Ref[] {
    if (typeof ref === 'number') return refsOfRow(this.#scan, ref);
    if (!('path' in ref)) return [];
    return ref.listing ?? refsOfRow(this.#scan, ref.row);
  }

  #linkKey(ref: Ref): string | undefined {
    if (typeof ref === 'object') return 'path' in ref ? ref.linkKey : undefined;
    const { cache } = this.#scan;
    if (cache?.has(ref, FLAG_LINKED) !== true) return undefined;
    const { dev, ino } = cache.stampOf(ref);
    return `${dev}:${ino}`;
  }

  /** Of a file with several names in the tree, a directory alone does not tell whether it still is one file. */
  #markEqual(refs: readonly Ref[]): void {
    const { equal: wanted } = this.#options;
    if (wanted === undefined) return;
    const { equal, parents } = this.#draft;
    const different = wanted === 'as before' ? undefined : withAncestors(wanted.except);
    for (const [at, path] of this.#dirs) {
      const isEqual = different === undefined ? this.#wasEqual(refs[at]) : !different.has(path);
      if (isEqual) equal.add(at);
    }
    for (const dirs of this.#linked.values()) {
      if (dirs.length < 2) continue;
      for (let dir of dirs) {
        for (; equal.delete(dir) && dir !== 0; dir = parents[dir] ?? 0);
      }
    }
  }

  #wasEqual(ref: Ref | undefined): boolean {
    const row = typeof ref === 'object' ? ('path' in ref ? ref.row : -1) : (ref ?? -1);
    return row >= 0 && this.#scan.dirty[row] === 0 && this.#scan.cache?.has(row, FLAG_EQUAL) === true;
  }
}

function withAncestors(paths: Iterable<ByteString>): Set<ByteString> {
  const all = new Set<ByteString>();
  for (let path of paths) {
    for (; !all.has(path); path = parentPath(path)) all.add(path);
  }
  return all;
}
