import { fileURLToPath } from 'node:url';
import { resolve } from 'node:path';

import { BentoError } from '../errors.ts';
import { isTag } from '../ref.ts';

/** A layout folder or an archive outside of the store, as a user names it. */
export interface ImagePlace {
  /** Absolute. */
  path: string;
  /** What the words say it is; undefined when only the name tells. */
  kind: 'folder' | 'archive' | undefined;
  tag: string | undefined;
}

const SCHEMES: readonly { prefix: string; kind: 'folder' | 'archive' }[] = [
  { prefix: 'oci:', kind: 'folder' },
  { prefix: 'oci-archive:', kind: 'archive' },
  { prefix: 'docker-archive:', kind: 'archive' },
];

/**
 * Parses `dir`, `file.tar`, `oci:dir[:tag]`, `oci-archive:file.tar[:tag]`, `docker-archive:file.tar[:tag]` and
 * `file:///path`. A plain path is taken whole: a colon in it is part of the name.
 *
 * @throws BentoError REF_INVALID naming what is wrong with it
 * @see containers-transports(5), whose spelling this is
 */
export function parseImagePlace(written: string, cwd = process.cwd()): ImagePlace {
  if (written.startsWith('file:')) return { path: pathOfUrl(written), kind: undefined, tag: undefined };
  const scheme = SCHEMES.find(({ prefix }) => written.startsWith(prefix));
  if (scheme === undefined) return { path: resolvePath(written, written, cwd), kind: undefined, tag: undefined };
  const rest = written.slice(scheme.prefix.length);
  const colon = rest.indexOf(':', rest.lastIndexOf('/') + 1);
  const path = colon < 0 ? rest : rest.slice(0, colon);
  if (colon < 0) return { path: resolvePath(path, written, cwd), kind: scheme.kind, tag: undefined };
  const name = rest.slice(colon + 1);
  const tag = isTag(name) ? name : tagOfRefName(name);
  if (tag === undefined) throw invalid(written, `"${name}" is not a tag`);
  return { path: resolvePath(path, written, cwd), kind: scheme.kind, tag };
}

/**
 * The tag that a reference name means: other programs write `v1`, `name:v1` or `docker.io/library/name:v1`.
 *
 * @returns undefined when there is none in it that bento could use
 */
export function tagOfRefName(name: string): string | undefined {
  if (isTag(name)) return name;
  const tag = name.slice(name.indexOf(':', name.lastIndexOf('/') + 1) + 1);
  return tag !== name && isTag(tag) ? tag : undefined;
}

function resolvePath(path: string, written: string, cwd: string): string {
  if (path === '') throw invalid(written, 'it names no file');
  if (path.includes('\0')) throw invalid(written, 'it contains a NUL');
  return resolve(cwd, path);
}

function pathOfUrl(written: string): string {
  try {
    return fileURLToPath(written);
  } catch (cause) {
    throw new BentoError('REF_INVALID', `"${written}" is no address of a file on this machine`, {
      hint: 'write it as file:///absolute/path',
      cause,
    });
  }
}

function invalid(written: string, why: string): BentoError {
  return new BentoError('REF_INVALID', `"${written}" names no image layout or archive: ${why}`, {
    hint: 'write <folder>, <file>.tar, oci:<folder>:<tag> or oci-archive:<file>:<tag>',
  });
}
