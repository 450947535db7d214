import { join } from 'node:path';

import { attachFile, type AttachResult } from '../../../store/attach-file.ts';
import { parseAttachmentType } from '../../../store/attachment.ts';
import type { CheckpointLayer } from '../../../store/checkpoint.ts';
import { storeCheckpoint } from '../../../store/checkpoint.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import type { Layout } from '../../../store/layout.ts';
import { KEYS, MEDIA_TYPES } from '../../../store/manifest.ts';
import { Store } from '../../../store/store.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

/** A machine's store with one workspace. */
export interface Machine {
  store: Store;
  layout: Layout;
}

export function newMachine(t: { teardown: (fn: () => void) => void }): Machine {
  const store = new Store(join(newFolder(t), 'store'));
  return { store, layout: store.layout('ws') };
}

export interface Saved {
  digest: Digest;
  size: number;
}

/** Makes a checkpoint of layers with this content, and tags it. */
export async function saveCheckpoint(
  { store, layout }: Machine,
  contents: readonly Buffer[],
  { tags, sequence, parent }: { tags: readonly string[]; sequence: number; parent?: Digest },
): Promise<Saved> {
  await layout.ensure();
  const layers: CheckpointLayer[] = [];
  for (const [i, bytes] of contents.entries()) {
    const title = `layer-${i}`;
    const blob = await store.blobs.put(bytes);
    const descriptor = { mediaType: MEDIA_TYPES.layer, ...blob, annotations: { [KEYS.title]: title } };
    layers.push({ title, descriptor, diffId: digestOf(bytes), fileCount: 0 });
  }
  const meta = { schemaVersion: '1.0.0', checkpoint: sequence, created: '2026-01-01T00:00:00Z' };
  const saved = await storeCheckpoint(store.blobs, { layers, meta, parent });
  await layout.setTags(tags, saved);
  return saved;
}

/** Tag -> digest. */
export async function tagsOf({ layout }: Machine): Promise<Record<string, Digest>> {
  return Object.fromEntries([...(await layout.tags())].map(([tag, { digest }]) => [tag, digest]));
}

/** Attaches a file of this content to a checkpoint. */
export async function attachTo(
  machine: Machine,
  subject: Saved,
  { content = 'ok', title = 'results.json', type = 'test-results' } = {},
): Promise<AttachResult> {
  return await attachFile(machine, pieces(Buffer.from(content)), {
    subject: { mediaType: MEDIA_TYPES.manifest, ...subject },
    type: parseAttachmentType(type),
    title,
    shown: title,
    now: new Date('2026-03-10T12:00:00.123Z'),
  });
}

export async function* pieces(...all: Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const piece of all) yield await Promise.resolve(piece);
}
