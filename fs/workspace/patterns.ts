import { createRequire } from 'node:module';

import type createMatcher from 'ignore';
import type { Ignore } from 'ignore';

import { baseName, type ByteString, fromText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { PathTest } from '../tree/tree.ts';

/**
 * Ignore patterns and layer patterns, compiled once per scan. The dialect is gitignore's, case-sensitive, through the
 * `ignore` package, over byte strings: text patterns become their UTF-8 bytes first. On top of it, `x/**` also takes the
 * directory `x` itself, so a walk can skip it and a layer holds it.
 */

/** One layer and what it takes; the same shape that extensions/ and bento.yaml produce. */
export interface LayerRule {
  name: string;
  patterns: readonly string[];
  /** Takes what no other layer took. */
  catchAll: boolean;
}

export interface LayerAssigner {
  /**
   * The index of the first rule that takes the path, else of the catch-all, else NO_LAYER.
   *
   * @param inheritedLayerIndex - what this function gave for the parent directory. It makes the answer quick, never
   *   different; without it the ancestors are looked at too. The root's own index is NO_LAYER.
   */
  readonly assign: (path: ByteString, isDir: boolean, inheritedLayerIndex?: number) => number;
}

export const NO_LAYER = -1;

/** Where an in-place open keeps new contents until all of them are there; beside what they will replace. */
export const STAGING_NAME = '.bento-restore';

/** bento's own files never go into a layer: the config travels in the image's metadata. */
const BUILT_IN_IGNORES = ['/bento.yaml', '/.bentoignore', '/.bento.yaml.*.tmp', `/${STAGING_NAME}`];

/** Patterns may come from someone else's checkpoint; these keep the regular expressions behind them tame. */
const PATTERN_BYTES_MAX = 4096;
const PATTERN_GLOBSTARS_MAX = 8;

/** The package remembers every path it was asked about; past this many it is made to forget them. */
const REMEMBERED_PATHS_MAX = 50_000;

let loaded: typeof createMatcher | undefined;

/** Loaded when a path is first asked about: where nothing has changed, none is. */
function newMatcher(): Ignore {
  loaded ??= createRequire(import.meta.url)('ignore') as typeof createMatcher;
  return loaded(OPTIONS);
}

const OPTIONS = { ignoreCase: false, allowRelativePaths: true }; // the latter: no exception for any path

/**
 * @returns a test of the path alone: the caller walks top-down and does not enter an ignored directory
 * @throws BentoError CONFIG_INVALID for a pattern beyond the limits
 */
export function compileIgnore(patterns: readonly string[]): PathTest {
  return compileMatcher([...BUILT_IN_IGNORES, ...patterns]).here;
}

/** @throws BentoError CONFIG_INVALID for a pattern beyond the limits */
export function compileLayers(rules: readonly LayerRule[]): LayerAssigner {
  const matchers = rules.map((rule) => compileMatcher(rule.patterns.filter(isInWorkspace)));
  const catchAll = rules.findIndex((rule) => rule.catchAll);
  const tested = catchAll === rules.length - 1 ? catchAll : rules.length; // a last catch-all needs no test

  const firstMatch = (path: ByteString, isDir: boolean, from: number, how: 'here' | 'deep'): number => {
    for (let i = from; i < tested; i++) if (matchers[i]?.[how](path, isDir)) return i;
    return catchAll;
  };

  const assign: LayerAssigner['assign'] = (path, isDir, inherited) => {
    if (inherited === undefined) return firstMatch(path, isDir, 0, 'deep');
    if (inherited === NO_LAYER) return firstMatch(path, isDir, 0, 'here');
    // What a catch-all got may have matched its patterns, or nothing at all: only a last one leaves no doubt.
    if (inherited === catchAll) return firstMatch(path, isDir, 0, catchAll === tested ? 'here' : 'deep');
    for (let i = 0; i < inherited; i++) if (matchers[i]?.here(path, isDir)) return i;
    // A claimed directory is claimed whole, unless `!patterns` take something back out of it.
    return matchers[inherited]?.hasNegation ? firstMatch(path, isDir, inherited, 'deep') : inherited;
  };
  return { assign };
}

/** Layer patterns that begin `~/` or `/` mean files outside the workspace. */
function isInWorkspace(pattern: string): boolean {
  return !pattern.startsWith('~/') && !pattern.startsWith('/');
}

interface Matcher {
  /** Knows that no ancestor of the path matches. */
  here: PathTest;
  /** Looks at the ancestors too. */
  deep: PathTest;
  hasNegation: boolean;
}

/**
 * Most patterns name a file or directory wherever it is. When no ancestor matched, those depend on the last name
 * alone. Those anchored at the root cannot match deeper than they are long.
 */
function compileMatcher(patterns: readonly string[]): Matcher {
  const lines = patterns.map(toLine).filter((line) => line !== '' && !line.startsWith('#'));
  const hasNegation = lines.some((line) => line.startsWith('!'));
  if (hasNegation) {
    const inOrder = compileTest(lines); // the last match decides, so nothing may be regrouped
    return { here: inOrder, deep: inOrder, hasNegation };
  }
  const claims = lines.map(claimDirectory);
  const byName = compileNameTest(claims.filter((line) => !isAnchored(line)));
  const anchored = claims.filter(isAnchored);
  const byPath = compileTest(anchored);
  const depthMax = Math.max(0, ...anchored.map(depthOfPattern));
  return {
    here: (path, isDir) => byName(baseName(path), isDir) || (isWithinDepth(path, depthMax) && byPath(path, isDir)),
    deep: compileTest(claims),
    hasNegation,
  };
}

function toLine(pattern: string): ByteString {
  const line = fromText(pattern);
  const globstars = line.split('**').length - 1;
  if (line.length > PATTERN_BYTES_MAX || globstars > PATTERN_GLOBSTARS_MAX) {
    throw new BentoError('CONFIG_INVALID', `pattern "${pattern.slice(0, 60)}…" is too long or has too many "**"`, {
      hint: `at most ${PATTERN_BYTES_MAX} bytes and ${PATTERN_GLOBSTARS_MAX} times "**"`,
    });
  }
  return line;
}

function compileTest(lines: readonly ByteString[]): PathTest {
  if (lines.length === 0) return () => false;
  let rules: Ignore | undefined;
  let matcher: Ignore | undefined;
  let asked = 0;
  return (path, isDir) => {
    if (path === '') return false;
    rules ??= newMatcher().add(lines);
    matcher ??= rules;
    if (++asked > REMEMBERED_PATHS_MAX) {
      matcher = newMatcher().add(rules); // shares the compiled rules, starts with an empty memory
      asked = 0;
    }
    return matcher.test(isDir ? `${path}/` : path).ignored;
  };
}

/** `**`+`/x/**` becomes `x/` and `a/b/**` becomes `/a/b/`: the same files, and the directory itself. */
function claimDirectory(line: ByteString): ByteString {
  const anywhere = /^(?:\*\*\/)+([^/]*[^/*][^/]*)(?:\/|\/\*\*)?$/.exec(line);
  if (anywhere?.[1] !== undefined) return literalStart(anywhere[1]) + (line.endsWith(anywhere[1]) ? '' : '/');
  const whole = /^(.*[^/*].*)\/\*\*$/.exec(line)?.[1];
  if (whole === undefined) return line;
  return whole.startsWith('/') || whole.startsWith('**/') ? `${whole}/` : `/${whole}/`;
}

/** A name that begins with `!` or `#` is one only as long as something stands before it. */
function literalStart(name: ByteString): ByteString {
  return /^[!#]/.test(name) ? `\\${name}` : name;
}

/** Whether a slash before the end ties the pattern to the root. */
function isAnchored(line: ByteString): boolean {
  return line.slice(0, -1).includes('/');
}

function depthOfPattern(line: ByteString): number {
  return line.includes('**') ? Infinity : line.split('/').filter(Boolean).length;
}

function isWithinDepth(path: ByteString, depthMax: number): boolean {
  let depth = 1;
  for (let at = path.indexOf('/'); at >= 0 && depth <= depthMax; at = path.indexOf('/', at + 1)) depth++;
  return depth <= depthMax;
}

/** Tests a name on its own: plain names, the bulk of all patterns, by a look into a set. */
function compileNameTest(lines: readonly ByteString[]): PathTest {
  const plain = new Set(lines.filter(isPlain));
  const byPattern = compileTest(lines.filter((line) => !isPlain(line)));
  return (name, isDir) => plain.has(name) || (isDir && plain.has(`${name}/`)) || byPattern(name, isDir);
}

/** No wildcard, escape, or space at the end for the dialect to give a meaning. */
function isPlain(line: ByteString): boolean {
  return !/[*?[\\]|\s$/.test(line);
}
