import { kindOf, parseAttachmentType } from '../../store/attachment.ts';
import type { AttachResult } from '../../store/attach-file.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { isRemoteRef } from '../../store/registry/remote-ref.ts';
import { AttachedInput } from '../attached-input.ts';
import { contextOf, layoutFor, withRemote } from '../attachments.ts';
import { defineCommand, type Context } from '../command.ts';
import { resolveRef } from '../open-store.ts';
import { formatSize, oneLine } from '../terminal.ts';

type Attached = AttachResult & { label: string };
type Type = ReturnType<typeof parseAttachmentType>;

export const attach = defineCommand({
  name: 'attach',
  summary: 'Attach a file to a checkpoint',
  usage: 'bento attach <ref> <file>|- --type <type> [--name <title>]',
  details:
    'The file becomes an OCI artifact that refers to the checkpoint, which stays what it is. `bento inspect --referrers <ref>`\n' +
    'lists what is attached, `bento attach get` reads it, `bento attach rm` takes it away. It is pushed, pulled and exported\n' +
    'with the checkpoint, and goes when the checkpoint goes. The type is diff, test-results, usage, log or a media type;\n' +
    '- reads stdin. A file of more than 1 GiB is refused, and the same file under the same title and type is attached once.\n' +
    'To a checkpoint in a registry (registry/path:tag) it is sent at once.',
  args: { min: 2, max: 2 },
  options: {
    type: { type: 'string', short: 't', value: 'type', help: 'diff, test-results, usage, log or a media type' },
    name: { type: 'string', value: 'title', help: 'its title (default: the name of the file)' },
  },

  async run(ctx) {
    const [ref = '', file = ''] = ctx.args;
    if (ctx.options.type === undefined)
      throw new BentoError('USAGE', 'attach needs --type', { hint: 'diff, test-results, usage, log or a media type' });
    const type = parseAttachmentType(ctx.options.type);
    await using input = await AttachedInput.open(file, ctx.options.name);
    const attached = isRemoteRef(ref)
      ? await attachThere(ref, input, type, ctx)
      : await attachHere(ref, input, type, ctx);
    return reportOf(attached, input);
  },

  render({ ref, type, title, digest, sizeBytes, isNew }) {
    const what = `${oneLine(title)} (${oneLine(type)}, ${formatSize(sizeBytes)}, ${shortDigest(digest)})`;
    return isNew ? `Attached ${what} to ${ref}` : `${what} is attached to ${ref} already`;
  },
});

async function attachHere(ref: string, input: AttachedInput, type: Type, ctx: Context): Promise<Attached> {
  const { attachFile } = await import('../../store/attach-file.ts');
  const context = await contextOf(ctx);
  const { store } = context;
  using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
  const named = await resolveRef(ref, context);
  const { digest, size, manifest } = await store.loadCheckpoint(named.digest);
  const layout = await layoutFor(named, context);
  const result = await attachFile({ store, layout }, input.bytes(), {
    subject: { mediaType: manifest.mediaType, digest, size },
    type,
    title: input.title,
    shown: input.shown,
    onEvent: ({ bytesDone }) => ctx.progress({ label: 'Attaching', done: bytesDone, unit: 'bytes' }),
  });
  return { ...result, label: named.label };
}

async function attachThere(ref: string, input: AttachedInput, type: Type, ctx: Context): Promise<Attached> {
  const { attachToRemote } = await import('../../store/transfer/remote-attachments.ts');
  return await withRemote(ref, ctx, async ({ repository, subject, label }) => {
    await using file = await input.forSending();
    const onProgress = (done: number): void =>
      ctx.progress({ label: 'Attaching', done, total: file.sizeBytes, unit: 'bytes' });
    const made = { subject, type, title: input.title, file, now: new Date() };
    return { ...(await attachToRemote(repository, made, { signal: ctx.signal, onProgress })), label };
  });
}

function reportOf({ attachment, isNew, label }: Attached, { title }: AttachedInput) {
  const { digest, artifactType, subject, created, files } = attachment;
  return {
    ref: label,
    subject,
    type: kindOf(artifactType),
    artifactType,
    title: files[0]?.title ?? title,
    digest,
    fileDigest: files[0]?.digest ?? null,
    sizeBytes: files[0]?.sizeBytes ?? 0,
    created,
    isNew,
  };
}
