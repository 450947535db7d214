import { compareSides, type Side, type TitleComparison } from '../../fs/workspace/compare.ts';
import type { Change } from '../../fs/tree/diff-trees.ts';
import type { TreeNode } from '../../fs/tree/tree.ts';
import { fromText, toText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand, type Context } from '../command.ts';
import { openSource } from '../open-store.ts';
import { refContext, SideFinder } from '../sides.ts';
import { diffOfFile } from '../text-diff.ts';

interface ShownChange {
  path: string;
  kind: 'added' | 'removed' | 'modified';
  type: string;
  differences: readonly string[];
  remark: string;
}

export const diff = defineCommand({
  name: 'diff',
  summary: 'Compare checkpoints, the workspace and mounted directories',
  usage: 'bento diff [<from>] [<to>] [--file <path>]',
  details:
    'Without arguments, what this workspace changed since its head; with one, since that checkpoint. Either side may be a\n' +
    'reference or a directory (written with a slash): a mount, a fork, a workspace or any other.',
  args: { min: 0, max: 2 },
  options: { file: { type: 'string', value: 'path', help: 'show how this one file differs, line by line' } },

  async run(ctx) {
    const [before, after] = await findSides(ctx);
    const { file } = ctx.options;
    const labels = { from: before.label, to: after.label, toWorkspace: ctx.args.length < 2 };
    if (file !== undefined) return { ...labels, layers: [], patch: diffOfFile(before, after, fromText(file)) };
    return { ...labels, layers: compareSides(before, after).map(shown), patch: null };
  },

  render({ from, to, toWorkspace, layers, patch }) {
    if (patch !== null) return patch;
    const header = `Comparing ${toWorkspace ? `workspace → ${from}` : `${from} → ${to}`}`;
    const blocks = layers.flatMap(({ title, changes }, i) => [
      '',
      `  [${i + 1}/${layers.length}] ${title}: ${summary(changes)}`,
      ...changes.map(line),
    ]);
    const isEqual = layers.every(({ changes }) => changes.length === 0);
    const end = isEqual
      ? ['', toWorkspace ? 'No changes since last checkpoint.' : 'No changes between checkpoints.']
      : [];
    return [header, ...blocks, ...end].join('\n');
  },
});

async function findSides(ctx: Context): Promise<[Side, Side]> {
  const [from, to] = ctx.args;
  const context = await refContext(ctx.dir);
  if (to === undefined && context.config === undefined) {
    throw new BentoError('CONFIG_MISSING', 'no bento.yaml found. Run `bento init` first', {
      hint: 'or name two checkpoints or directories',
    });
  }
  const sides = new SideFinder(await openSource(context.store, ctx), context, ctx);
  const before = from === undefined ? await sides.head() : await sides.find(from);
  return [before, to === undefined ? await sides.workspace(ctx.dir, 'workspace') : await sides.find(to)];
}

const ORDER = { added: 0, removed: 1, modified: 2 } as const;
const SIGN = { added: '+', removed: '-', modified: '~' } as const;

/** Added, removed, modified; each sorted by path. */
function shown({ title, changes }: TitleComparison): { title: string; changes: ShownChange[] } {
  const rows = changes.map((change): ShownChange => {
    const { path, kind, before, after, differences } = change;
    const type = (after ?? before)?.type ?? 'file';
    return {
      path: (toText(path) || '.') + (type === 'dir' ? '/' : ''),
      kind,
      type,
      differences,
      remark: remark(change),
    };
  });
  return { title, changes: rows.sort((a, b) => ORDER[a.kind] - ORDER[b.kind]) };
}

function summary(changes: readonly ShownChange[]): string {
  if (changes.length === 0) return 'unchanged';
  const counts = (['added', 'removed', 'modified'] as const).flatMap((kind) => {
    const count = changes.filter((change) => change.kind === kind).length;
    return count === 0 ? [] : [`${count} ${kind}`];
  });
  return `${changes.length} change${changes.length === 1 ? '' : 's'} (${counts.join(', ')})`;
}

function line({ kind, path, remark: text }: ShownChange): string {
  return `    ${SIGN[kind]} ${path}${text === '' ? '' : `  (${text})`}`;
}

/** What differs where it is not simply the content. */
function remark({ kind, before, after, differences }: Change): string {
  if (kind !== 'modified' || before === undefined || after === undefined) return '';
  const said = differences.filter((difference) => difference !== 'mtime' || differences.length === 1);
  return said.flatMap((difference) => describe(difference, before, after)).join(', ');
}

function describe(difference: Change['differences'][number], before: TreeNode, after: TreeNode): string[] {
  switch (difference) {
    case 'content':
      return [];
    case 'type':
      return [`${before.type} → ${after.type}`];
    case 'mode':
      return [`mode ${before.mode.toString(8)} → ${after.mode.toString(8)}`];
    case 'owner':
      return [`owner ${before.uid}:${before.gid} → ${after.uid}:${after.gid}`];
    case 'link':
      return [after.link === undefined ? 'device' : `→ ${toText(after.link)}`];
    case 'mtime':
      return ['time'];
    case 'xattrs':
      return ['attributes'];
    case 'links':
      return ['hard links'];
  }
}
