import type { Digest } from '../../store/digest.ts';
import { isObject } from '../../store/manifest.ts';
import { parseYaml, readConfigText } from '../workspace/config-file.ts';
import type { Config, RetentionTier } from '../workspace/config-types.ts';
import { isUndoTag } from '../workspace/heads.ts';

/** Which checkpoints of a workspace stay. With neither `keepLast` nor `tiers`, all of them do. */
export interface RetentionPolicy {
  /** The newest so many stay. */
  keepLast?: number;
  /** Thinned out with age: see `selectTiers`. */
  tiers?: readonly RetentionTier[];
  /** What a person tagged stays. */
  keepTagged: boolean;
}

/** A checkpoint as retention sees it. */
export interface Candidate {
  digest: Digest;
  sequence: number;
  /** RFC 3339. */
  created: string;
  tags: readonly string[];
}

const OWN_TAG = /^(?:latest|cp-\d+)$/;

/** Whether a person gave it: not `latest`, not `cp-N`, no undo slot. */
export function isUserTag(tag: string): boolean {
  return !OWN_TAG.test(tag) && !isUndoTag(tag);
}

/**
 * What the command line and `bento.yaml` ask for. `--keep-last` says it all; without it, what the file spells out counts:
 * the newest `keep_last` stay, and what `tiers` keep. Defaults that nobody wrote down delete nothing.
 *
 * @param flags.keepLast - 0 and less: as the file has it
 */
export async function readPolicy(
  dir: string,
  { retention }: Pick<Config, 'retention'>,
  flags: { keepLast: number | undefined; keepTagged: boolean },
): Promise<RetentionPolicy> {
  const keepTagged = flags.keepTagged || retention.keepTagged;
  if (flags.keepLast !== undefined && flags.keepLast > 0) return { keepLast: flags.keepLast, keepTagged };
  const json = parseYaml(await readConfigText(dir)).toJS();
  const written = isObject(json) && isObject(json['retention']) ? json['retention'] : {};
  const hasTiers = Array.isArray(written['tiers']) && written['tiers'].length > 0;
  const hasKeepLast = written['keep_last'] !== undefined && retention.keepLast > 0;
  return {
    ...(hasKeepLast && { keepLast: retention.keepLast }),
    ...(hasTiers && { tiers: retention.tiers }),
    keepTagged,
  };
}

/** Newest first; checkpoints of the same second by their numbers, which say in what order they were made. */
export function newestFirst(a: Candidate, b: Candidate): number {
  return createdMs(b) - createdMs(a) || b.sequence - a.sequence;
}

/** Digests of the checkpoints that the policy keeps. What is only an undo slot is not counted, and stays. */
export function selectKept(candidates: readonly Candidate[], policy: RetentionPolicy, now: Date): Set<Digest> {
  const history = candidates.filter(({ tags }) => !tags.every(isUndoTag)).sort(newestFirst);
  const kept = new Set(candidates.filter(({ tags }) => tags.every(isUndoTag)).map(({ digest }) => digest));
  const keep = (chosen: readonly Candidate[]): void => chosen.forEach(({ digest }) => kept.add(digest));
  if (policy.keepLast === undefined && policy.tiers === undefined) keep(history);
  if (policy.keepLast !== undefined) keep(history.slice(0, policy.keepLast));
  if (policy.tiers !== undefined) keep(selectTiers(history, policy.tiers, now));
  const isTagged = ({ tags }: Candidate): boolean => tags.some(isUserTag);
  if (policy.keepTagged || policy.tiers !== undefined) keep(history.filter(isTagged));
  keep(history.filter((candidate) => createdMs(candidate) === UNKNOWN_MS)); // of unknown age: not ours to judge
  return kept;
}

/**
 * The first tier that reaches back far enough decides: it keeps all, or the newest of each stretch of `resolutionMs`. The
 * stretches begin at fixed times, not now, so that later runs find the same ones. What is older than every tier stays.
 */
function selectTiers(history: readonly Candidate[], tiers: readonly RetentionTier[], now: Date): Candidate[] {
  const taken = new Set<string>();
  return history.filter((candidate) => {
    const ageMs = now.getTime() - createdMs(candidate);
    const at = tiers.findIndex(({ maxAgeMs }) => ageMs <= maxAgeMs);
    const resolutionMs = tiers[at]?.resolutionMs ?? 0;
    if (resolutionMs === 0) return true;
    const stretch = `${at} ${Math.floor(createdMs(candidate) / resolutionMs)}`;
    if (taken.has(stretch)) return false;
    taken.add(stretch);
    return true;
  });
}

const UNKNOWN_MS = 0;

function createdMs({ created }: Candidate): number {
  const ms = Date.parse(created);
  return Number.isNaN(ms) ? UNKNOWN_MS : ms;
}
