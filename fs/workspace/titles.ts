import { parentPath, type ByteString } from '../../store/byte-string.ts';
import type { EntryRow } from '../../index/rows.ts';
import type { Entries, IndexedLayer } from '../../index/entries.ts';
import { compileLayers, NO_LAYER, type LayerAssigner, type LayerRule } from './patterns.ts';

/** A layer of the parent checkpoint, with the title whose stack it belongs to. */
export interface TitledLayer {
  title: string;
  layer: IndexedLayer;
}

/**
 * Which title a path is saved under. The patterns say which one it should be; but a layer can only show a path if no layer
 * above it hides that path, so a path goes up to the title that would hide it when there is one.
 */
export class Titles {
  /** Lowest first: the parent's order, new titles below the catch-all. */
  readonly order: readonly string[];
  readonly #entries: Entries;
  readonly #parent: readonly TitledLayer[];
  readonly #rules: readonly LayerRule[];
  readonly #assigner: LayerAssigner;
  readonly #assigned = new Map<ByteString, number>([['', NO_LAYER]]);

  constructor(entries: Entries, parent: readonly TitledLayer[], rules: readonly LayerRule[]) {
    this.#entries = entries;
    this.#parent = parent;
    this.#rules = rules;
    this.#assigner = compileLayers(rules);
    this.order = mergeOrder(parent, rules);
  }

  /** The title for a new or changed path. */
  titleFor(path: ByteString, isDir: boolean): string {
    return this.#raised(path, isDir, this.#wanted(path, isDir));
  }

  /** The upper of two titles in the order of the layers. */
  upper(a: string, b: string): string {
    return this.order.indexOf(a) >= this.order.indexOf(b) ? a : b;
  }

  /** How many of the parent's layers a new layer of this title stands on: it goes right above the title's last one. */
  insertionDepth(title: string): number {
    const at = this.order.indexOf(title);
    const above = this.#parent.findIndex((layer) => this.order.indexOf(layer.title) > at);
    return above < 0 ? this.#parent.length : above;
  }

  #wanted(path: ByteString, isDir: boolean): string {
    const index = path === '' ? NO_LAYER : this.#assign(path, isDir);
    return this.#rules[index]?.name ?? this.order.at(-1) ?? 'project';
  }

  #assign(path: ByteString, isDir: boolean): number {
    const known = isDir ? this.#assigned.get(path) : undefined;
    if (known !== undefined) return known;
    const index = this.#assigner.assign(path, isDir, this.#inherited(parentPath(path)));
    if (isDir) this.#assigned.set(path, index);
    return index;
  }

  #inherited(dir: ByteString): number {
    return dir === '' ? NO_LAYER : this.#assign(dir, true);
  }

  #raised(path: ByteString, isDir: boolean, title: string): string {
    for (let depth = this.#parent.length - 1; depth >= this.insertionDepth(title); depth -= 1) {
      const above = this.#parent[depth];
      if (above !== undefined && this.#hides(above.layer, path, isDir)) return above.title;
    }
    return title;
  }

  /** Whether this layer, lying above, would keep a new entry at `path` from being seen. */
  #hides(layer: IndexedLayer, path: ByteString, isDir: boolean): boolean {
    let row: EntryRow | undefined = this.#entries.root(layer);
    for (const name of path === '' ? [] : path.split('/')) {
      row = this.#entries.child(row.id, name);
      if (row === undefined) return false;
      if (row.type !== 'dir' || row.opaque) return true;
    }
    return !(isDir && row.implicit); // a directory's metadata comes from the topmost layer that lists it
  }
}

/** The parent's order stays as it is, since overlapping paths depend on it; new titles go below the catch-all. */
function mergeOrder(parent: readonly TitledLayer[], rules: readonly LayerRule[]): string[] {
  const order = [...new Set(parent.map((layer) => layer.title))];
  const catchAll = rules.find((rule) => rule.catchAll)?.name;
  for (const { name } of rules) {
    if (order.includes(name)) continue;
    const below = catchAll === undefined || name === catchAll ? -1 : order.indexOf(catchAll);
    order.splice(below < 0 ? order.length : below, 0, name);
  }
  return order;
}
