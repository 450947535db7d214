import { isDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { isTag } from '../ref.ts';
import { isLocalRef, nameOfPath, parseLocalPlace } from './local-ref.ts';
import type { RepositoryName } from './repository.ts';

/** A repository, and what in it. */
export interface RemoteRef extends RepositoryName {
  tag: string | undefined;
  /** Where both are written, the digest counts. */
  digest: Digest | undefined;
}

const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const SCHEME = /^(?:docker|oci|https?):\/\//;
const REPOSITORY_LENGTH_MAX = 255;

/**
 * Whether a reference names something that is not in the store: in a registry, or in a layout folder or archive that its
 * scheme says. Other paths are none.
 */
export function isRemoteRef(written: string): boolean {
  const text = written.trim();
  if (isLocalRef(text)) return true;
  return /^(?:docker|oci):\/\//.test(text) || (text.includes('/') && !/^(?:[a-z][a-z0-9+.-]*:\/\/|[./~])/.test(text));
}

/**
 * Parses `host[:port]/path[:tag][@digest]`, with or without `docker://` or `oci://` before it, and what `parseLocalPlace`
 * does. The first part has to be a host: unlike docker, no registry is assumed.
 *
 * @param cwd - what paths are relative to
 * @throws BentoError REF_INVALID naming what is wrong with it
 * @see OCI distribution-spec v1.1, "Pulling manifests": what names and tags may be
 */
export function parseRemoteRef(written: string, cwd?: string): RemoteRef {
  const local = isLocalRef(written) ? parseLocalPlace(written, cwd) : undefined;
  if (local !== undefined) return { ...nameOfPath(local.path), tag: local.tag, digest: local.digest };
  const text = written.trim().replace(SCHEME, '');
  const at = text.indexOf('@');
  const named = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) throw invalid(written, `"${digest}" is not a digest`);
  const slash = named.indexOf('/');
  if (slash <= 0) throw invalid(written, 'it names no repository: registry/path');
  const registry = named.slice(0, slash);
  if (!HOST.test(registry)) throw invalid(written, `"${registry}" is not a host`);
  if (!/[.:]/.test(registry) && registry !== 'localhost')
    throw invalid(written, `"${registry}" is not the host of a registry`);
  const colon = named.indexOf(':', slash);
  const repository = colon < 0 ? named.slice(slash + 1) : named.slice(slash + 1, colon);
  const isPath =
    repository.length <= REPOSITORY_LENGTH_MAX && repository.split('/').every((part) => COMPONENT.test(part));
  if (!isPath) throw invalid(written, `"${repository}" is not the name of a repository`);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !isTag(tag)) throw invalid(written, `"${tag}" is not a tag`);
  return { registry, repository, tag, digest };
}

/** As `parseRemoteRef` reads it. */
export function formatRemoteRef({ registry, repository, tag, digest }: RemoteRef): string {
  const at = digest === undefined ? '' : `@${digest}`;
  return `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}${at}`;
}

function invalid(written: string, why: string): BentoError {
  return new BentoError('REF_INVALID', `invalid remote reference "${written}": ${why}`, {
    hint: 'write it as registry/path:tag, or file:///folder:tag',
  });
}
