import { createHash } from 'node:crypto';

import { shareBlobs } from '../store/blob-lock.ts';
import type { Checkpoint } from '../store/checkpoint.ts';
import type { Digest } from '../store/digest.ts';
import { BentoError } from '../store/errors.ts';
import type { ArrivedToc } from '../store/lazy/begin-blob.ts';
import type { TreeSource } from '../fs/tree/index-checkpoint.ts';
import { parseRef } from '../store/ref.ts';
import { formatRemoteRef, isRemoteRef, parseRemoteRef, type RemoteRef } from '../store/registry/remote-ref.ts';
import { isStoreName, type Store } from '../store/store.ts';
import type { Context } from './command.ts';
import { completeCheckpoint, warmUp, type LazyMode } from './lazy.ts';
import { remoteFor } from './remote-of.ts';
import { openSource, resolveRef, type NamedCheckpoint, type RefContext } from './open-store.ts';
import { showPull, TransferProgress } from './transfer-progress.ts';

const NAME_LENGTH_MAX = 100;

/**
 * Finds the checkpoint a reference names, here or in a registry. What is missing of it is fetched first, or as little of it
 * as `lazy` says. A tag or digest that this workspace does not have is looked for in its remote.
 *
 * @throws BentoError as `resolveRef`, as the registry client, FORMAT_INVALID for what is no image, and USAGE
 */
export async function resolveAnyRef(
  written: string,
  context: RefContext,
  ctx: Context,
  lazy: LazyMode = 'off',
): Promise<NamedCheckpoint> {
  if (isRemoteRef(written)) return await fetchCheckpoint(parseRemoteRef(written), context, { ctx, lazy });
  if (context.platform !== undefined)
    throw new BentoError('USAGE', `--platform is for images of a registry or a file, and ${written} is none`);
  try {
    const named = await resolveRef(written, context);
    if (lazy === 'off') await completeCheckpoint(context.store, named.digest, ctx);
    return named;
  } catch (error) {
    const isMissing = error instanceof BentoError && error.code === 'REF_NOT_FOUND';
    const remote = isMissing ? inRemote(written, context) : undefined;
    if (remote === undefined) throw error;
    const found = await fetchCheckpoint(remote, context, { ctx, lazy }).catch((cause: unknown) => {
      throw notFoundAnywhere(written, cause);
    });
    ctx.note(`note: ${written} was not here; it came from ${found.label}`);
    return found;
  }
}

/** What a reference to this workspace means in its remote; undefined without a remote, and for words that mean a place here. */
function inRemote(written: string, { config, dir }: RefContext): RemoteRef | undefined {
  const ref = parseRef(written);
  if (!config?.remote || (ref.kind !== 'tag' && ref.kind !== 'digest')) return undefined;
  if (ref.store !== undefined && ref.store !== config.id) return undefined;
  const { registry, repository } = parseRemoteRef(config.remote, dir);
  const [tag, digest] = ref.kind === 'tag' ? [ref.tag, undefined] : [undefined, ref.digest];
  return { registry, repository, tag, digest };
}

function notFoundAnywhere(written: string, error: unknown): unknown {
  if (!(error instanceof BentoError)) return error;
  const code = error.code === 'REMOTE_NOT_FOUND' ? 'REF_NOT_FOUND' : error.code;
  const what = `checkpoint ${written} not found locally and pull failed: ${error.message}`;
  return new BentoError(code, what, { ...(error.hint !== undefined && { hint: error.hint }), cause: error });
}

