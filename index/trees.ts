import type { Statement } from 'better-sqlite3';

import type { Digest } from '../store/digest.ts';
import type { IndexDatabase } from './database.ts';
import type { Entries, IndexedLayer } from './entries.ts';
import { takeNumbers } from './layer-index.ts';

/** The layers of a checkpoint as the index knows them, and the numbers that name their directories in the merged tree. */
export interface IndexedTree {
  manifest: Digest;
  /** Number of the lowest layer's directories; the layer at depth d has `firstNumber + d`. */
  firstNumber: number;
  /** Lowest first. */
  layers: IndexedLayer[];
}

interface TreeRow {
  number: number;
  depth: number;
  layer: Digest;
}

/** Which checkpoints are known as trees. */
export class Trees {
  readonly #index: IndexDatabase;
  readonly #entries: Entries;
  readonly #manifests: Statement<[], Digest>;
  readonly #version: Statement<[], string>;

  constructor(index: IndexDatabase, entries: Entries) {
    const { db } = index;
    this.#index = index;
    this.#entries = entries;
    this.#manifests = db.prepare<[], Digest>('SELECT manifest FROM trees WHERE depth = 0 ORDER BY number').pluck();
    this.#version = db.prepare<[], string>("SELECT count(*) || ' ' || max(number) FROM trees WHERE depth = 0").pluck();
  }

  /** The tree of a checkpoint, or undefined when it or one of its layers is not indexed. */
  find(manifest: Digest): IndexedTree | undefined {
    const rows = this.#index.db
      .prepare('SELECT number, depth, layer FROM trees WHERE manifest = ? ORDER BY depth')
      .all(manifest) as TreeRow[];
    const [first] = rows;
    if (first === undefined) return undefined;
    const layers = rows.flatMap((row) => this.#entries.layer(row.layer) ?? []);
    return layers.length === rows.length ? { manifest, firstNumber: first.number, layers } : undefined;
  }

  /** Gives a checkpoint's directories their numbers; all its layers must be indexed. */
  register(manifest: Digest, layers: readonly Digest[]): void {
    this.#index.db
      .transaction(() => {
        if (this.#index.db.prepare('SELECT 1 FROM trees WHERE manifest = ?').get(manifest) !== undefined) return;
        const first = takeNumbers(this.#index, layers.length);
        const insert = this.#index.db.prepare('INSERT INTO trees (number, manifest, depth, layer) VALUES (?, ?, ?, ?)');
        layers.forEach((layer, depth) => insert.run(first + depth, manifest, depth, layer));
      })
      .immediate();
  }

  /** Which checkpoint a directory number belongs to, and at which depth. */
  owner(number: number): { manifest: Digest; depth: number } | undefined {
    return this.#index.db.prepare('SELECT manifest, depth FROM trees WHERE number = ?').get(number) as
      { manifest: Digest; depth: number } | undefined;
  }

  /** Every known checkpoint, in the order in which they became known. */
  manifests(): Digest[] {
    return this.#manifests.all();
  }

  /** Differs whenever `manifests` does. */
  version(): string {
    return this.#version.get() ?? '';
  }
}
