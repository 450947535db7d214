import { MountTable } from '../fs/mounts/mount-table.ts';
import { treeSource, type TreeSource } from '../fs/tree/index-checkpoint.ts';
import { isServed } from '../fs/mounts/mountinfo.ts';
import type { Config } from '../fs/workspace/config-types.ts';
import { ensureId, loadConfig } from '../fs/workspace/config.ts';
import type { LayerRule } from '../fs/workspace/patterns.ts';
import { defaultStoreRoot, resolveStoreRoot } from '../fs/workspace/store-name.ts';
import type { LayerSetup, Workspace } from '../fs/workspace/workspace.ts';
import { IndexDatabase } from '../index/database.ts';
import { parseDigest, shortDigest, type Digest } from '../store/digest.ts';
import { BentoError } from '../store/errors.ts';
import type { Layout } from '../store/layout.ts';
import type { Platform } from '../store/platform.ts';
import { parseRef } from '../store/ref.ts';
import { Store } from '../store/store.ts';
import type { Context } from './command.ts';

/**
 * What a command works with: the wiring of folders that do not know each other. What only a workspace needs is imported
 * late: comparing two checkpoints, or tagging one, starts without it.
 */

/** The configuration of the directory a command is run in, or undefined when it is no workspace. */
export async function findConfig(dir: string): Promise<Config | undefined> {
  try {
    return (await loadConfig(dir)).config;
  } catch (error) {
    if (error instanceof BentoError && error.code === 'CONFIG_MISSING') return undefined;
    throw error;
  }
}

/** The store a directory uses; the user's own where there is no workspace. */
export function storeOf(config: Config | undefined): Store {
  return new Store(config?.store ?? resolveStoreRoot(defaultStoreRoot(), '/'));
}

/** Opens the index of a store, and says so when it had to be made anew. */
export async function openSource(store: Store, ctx: Pick<Context, 'note'>): Promise<TreeSource> {
  const index = await IndexDatabase.open(store.cacheDir);
  if (index.replaced) ctx.note(`note: the index ${index.path} was damaged or of another version and is being rebuilt`);
  return treeSource(store, index);
}

/** Opens the workspace in a directory. @throws BentoError CONFIG_MISSING, CONFIG_INVALID, or NOT_MOUNTED for a fork */
export async function loadWorkspace(dir: string, ctx: Pick<Context, 'home' | 'note'>): Promise<Workspace> {
  const loaded = await loadConfig(dir).catch(async (error: unknown) => {
    throw (await unmountedFork(dir)) ?? error;
  });
  const id = await ensureId(loaded);
  const source = await openSource(storeOf(loaded.config), ctx);
  const setup = await layerSetup(loaded.config, loaded.dir, ctx);
  const { openWorkspace } = await import('../fs/workspace/workspace.ts');
  const note = (line: string): void => ctx.note(line);
  const workspace = await openWorkspace(source, { dir: loaded.dir, config: loaded.config, id, setup, note });
  if (workspace.fork !== undefined && !isServed(workspace.dir)) {
    throw new BentoError('NOT_MOUNTED', `the mount daemon of the fork ${workspace.dir} is gone`, {
      hint: '`bento mounts --restore` brings the fork back, with its changes',
    });
  }
  return workspace;
}

/** The empty directory of a fork that is not mounted has no bento.yaml, but that is not what is wrong with it. */
async function unmountedFork(dir: string): Promise<BentoError | undefined> {
  const record = await new MountTable(storeOf(undefined)).at(dir);
  if (record === undefined || record.mounted) return undefined;
  return new BentoError('NOT_MOUNTED', `${dir} is a fork of ${record.ref} that is not mounted`, {
    hint: 'bento mounts --restore',
  });
}

/** With `layers:` in bento.yaml the extensions are not asked for layers; `project` takes what is left in any case. */
async function layerSetup(config: Config, dir: string, ctx: Pick<Context, 'home' | 'note'>): Promise<LayerSetup> {
  const { resolveExtensions } = await import('../extensions/resolve.ts');
  const { readBentoignore } = await import('../fs/workspace/bentoignore.ts');
  const resolved = resolveExtensions(dir, ctx.home, config.extensions);
  for (const name of resolved.unknown) ctx.note(`note: no extension is called "${name}"`);
  const ownIgnore = [...config.ignore, ...(await readBentoignore(dir))];
  const rules = config.layers === undefined ? resolved.layers : withCatchAll(config.layers);
  return { rules, ignore: [...resolved.ignore, ...ownIgnore], ownIgnore, extensions: resolved.names };
}

