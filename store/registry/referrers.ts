import { BentoError } from '../errors.ts';
import { isObject, parseDescriptor, type Descriptor } from '../manifest.ts';
import { REFERRER_COUNT_MAX } from './limits.ts';
import { objectOf } from './pages.ts';

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
