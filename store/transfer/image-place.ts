import { resolve } from 'node:path';

import { BentoError } from '../errors.ts';
import { parseLocalPlace } from '../registry/local-ref.ts';

/** A layout folder or an archive outside of the store, as a user names it. */
export interface ImagePlace {
  /** Absolute. */
  path: string;
  /** What the words say it is; undefined when only the name tells. */
  kind: 'folder' | 'archive' | undefined;
  tag: string | undefined;
}

/**
 * Parses `dir`, `file.tar`, and what `parseLocalPlace` does. A plain path is taken whole: a colon in it is part of the name.
 *
 * @throws BentoError REF_INVALID naming what is wrong with it
 */
export function parseImagePlace(written: string, cwd = process.cwd()): ImagePlace {
  const place = parseLocalPlace(written, cwd);
  if (place?.digest !== undefined) throw invalid(written, 'a digest cannot be chosen here, only a tag');
  if (place !== undefined) return { path: place.path, kind: place.kind, tag: place.tag };
  if (written === '') throw invalid(written, 'it names no file');
  if (written.includes('\0')) throw invalid(written, 'it contains a NUL');
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(written)?.[0];
  if (scheme !== undefined) throw notHere(written, scheme);
  return { path: resolve(cwd, written), kind: undefined, tag: undefined };
}

function notHere(written: string, scheme: string): BentoError {
  if (!['docker://', 'oci://'].includes(scheme)) return invalid(written, `bento knows no ${scheme}`);
  return new BentoError('REF_INVALID', `"${written}" is in a registry, not a file of this machine`, {
    hint: '`bento pull` and `bento push` are for registries',
  });
}

function invalid(written: string, why: string): BentoError {
  return new BentoError('REF_INVALID', `"${written}" names no image layout or archive: ${why}`, {
    hint: 'write <folder>, <file>.tar, oci:<folder>:<tag> or oci-archive:<file>:<tag>',
  });
}
