import { nodeAt } from '../../fs/tree/tree.ts';
import { compareSides, type ComparedChange, type Side, type TitleComparison } from '../../fs/workspace/compare.ts';
import { fromText, toText, type ByteString } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand, type Context, type OptionSpecs, type OptionValues } from '../command.ts';
import type { ChangeSize } from '../comparison/contents.ts';
import { layerLines, shownLayer, type ShownLayer } from '../comparison/listing.ts';
import { PatchOutput } from '../comparison/output.ts';
import { openSource } from '../open-store.ts';
import { refContext, SideFinder } from '../sides.ts';

const OPTIONS = {
  file: {
    type: 'string',
    value: 'path',
    help: 'only this file, line by line; or only this file or directory with the flags below',
  },
  patch: { type: 'boolean', short: 'p', help: 'print a patch that `git apply` and `patch -p1` understand' },
  stat: { type: 'boolean', help: 'count the lines that came and went' },
  nameOnly: { type: 'boolean', help: 'print the paths that differ, one a line' },
  nameStatus: { type: 'boolean', help: 'print the paths with a letter: A, M, T, D, or R100 for a rename' },
  null: { type: 'boolean', short: 'z', help: 'end names with a NUL byte, and print their bytes as they are' },
  noRenames: { type: 'boolean', help: 'show a renamed file as one removed and one added' },
  exitCode: { type: 'boolean', help: 'exit with 1 when something differs' },
} as const satisfies OptionSpecs;

type Options = OptionValues<typeof OPTIONS>;

export const diff = defineCommand({
  name: 'diff',
  summary: 'Compare checkpoints, the workspace and mounted directories',
  usage: 'bento diff [<from>] [<to>] [--file <path>] [--patch] [--stat] [--name-only]',
  fetches: true,
  details:
    'Without arguments, what this workspace changed since its head; with one, since that checkpoint. Either side may be a\n' +
    'reference or a directory (written with a slash): a mount, a fork, a workspace, a directory inside one, or any other.\n' +
    'No file of a checkpoint is read unless --patch, --stat or --file ask for its lines. Patches hold what git knows of\n' +
    'files: contents, links, names and whether they are executable; times, owners and empty directories are only listed.',
  args: { min: 0, max: 2 },
  options: OPTIONS,

  async run(ctx) {
    checkOptions(ctx.options);
    const [before, after] = await findSides(ctx);
    const labels = { from: before.label, to: after.label, toWorkspace: ctx.args.length < 2 };
    const output = new PatchOutput(ctx);
    const { file } = ctx.options;
    const path = file === undefined ? '' : findPath(before, after, file);
    if (path !== '' && !isFiltering(ctx.options) && !isDirectory(before, after, path)) {
      const { writeFileDiff } = await import('../comparison/file-diff.ts');
      const differs = writeFileDiff(before, after, path, output.bytes);
      return { ...labels, differs, layers: [], ...output.end() };
    }
    const layers = compareSides(before, after, { renames: !ctx.options.noRenames, path });
    const differs = layers.some(({ changes }) => changes.length > 0);
    const wanted = path !== '' && !isFiltering(ctx.options) ? { ...ctx.options, patch: true } : ctx.options;
    const shown = await writeComparison({ before, after, layers }, wanted, { output, ctx });
    return { ...labels, differs, layers: shown, ...output.end() };
  },

  render({ from, to, toWorkspace, differs, layers }, { options }) {
    if (options.file !== undefined || isFiltering(options)) return '';
    const header = `Comparing ${toWorkspace ? `workspace → ${from}` : `${from} → ${to}`}`;
    const blocks = layers.flatMap((layer, i) => ['', ...layerLines(layer, `${i + 1}/${layers.length}`)]);
    const end = toWorkspace ? 'No changes since last checkpoint.' : 'No changes between checkpoints.';
    return [header, ...blocks, ...(differs ? [] : ['', end])].join('\n');
  },

  exitCode: ({ differs }, { options }) => (options.exitCode && differs ? 1 : 0),
});

