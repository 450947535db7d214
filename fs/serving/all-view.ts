import { createHash } from 'node:crypto';

import { POSITION_SPAN } from '../../index/rows.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { nameTags, nameWorkspaces } from './all-names.ts';
import type { StoreFacts, WorkspaceFacts } from './store-facts.ts';

export const ROOT_NODE_ID = 1;
/** The ids below `POSITION_SPAN` belong to number 0, which the index gives to nothing: they are for what is not in it. */
const FIRST_HASHED_ID = 2;

/** What a name in a folder stands for. */
export type Shown = Folder | Link | { kind: 'checkpoint'; manifest: Digest };

/** The root, or a workspace. */
export interface Folder {
  kind: 'folder';
  nodeId: number;
  /** Moves with every change of what is in it. */
  mtimeNsec: bigint;
  entries: ReadonlyMap<ByteString, Shown>;
  /** Why the entries cannot be told, when they cannot. */
  damage: Error | undefined;
}

export interface Link {
  kind: 'link';
  nodeId: number;
  mtimeNsec: bigint;
  target: ByteString;
}

/** The folders and links above the checkpoints of a store, at one moment. */
export interface AllView {
  root: Folder;
  /** Everything that has an id of its own here. */
  nodes: ReadonlyMap<number, Folder | Link>;
}

/** A workspace that has checkpoints, and what it and they are called. */
interface Named extends WorkspaceFacts {
  name: ByteString;
  tagNames: ReadonlyMap<Digest, readonly ByteString[]>;
}

/**
 * Lays out a store as folders: one for each workspace, in it a folder for each checkpoint and a link for each further name
 * of one. A directory must not be seen at two places of one connection, so a checkpoint that two workspaces have is a
 * folder in the first and a link in the other.
 *
 * A node's id is a hash of what it is, so that a successor comes to the same; a link's of its target too, because what a
 * link says is remembered by the kernel for good.
 *
 * @param before - the view that this one follows: a folder in which something changed gets another time
 */
export function layOut(facts: StoreFacts, before?: AllView): AllView {
  const workspaces = nameAll(facts.workspaces);
  const homes = homesOf(workspaces);
  const ids = new NodeIds(workspaces);
  const folders = workspaces.map((workspace): [ByteString, Folder] => {
    const folder: Folder = {
      kind: 'folder',
      nodeId: ids.ofWorkspace(workspace),
      mtimeNsec: workspace.taggedNsec,
      entries: entriesOf(workspace, homes, ids),
      damage: workspace.damage,
    };
    return [workspace.name, folder];
  });
  const root: Folder = {
    kind: 'folder',
    nodeId: ROOT_NODE_ID,
    mtimeNsec: facts.changedNsec,
    entries: new Map(folders),
    damage: undefined,
  };
  const all = [root, ...folders.map(([, folder]) => folder)];
  for (const folder of all) touchIfChanged(folder, before?.nodes.get(folder.nodeId));
  const links = all.flatMap(({ entries }) => [...entries.values()].filter((shown) => shown.kind === 'link'));
  return { root, nodes: new Map([...all, ...links].map((node) => [node.nodeId, node])) };
}

function nameAll(facts: readonly WorkspaceFacts[]): Named[] {
  const saved = facts.filter(({ tags, damage }) => tags !== undefined || damage !== undefined);
  const names = nameWorkspaces(saved);
  return saved.map((workspace) => ({
    ...workspace,
    name: names.get(workspace.id) ?? workspace.id,
    tagNames: nameTags(workspace.tags ?? new Map()),
  }));
}

/** Where each checkpoint is a folder: in the first workspace that has it. */
function homesOf(workspaces: readonly Named[]): Map<Digest, { workspace: Named; name: ByteString }> {
  const homes = new Map<Digest, { workspace: Named; name: ByteString }>();
  for (const workspace of workspaces) {
    for (const [manifest, [name]] of workspace.tagNames) {
      if (name !== undefined && !homes.has(manifest)) homes.set(manifest, { workspace, name });
    }
  }
  return homes;
}

/** Links come first: a new checkpoint is then added at the end, and a listing in the middle of being read goes on. */
function entriesOf(workspace: Named, homes: ReturnType<typeof homesOf>, ids: NodeIds): Map<ByteString, Shown> {
  const folders: [ByteString, Shown][] = [];
  const links: [ByteString, Shown][] = [];
  for (const [manifest, [first = '', ...others]] of workspace.tagNames) {
    const home = homes.get(manifest);
    const link = (name: ByteString, target: ByteString): [ByteString, Shown] => [
      name,
      { kind: 'link', nodeId: ids.ofLink(workspace, name, target), mtimeNsec: workspace.taggedNsec, target },
    ];
    if (home === undefined || home.workspace === workspace) folders.push([first, { kind: 'checkpoint', manifest }]);
    else links.push(link(first, `../${home.workspace.name}/${home.name}`));
    links.push(...others.map((name) => link(name, first)));
  }
  return new Map([...links, ...folders]);
}

/** Two writes within one tick of the clock leave one time; and a folder may change with what another workspace does. */
function touchIfChanged(folder: Folder, before: Folder | Link | undefined): void {
  if (before?.kind !== 'folder' || folder.mtimeNsec > before.mtimeNsec) return;
  folder.mtimeNsec = isSame(folder, before) ? before.mtimeNsec : before.mtimeNsec + 1n;
}

function isSame(a: Folder, b: Folder): boolean {
  if (a.entries.size !== b.entries.size) return false;
  return [...a.entries].every(([name, shown]) => keyOf(shown) === keyOf(b.entries.get(name)));
}

function keyOf(shown: Shown | undefined): string | number | undefined {
  return shown?.kind === 'checkpoint' ? shown.manifest : shown?.nodeId;
}

/** Hands out ids that depend on nothing but what they stand for, unless two hashes meet. */
class NodeIds {
  readonly #taken = new Set<number>();
  readonly #workspaces = new Map<string, number>();

  /** Workspaces have theirs before any link does, so that no tag ever costs a folder its id. */
  constructor(workspaces: readonly { id: string }[]) {
    for (const { id } of workspaces) this.#workspaces.set(id, this.#take(`workspace ${id}`));
  }

  ofWorkspace({ id }: { id: string }): number {
    return this.#workspaces.get(id) ?? this.#take(`workspace ${id}`);
  }

  ofLink({ id }: { id: string }, name: ByteString, target: ByteString): number {
    return this.#take(`link ${id}/${name} -> ${target}`);
  }

  #take(what: string): number {
    const hash = createHash('sha256').update(what).digest().readUInt32LE(0);
    let id = FIRST_HASHED_ID + (hash % (POSITION_SPAN - FIRST_HASHED_ID));
    while (this.#taken.has(id)) id = id === POSITION_SPAN - 1 ? FIRST_HASHED_ID : id + 1;
    this.#taken.add(id);
    return id;
  }
}
