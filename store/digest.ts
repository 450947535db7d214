import { createHash } from 'node:crypto';

import { BentoError } from './errors.ts';

/** `sha256:` and 64 lower-case hex digits. The only algorithm bento writes or accepts. */
export type Digest = `sha256:${string}`;

const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

/** @throws BentoError FORMAT_INVALID when `text` is not a sha256 digest */
export function parseDigest(text: unknown, what = 'digest'): Digest {
  if (typeof text === 'string' && isDigest(text)) return text;
  const found = typeof text === 'string' ? text.slice(0, 100) : typeof text; // a hostile object may have a toString of its own
  throw new BentoError('FORMAT_INVALID', `${what} is not a sha256 digest: ${found}`);
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** The 32 raw bytes, as the index stores them. */
export function digestToBytes(digest: Digest): Buffer {
  return Buffer.from(hexOf(digest), 'hex');
}

export function digestFromBytes(bytes: Uint8Array): Digest {
  return `sha256:${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}

/** First 12 hex digits with the algorithm, as people see it: `sha256:0123456789ab...`. */
export function shortDigest(digest: string): string {
  return `${digest.slice(0, 19)}...`;
}
