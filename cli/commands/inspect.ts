import { walkTree } from '../../fs/tree/tree.ts';
import { openCheckpoint } from '../../fs/workspace/workspace.ts';
import { toText } from '../../store/byte-string.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { reportTitles } from '../../fs/workspace/title-report.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, openSource, resolveDefault, storeOf, type RefContext } from '../open-store.ts';
import { reportAttachment, type ReportedAttachment } from '../report-attachment.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';
import { resolveAnyRef } from '../remote-checkpoint.ts';
import { formatSize, oneLine } from '../terminal.ts';

export const inspect = defineCommand({
  name: 'inspect',
  summary: 'Show what a checkpoint holds',
  usage: 'bento inspect [<ref>] [--files] [--platform <os/arch>]  |  bento inspect [<ref>] --referrers',
  fetches: true,
  details:
    'With --referrers, what is attached to it instead: type, title, size, digest and time. Of a checkpoint in a registry\n' +
    'nothing else is fetched then.',
  args: { min: 0, max: 1 },
  options: {
    files: { type: 'boolean', help: 'list the files of every layer' },
    referrers: { type: 'boolean', help: 'list what is attached to it' },
    platform: PLATFORM_OPTION,
  },

  async run(ctx) {
    if (ctx.options.referrers) return await inspectReferrers(ctx);
    const { dir, args, options } = ctx;
    const config = await findConfig(dir);
    const platform = platformOf(options.platform);
    const context: RefContext = { store: storeOf(config), config, dir, platform };
    const named =
      args[0] === undefined && platform === undefined
        ? await resolveDefault(context)
        : await resolveAnyRef(args[0] ?? 'latest', context, ctx, 'look');
    const checkpoint = await context.store.loadCheckpoint(named.digest);
    const files = options.files ? await listFiles(context, named.digest, ctx) : undefined;
    const layers = reportTitles(checkpoint.layers, []).map(({ title, fileCount, sizeBytes, layerCount }) => ({
      title,
      fileCount,
      sizeBytes,
      layerCount,
      digests: checkpoint.layers.filter((layer) => layer.title === title).map((layer) => layer.descriptor.digest),
      ...(files && { files: files.get(title) ?? [] }),
    }));
    const { digest, sequence, parent, created, extensions, message, meta } = checkpoint;
    return {
      ref: named.label,
      sequence,
      digest,
      parent: parent ?? null,
      created,
      extensions,
      message,
      config: meta,
      layers,
    };
  },

  render(data, { colors }) {
    if ('referrers' in data) return renderReferrers(data);
    const { ref, sequence, digest, parent, created, extensions, message, layers } = data;
    const header = [
      `Checkpoint: ${ref} (sequence ${sequence})`,
      `Digest:     ${digest}`,
      ...(parent === null ? [] : [`Parent:     ${parent}`]),
      `Created:    ${created}`,
      ...(extensions.length > 0 ? [`Extensions: ${extensions.join(',')}`] : []),
      ...(message === '' ? [] : [`Message:    ${oneLine(message)}`]),
    ];
    const blocks = layers.flatMap(({ title, fileCount, sizeBytes, layerCount, digests, files }, i) => [
      '',
      `  [${i + 1}/${layers.length}] ${title} — ${fileCount} file${fileCount === 1 ? '' : 's'}, ${formatSize(sizeBytes)}`,
      `   digest: ${colors.dim(shortDigest(digests.at(-1) ?? ''))}${layerCount > 1 ? ` (${layerCount} layers)` : ''}`,
      ...(files === undefined ? [] : files.length === 0 ? ['    (empty)'] : files.map((file) => `    ${file}`)),
    ]);
    const total = layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    return [
      ...header,
      ...renderConfig(data.config),
      '',
      'Layers:',
      ...blocks,
      '',
      `Total size: ${formatSize(total)}`,
    ].join('\n');
  },
});

async function inspectReferrers(ctx: Context): Promise<Referrers> {
  if (ctx.options['files'] === true) throw new BentoError('USAGE', '--files and --referrers show different things');
  if (ctx.options['platform'] !== undefined)
    throw new BentoError('USAGE', '--referrers shows what is attached to exactly what is named', {
      hint: 'name one image of a list by its digest; `bento inspect --platform` says it',
    });
  const { withAttachments } = await import('../attachments.ts');
  return await withAttachments(
    ctx.args[0],
    ctx,
    async ({ label, digest, attachments }) =>
      await Promise.resolve({ ref: label, digest, referrers: attachments.map(reportAttachment) }),
  );
}

interface Referrers {
  ref: string;
  digest: Digest;
  referrers: ReportedAttachment[];
}

function renderReferrers({ ref, digest, referrers }: Referrers): string {
  const header = [`Checkpoint: ${ref}`, `Digest:     ${digest}`, ''];
  if (referrers.length === 0) return [...header, 'Nothing is attached to it.'].join('\n');
  const line = (...[type = '', title = '', size = '', own = '', created = '']: string[]): string =>
    `${type.padEnd(14)} ${title.padEnd(24)} ${size.padStart(9)} ${own.padEnd(22)} ${created}`.trimEnd();
  const rows = referrers.flatMap(({ type, digest: own, created, files }) =>
    (files.length === 0 ? [{ title: null, sizeBytes: 0 }] : files).map(({ title, sizeBytes }) =>
      line(oneLine(type), oneLine(title ?? '-'), formatSize(sizeBytes), shortDigest(own), oneLine(created ?? '-')),
    ),
  );
  return [...header, line('TYPE', 'TITLE', 'SIZE', 'DIGEST', 'CREATED'), ...rows].join('\n');
}

type Meta = Awaited<ReturnType<typeof openCheckpoint>>['checkpoint']['meta'];

function renderConfig({ task, extensions, repos, environment }: Meta): string[] {
  const root = repos?.find((repo) => repo.path === '.');
  const others = repos?.filter((repo) => repo.path !== '.') ?? [];
  const lines = [
    ...(task ? [`  Task:      ${oneLine(task)}`] : []),
    ...(extensions?.length ? [`  Extensions: ${extensions.join(', ')}`] : []),
    ...(root ? [`  Git:       ${describeRepo(root)}`] : []),
    ...(others.length > 0 ? ['  Repos:', ...others.map((repo) => `    ${repo.path}: ${describeRepo(repo)}`)] : []),
    ...(environment ? [`  Platform:  ${environment.os}/${environment.arch}`] : []),
  ];
  return lines.length > 0 ? ['', 'Config:', ...lines] : [];
}

function describeRepo({ branch, sha }: { branch?: string; sha?: string }): string {
  return `${oneLine(branch ?? 'HEAD')} (${sha?.slice(0, 12) ?? 'no commits'})`;
}

async function listFiles(
  context: RefContext,
  digest: Parameters<typeof openCheckpoint>[1],
  ctx: Context,
): Promise<Map<string, string[]>> {
  const { checkpoint, tree } = await openCheckpoint(await openSource(context.store, ctx), digest);
  const files = new Map<string, string[]>();
  for (const [path, node] of walkTree(tree)) {
    if (node.type === 'dir') continue;
    const title = checkpoint.layers[node.depth]?.title ?? '';
    const listed = files.get(title);
    if (listed === undefined) files.set(title, [toText(path)]);
    else listed.push(toText(path));
  }
  return files;
}
