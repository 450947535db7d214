import { arch, config } from 'node:process';

import { BentoError } from './errors.ts';
import { isObject, parseDescriptor, type Descriptor } from './manifest.ts';

/** What an image was made for. @see OCI image-spec v1.1, image-index.md, "platform" */
export interface Platform {
  os: string;
  /** As Go calls it: `amd64`, `arm64`. */
  architecture: string;
  /** Of the processor, as `v7` of arm; undefined where there is only one that matters. */
  variant: string | undefined;
}

/** Node's names of processors to those of images. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
/** What an image without a variant is for. */
const COMMON_VARIANTS: Readonly<Record<string, string>> = { amd64: 'v1', arm: 'v7', arm64: 'v8' };
const WORD = /^[A-Za-z0-9_.-]{1,32}$/;
const SHOWN_COUNT_MAX = 10;

/** What builders put beside images that are none: provenance, lists of contents. */
const ATTESTATION = 'vnd.docker.reference.type';

/** Of checkpoints and of everything else that is opened here: Linux, on this machine's processor. */
export function thisPlatform(): Platform {
  const { arm_version: arm } = config.variables as { arm_version?: unknown }; // what Node was built for: it runs here
  const variant = arch === 'arm' && (typeof arm === 'string' || typeof arm === 'number') ? `v${arm}` : undefined;
  return { os: 'linux', architecture: ARCHITECTURES[arch] ?? arch, variant };
}

/** Parses `linux/arm64` or `linux/arm/v6`. @throws BentoError USAGE */
export function parsePlatform(written: string): Platform {
  const parts = written.split('/');
  const [os = '', architecture = '', variant] = parts;
  if (parts.length >= 2 && parts.length <= 3 && parts.every((part) => WORD.test(part)))
    return { os, architecture: ARCHITECTURES[architecture] ?? architecture, variant };
  throw new BentoError('USAGE', `"${written}" is no platform`, { hint: 'write it as linux/amd64 or linux/arm/v7' });
}

/** As `parsePlatform` reads it. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}

/**
 * Chooses from the entries of an index the image for a platform: the highest variant that it runs. The only entry of an
 * index may go without a platform.
 *
 * @param what - names the index in errors
 * @throws BentoError FORMAT_UNSUPPORTED naming the platforms there are, FORMAT_INVALID
 */
export function chooseImage(entries: readonly unknown[], wanted: Platform, what: string): Descriptor {
  const images = entries.filter((entry) => !isAttestation(entry)).map((entry) => ({ entry, for: platformOf(entry) }));
  const [only] = images;
  if (images.length === 1 && only?.for === undefined) return parseDescriptor(only?.entry, `${what}, its only image`);
  let best: { entry: unknown; rank: number } | undefined;
  for (const { entry, for: offered } of images) {
    const rank = offered === undefined ? undefined : rankOf(offered, wanted);
    if (rank !== undefined && rank > (best?.rank ?? -1)) best = { entry, rank };
  }
  if (best !== undefined) return parseDescriptor(best.entry, `${what}, image for ${formatPlatform(wanted)}`);
  const offered = [...new Set(images.flatMap(({ for: one }) => (one === undefined ? [] : [formatPlatform(one)])))];
  const more = offered.length > SHOWN_COUNT_MAX ? ` and ${offered.length - SHOWN_COUNT_MAX} more` : '';
  const others =
    offered.length === 0 ? 'names no platforms' : `has ${offered.slice(0, SHOWN_COUNT_MAX).join(', ')}${more}`;
  throw new BentoError('FORMAT_UNSUPPORTED', `${what} has no image for ${formatPlatform(wanted)}: it ${others}`, {
    ...(offered.length > 0 && { hint: 'choose one of them with --platform' }),
  });
}

function isAttestation(entry: unknown): boolean {
  if (!isObject(entry)) return false;
  const { annotations, platform } = entry;
  if (isObject(annotations) && annotations[ATTESTATION] !== undefined) return true;
  return isObject(platform) && platform['os'] === 'unknown' && platform['architecture'] === 'unknown';
}

function platformOf(entry: unknown): Platform | undefined {
  const platform = isObject(entry) ? entry['platform'] : undefined;
  if (!isObject(platform)) return undefined;
  const { os, architecture, variant } = platform;
  if (!isWord(os) || !isWord(architecture)) return undefined;
  return { os, architecture, variant: isWord(variant) ? variant : undefined };
}

function isWord(value: unknown): value is string {
  return typeof value === 'string' && WORD.test(value);
}

/** How well an image fits, higher is better; undefined: it does not run there. */
function rankOf(offered: Platform, wanted: Platform): number | undefined {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return undefined;
  const [has, needs] = [wanted, offered].map(levelOf);
  if (has === undefined || needs === undefined) return offered.variant === wanted.variant ? 0 : undefined;
  return needs <= has ? needs : undefined;
}

/** 7 of `v7`; undefined for a variant that is no number. */
function levelOf({ architecture, variant = COMMON_VARIANTS[architecture] ?? 'v0' }: Platform): number | undefined {
  const level = /^v(\d{1,2})(?:\.\d)?$/.exec(variant)?.[1];
  return level === undefined ? undefined : Number(level);
}
