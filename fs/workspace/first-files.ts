import { parentPath, type ByteString } from '../../store/byte-string.ts';
import { PREFETCH_BYTES_MAX } from '../../store/layers/prefetch.ts';
import { FIRST_FILE_BYTES_MAX, FIRST_FILES_MAX } from '../contents/first-reads.ts';
import type { TreeNode } from '../tree/tree.ts';
import type { PlannedEntry } from './plan-layers.ts';

/** What tools read before anything else, in this order; a name with a slash behind it is everything below. */
const READ_FIRST: readonly ByteString[] = [
  '.git/HEAD',
  '.git/config',
  '.git/packed-refs',
  '.git/refs/',
  '.git/index',
  '.git/info/exclude',
  '.gitignore',
  '.bentoignore',
  'AGENTS.md',
  'CLAUDE.md',
  'CLAUDE.local.md',
  'GEMINI.md',
  '.mcp.json',
  '.claude/settings.json',
  '.claude/settings.local.json',
  'package.json',
  'package-lock.json',
  'pnpm-lock.yaml',
  'yarn.lock',
  'node_modules/.package-lock.json',
  'tsconfig.json',
  'pyproject.toml',
  'uv.lock',
  'Cargo.toml',
  'Cargo.lock',
  'go.mod',
  'go.sum',
  'Makefile',
  'README.md',
];
const EXACT_RANKS = new Map(READ_FIRST.map((path, rank) => [path, rank]));
const FOLDERS = READ_FIRST.filter((path) => path.endsWith('/'));

/** How early a file is wanted; undefined for one that nobody is known to want. */
export type RankOf<A extends TreeNode> = (planned: PlannedEntry<A>) => number | undefined;

/** The rank of a path that tools are known to read first; smaller is earlier. */
export function usualRank(path: ByteString): number | undefined {
  const exact = EXACT_RANKS.get(path);
  if (exact !== undefined) return exact;
  const folder = path.startsWith('.git/') ? FOLDERS.find((name) => path.startsWith(name)) : undefined;
  return folder === undefined ? undefined : EXACT_RANKS.get(folder);
}

/** The entries of a layer in two parts. */
export interface Arranged<A extends TreeNode> {
  /** Files that are wanted first, in that order. */
  first: readonly PlannedEntry<A>[];
  /** Everything else, as it was. */
  rest: readonly PlannedEntry<A>[];
}

/** Takes the files that are wanted first out of the entries of a layer, within the limits of what is fetched ahead. */
export function arrange<A extends TreeNode>(entries: readonly PlannedEntry<A>[], rankOf: RankOf<A>): Arranged<A> {
  const ranked = rankedFiles(entries, rankOf);
  const first = ranked.length === 0 ? [] : withinLimits(ranked.filter(mayPrecede(entries)));
  if (first.length === 0) return { first, rest: entries };
  const chosen = new Set(first);
  return { first, rest: entries.filter((planned) => !chosen.has(planned)) };
}

/** The first name of a file holds its bytes, whichever of them is wanted. */
function rankedFiles<A extends TreeNode>(entries: readonly PlannedEntry<A>[], rankOf: RankOf<A>): PlannedEntry<A>[] {
  const ranks = new Map<ByteString, number>();
  for (const planned of entries) {
    if (planned.content === undefined) continue;
    const rank = rankOf(planned);
    if (rank === undefined) continue;
    const { type, link, path } = planned.entry;
    const holder = type === 'hardlink' && link !== undefined ? link : path;
    ranks.set(holder, Math.min(rank, ranks.get(holder) ?? rank));
  }
  if (ranks.size === 0) return [];
  const rank = ({ entry }: PlannedEntry<A>): number => ranks.get(entry.path) ?? 0;
  return entries
    .filter(({ entry: { path, type, sizeBytes } }) => type === 'file' && sizeBytes > 0 && ranks.has(path))
    .sort((a, b) => rank(a) - rank(b));
}

function withinLimits<A extends TreeNode>(files: readonly PlannedEntry<A>[]): PlannedEntry<A>[] {
  let bytes = 0;
  const small = files.filter(({ entry: { sizeBytes } }) => {
    if (sizeBytes > FIRST_FILE_BYTES_MAX || bytes + sizeBytes > PREFETCH_BYTES_MAX) return false;
    bytes += sizeBytes;
    return true;
  });
  return small.slice(0, FIRST_FILES_MAX);
}

/**
 * Files below a directory that takes the place of something else wait for it: before, a file or a link of a lower layer may
 * stand in their way.
 */
function mayPrecede<A extends TreeNode>(entries: readonly PlannedEntry<A>[]): (planned: PlannedEntry<A>) => boolean {
  const waitedFor = new Set(entries.flatMap(({ entry, mustPrecede }) => (mustPrecede === true ? [entry.path] : [])));
  if (waitedFor.size === 0) return () => true;
  return ({ entry }) => !ancestorsOf(entry.path).some((path) => waitedFor.has(path));
}

function ancestorsOf(path: ByteString): ByteString[] {
  const ancestors: ByteString[] = [];
  for (let child = path; child !== '';) {
    child = parentPath(child);
    ancestors.push(child);
  }
  return ancestors;
}
