import { isUndoTag } from '../../fs/workspace/heads.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { isTag } from '../../store/ref.ts';
import { importImages, type ImportedImage } from '../../store/transfer/import-image.ts';
import { defineCommand } from '../command.ts';
import { findConfig, storeOf } from '../open-store.ts';
import { formatSize } from '../terminal.ts';

/** Named apart from the word itself, which is reserved. */
export const importCommand = defineCommand({
  name: 'import',
  summary: 'Take over images from an OCI layout or an archive',
  usage: 'bento import <source> [--name <store>] [--tag <tag>] [--force]',
  details:
    'The source is a layout folder or a tar archive of one, an archive of `docker save` or `podman save`, or one image of\n' +
    'them: oci:<folder>:<tag>, oci-archive:<file>:<tag>. A checkpoint goes to the workspace it is from, any other image to\n' +
    'a store called like the file; it is then mounted, forked, opened and compared as <store>:<tag>.',
  args: { min: 1, max: 1 },
  options: {
    name: { type: 'string', value: 'store', help: 'store name to import into' },
    tag: { type: 'string', value: 'tag', help: 'tag the image with this instead of its own' },
    force: { type: 'boolean', help: 'move tags that name another checkpoint here' },
  },

  async run(ctx): Promise<{ images: ImportedImage[] }> {
    const { name, tag, force } = ctx.options;
    if (tag !== undefined && (!isTag(tag) || isUndoTag(tag))) {
      throw new BentoError('REF_INVALID', `"${tag}" is not a valid tag`, {
        hint: 'letters, digits, ".", "_" and "-", at most 128',
      });
    }
    const store = storeOf(await findConfig(ctx.dir));
    const images = await importImages(store, ctx.args[0] ?? '', {
      name,
      tag,
      force,
      isLocalTag: isUndoTag,
      onEvent: ({ bytesDone }) => ctx.progress({ label: 'Importing', done: bytesDone, unit: 'bytes' }),
      onWait: () => ctx.note('waiting for another command that uses this store...'),
    });
    return { images };
  },

  render: ({ images }) => images.map(renderImage).join('\n'),
});

function renderImage({ store, tag, digest, layerCount, attachmentCount, addedBytes, moved }: ImportedImage): string {
  const before = moved === null ? '' : `, was ${shortDigest(moved)}`;
  const attached = attachmentCount === 0 ? '' : `, ${attachmentCount} attachment(s)`;
  return `Imported ${store}:${tag} (${shortDigest(digest)}, ${layerCount} layer(s)${attached}, ${formatSize(addedBytes)} new${before})`;
}
