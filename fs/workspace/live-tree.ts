import { FLAG_EQUAL, KIND_SEEN, ScanCache, type ScanRow } from '../../index/scan-cache.ts';
import { RACY_MS } from '../../index/stat-cache.ts';
import { joinPath, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { Skipped } from '../tree/disk-node.ts';
import type { Tree } from '../tree/tree.ts';
import { DraftWriter, refsOfRow } from './scan-draft.ts';
import { nodeOfRow, rowOfNode, rowOfUnseen } from './scan-rows.ts';
import type { Compared } from './work-tree.ts';
import { Scan, type LiveNode, type Ref, type ScanOptions, type ScanResult } from './scan.ts';

/** Where what a scan found is kept for the next one. */
export interface ScanPlace {
  /** Absolute path of the cache's file. */
  file: string;
  /** Fingerprint of whatever decides which names are looked at; all are listed anew when it has changed. */
  rules: string;
}

/**
 * A directory on disk as it stood during one scan, ignored files left out. Of what has not changed since the scan that the
 * cache is of, there are no objects before somebody asks for them.
 */
export class LiveTree implements Tree<LiveNode> {
  /** Absolute path. */
  readonly dir: ByteString;
  readonly root: LiveNode;
  /** Keeps what is known by now for the next scan; missing when the scan had no place for that. */
  readonly remember: ((compared?: Compared) => void) | undefined;
  readonly #scan: ScanResult;
  readonly #children = new Map<LiveNode, readonly LiveNode[]>();
  #other: { tree: Tree | undefined; isCompared: boolean } = { tree: undefined, isCompared: false };
  /** Nodes made of rows: what is learnt of them stays with them. */
  readonly #made = new Map<number, LiveNode>();

  private constructor(dir: ByteString, scan: ScanResult, place: ScanPlace | undefined) {
    this.dir = dir;
    this.#scan = scan;
    this.remember = place && ((compared) => this.#remember(place, compared));
    this.root = typeof scan.root === 'number' ? this.#nodeOf(scan.root, '') : scan.root;
  }

  /**
   * Looks at every file once; reads none. Files that vanish meanwhile are left out.
   *
   * @param place - where `remember` keeps what is known then
   */
  static scan(dir: ByteString, options: ScanOptions, place?: ScanPlace): LiveTree {
    const cache = place && ScanCache.load(place.file, dir);
    return new LiveTree(dir, new Scan(dir, options, place && cache && { cache, rules: place.rules }).run(), place);
  }

  get skipped(): readonly Skipped[] {
    return this.#scan.skipped;
  }

  children(dir: LiveNode): readonly LiveNode[] {
    const known = this.#children.get(dir);
    if (known !== undefined) return known;
    const refs = dir.listing ?? refsOfRow(this.#scan, dir.row);
    const children = refs.flatMap((ref) => this.#childOf(ref, dir.path) ?? []);
    this.#children.set(dir, children);
    return children;
  }

  absolute(path: ByteString): ByteString {
    return path === '' ? this.dir : `${this.dir}/${path}`;
  }

  /** Whether nothing worth saving differs from a checkpoint with these layers, as far as stamps can tell. */
  isUnchangedSince(layers: readonly Digest[]): boolean {
    const { cache, isQuiet } = this.#scan;
    return cache !== undefined && cache.header.clean && isQuiet && isSameList(cache.header.layers, layers);
  }

  /** Known without a look at what is in it: it was compared with a checkpoint of these layers, and has not changed since. */
  isSameAs({ row }: LiveNode, other: Tree): boolean {
    const { cache, dirty } = this.#scan;
    if (cache === undefined || row < 0 || dirty[row] !== 0 || !cache.has(row, FLAG_EQUAL)) return false;
    if (other !== this.#other.tree) this.#other = { tree: other, isCompared: this.#wasComparedWith(other) };
    return this.#other.isCompared;
  }

  #wasComparedWith(other: Tree): boolean {
    const layers = this.#scan.cache?.header.layers ?? [];
    return (
      other instanceof CheckpointTree &&
      isSameList(
        layers,
        other.layers.map((layer) => layer.digest),
      )
    );
  }

  /** @param compared - absent: the tree was compared with no checkpoint this time */
  #remember({ file, rules }: ScanPlace, compared: Compared | undefined): void {
    if (!this.#isNews(rules, compared)) return;
    const { cache, startMs } = this.#scan;
    const draft = new DraftWriter(this.#scan, {
      rowOf: (ref) => this.#rowToKeep(ref, startMs - RACY_MS),
      equal: compared === undefined ? 'as before' : compared.differing && { except: compared.differing },
    }).run();
    const kept = compared ?? {
      layers: cache?.header.layers ?? [],
      isClean: cache?.header.clean === true && this.#scan.isQuiet,
    };
    ScanCache.store(file, { dir: this.dir, rules, layers: [...kept.layers], clean: kept.isClean }, draft, cache);
  }

  #isNews(rules: string, compared: Compared | undefined): boolean {
    const { cache, fresh, listings } = this.#scan;
    if (cache === undefined || fresh.size > 0 || listings.size > 0 || cache.header.rules !== rules) return true;
    if ([...this.#made].some(([row, node]) => node.digest !== undefined && cache.digestOf(row) === undefined))
      return true;
    if (compared === undefined) return false;
    return cache.header.clean !== compared.isClean || !isSameList(cache.header.layers, compared.layers);
  }

  #childOf(ref: Ref, dir: ByteString): LiveNode | undefined {
    if (typeof ref === 'object') return 'path' in ref ? ref : undefined;
    const { cache } = this.#scan;
    return cache?.kindOf(ref) === KIND_SEEN ? this.#nodeOf(ref, joinPath(dir, cache.nameOf(ref))) : undefined;
  }

  #nodeOf(row: number, path: ByteString): LiveNode {
    const { cache, fresh, owner } = this.#scan;
    const known = fresh.get(row) ?? this.#made.get(row);
    if (known !== undefined) return known;
    if (cache === undefined) throw new RangeError('no rows without a cache');
    const node = nodeOfRow(cache, row, { path, owner });
    this.#made.set(row, node);
    return node;
  }

  #rowToKeep(ref: Ref, racyAfterMs: number): ScanRow | number {
    if (typeof ref === 'object') return 'path' in ref ? rowOfNode(ref, racyAfterMs) : rowOfUnseen(ref);
    const { cache, fresh } = this.#scan;
    const node = fresh.get(ref);
    if (node !== undefined) return rowOfNode(node, racyAfterMs);
    const made = this.#made.get(ref);
    const hasLearnt = made?.digest !== undefined && cache?.digestOf(ref) === undefined;
    return hasLearnt ? rowOfNode(made, racyAfterMs) : ref;
  }
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}
