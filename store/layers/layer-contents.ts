import { joinPath, parentPath, toText, type ByteString } from '../byte-string.ts';
import type { PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';

/** One thing a layer says, in the order it says it. */
export type LayerItem = { kind: 'entry'; entry: PackedEntry } | { kind: 'opaque'; path: ByteString };

/** What a layer holds: one entry for each path, in archive order. */
export interface LayerContents {
  entries: PackedEntry[];
  /** Opaque directories, whether or not the layer also has an entry for them. Those that do carry `opaque: true`. */
  opaqueDirs: ByteString[];
}

/**
 * Applies the rules for repeated names: a later entry replaces an earlier one; a whiteout hides only what lies in lower
 * layers, so next to an entry of the same path it is dropped, and next to a directory it makes that directory opaque.
 *
 * @throws BentoError FORMAT_INVALID when something lies below what is not a directory
 */
export async function collectLayer(items: AsyncIterable<LayerItem> | Iterable<LayerItem>): Promise<LayerContents> {
  const collector = new LayerCollector();
  for await (const item of items) collector.add(item);
  return collector.finish();
}

export class LayerCollector {
  readonly #entries = new Map<ByteString, PackedEntry>();
  readonly #opaque = new Set<ByteString>();
  readonly #whiteouts = new Map<ByteString, PackedEntry>();

  add(item: LayerItem): void {
    if (item.kind === 'opaque') {
      this.#opaque.add(item.path);
    } else if (item.entry.type === 'whiteout') {
      this.#whiteouts.set(item.entry.path, item.entry);
    } else {
      this.#entries.delete(item.entry.path); // so that the replacement takes its own place in the order
      this.#entries.set(item.entry.path, item.entry);
    }
  }

  finish(): LayerContents {
    const parents = this.#checkParents();
    for (const path of this.#whiteouts.keys()) {
      const shadow = this.#entries.get(path);
      if (shadow?.type === 'dir' || parents.has(path)) this.#opaque.add(path);
      if (shadow || parents.has(path)) this.#whiteouts.delete(path);
    }
    for (const path of this.#opaque) this.#markOpaque(path);
    return { entries: [...this.#whiteouts.values(), ...this.#entries.values()], opaqueDirs: [...this.#opaque] };
  }

  #markOpaque(path: ByteString): void {
    const entry = this.#entries.get(path);
    if (!entry) return;
    if (entry.type !== 'dir') throw notADirectory(joinPath(path, '.wh..wh..opq'), path);
    this.#entries.set(path, { ...entry, opaque: true });
  }

  /** @returns every path that has something below it */
  #checkParents(): Set<ByteString> {
    const parents = new Set<ByteString>();
    for (const path of [...this.#entries.keys(), ...this.#whiteouts.keys()]) {
      for (let child = path; child !== '';) {
        const parent = parentPath(child);
        if (parents.has(parent)) break;
        // A symlink here, followed by a file "below" it, is how a layer writes outside its tree.
        if ((this.#entries.get(parent)?.type ?? 'dir') !== 'dir') throw notADirectory(child, parent);
        parents.add(parent);
        child = parent;
      }
    }
    return parents;
  }
}

function notADirectory(path: ByteString, parent: ByteString): BentoError {
  return new BentoError('FORMAT_INVALID', `a layer holds "${toText(path)}" below "${toText(parent)}", not a directory`);
}
