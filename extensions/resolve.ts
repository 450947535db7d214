import { agentsMd } from './agents-md.ts';
import { claudeCode } from './claude-code.ts';
import type { Contribution, Extension } from './extension.ts';
import { node } from './node.ts';
import { python } from './python.ts';

/** Every extension there is. The order decides which patterns come first, so it is part of the format: append within. */
export const CATALOGUE: readonly Extension[] = [claudeCode, agentsMd, node, python];

/** One layer and what it takes; layers are tried in order and the first match wins. */
export interface LayerRule {
  name: string;
  patterns: string[];
  /** Takes what no other layer took. */
  catchAll: boolean;
}

export interface ResolvedExtensions {
  names: string[];
  /** `deps`, `agent`, the extensions' extra layers as they come, and `project` last. */
  layers: LayerRule[];
  ignore: string[];
  /** Names given in `explicit` that no extension has: worth a warning, not an error. */
  unknown: string[];
}

/**
 * Finds out which extensions a workspace uses and merges what they contribute.
 *
 * @param explicit - exactly these, in this order, detected or not (`extensions:` in bento.yaml); absent: detect
 */
export function resolveExtensions(workspace: string, home: string, explicit?: readonly string[]): ResolvedExtensions {
  const chosen = explicit === undefined ? detected(workspace, home) : named(explicit);
  const contributions = chosen.map((extension) => extension.contribute(workspace, home));
  return {
    names: chosen.map((extension) => extension.name),
    layers: mergeLayers(contributions),
    ignore: unique(contributions.flatMap((contribution) => contribution.ignore)),
    unknown: unique(explicit ?? []).filter((name) => find(name) === undefined),
  };
}

function detected(workspace: string, home: string): Extension[] {
  return CATALOGUE.filter((extension) => extension.detect(workspace, home));
}

function named(names: readonly string[]): Extension[] {
  return unique(names)
    .map(find)
    .filter((extension) => extension !== undefined);
}

function find(name: string): Extension | undefined {
  return CATALOGUE.find((extension) => extension.name === name);
}

function mergeLayers(contributions: readonly Contribution[]): LayerRule[] {
  const patternsOf = new Map<string, string[]>([
    ['deps', []],
    ['agent', []],
  ]);
  for (const [name, patterns] of contributions.flatMap(({ layers }) => Object.entries(layers))) {
    patternsOf.set(name, unique([...(patternsOf.get(name) ?? []), ...patterns]));
  }
  patternsOf.delete('project'); // always there, always last, and takes everything anyway
  const layers = Array.from(patternsOf, ([name, patterns]) => ({ name, patterns, catchAll: false }));
  return [...layers, { name: 'project', patterns: ['**'], catchAll: true }];
}

function unique<T>(values: readonly T[]): T[] {
  return [...new Set(values)];
}
