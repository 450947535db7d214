import { isUndoTag } from '../../fs/workspace/heads.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { isTag } from '../../store/ref.ts';
import { isLocalRef } from '../../store/registry/local-ref.ts';
import { parseRemoteRef } from '../../store/registry/remote-ref.ts';
import type { Store } from '../../store/store.ts';
import {
  importImages,
  importRemote,
  type ImportedImage,
  type ImportOptions,
} from '../../store/transfer/import-image.ts';
import { noteSkipped } from '../attachments.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, storeOf } from '../open-store.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';
import { formatSize } from '../terminal.ts';
import { showPull, TransferProgress } from '../transfer-progress.ts';

/** Named apart from the word itself, which is reserved. */
export const importCommand = defineCommand({
  name: 'import',
  summary: 'Take over images from an OCI layout, an archive or a registry',
  usage: 'bento import <source> [--name <store>] [--tag <tag>] [--platform <os/arch>] [--force]',
  details:
    'The source is a layout folder or a tar archive of one, an archive of `docker save` or `podman save`, or one image of\n' +
    'them: oci:<folder>:<tag>, oci-archive:<file>:<tag>, file:///<path>:<tag>; or one of a registry:\n' +
    'docker://<registry>/<path>:<tag>. A checkpoint goes to the workspace it is from, any other image to\n' +
    'a store called like the file; it is then mounted, forked, opened and compared as <store>:<tag>.',
  args: { min: 1, max: 1 },
  options: {
    name: { type: 'string', value: 'store', help: 'store name to import into' },
    tag: { type: 'string', value: 'tag', help: 'tag the image with this instead of its own' },
    platform: PLATFORM_OPTION,
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
    const options = {
      name,
      tag,
      platform: platformOf(ctx.options.platform),
      force,
      isLocalTag: isUndoTag,
      onWait: () => ctx.note('waiting for another command that uses this store...'),
    };
    const [source = ''] = ctx.args;
    if (isRegistryUrl(source)) return { images: await importFromRegistry(store, source, { options, ctx }) };
    const onEvent = ({ bytesDone }: { bytesDone: number }): void =>
      ctx.progress({ label: 'Importing', done: bytesDone, unit: 'bytes' });
    return { images: await importImages(store, source, { ...options, onEvent }) };
  },

  render: ({ images }) => images.map(renderImage).join('\n'),
});

/** A path may look like a name in a registry: without a scheme it is a path. */
function isRegistryUrl(source: string): boolean {
  return /^(?:docker|oci):\/\//.test(source) && !isLocalRef(source);
}

async function importFromRegistry(
  store: Store,
  source: string,
  { options, ctx }: { options: ImportOptions; ctx: Context },
): Promise<ImportedImage[]> {
  const ref = parseRemoteRef(source);
  const progress = new TransferProgress(ctx, 'Importing');
  const { openRegistries } = await import('../open-registry.ts');
  await using registries = openRegistries(ctx);
  const from = { repository: registries.repository(ref), reference: ref.digest ?? ref.tag ?? 'latest' };
  return await importRemote(store, from, {
    ...options,
    signal: ctx.signal,
    onPull: (event) => showPull(event, progress, ctx),
    onSkipped: (skipped) => noteSkipped(skipped, ctx),
  });
}

function renderImage({ store, tag, digest, layerCount, attachmentCount, addedBytes, moved }: ImportedImage): string {
  const before = moved === null ? '' : `, was ${shortDigest(moved)}`;
  const attached = attachmentCount === 0 ? '' : `, ${attachmentCount} attachment(s)`;
  return `Imported ${store}:${tag} (${shortDigest(digest)}, ${layerCount} layer(s)${attached}, ${formatSize(addedBytes)} new${before})`;
}
