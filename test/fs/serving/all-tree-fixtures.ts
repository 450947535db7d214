import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { AllTree } from '../../../fs/serving/all-tree.ts';
import type { ServedNode } from '../../../fs/serving/served-tree.ts';
import { StoreTree } from '../../../fs/serving/store-tree.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { treeSource, type TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { createConfig, renderNewConfig } from '../../../fs/workspace/config-file.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { IndexDatabase } from '../../../index/database.ts';
import type { Digest } from '../../../store/digest.ts';
import { KEYS } from '../../../store/manifest.ts';
import { Store } from '../../../store/store.ts';
import { newFolder, reopenWorkspace } from '../../fixtures/workspaces.ts';

export const [APP_ID, LIB_ID] = ['ws-0123456789abcdef', 'ws-fedcba9876543210'];

/** A workspace in a directory of that name. */
export async function makeWorkspace(
  t: ExecutionContext,
  source: TreeSource,
  name: string,
  id: string,
): Promise<Workspace> {
  const dir = join(newFolder(t), name);
  mkdirSync(dir);
  await createConfig(dir, renderNewConfig({ id, store: source.store.root }));
  return await reopenWorkspace(t, source, { dir, id });
}

export async function saveFile(workspace: Workspace, name: string, content: string, tag?: string): Promise<Digest> {
  writeFileSync(join(workspace.dir, name), content);
  const { digest } = await saveWorkspace(workspace, tag === undefined ? {} : { tag });
  if (digest === undefined) throw new Error('nothing was saved');
  return digest;
}

export async function untag(workspace: Workspace, ...tags: string[]): Promise<void> {
  await workspace.layout.removeEntries(({ annotations }) => tags.includes(annotations?.[KEYS.refName] ?? ''));
}

/** As a server that has just been started opens it. */
export async function openAll(t: ExecutionContext, root: string, nowMs?: () => number): Promise<AllTree> {
  const store = new Store(root);
  const index = await IndexDatabase.open(store.cacheDir);
  const source = treeSource(store, index);
  const reader = new ContentReader(store, source.entries);
  t.teardown(() => {
    reader.close();
    index.close();
  });
  const options = { owner: { uid: 7, gid: 8 }, keepOwners: false };
  return new AllTree(store, new StoreTree(source.entries, source.trees, reader, options), nowMs);
}

export function namesIn(tree: AllTree, nodeId: number | undefined): string[] {
  return (tree.readdir(nodeId ?? 0) ?? []).map(({ name }) => name);
}

/** The node at a path, which must be there and known to the index. */
export function at(tree: AllTree, path: string): ServedNode {
  let node = tree.getattr(1);
  for (const name of path.split('/')) {
    const found = node && tree.lookup(node.nodeId, name);
    if (found === undefined || found === 'slow') throw new Error(`${path} is ${found ?? 'missing'} at ${name}`);
    node = found;
  }
  if (node === undefined) throw new Error('there is no root');
  return node;
}

export function linkAt(tree: AllTree, path: string): string | undefined {
  return tree.readlink(at(tree, path).nodeId)?.toString();
}

/** Brings every checkpoint into the index, as the slow lane does when somebody enters it. */
export async function prepareAll(tree: AllTree, source: TreeSource): Promise<void> {
  for (const { name, node } of tree.readdir(1) ?? []) {
    for (const tag of namesIn(tree, node.nodeId)) await tree.prepare(source, at(tree, name).nodeId, tag);
  }
}