function withCatchAll(layers: readonly LayerRule[]): LayerRule[] {
  const rules = layers.map(({ name, patterns, catchAll }) => ({
    name,
    patterns,
    catchAll: catchAll || name === 'project',
  }));
  return rules.some((rule) => rule.catchAll) ? rules : [...rules, { name: 'project', patterns: [], catchAll: true }];
}

/** A checkpoint as the user named it. */
export interface NamedCheckpoint {
  digest: Digest;
  /** Tag, or the digest cut short. */
  label: string;
  layout: Layout;
  /** It is the undo slot of this directory. */
  isUndo: boolean;
  /** `registry/path` that a checkpoint was found in, if that takes pushes: workspaces made from it go back there. */
  remote?: string | undefined;
}

export interface RefContext {
  store: Store;
  config: Config | undefined;
  dir: string;
  /** Which image of a list of them in a registry; undefined: the one for this machine. */
  platform?: Platform | undefined;
}

/**
 * Finds the checkpoint a reference names.
 *
 * @throws BentoError REF_NOT_FOUND or REF_INVALID
 */
export async function resolveRef(written: string, { store, config, dir }: RefContext): Promise<NamedCheckpoint> {
  const ref = parseRef(written);
  const own = config?.id === undefined ? undefined : store.layout(config.id);
  if (ref.kind === 'undo') return await resolveUndo(own, dir);
  if (ref.kind === 'head') {
    if (own === undefined || config?.head === undefined) throw noCheckpoints();
    const tagged = await own.tags();
    const digest = parseDigest(config.head, 'head in bento.yaml');
    if (!tagged.has('head')) return named(own, digest, sequenceTag(tagged, digest));
  }
  const found = await store.resolve(ref.kind === 'head' ? { kind: 'tag', store: undefined, tag: 'head' } : ref, own);
  return named(found.layout, found.digest, found.tag);
}

async function resolveUndo(own: Layout | undefined, dir: string): Promise<NamedCheckpoint> {
  const { SHARED_UNDO_TAG, undoTag } = await import('../fs/workspace/heads.ts');
  const tags = await own?.tags();
  const tag = [undoTag(dir), SHARED_UNDO_TAG].find((candidate) => tags?.has(candidate));
  const found = tag === undefined ? undefined : tags?.get(tag);
  if (own === undefined || found === undefined || tag === undefined) {
    throw new BentoError('REF_NOT_FOUND', 'nothing to undo — no previous open created a backup');
  }
  return { ...named(own, found.digest, tag), isUndo: true };
}

/** What a command without a reference means: where this directory is, else the newest checkpoint. */
export async function resolveDefault(context: RefContext): Promise<NamedCheckpoint> {
  const { config, store } = context;
  if (config?.head !== undefined && (await store.blobs.has(parseDigest(config.head, 'head in bento.yaml')))) {
    return await resolveRef('head', context);
  }
  try {
    return await resolveRef('latest', context);
  } catch (error) {
    if (error instanceof BentoError && error.code === 'REF_NOT_FOUND') throw noCheckpoints();
    throw error;
  }
}

/** The tag people know a checkpoint by: `cp-N` where it has one. */
function sequenceTag(tags: ReadonlyMap<string, { digest: Digest }>, digest: Digest): string | undefined {
  const names = [...tags].filter(([, descriptor]) => descriptor.digest === digest).map(([tag]) => tag);
  return names.find((tag) => /^cp-\d+$/.test(tag)) ?? names[0];
}

function named(layout: Layout, digest: Digest, tag: string | undefined): NamedCheckpoint {
  return { layout, digest, label: tag ?? shortDigest(digest), isUndo: false };
}

/** Nothing was saved yet. */
export function noCheckpoints(): BentoError {
  return new BentoError('REF_NOT_FOUND', 'no checkpoints found. Run `bento save` first');
}
