import { setTimeout } from 'node:timers/promises';

import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { isObject, MANIFEST_BYTES_MAX, MEDIA_TYPES, parseDescriptor, type Descriptor } from '../manifest.ts';
import { REFERRER_COUNT_MAX } from './limits.ts';
import { objectOf } from './pages.ts';
import type { ReadOptions, Repository } from './repository.ts';

/** How often a list that others write at the same time is written, and the longest pause between. */
const WRITE_COUNT_MAX = 6;
const PAUSE_MS_MAX = 400;

/**
 * The descriptors of an index of referrers.
 *
 * @param artifactType - only those of this type; registries need not filter
 * @param shown - what they refer to
 * @throws BentoError REMOTE_INVALID
 */
export function parseReferrers(bytes: Buffer, artifactType: string | undefined, shown: string): Descriptor[] {
  const { manifests } = objectOf(bytes, `the referrers of ${shown}`);
  if (!Array.isArray(manifests) || manifests.length > REFERRER_COUNT_MAX)
    throw new BentoError('REMOTE_INVALID', `the referrers of ${shown} are not an index within the limits`, {
      hint: 'ask whoever runs the registry',
    });
  return manifests
    .filter((one: unknown) => artifactType === undefined || (isObject(one) && one['artifactType'] === artifactType))
    .map((one: unknown) => descriptorOf(one, shown));
}

function descriptorOf(value: unknown, shown: string): Descriptor {
  try {
    return parseDescriptor(value, `a referrer of ${shown}`);
  } catch (cause) {
    const message = cause instanceof BentoError ? cause.message : `a referrer of ${shown} is no descriptor`;
    throw new BentoError('REMOTE_INVALID', message, { hint: 'ask whoever runs the registry', cause });
  }
}

/** Under which tag a registry without the API keeps what refers to a manifest. @see OCI distribution-spec v1.1 */
export function fallbackTag(subject: Digest): string {
  return subject.replace(':', '-');
}

/**
 * Changes the list under the fallback tag of a manifest. A registry knows no "write if nobody else has": the list is read, changed
 * and written, and read again, until it is as wanted. What others have listed stays, to the last field. Somebody who writes at
 * the very moment may still undo it, unseen; the next push finds that and does it again.
 *
 * @param change - gives the new entries; undefined when those there are as wanted
 * @throws BentoError REMOTE_INVALID when the tag is something else, or has no room; REMOTE_REFUSED when others kept undoing it
 * @see OCI distribution-spec v1.1, "Pushing Manifests with Subject"
 */
export async function changeFallbackTag(
  repository: Repository,
  subject: Digest,
  {
    change,
    ...options
  }: ReadOptions & { change: (entries: readonly Record<string, unknown>[]) => Record<string, unknown>[] | undefined },
): Promise<void> {
  const tag = fallbackTag(subject);
  const shown = `${repository.name.registry}/${repository.name.repository}:${tag}`;
  for (let count = 0; count <= WRITE_COUNT_MAX; count++) {
    const { index, entries } = await readFallbackTag(repository, tag, { shown, options });
    const wanted = change(entries);
    if (wanted === undefined) return;
    if (count === WRITE_COUNT_MAX) break;
    const bytes = Buffer.from(JSON.stringify({ ...index, manifests: wanted }));
    if (bytes.length > MANIFEST_BYTES_MAX || wanted.length > REFERRER_COUNT_MAX)
      throw new BentoError('REMOTE_INVALID', `${shown} lists ${entries.length} manifests, and has no room for more`, {
        hint: 'take some of them away, or use a registry with the referrers API',
      });
    await repository.putManifest(tag, { mediaType: MEDIA_TYPES.index, bytes }, options);
    if (count > 0)
      await setTimeout(Math.random() * PAUSE_MS_MAX, undefined, options.signal && { signal: options.signal });
  }
  throw new BentoError('REMOTE_REFUSED', `others write ${shown} at the same time, again and again`, {
    hint: 'try again later',
  });
}

async function readFallbackTag(
  repository: Repository,
  tag: string,
  { shown, options }: { shown: string; options: ReadOptions },
): Promise<{ index: Record<string, unknown>; entries: Record<string, unknown>[] }> {
  const found = await repository.getManifest(tag, options);
  if (found === undefined) return { index: { schemaVersion: 2, mediaType: MEDIA_TYPES.index }, entries: [] };
  const index = found.descriptor.mediaType === MEDIA_TYPES.index ? objectOf(found.bytes, shown) : {};
  const entries: unknown = index['manifests'];
  if (Array.isArray(entries) && entries.every(isObject)) return { index, entries };
  throw new BentoError('REMOTE_INVALID', `${shown} is not an index, so it cannot list what refers to a manifest`, {
    hint: 'ask whoever made this tag',
  });
}

/** Lists manifests as referrers where the registry does not do so itself. */
export async function addToFallbackTag(
  repository: Repository,
  subject: Digest,
  { referrers, ...options }: ReadOptions & { referrers: readonly Descriptor[] },
): Promise<void> {
  await changeFallbackTag(repository, subject, {
    ...options,
    change: (entries) => {
      const missing = referrers.filter(({ digest }) => !entries.some((entry) => entry['digest'] === digest));
      return missing.length === 0 ? undefined : [...entries, ...missing.map((one) => ({ ...one }))];
    },
  });
}

/** Takes them off that list, if there is one. */
export async function removeFromFallbackTag(
  repository: Repository,
  subject: Digest,
  { digests, ...options }: ReadOptions & { digests: ReadonlySet<string> },
): Promise<void> {
  const isOne = ({ digest }: Record<string, unknown>): boolean => typeof digest === 'string' && digests.has(digest);
  const change = (entries: readonly Record<string, unknown>[]): Record<string, unknown>[] | undefined =>
    entries.some(isOne) ? entries.filter((entry) => !isOne(entry)) : undefined;
  await changeFallbackTag(repository, subject, { ...options, change });
}
