import { createHash } from 'node:crypto';

import { shareBlobs } from '../store/blob-lock.ts';
import type { Checkpoint } from '../store/checkpoint.ts';
import { hexOf } from '../store/digest.ts';
import { formatRemoteRef, isRemoteRef, parseRemoteRef, type RemoteRef } from '../store/registry/remote-ref.ts';
import { isStoreName } from '../store/store.ts';
import type { Context } from './command.ts';
import { completeCheckpoint, type LazyMode } from './lazy.ts';
import { resolveRef, type NamedCheckpoint, type RefContext } from './open-store.ts';
import { TransferProgress } from './transfer-progress.ts';

const NAME_LENGTH_MAX = 100;

/**
 * Finds the checkpoint a reference names, here or in a registry. What is missing of it is fetched first, or as little of it
 * as `lazy` says.
 *
 * @throws BentoError as `resolveRef`, as the registry client, and FORMAT_INVALID for what is no image
 */
export async function resolveAnyRef(
  written: string,
  context: RefContext,
  ctx: Context,
  lazy: LazyMode = 'off',
): Promise<NamedCheckpoint> {
  if (isRemoteRef(written)) return await fetchCheckpoint(parseRemoteRef(written), context, { ctx, lazy });
  const named = await resolveRef(written, context);
  if (lazy === 'off') await completeCheckpoint(context.store, named.digest, ctx);
  return named;
}

/** It is kept in the store of the workspace that made it, under a tag of its own unless it has one already. */
async function fetchCheckpoint(
  ref: RemoteRef,
  { store }: RefContext,
  { ctx, lazy }: { ctx: Context; lazy: LazyMode },
): Promise<NamedCheckpoint> {
  const { asksWithoutTls, openRegistries } = await import('./open-registry.ts');
  const { LazyFetcher } = await import('../store/lazy/lazy-fetcher.ts');
  const { pullCheckpoint } = await import('../store/transfer/pull.ts');
  const progress = new TransferProgress(ctx, 'Fetching');
  const registries = openRegistries(ctx);
  const repository = registries.repository(ref);
  const fetcher = new LazyFetcher(store.root, () => repository);
  const source = { ...repository.name, plainHttp: asksWithoutTls(ref.registry) };
  try {
    using _blobs = await shareBlobs(store.root);
    const checkpoint = await pullCheckpoint(store, repository, {
      reference: ref.digest ?? ref.tag ?? 'latest',
      signal: ctx.signal,
      lazily: lazy === 'off' ? undefined : { storeRoot: store.root, fetcher, source, fetchesRest: lazy === 'rest' },
      onEvent: (event) => {
        if (event.kind === 'planned') progress.plan(event.sizeBytes);
        else progress.advance(event.digest, event.doneBytes);
      },
    });
    const { digest, size } = checkpoint;
    const layout = store.layout(storeNameFor(ref, checkpoint));
    const isTagged = [...(await layout.tags()).values()].some((tagged) => tagged.digest === digest);
    if (!isTagged) await layout.setTags([`remote-${hexOf(digest).slice(0, 12)}`], { digest, size });
    return { digest, layout, label: formatRemoteRef(ref), isUndo: false };
  } finally {
    fetcher.close();
    await registries.close();
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
