import { parseAttachmentType, type AttachedFile, type Attachment } from '../store/attachment.ts';
import { shareBlobs } from '../store/blob-lock.ts';
import { shortDigest, type Digest } from '../store/digest.ts';
import { BentoError } from '../store/errors.ts';
import type { Descriptor } from '../store/manifest.ts';
import { formatRemoteRef, isRemoteRef, parseRemoteRef } from '../store/registry/remote-ref.ts';
import type { Repository } from '../store/registry/repository.ts';
import type { SkippedReferrer } from '../store/transfer/remote-attachments.ts';
import type { Context } from './command.ts';
import {
  findConfig,
  resolveDefault,
  resolveRef,
  storeOf,
  type NamedCheckpoint,
  type RefContext,
} from './open-store.ts';

/** A checkpoint, here or in a registry, and what is attached to it. */
export interface AttachmentPlace {
  /** As the user named it. */
  label: string;
  digest: Digest;
  /** Oldest first. */
  attachments: Attachment[];
  /** All bytes of a file; the last step throws when they are not what its digest says. */
  read(file: AttachedFile): AsyncIterable<Buffer>;
  remove(digests: ReadonlySet<Digest>): Promise<void>;
}

/**
 * Opens what is attached to a checkpoint for as long as `run` takes. Of one in a registry nothing is fetched but the manifests
 * of its attachments.
 *
 * @param written - undefined: where this directory is, else the newest
 */
export async function withAttachments<T>(
  written: string | undefined,
  ctx: Context,
  run: (place: AttachmentPlace) => Promise<T>,
): Promise<T> {
  if (written === undefined || !isRemoteRef(written)) return await withLocal(written, ctx, run);
  return await withRemote(written, ctx, async ({ repository, subject, label }) => {
    const { listRemoteAttachments, detachFromRemote } = await import('../store/transfer/remote-attachments.ts');
    const { oldestFirst } = await import('../store/find-attachments.ts');
    const { digest } = subject;
    const { found, skipped } = await listRemoteAttachments(repository, digest, { signal: ctx.signal });
    for (const one of skipped) ctx.note(`note: ${whichOf(one.digest)} of ${label} left out: ${one.reason}`);
    const { signal } = ctx;
    return await run({
      label,
      digest,
      attachments: found.map(({ attachment }) => attachment).sort(oldestFirst),
      read: (file) => repository.streamBlob(file, { signal }),
      remove: async (digests) => await detachFromRemote(repository, digest, { digests, signal }),
    });
  });
}

/** What a note is about: one attachment, or all of them. */
export function whichOf(digest: Digest | undefined): string {
  return digest === undefined ? 'attachments' : `attachment ${shortDigest(digest)}`;
}

/** Says what a registry lists and bento does not take. */
export function noteSkipped({ digest, subject, reason }: SkippedReferrer, { note }: Pick<Context, 'note'>): void {
  note(`note: ${whichOf(digest)} of ${shortDigest(subject)} left out: ${reason}`);
}

async function withLocal<T>(
  written: string | undefined,
  ctx: Context,
  run: (place: AttachmentPlace) => Promise<T>,
): Promise<T> {
  const { attachmentsOf } = await import('../store/find-attachments.ts');
  const { detach } = await import('../store/attach-file.ts');
  const context = await contextOf(ctx);
  const { store } = context;
  using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
  const { digest, label } = written === undefined ? await resolveDefault(context) : await resolveRef(written, context);
  const { attachments, unreadable } = await attachmentsOf(store, digest);
  for (const { error } of unreadable) ctx.note(`note: an attachment cannot be read: ${error.message}`);
  return await run({
    label,
    digest,
    attachments,
    read: (file) => store.blobs.stream(file),
    remove: async (digests) => {
      await detach(store, digests);
    },
  });
}

/** The store, and where references are looked up in it. */
export async function contextOf({ dir }: Pick<Context, 'dir'>): Promise<RefContext> {
  const config = await findConfig(dir);
  return { store: storeOf(config), config, dir };
}

/** A manifest in a registry. */
export interface RemoteSubject {
  repository: Repository;
  subject: Descriptor;
  label: string;
}

/** Finds a manifest in a registry, of which nothing is fetched. @throws BentoError REMOTE_NOT_FOUND */
export async function withRemote<T>(
  written: string,
  ctx: Context,
  run: (remote: RemoteSubject) => Promise<T>,
): Promise<T> {
  const ref = parseRemoteRef(written);
  const { openRegistries } = await import('./open-registry.ts');
  const registries = openRegistries(ctx);
  try {
    const repository = registries.repository(ref);
    const label = formatRemoteRef(ref);
    const subject = await repository.headManifest(ref.digest ?? ref.tag ?? 'latest', { signal: ctx.signal });
    if (subject !== undefined) return await run({ repository, subject, label });
    throw new BentoError('REMOTE_NOT_FOUND', `there is no ${label}`, {
      hint: 'check the name, and whether you may see it',
    });
  } finally {
    await registries.close();
  }
}