/** It is kept in the store of the workspace that made it, under a tag of its own unless it has one already. */
async function fetchCheckpoint(
  ref: RemoteRef,
  { store, platform }: RefContext,
  { ctx, lazy }: { ctx: Context; lazy: LazyMode },
): Promise<NamedCheckpoint> {
  const isMounted = lazy === 'only' || lazy === 'rest';
  if (isMounted) warmUp(store);
  const { asksWithoutTls, openRegistries } = await import('./open-registry.ts');
  const { LazyFetcher } = await import('../store/lazy/lazy-fetcher.ts');
  const { nameOfDigest, pullCheckpoint } = await import('../store/transfer/pull.ts');
  const progress = new TransferProgress(ctx, 'Fetching');
  const registries = openRegistries(ctx);
  const repository = registries.repository(ref);
  const fetcher = new LazyFetcher(store.root, () => repository);
  const source = { ...repository.name, plainHttp: asksWithoutTls(ref.registry) };
  const layers = new ArrivingLayers(store, ctx);
  try {
    using _blobs = await shareBlobs(store.root);
    const pulled = pullCheckpoint(store, repository, {
      reference: ref.digest ?? ref.tag ?? 'latest',
      platform,
      signal: ctx.signal,
      lazily:
        lazy === 'off'
          ? undefined
          : {
              storeRoot: store.root,
              fetcher,
              source,
              fetchesRest: lazy === 'rest',
              onToc: async (layer, toc) => await layers.index(layer, toc),
            },
      onEvent: (event) => showPull(event, progress, ctx),
    });
    if (lazy !== 'off') layers.prepare();
    const checkpoint = await pulled;
    if (lazy !== 'off') await layers.finish(checkpoint);
    const { digest, size } = checkpoint;
    const { mediaType } = checkpoint.manifest;
    const layout = store.layout(storeNameFor(ref, checkpoint));
    const isTagged = [...(await layout.tags()).values()].some((tagged) => tagged.digest === digest);
    if (!isTagged) await layout.setTags([nameOfDigest(ref.digest ?? digest)], { digest, size, mediaType });
    const isCheckpoint = checkpoint.meta.workspaceId !== undefined; // what else is there belongs to others, with its `latest`
    const remote = isCheckpoint ? remoteFor(ref) : undefined;
    return { digest, layout, label: formatRemoteRef(ref), isUndo: false, remote };
  } finally {
    fetcher.close();
    await layers.close();
    await registries.close();
  }
}

/**
 * Reads layers into the index as their tables of contents arrive. Here and not in the daemon: this process has room, and is
 * gone when it is done.
 */
class ArrivingLayers {
  readonly #store: Store;
  readonly #ctx: Context;
  #opened: Promise<TreeSource> | undefined;

  constructor(store: Store, ctx: Context) {
    this.#store = store;
    this.#ctx = ctx;
  }

  /** Opens the index, while the first bytes are on their way. What goes wrong is told to who needs it. */
  prepare(): void {
    this.#source().catch(() => undefined);
  }

  /** As `indexToc`. */
  async index(layer: Digest, toc: ArrivedToc): Promise<boolean> {
    const { indexToc } = await import('../fs/tree/index-checkpoint.ts');
    return indexToc(await this.#source(), layer, toc);
  }

  /** Those that came in another way, and what they make together. @throws BentoError as `openTree` */
  async finish(checkpoint: Checkpoint): Promise<void> {
    const { openTree } = await import('../fs/tree/index-checkpoint.ts');
    await openTree(await this.#source(), checkpoint);
  }

  async close(): Promise<void> {
    await this.#opened?.then(
      ({ index }) => index.close(),
      () => undefined,
    );
  }

  async #source(): Promise<TreeSource> {
    return await (this.#opened ??= openSource(this.#store, this.#ctx));
  }
}

/** The id of the workspace; an image that is none of bento's goes by where it came from. */
function storeNameFor({ registry, repository }: RemoteRef, { meta }: Checkpoint): string {
  if (meta.workspaceId !== undefined && isStoreName(meta.workspaceId)) return meta.workspaceId;
  const place = `${registry}/${repository}`;
  const unique = createHash('sha256').update(place).digest('hex').slice(0, 8);
  return `${place
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, NAME_LENGTH_MAX)}-${unique}`;
}
