import { isUndoTag } from '../../fs/workspace/heads.ts';
import type { Attachment } from '../../store/attachment.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { findAttachments } from '../../store/find-attachments.ts';
import type { Store } from '../../store/store.ts';
import { exportImages, type ImageToExport } from '../../store/transfer/export-image.ts';
import { parseImagePlace } from '../../store/transfer/image-place.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, noCheckpoints, resolveRef, storeOf } from '../open-store.ts';
import { formatSize } from '../terminal.ts';

/** Named apart from the word itself, which is reserved. */
export const exportCommand = defineCommand({
  name: 'export',
  summary: 'Write a checkpoint as an OCI image layout or archive',
  usage: 'bento export <ref> <target> [--no-attachments]  |  bento export --all <target>',
  fetches: true,
  details:
    'The target is a folder, a new file <name>.tar, oci:<folder>[:<tag>] or oci-archive:<file>[:<tag>]. A folder that is a\n' +
    'layout already gets the image added, and its tag moved. skopeo, podman, umoci and other OCI tools read both; layers\n' +
    'that the store keeps as recipes are written whole. --all exports every tag of this workspace but undo slots.\n' +
    'What is attached to a checkpoint is exported with it. Programs that want the only image of an archive, and no name,\n' +
    'such as `podman load`, see several then: --no-attachments leaves them out.',
  args: { min: 1, max: 2 },
  options: {
    all: { type: 'boolean', help: 'export every tag of this workspace' },
    noAttachments: { type: 'boolean', help: 'leave out what is attached to the checkpoints' },
  },

  async run(ctx) {
    const { all, noAttachments } = ctx.options;
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
    const attachments = noAttachments ? [] : await attachedTo(store, images, ctx);
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
  { args, dir }: Pick<Context, 'args' | 'dir'>,
  store: Store,
  { config, tag }: { config: Awaited<ReturnType<typeof findConfig>>; tag: string | undefined },
): Promise<ImageToExport> {
  const named = await resolveRef(args[0] ?? '', { store, config, dir });
  const tags = [...(await named.layout.tags())].filter(
    ([name, { digest }]) => digest === named.digest && !isUndoTag(name),
  );
  const own = tags.find(([name]) => name === named.label) ?? tags[0];
  return { tag: tag ?? own?.[0], checkpoint: await store.loadCheckpoint(named.digest) };
}