/** In which workspace's list an attachment belongs: one that lists the checkpoint, so that other tools see both. */
export async function layoutFor(
  { digest, layout }: NamedCheckpoint,
  { store }: RefContext,
): Promise<NamedCheckpoint['layout']> {
  const others = (await store.workspaceIds()).map((id) => store.layout(id));
  for (const one of [layout, ...others]) {
    const entries = await one.manifests().catch((error: unknown) => {
      if (error instanceof BentoError && one !== layout) return []; // another workspace's list is damaged
      throw error;
    });
    if (entries.some((entry) => entry.digest === digest)) return one;
  }
  return layout;
}

/** One file of an attachment; bento's own have exactly one. */
export interface ChosenFile {
  attachment: Attachment;
  file: AttachedFile;
}

const DIGEST_PREFIX = /^(?:sha256:)?([0-9a-f]{6,64})$/;

/** Which attachment somebody means. */
export interface Wish {
  /** Title, or the first digits of a digest. */
  wanted: string | undefined;
  type: string | undefined;
}

/**
 * The one file that is wished for; the only one there is when nothing is said.
 *
 * @throws BentoError REF_NOT_FOUND, REF_INVALID when several fit
 */
export function chooseFile(place: AttachmentPlace, wish: Wish): ChosenFile {
  const fitting = fittingFiles(place, wish);
  const [only, second] = fitting;
  if (only !== undefined && second === undefined) return only;
  throw only === undefined ? noneFits(place, wish) : severalFit(place, fitting);
}

/** The same for an attachment as a whole, however many files it has. */
export function chooseAttachment(place: AttachmentPlace, wish: Wish): Attachment {
  const fitting = fittingFiles(place, wish);
  const empty = place.attachments.filter((one) => one.files.length === 0 && fits(one, undefined, wish));
  const chosen = new Map([...fitting.map(({ attachment }) => attachment), ...empty].map((one) => [one.digest, one]));
  const [only, second] = chosen.values();
  if (only !== undefined && second === undefined) return only;
  throw only === undefined ? noneFits(place, wish) : severalFit(place, fitting);
}

function fittingFiles({ attachments }: AttachmentPlace, { wanted, type }: Wish): ChosenFile[] {
  const files = attachments.flatMap((attachment) => attachment.files.map((file) => ({ attachment, file })));
  const titled = files.filter(({ file }) => file.title !== undefined && file.title === wanted);
  const isTitled = titled.length > 0;
  const wish = { type, wanted: isTitled ? undefined : wanted };
  return (isTitled ? titled : files).filter(({ attachment, file }) => fits(attachment, file, wish));
}

function fits(attachment: Attachment, file: AttachedFile | undefined, { wanted, type }: Wish): boolean {
  if (type !== undefined && attachment.artifactType !== parseAttachmentType(type).artifactType) return false;
  if (wanted === undefined) return true;
  const prefix = DIGEST_PREFIX.exec(wanted)?.[1];
  if (prefix === undefined) return false;
  return [attachment.digest, file?.digest].some((digest) => digest?.startsWith(`sha256:${prefix}`));
}

function noneFits({ label, attachments }: AttachmentPlace, { wanted, type }: Wish): BentoError {
  const what = [...(wanted === undefined ? [] : [`"${wanted}"`]), ...(type === undefined ? [] : [`of type ${type}`])];
  const which = what.length === 0 ? '' : ` ${what.join(' ')}`;
  return new BentoError('REF_NOT_FOUND', `${label} has no attachment${which}`, {
    hint:
      attachments.length === 0
        ? '`bento attach <ref> <file> --type <type>` attaches one'
        : `\`bento inspect --referrers ${label}\` lists the ${attachments.length} there are`,
  });
}

const SHOWN_COUNT_MAX = 5;

function severalFit({ label }: AttachmentPlace, fitting: readonly ChosenFile[]): BentoError {
  const names = fitting.slice(0, SHOWN_COUNT_MAX).map(({ attachment: { digest, files }, file }) => {
    const own = files.length > 1 ? file.digest : digest;
    return `${(file.title ?? 'without a title').slice(0, 100)} (${own.slice(0, 19)})`;
  });
  const more = fitting.length > SHOWN_COUNT_MAX ? ', …' : '';
  return new BentoError('REF_INVALID', `${fitting.length} attachments of ${label} fit: ${names.join(', ')}${more}`, {
    hint: 'name one by the first digits of its digest',
  });
}
