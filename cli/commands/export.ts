import { isUndoTag } from '../../fs/workspace/heads.ts';
import type { Attachment } from '../../store/attachment.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { findAttachments } from '../../store/find-attachments.ts';
import { isRemoteRef, parseRemoteRef } from '../../store/registry/remote-ref.ts';
import type { Store } from '../../store/store.ts';
import { exportImages, kindOfTarget, type ImageToExport } from '../../store/transfer/export-image.ts';
import { parseImagePlace, type ImagePlace } from '../../store/transfer/image-place.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, noCheckpoints, storeOf } from '../open-store.ts';
import { resolveAnyRef } from '../remote-checkpoint.ts';
import { formatSize } from '../terminal.ts';

/** Named apart from the word itself, which is reserved. */
export const exportCommand = defineCommand({
  name: 'export',
  summary: 'Write a checkpoint as an OCI image layout or archive',
  usage: 'bento export <ref> <target> [--attachments|--no-attachments]  |  bento export --all <target>',
  fetches: true,
  details:
    'The target is a folder, a new file <name>.tar, oci:<folder>[:<tag>] or oci-archive:<file>[:<tag>]. A folder that is a\n' +
    'layout already gets the image added, and its tag moved. skopeo, podman, umoci and other OCI tools read both; layers\n' +
    'that the store keeps as recipes are written whole. --all exports every tag of this workspace but undo slots.\n' +
    'What is attached to a checkpoint goes into a folder with it, but into an archive only with --attachments: programs that\n' +
    'want the only image of an archive, and no name, such as `podman load`, would see several.',
  args: { min: 1, max: 2 },
  options: {
    all: { type: 'boolean', help: 'export every tag of this workspace' },
    attachments: { type: 'boolean', help: 'into an archive: what is attached to the checkpoints, too' },
    noAttachments: { type: 'boolean', help: 'into a folder: leave out what is attached to the checkpoints' },
  },

  async run(ctx) {
    const { all } = ctx.options;
    if (ctx.args.length !== (all ? 1 : 2)) {
      throw new BentoError(
        'USAGE',
        all ? '--all takes a target and no reference' : 'export takes a reference and a target',
      );
    }
    const config = await findConfig(ctx.dir);
    const store = storeOf(config);
    using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
    const place = parseImagePlace(ctx.args.at(-1) ?? '');
    if (all && place.tag !== undefined) throw new BentoError('USAGE', `--all exports many tags, not "${place.tag}"`);
    const images = all ? await everyTag(store, config?.id) : [await oneImage(ctx, store, { config, tag: place.tag })];
    const attachments = await attachmentsFor(place, { store, images, ctx });
    const written = await exportImages(store.blobs, images, {
      place,
      options: {
        attachments,
        onEvent: ({ bytesDone, bytesTotal }) =>
          ctx.progress({ label: 'Exporting', done: bytesDone, total: bytesTotal, unit: 'bytes' }),
      },
    });
    const listed = images.map(({ tag, checkpoint }) => ({ tag: tag ?? null, digest: checkpoint.digest }));
    return { ...written, images: listed, attachmentCount: attachments.length };
  },

  render({ path, images, attachmentCount, writtenBytes }) {
    const names = images.map(({ tag, digest }) => tag ?? shortDigest(digest)).join(', ');
    const attached = attachmentCount === 0 ? '' : ` with ${attachmentCount} attachment(s)`;
    return `Exported ${names}${attached} to ${path} (${formatSize(writtenBytes)} written)`;
  },
});

/** Of an archive, many programs want the only image; of a folder, they want a tag. Of both flags, the last one counts. */
async function attachmentsFor(
  place: ImagePlace,
  { store, images, ctx }: { store: Store; images: readonly ImageToExport[]; ctx: Context },
): Promise<Attachment[]> {
  const { attachments: isWanted, noAttachments: isUnwanted } = ctx.options;
  if (isUnwanted === true) return [];
  const found = await attachedTo(store, images, ctx);
  if (isWanted === true || found.length === 0 || (await kindOfTarget(place)) === 'folder') return found;
  ctx.note(`note: ${found.length} attachment(s) stay out of the archive: --attachments takes them along`);
  return [];
}

async function attachedTo(store: Store, images: readonly ImageToExport[], ctx: Context): Promise<Attachment[]> {
  const subjects = new Set(images.map(({ checkpoint }) => checkpoint.digest));
  const { attachments, unreadable } = await findAttachments(store);
  for (const { error } of unreadable) ctx.note(`note: an attachment is left out: ${error.message}`);
  return attachments.filter(({ subject }) => subjects.has(subject));
}

async function everyTag(store: Store, id: string | undefined): Promise<ImageToExport[]> {
  const tags = id === undefined ? [] : [...(await store.layout(id).tags())];
  const images: ImageToExport[] = [];
  for (const [tag, { digest }] of tags) {
    if (!isUndoTag(tag)) images.push({ tag, checkpoint: await store.loadCheckpoint(digest) });
  }
  if (images.length === 0) throw noCheckpoints();
  return images;
}

async function oneImage(
  ctx: Context,
  store: Store,
  { config, tag }: { config: Awaited<ReturnType<typeof findConfig>>; tag: string | undefined },
): Promise<ImageToExport> {
  const [written = ''] = ctx.args;
  const named = await resolveAnyRef(written, { store, config, dir: ctx.dir }, ctx);
  const tags = [...(await named.layout.tags())].filter(
    ([name, { digest }]) => digest === named.digest && !isUndoTag(name),
  );
  const own = tags.find(([name]) => name === named.label) ?? tags[0];
  const there = isRemoteRef(written) ? parseRemoteRef(written).tag : undefined;
  return { tag: tag ?? there ?? own?.[0], checkpoint: await store.loadCheckpoint(named.digest) };
}
