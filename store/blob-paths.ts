import { join } from 'node:path';

import { hexOf, type Digest } from './digest.ts';

/** Where whole blobs lie: as the OCI image layout says, so that any program finds them. */
export function wholeDir(storeRoot: string): string {
  return join(storeRoot, 'blobs', 'sha256');
}

export function wholePath(storeRoot: string, digest: Digest): string {
  return join(wholeDir(storeRoot), hexOf(digest));
}

/** Where thin blobs lie, which only we can read: not among the others, or they would pass for damaged ones. */
export function thinDir(storeRoot: string): string {
  return join(storeRoot, 'thin', 'sha256');
}

export function thinPath(storeRoot: string, digest: Digest): string {
  return join(thinDir(storeRoot), hexOf(digest));
}

/** Where blobs lie that are being downloaded, or were when that broke, each under the hex digits of its digest. */
export function partialDir(storeRoot: string): string {
  return join(storeRoot, 'partial');
}

/**
 * Where blobs lie of which a part is here and the rest in a registry: `<hex>` with holes, `<hex>.map` and `<hex>.json`. See
 * `LazyFile`.
 */
export function lazyDir(storeRoot: string): string {
  return join(storeRoot, 'lazy', 'sha256');
}

export function lazyPath(storeRoot: string, digest: Digest): string {
  return join(lazyDir(storeRoot), hexOf(digest));
}
