import { chmodSync, cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { LARGE_BYTES_MIN } from '../../../index/rows.ts';
import type { TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { walkTree } from '../../../fs/tree/tree.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { openCheckpoint } from '../../../fs/workspace/workspace.ts';
import { numberOf } from '../../../index/rows.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import type { Chunk } from '../../../store/entry.ts';
import { newFolder, newSource, newWorkspace } from '../../fixtures/workspaces.ts';
import { noise } from '../../store/layers/layer-fixtures.ts';

interface Teardown {
  teardown: (fn: () => void) => void;
}

/** A file in a saved checkpoint. */
export interface SavedFile {
  id: number;
  path: string;
  content: Buffer;
  digest: Digest;
  chunks: readonly Chunk[];
  layer: Digest;
  /** The layer's blob. */
  blob: string;
}

export interface SavedFiles {
  source: TreeSource;
  /** 33 MiB and a bit: the cache may hold it. */
  large: SavedFile;
  /** 2.5 MiB. */
  medium: SavedFile;
  small: SavedFile;
}

/** Bytes that compress well and quickly, no MiB of them like another. */
export function content(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes, noise(4096, seed));
  for (let at = 0; at + 4 <= sizeBytes; at += 4096) bytes.writeUInt32LE(at, at);
  return bytes;
}

const CONTENTS = {
  'large.bin': content(LARGE_BYTES_MIN + (1 << 20) + 12_345, 1),
  'medium.bin': content(2_600_000, 2),
  'small.txt': content(5000, 3),
};

let saved: Promise<{ root: string; manifest: Digest }> | undefined;

/** Saves the files once for all tests of a test file; each gets a store of its own. */
export async function saveFiles(t: Teardown): Promise<SavedFiles> {
  const { root, manifest } = await (saved ??= saveOnce());
  const copy = join(newFolder(t), 'store');
  cpSync(root, copy, { recursive: true });
  const source = await newSource(t, copy);
  const { tree } = await openCheckpoint(source, manifest);
  const ids = new Map([...walkTree(tree)].map(([path, { id }]) => [path, id]));
  const fileOf = (path: keyof typeof CONTENTS): SavedFile => {
    const id = ids.get(path) ?? 0;
    const layer = source.entries.layerOf(numberOf(id))?.digest ?? digestOf('');
    const bytes = CONTENTS[path];
    const chunks = source.entries.chunks(id);
    return { id, path, content: bytes, digest: digestOf(bytes), chunks, layer, blob: source.store.blobs.path(layer) };
  };
  return { source, large: fileOf('large.bin'), medium: fileOf('medium.bin'), small: fileOf('small.txt') };
}

async function saveOnce(): Promise<{ root: string; manifest: Digest }> {
  const ends: (() => void)[] = [];
  const t = { teardown: (end: () => void) => void ends.unshift(end) };
  const kept = { teardown: (end: () => void) => void process.once('exit', end) };
  const root = join(newFolder(kept), 'store');
  const workspace = await newWorkspace(t, { source: await newSource(t, root) });
  for (const [name, bytes] of Object.entries(CONTENTS)) writeFileSync(join(workspace.dir, name), bytes);
  const { digest } = await saveWorkspace(workspace);
  if (digest === undefined) throw new Error('nothing was saved');
  for (const end of ends) end(); // the index is closed before it is copied
  return { root, manifest: digest };
}

/** Flips a byte in the compressed form of a chunk. */
export function damage({ blob }: SavedFile, chunk: Chunk | undefined): void {
  const bytes = readFileSync(blob);
  const at = (chunk?.blobOffset ?? 0) + Math.floor((chunk?.blobBytes ?? 0) * 0.45); // not where a segment begins
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x55, at);
  chmodSync(blob, 0o644);
  writeFileSync(blob, bytes);
}

export function partOf({ content }: SavedFile, offset: number, length: number): Buffer {
  return content.subarray(offset, offset + length);
}

/** `t.deepEqual` takes seconds for a megabyte. */
export function assertPart(
  t: { true: (value: boolean, message?: string) => void },
  found: Buffer | 'slow',
  { file, offset, length }: { file: SavedFile; offset: number; length: number },
): void {
  const isEqual = found !== 'slow' && found.equals(partOf(file, offset, length));
  t.true(isEqual, `${length} bytes of ${file.path} from ${offset}`);
}
