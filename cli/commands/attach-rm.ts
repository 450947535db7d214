import { kindOf } from '../../store/attachment.ts';
import { shortDigest } from '../../store/digest.ts';
import { chooseAttachment, withAttachments } from '../attachments.ts';
import { defineCommand } from '../command.ts';
import { oneLine } from '../terminal.ts';

export const attachRm = defineCommand({
  name: 'attach rm',
  summary: 'Take an attachment away from a checkpoint',
  usage: 'bento attach rm <ref> [<title>|<digest>] [--type <type>]',
  details:
    'Which one is said as for `bento attach get`. Its bytes go with the next `bento gc`. In a registry it is another one, to be\n' +
    'taken away as registry/path:tag, where the registry deletes; as long as it is there, `bento pull` brings it again.',
  args: { min: 1, max: 2 },
  options: { type: { type: 'string', short: 't', value: 'type', help: 'only attachments of this type' } },

  async run(ctx) {
    const [ref = '', wanted] = ctx.args;
    return await withAttachments(ref, ctx, async (place) => {
      const { digest, artifactType, files } = chooseAttachment(place, { wanted, type: ctx.options.type });
      await place.remove(new Set([digest]));
      return { ref: place.label, type: kindOf(artifactType), artifactType, title: files[0]?.title ?? null, digest };
    });
  },

  render: ({ ref, title, digest }) =>
    `Took ${oneLine(title ?? 'attachment')} (${shortDigest(digest)}) away from ${ref}`,
});
