import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { isDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { isTag } from '../ref.ts';
import type { RepositoryName } from './repository.ts';

/** Stands for the host in the name of a repository that is a layout folder or an archive of this machine. */
export const THIS_MACHINE = 'file://';

/** A layout folder or an archive, as a user names it. */
export interface LocalPlace {
  /** Absolute. */
  path: string;
  /** What the words say it is; undefined when only the name tells. */
  kind: 'folder' | 'archive' | undefined;
  tag: string | undefined;
  digest: Digest | undefined;
}

const SCHEMES: readonly { prefix: RegExp; kind: 'folder' | 'archive' | undefined }[] = [
  { prefix: /^(?=file:)/, kind: undefined },
  { prefix: /^oci:(?:\/\/(?=\.{0,2}\/))?/, kind: 'folder' },
  { prefix: /^oci-archive:/, kind: 'archive' },
  { prefix: /^docker-archive:/, kind: 'archive' },
];
const DIGEST_AT_END = /@(sha256:[^/]*)$/;
/** What would end the path, or be read as something else. */
const RESERVED = /[%:@?#\\\s\0]/g;

/** Whether the words name a folder or archive of this machine by a scheme, and could not name a store and a tag. */
export function isLocalRef(written: string): boolean {
  const text = written.trim();
  return schemeOf(text) !== undefined && text.includes('/');
}

/**
 * Parses `file:///path`, `oci:path`, `oci:///path`, `oci://./path`, `oci-archive:path` and `docker-archive:path`, each with
 * `:tag` and `@digest` behind it. Of the name of the file, a colon ends it; a file address has `%3A` for one.
 *
 * @returns undefined when no such scheme is in front
 * @throws BentoError REF_INVALID naming what is wrong with it
 * @see containers-transports(5), whose spelling this is but for the addresses
 */
export function parseLocalPlace(written: string, cwd = process.cwd()): LocalPlace | undefined {
  const text = written.trim();
  const scheme = schemeOf(text);
  if (scheme === undefined) return undefined;
  const { named, digest } = splitDigest(text.replace(scheme.prefix, ''), written);
  // Of an archive, the tag may be a name of docker's, with slashes.
  const colon = named.indexOf(':', scheme.kind === 'archive' ? 0 : named.lastIndexOf('/') + 1);
  const end = colon < 0 ? named.length : colon;
  const path = scheme.kind === undefined ? pathOfUrl(named.slice(0, end), written) : named.slice(0, end);
  if (path === '') throw invalid(written, 'it names no file');
  if (path.includes('\0')) throw invalid(written, 'it contains a NUL');
  const name = end === named.length ? undefined : named.slice(end + 1);
  const tag = name === undefined ? undefined : tagOfRefName(name);
  if (name !== undefined && tag === undefined) throw invalid(written, `"${name}" is not a tag`);
  return { path: resolve(cwd, path), kind: scheme.kind, tag, digest };
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

/** Name of the repository that a folder or archive is: registry and repository together are its address. */
export function nameOfPath(path: string): RepositoryName {
  return { registry: THIS_MACHINE, repository: path.slice(1).replace(RESERVED, (one) => encodeURIComponent(one)) };
}

/** @returns undefined for a repository of a registry */
export function pathOfName({ registry, repository }: RepositoryName): string | undefined {
  return registry === THIS_MACHINE ? `/${decodeURIComponent(repository)}` : undefined;
}

/** Says that an archive was written once and for all. */
export function archiveIsClosed(shown: string): BentoError {
  return new BentoError('REMOTE_REFUSED', `${shown} is an archive, and nothing can be added to one`, {
    hint: '`bento export` writes a new archive; a folder takes pushes',
  });
}

function schemeOf(text: string): (typeof SCHEMES)[number] | undefined {
  if (/^oci:\/\/(?!\.{0,2}\/)/.test(text)) return undefined; // a registry
  return SCHEMES.find(({ prefix }) => prefix.test(text));
}

function splitDigest(text: string, written: string): { named: string; digest: Digest | undefined } {
  const found = DIGEST_AT_END.exec(text)?.[1];
  if (found === undefined) return { named: text, digest: undefined };
  if (!isDigest(found)) throw invalid(written, `"${found}" is not a digest`);
  return { named: text.slice(0, -found.length - 1), digest: found };
}

function pathOfUrl(url: string, written: string): string {
  try {
    if (!url.startsWith('file:/') || /[?#]/.test(url))
      throw new TypeError('no absolute path, or one that would be cut off');
    return fileURLToPath(url);
  } catch (cause) {
    throw new BentoError('REF_INVALID', `"${written}" is no address of a file on this machine`, {
      hint: 'write it as file:///absolute/path or file:///absolute/path:tag, with %3A for a colon in a name',
      cause,
    });
  }
}

function invalid(written: string, why: string): BentoError {
  return new BentoError('REF_INVALID', `"${written}" names no image layout or archive: ${why}`, {
    hint: 'write file:///folder:tag, oci:<folder>:<tag> or oci-archive:<file>:<tag>',
  });
}
