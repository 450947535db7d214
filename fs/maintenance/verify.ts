import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';

import { checkIntegrity, countWrongRows } from '../../index/compare-layer.ts';
import { IndexDatabase, isDamage } from '../../index/database.ts';
import { layerNumber, reindexLayer, type LayerToIndex } from '../../index/layer-index.ts';
import { toText } from '../../store/byte-string.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import type { Checkpoint, CheckpointLayer } from '../../store/checkpoint.ts';
import { readAttachment } from '../../store/attachment.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { findAttachments } from '../../store/find-attachments.ts';
import { resumePath } from '../../store/layers/resume-points.ts';
import { isPartlyHere } from '../../store/lazy-file.ts';
import { readManifest } from '../../store/reachable.ts';
import type { Store } from '../../store/store.ts';
import { openTree, readLayer, treeSource, type TreeSource } from '../tree/index-checkpoint.ts';
import { BlobChecker, type FetchBlob, type StrayFile } from './blob-health.ts';
import { findReferences, headReference, labelsOf, type Reference } from './find-checkpoints.ts';
import { checkLayer, memberStarts } from './verify-layer.ts';

/** Which part is damaged. Public: `bento verify --json` prints it. */
export type DamageKind =
  | 'reference' // a tag, head or mount of a checkpoint that is not there
  | 'record' // a file that lists references and cannot be read
  | 'manifest'
  | 'config'
  | 'layer' // missing, of another length, or not what its digest says
  | 'toc'
  | 'content'
  | 'diff-id'
  | 'attachment'
  | 'archive'
  | 'cache' // from where a foreign layer can be inflated
  | 'index'
  | 'stray'; // a file among the blobs whose name is not its digest

export interface Damage {
  kind: DamageKind;
  what: string;
  /** A path, or the layer's title. */
  where: string;
  digest: Digest | null;
  /** Labels of the checkpoints that need it. */
  affects: string[];
  /** Files that are hit, as far as is known; at most 20. */
  files: string[];
  repaired: boolean;
}

export interface VerifyResult {
  checkpointCount: number;
  blobCount: number;
  sizeBytes: number;
  /** Layers that are partly in a registry still: only what is read of them is checked, whenever it is read. */
  remoteCount: number;
  damages: Damage[];
}

export type VerifyEvent =
  { kind: 'hashing'; bytesDone: number } | { kind: 'checking-layer'; layersDone: number; layerCount: number };

export interface VerifyOptions {
  /** Only these checkpoints; without, everything in the store. */
  only?: readonly { label: string; digest: Digest }[];
  /** The directory that asks: its head counts, noted or not. */
  dir: string;
  /** Its workspace, whose tags are called without its id. */
  workspaceId: string | undefined;
  /** Presence and sizes only. */
  isQuick: boolean;
  /** Mends what can be: the index, caches, blobs that there is another copy of. */
  isRepair: boolean;
  /** Where else blobs may be had from. */
  fetchBlob?: FetchBlob;
  onEvent?: (event: VerifyEvent) => void;
  onWait?: () => void;
}

/** A layer, and who needs it as what. */
interface NeededLayer {
  layer: CheckpointLayer;
  sizes: Set<number>;
  diffIds: Set<Digest>;
  affects: Set<string>;
}

/**
 * Checks checkpoints down to the last byte: every blob against its digest and its descriptor, every chunk and file of every
 * layer, what the index says, and that tags, heads and mounts lead somewhere. Damage is data, not an error.
 */
export async function verifyStore(store: Store, options: VerifyOptions): Promise<VerifyResult> {
  using _blobs = await shareBlobs(store.root, options.onWait);
  const verifier = new Verifier(store, options);
  try {
    return await verifier.run();
  } finally {
    verifier.close();
  }
}

class Verifier {
  readonly #store: Store;
  readonly #options: VerifyOptions;
  readonly #blobs: BlobChecker;
  readonly #damages: Damage[] = [];
  readonly #layers = new Map<Digest, NeededLayer>();
  readonly #needed = new Set<Digest>();
  #source: TreeSource | undefined;
  #remoteCount = 0;

  constructor(store: Store, options: VerifyOptions) {
    this.#store = store;
    this.#options = options;
    let bytesDone = 0;
    const onBytes = (count: number): void => options.onEvent?.({ kind: 'hashing', bytesDone: (bytesDone += count) });
    this.#blobs = new BlobChecker(store, { fetchBlob: options.fetchBlob, isQuick: options.isQuick, onBytes });
  }

