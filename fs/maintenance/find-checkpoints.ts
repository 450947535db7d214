import { readFileSync } from 'node:fs';

import { shortDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Layout } from '../../store/layout.ts';
import type { Store } from '../../store/store.ts';
import { configPath } from '../workspace/config-file.ts';
import { readHeadRecords } from '../workspace/heads.ts';
import { mountFiles, readMount, tagOf } from './roots.ts';

/** Who refers to a checkpoint. */
export interface Reference {
  kind: 'tag' | 'head' | 'mount';
  /** The tag, with its workspace's id where it is another's; the `bento.yaml`; the record of the mount. */
  where: string;
  manifest: Digest;
}

/** All references of a store, and the files of them that cannot be read. */
export interface FoundReferences {
  references: Reference[];
  unreadable: { where: string; what: string }[];
}

/** Finds every checkpoint that a store promises to have. A file that is damaged is told of; the others still count. */
export async function findReferences(store: Store, ownId: string | undefined): Promise<FoundReferences> {
  const found: FoundReferences = { references: [], unreadable: [] };
  const attempt = async (run: () => Promise<Reference[]> | Reference[], where: string): Promise<void> => {
    try {
      found.references.push(...(await run()));
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      found.unreadable.push({ where, what: error.message });
    }
  };
  for (const id of await store.workspaceIds()) {
    const layout = store.layout(id);
    await attempt(async () => await tagReferences(layout, id === ownId), `${layout.dir}/index.json`);
    await attempt(async () => await headReferences(layout), `${layout.dir}/heads`);
  }
  for (const file of mountFiles(store)) await attempt(() => mountReference(file), file);
  return found;
}

async function tagReferences(layout: Layout, isOwn: boolean): Promise<Reference[]> {
  return (await layout.manifests()).flatMap((entry) => {
    const tag = tagOf(entry);
    if (tag === undefined) return []; // one that lost its last tag is nobody's promise
    return [{ kind: 'tag' as const, where: isOwn ? tag : `${layout.id}:${tag}`, manifest: entry.digest }];
  });
}

async function headReferences(layout: Layout): Promise<Reference[]> {
  return (await readHeadRecords(layout)).flatMap(({ dir }) => headReference(dir));
}

/** The head of a directory, as its `bento.yaml` has it; none where there is no such file. */
export function headReference(dir: string): Reference[] {
  let text: string;
  try {
    text = readFileSync(configPath(dir), 'utf8');
  } catch {
    return []; // gone, or not ours to read: no reference that could be wrong
  }
  const manifest = /^head:\s*["']?(sha256:[0-9a-f]{64})/m.exec(text)?.[1] as Digest | undefined;
  return manifest === undefined ? [] : [{ kind: 'head', where: configPath(dir), manifest }];
}

function mountReference(file: string): Reference[] {
  const { target = '', manifest } = readMount(file) ?? {};
  return manifest === undefined ? [] : [{ kind: 'mount', where: target, manifest }];
}

/** What people call a checkpoint: `cp-N` where it has one, else a tag of theirs, else its digest cut short. */
export function labelsOf(references: readonly Reference[]): Map<Digest, string> {
  const tags = new Map<Digest, string[]>();
  for (const { kind, where, manifest } of references) {
    tags.set(manifest, [...(tags.get(manifest) ?? []), ...(kind === 'tag' ? [where] : [])]);
  }
  return new Map([...tags].map(([digest, names]) => [digest, bestLabel(names) ?? shortDigest(digest)]));
}

function bestLabel(tags: readonly string[]): string | undefined {
  const rank = (tag: string): number => {
    if (/^cp-\d+$/.test(tag)) return 0;
    if (/:cp-\d+$/.test(tag)) return 1;
    return /(^|:)(latest|pre-open.*)$/.test(tag) ? 3 : 2;
  };
  return [...tags].sort((a, b) => rank(a) - rank(b))[0];
}
