import { isUndoTag } from '../../fs/workspace/heads.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { isRemoteRef, parseRemoteRef } from '../../store/registry/remote-ref.ts';
import type { Store } from '../../store/store.ts';
import { exportImages, type ImageToExport } from '../../store/transfer/export-image.ts';
import { parseImagePlace } from '../../store/transfer/image-place.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, noCheckpoints, storeOf } from '../open-store.ts';
import { resolveAnyRef } from '../remote-checkpoint.ts';
import { formatSize } from '../terminal.ts';

/** Named apart from the word itself, which is reserved. */
export const exportCommand = defineCommand({
  name: 'export',
  summary: 'Write a checkpoint as an OCI image layout or archive',
  usage: 'bento export <ref> <target>  |  bento export --all <target>',
  fetches: true,
  details:
    'The target is a folder, a new file <name>.tar, oci:<folder>[:<tag>] or oci-archive:<file>[:<tag>]. A folder that is a\n' +
    'layout already gets the image added, and its tag moved. skopeo, podman, umoci and other OCI tools read both; layers\n' +
    'that the store keeps as recipes are written whole. --all exports every tag of this workspace but undo slots.',
  args: { min: 1, max: 2 },
  options: { all: { type: 'boolean', help: 'export every tag of this workspace' } },

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
    const written = await exportImages(store.blobs, images, {
      place,
      options: {
        onEvent: ({ bytesDone, bytesTotal }) =>
          ctx.progress({ label: 'Exporting', done: bytesDone, total: bytesTotal, unit: 'bytes' }),
      },
    });
    const listed = images.map(({ tag, checkpoint }) => ({ tag: tag ?? null, digest: checkpoint.digest }));
    return { ...written, images: listed };
  },

  render({ path, images, writtenBytes }) {
    const names = images.map(({ tag, digest }) => tag ?? shortDigest(digest)).join(', ');
    return `Exported ${names} to ${path} (${formatSize(writtenBytes)} written)`;
  },
});

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