function checkOptions(options: Options): void {
  const { nameOnly, nameStatus, patch, stat } = options;
  const forms = { '--name-only': nameOnly, '--name-status': nameStatus, '--patch or --stat': patch || stat };
  const [first, second] = Object.entries(forms).flatMap(([name, isSet]) => (isSet ? [name] : []));
  if (second !== undefined) throw new BentoError('USAGE', `${first ?? ''} and ${second} do not go together`);
  if (options.null && !nameOnly && !nameStatus) {
    throw new BentoError('USAGE', '--null goes with --name-only or --name-status');
  }
}

/** Whether `--file` chooses what is compared in another form, instead of being the form. */
function isFiltering({ nameOnly, nameStatus, patch, stat }: Options): boolean {
  return nameOnly || nameStatus || patch || stat;
}

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

/** @throws BentoError FAILED when neither side has it */
function findPath(before: Side, after: Side, written: string): ByteString {
  const path = fromText(written.replace(/^(?:\.\/+)+/, '').replace(/\/+$/, ''));
  if (path === '' || [before, after].some(({ tree }) => nodeAt(tree, path) !== undefined)) return path;
  throw new BentoError('FAILED', `file ${toText(path)} not found in ${before.label} or ${after.label}`, {
    hint: 'paths are relative to the root of what is compared',
  });
}

function isDirectory(before: Side, after: Side, path: ByteString): boolean {
  return [before, after].some(({ tree }) => nodeAt(tree, path)?.type === 'dir');
}

interface Comparison {
  before: Side;
  after: Side;
  layers: readonly TitleComparison[];
}

/** Writes what the flags ask for, and returns what `--json` and the ordinary listing show. */
async function writeComparison(
  { before, after, layers }: Comparison,
  options: Options,
  { output, ctx }: { output: PatchOutput; ctx: Context },
): Promise<ShownLayer[]> {
  const changes = await inOrder(layers);
  if (options.nameOnly || options.nameStatus) {
    const { writeNames } = await import('../comparison/names.ts');
    writeNames(changes, { ...options, zero: options.null }, output.bytes);
  }
  const sizes = new Map<ComparedChange, ChangeSize>();
  if (options.stat) {
    const { sizeOfChange } = await import('../comparison/contents.ts');
    const { statLines } = await import('../comparison/diff-stat.ts');
    for (const change of changes) {
      const size = sizeOfChange(before, after, change);
      if (size !== undefined) sizes.set(change, size);
    }
    const sized = [...sizes].map(([change, size]) => ({ change, size }));
    if (sized.length > 0 && !ctx.json) output.bytes.text(fromText(`${statLines(sized).join('\n')}\n`));
    if (sized.length > 0 && options.patch && !ctx.json) output.bytes.text('\n');
  }
  if (options.patch) {
    const { writeGitPatch } = await import('../comparison/git-patch.ts');
    for (const change of changes) writeGitPatch(before, after, change, output.bytes);
  }
  if (options.patch || options.stat) await noteOmitted(changes, ctx);
  return layers.map((layer) => shownLayer(layer, (change) => sizes.get(change)));
}

async function inOrder(layers: readonly TitleComparison[]): Promise<ComparedChange[]> {
  const { comparePaths } = await import('../../fs/tree/diff-trees.ts');
  return layers.flatMap(({ changes }) => changes).sort((a, b) => comparePaths(a.path, b.path));
}

async function noteOmitted(changes: readonly ComparedChange[], ctx: Context): Promise<void> {
  const { isInPatch, isTooLarge, TEXT_BYTES_MAX } = await import('../comparison/contents.ts');
  for (const { path, kind, before, after } of changes) {
    if (kind === 'renamed' || !isTooLarge(before, after)) continue;
    ctx.note(`note: ${toText(path)} is shown as binary: it has more than ${TEXT_BYTES_MAX >> 20} MiB`);
  }
  const count = changes.filter((change) => !isInPatch(change)).length;
  if (count === 0) return;
  const what = `${count} change${count === 1 ? ' is' : 's are'}`;
  ctx.note(`note: ${what} of another kind (times, owners, modes, empty directories, devices): bento diff lists them`);
}
