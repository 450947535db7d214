import { kindOf } from '../../store/attachment.ts';
import { BentoError } from '../../store/errors.ts';
import { outputPath, writeOutput, writeVerified } from '../attached-output.ts';
import { chooseFile, withAttachments } from '../attachments.ts';
import { defineCommand } from '../command.ts';
import { formatSize, oneLine } from '../terminal.ts';

export const attachGet = defineCommand({
  name: 'attach get',
  summary: 'Write what is attached to a checkpoint into a file',
  usage: 'bento attach get <ref> [<title>|<digest>] [--type <type>] [-o <file>|<folder>|-] [--force]',
  details:
    'Which one: its title, the first six digits or more of its digest, or --type; none of them when there is only one. It is\n' +
    'called by its title, in the current folder or the one that -o names; - is stdout. A title that is no plain file name is\n' +
    'not taken for one: -o <file> says what to call it. Bytes are checked before anything is there. The checkpoint may be\n' +
    'in a registry; nothing else of it is fetched.',
  args: { min: 1, max: 2 },
  options: {
    type: { type: 'string', short: 't', value: 'type', help: 'only attachments of this type' },
    output: { type: 'string', short: 'o', value: 'path', help: 'file or folder to write to; - is stdout' },
    force: { type: 'boolean', help: 'replace a file that is there' },
  },

  async run(ctx) {
    const [ref = '', wanted] = ctx.args;
    const { type, output, force } = ctx.options;
    if (output === '-' && ctx.json) throw new BentoError('USAGE', '-o - and --json both want stdout');
    return await withAttachments(ref, ctx, async (place) => {
      const { attachment, file } = chooseFile(place, { wanted, type });
      const isStdout = output === '-';
      const path = isStdout ? null : await outputPath(file, output, { force });
      const bytes = counted(place.read(file), (done) =>
        ctx.progress({ label: 'Reading', done, total: file.sizeBytes, unit: 'bytes' }),
      );
      if (path === null) await writeVerified(bytes, (piece) => ctx.stdout(piece));
      else await writeOutput(path, bytes, { force });
      return {
        ref: place.label,
        type: kindOf(attachment.artifactType),
        artifactType: attachment.artifactType,
        title: file.title ?? null,
        digest: attachment.digest,
        fileDigest: file.digest,
        sizeBytes: file.sizeBytes,
        path,
      };
    });
  },

  render: ({ path, sizeBytes }) => (path === null ? '' : `Wrote ${oneLine(path)} (${formatSize(sizeBytes)})`),
});

async function* counted(
  bytes: AsyncIterable<Buffer>,
  onBytes: (done: number) => void,
): AsyncGenerator<Buffer, void, undefined> {
  let done = 0;
  for await (const piece of bytes) {
    yield piece;
    onBytes((done += piece.length));
  }
}