  close(): void {
    this.#source?.index.close();
  }

  async run(): Promise<VerifyResult> {
    const { only, isRepair } = this.#options;
    const isPoolChecked = only === undefined || isRepair; // a lost blob may lie there under another name
    const strays = isPoolChecked ? await this.#blobs.checkPool() : [];
    const wanted = only === undefined ? await this.#findCheckpoints() : new Map(only.map((c) => [c.digest, c.label]));
    const checkpoints: Checkpoint[] = [];
    for (const [digest, label] of wanted) checkpoints.push(...(await this.#checkCheckpoint(digest, label)));
    await this.#checkAttachments(wanted);
    await this.#openIndex();
    await this.#checkLayers();
    for (const checkpoint of checkpoints) this.#checkTree(checkpoint, wanted.get(checkpoint.digest) ?? '');
    if (only === undefined) await this.#reportStrays(strays);
    await this.#fillIndex(checkpoints);
    const { blobCount, sizeBytes } = this.#blobs;
    return {
      checkpointCount: wanted.size,
      blobCount,
      sizeBytes,
      remoteCount: this.#remoteCount,
      damages: this.#damages,
    };
  }

  #report(kind: DamageKind, damage: Partial<Damage> & Pick<Damage, 'what' | 'where'>): void {
    this.#damages.push({ kind, digest: null, affects: [], files: [], repaired: false, ...damage });
  }

  /** @returns what is there to check, with what people call it */
  async #findCheckpoints(): Promise<Map<Digest, string>> {
    const { references, unreadable } = await findReferences(this.#store, this.#options.workspaceId);
    for (const damage of unreadable) this.#report('record', damage);
    const all = withHead(references, this.#options.dir);
    const labels = labelsOf(all);
    for (const { kind, where, manifest } of all) {
      if (await this.#store.blobs.has(manifest)) continue;
      const repaired = this.#options.isRepair && (await this.#blobs.repair(manifest));
      if (!repaired) labels.delete(manifest);
      const what = `${kind} of a checkpoint that is missing`;
      this.#report('reference', { what, where, digest: manifest, affects: kind === 'tag' ? [where] : [], repaired });
    }
    return labels;
  }

  /** @returns the checkpoint, when manifest and config are whole */
  async #checkCheckpoint(digest: Digest, label: string): Promise<Checkpoint[]> {
    if (!(await this.#checkBlob('manifest', { digest, where: label }, [label]))) return [];
    try {
      const { config, layers } = await readManifest(this.#store.blobs, digest);
      await this.#checkBlob('config', { ...config, where: label }, [label]);
      for (const layer of layers) await this.#needLayer(layer.digest);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      this.#report('manifest', { what: error.message, where: label, digest, affects: [label] });
      return [];
    }
    try {
      const checkpoint = await this.#store.loadCheckpoint(digest);
      for (const layer of checkpoint.layers) this.#need(layer, label);
      return [checkpoint];
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      await this.#needByManifest(digest, label);
      const isTold = this.#damages.some(({ kind, affects }) => kind === 'config' && affects.includes(label));
      if (!isTold) this.#report('config', { what: error.message, where: label, digest, affects: [label] });
      return [];
    }
  }

  /** What is attached to these checkpoints: bytes that have their digest, whatever they are. */
  async #checkAttachments(wanted: ReadonlyMap<Digest, string>): Promise<void> {
    const { attachments, unreadable } = await findAttachments(this.#store);
    for (const { digest } of unreadable) {
      if (digest === undefined || this.#options.only !== undefined) continue; // the list of a workspace is told of already
      if (!(await this.#checkBlob('attachment', { digest, where: 'an attachment' }, []))) continue;
      const repaired = await readAttachment(this.#store.blobs, digest);
      if (repaired !== undefined) attachments.push(repaired);
    }
    for (const { digest, subject, files, manifest } of attachments) {
      const label = wanted.get(subject);
      if (label === undefined) continue; // of a checkpoint that nobody names: the next gc takes both
      const where = `attachment ${files[0]?.title ?? shortDigest(digest)}`;
      for (const blob of [{ digest }, manifest.config, ...manifest.layers])
        await this.#checkBlob('attachment', { ...blob, where }, [label]);
    }
  }

  /** Without its config a checkpoint cannot be opened, but its layers may be whole all the same. */
  async #needByManifest(digest: Digest, label: string): Promise<void> {
    for (const [i, descriptor] of (await readManifest(this.#store.blobs, digest)).layers.entries()) {
      const title = `layer-${i + 1}`;
      this.#need({ title, descriptor, diffId: descriptor.digest, fileCount: 0 }, label, { hasDiffId: false });
    }
  }

  /** What a thin layer takes bytes from is needed, too: damaged or not, it is no stray. */
  async #needLayer(digest: Digest): Promise<void> {
    this.#needed.add(digest);
    const bases = await this.#store.blobs.basesOf(digest).catch((error: unknown) => {
      if (error instanceof BentoError) return []; // told of with the layer
      throw error;
    });
    for (const base of bases) this.#needed.add(base);
  }

  #need(layer: CheckpointLayer, label: string, { hasDiffId } = { hasDiffId: true }): void {
    const { digest, size } = layer.descriptor;
    const needed = this.#layers.get(digest) ?? { layer, sizes: new Set(), diffIds: new Set(), affects: new Set() };
    needed.sizes.add(size);
    if (hasDiffId) needed.diffIds.add(layer.diffId);
    needed.affects.add(label);
    this.#layers.set(digest, needed);
  }

  /** @returns whether the blob is whole, or is now */
  async #checkBlob(
    kind: 'manifest' | 'config' | 'layer' | 'attachment',
    { digest, size, where }: { digest: Digest; size?: number; where: string },
    affects: string[],
  ): Promise<boolean> {
    this.#needed.add(digest);
    let what = await this.#whatIsWrong(digest, size === undefined ? [] : [size]);
    if (what === undefined) return true;
    const repaired = this.#options.isRepair && (await this.#blobs.repair(digest));
    if (this.#options.isRepair && !repaired) what += '; there is no other copy here';
    this.#report(kind, { what, where, digest, affects, repaired });
    return repaired;
  }

  async #whatIsWrong(digest: Digest, sizes: Iterable<number>): Promise<string | undefined> {
    const health = await this.#blobs.health(digest);
    if (health === 'missing') return 'is missing';
    const reason = this.#blobs.reasonOf(digest);
    if (reason !== undefined) return `is thin and cannot be put together: ${reason}`;
    const actual = await this.#store.blobs.sizeOf(digest);
    for (const size of sizes) if (actual !== size) return `is ${actual ?? 0} bytes long, its descriptor says ${size}`;
    return health === 'damaged' ? 'is not what its digest says' : undefined;
  }

  async #checkLayers(): Promise<void> {
    const layerCount = this.#layers.size;
    let layersDone = 0;
    for (const needed of this.#layers.values()) {
      this.#options.onEvent?.({ kind: 'checking-layer', layersDone: layersDone++, layerCount });
      await this.#checkLayer(needed);
    }
  }

  async #checkLayer({ layer, sizes, diffIds, affects: labels }: NeededLayer): Promise<void> {
    const { title, descriptor } = layer;
    const { digest } = descriptor;
    if (isPartlyHere(this.#store.root, digest)) {
      this.#remoteCount += 1;
      return;
    }
    const affects = [...labels];
    const where = `layer ${title}`;
    const [size = descriptor.size] = [...sizes].filter((one) => one !== descriptor.size);
    const before = this.#damages.length;
    const isWhole = await this.#checkBlob('layer', { digest, size, where }, affects);
    if (this.#options.isQuick || !(await this.#store.blobs.has(digest))) return;
    const { faults, contents } = await checkLayer(this.#store, { descriptor, title, diffIds, isWhole });
    const files = faults.flatMap((fault) => fault.files).map(toText);
    if (!isWhole) {
      this.#damages.slice(before).forEach((damage) => damage.files.push(...files)); // one damage, not two
      return;
    }
    for (const { kind, what, files: hit } of faults.filter((fault) => fault.kind !== 'cache')) {
      this.#report(kind, { what, where, digest, affects, files: hit.map(toText) });
    }
    for (const { what } of faults.filter((fault) => fault.kind === 'cache')) {
      await this.#reportCache(layer, what, affects);
    }
    if (contents === undefined || this.#source === undefined) return;
    await this.#checkPointsAreThere(layer, contents, affects);
    this.#checkRows(this.#source, contents, { where, affects });
  }

  async #checkPointsAreThere(layer: CheckpointLayer, { kind, digest }: LayerToIndex, affects: string[]): Promise<void> {
    const index = this.#source?.index;
    if (kind !== 'tar+gzip' || index === undefined || layerNumber(index, digest) === undefined) return;
    const path = resumePath(this.#store.cacheDir, digest);
    if (!existsSync(path)) await this.#reportCache(layer, `its resume points ${path} are missing`, affects);
  }

  async #reportCache(layer: CheckpointLayer, what: string, affects: string[]): Promise<void> {
    const { title, descriptor } = layer;
    if (this.#options.isRepair) await readLayer(this.#store, layer);
    const repaired = this.#options.isRepair;
    this.#report('cache', { what, where: `layer ${title}`, digest: descriptor.digest, affects, repaired });
  }

  /** The rows keep their ids, so that what is mounted goes on working. */
  #checkRows(
    { index }: TreeSource,
    contents: LayerToIndex,
    { where, affects }: Pick<Damage, 'where' | 'affects'>,
  ): void {
    const wrong = this.#countWrongRows(index, contents);
    if (wrong === 0) return;
    if (this.#options.isRepair) reindexLayer(index, contents);
    const what = `${wrong} row(s) of the index are not what the layer says`;
    this.#report('index', { what, where, digest: contents.digest, affects, repaired: this.#options.isRepair });
  }

  #countWrongRows(index: IndexDatabase, contents: LayerToIndex): number {
    const members = memberStarts(this.#store, contents.digest);
    try {
      return countWrongRows(index, contents, members.isStart);
    } finally {
      members.close();
    }
  }

  /** Opens the index if there is one; a damaged one is told of, and with `isRepair` replaced. */
  async #openIndex(): Promise<void> {
    const { cacheDir } = this.#store;
    if (this.#options.isQuick || !existsSync(`${cacheDir}/index.db`)) return;
    let index = await IndexDatabase.open(cacheDir);
    const where = index.path;
    const [fault] = checkIntegrity(index);
    if (index.replaced) {
      this.#report('index', { what: 'it was damaged or of another version', where, repaired: true });
    } else if (fault !== undefined) {
      index.close();
      const repaired = this.#options.isRepair;
      this.#report('index', { what: `it is damaged: ${fault}`, where, repaired });
      if (!repaired) return;
      IndexDatabase.remove(cacheDir);
      index = await IndexDatabase.open(cacheDir);
    }
    this.#source = treeSource(this.#store, index);
  }

  #checkTree({ digest, layers }: Checkpoint, label: string): void {
    if (this.#source === undefined) return;
    const { db } = this.#source.index;
    const rows = db.prepare('SELECT layer FROM trees WHERE manifest = ? ORDER BY depth').all(digest) as {
      layer: Digest;
    }[];
    const expected = layers.map(({ descriptor }) => descriptor.digest);
    if (rows.length === 0 || String(rows.map(({ layer }) => layer)) === String(expected)) return;
    if (this.#options.isRepair) {
      db.prepare('DELETE FROM trees WHERE manifest = ?').run(digest);
      this.#source.trees.register(digest, expected);
    }
    const what = 'the index gives it other layers than its manifest';
    this.#report('index', { what, where: label, digest, affects: [label], repaired: this.#options.isRepair });
  }

  /** Only files that no checkpoint needs: what one needs is told of there. */
  async #reportStrays(strays: readonly StrayFile[]): Promise<void> {
    for (const { path, digest, actual } of strays) {
      if (digest !== undefined && this.#needed.has(digest)) continue;
      // Under a digest's name it would pass for that blob when it is stored again.
      const isUseless =
        digest !== undefined || (actual !== undefined && (await this.#blobs.health(actual)) === 'whole');
      const repaired = this.#options.isRepair && isUseless;
      if (repaired) await rm(path, { force: true });
      const what = digest === undefined ? 'is no blob' : 'is not what its name says, and nothing needs it';
      this.#report('stray', { what, where: path, digest: digest ?? null, repaired });
    }
  }

  /** An index that was made anew is filled again: that is what the wait was for. */
  async #fillIndex(checkpoints: readonly Checkpoint[]): Promise<void> {
    const source = this.#source;
    if (source === undefined || !this.#options.isRepair) return;
    for (const checkpoint of checkpoints) {
      await openTree(source, checkpoint).catch((error: unknown) => {
        if (!(error instanceof BentoError) && !isDamage(error)) throw error; // told of above
      });
    }
  }
}

/** The head of the directory that asks may not be noted yet. */
function withHead(references: readonly Reference[], dir: string): Reference[] {
  const own = headReference(dir).filter(({ where }) => !references.some((reference) => reference.where === where));
  return [...references, ...own];
}
