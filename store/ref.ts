import { isDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';

/**
 * What a user may write to name a checkpoint, parsed:
 * `head` and `undo` are resolved by the workspace, everything else by a layout.
 */
export type Ref =
  | { kind: 'tag'; store: string | undefined; tag: string }
  | { kind: 'digest'; store: string | undefined; digest: Digest }
  | { kind: 'prefix'; store: string | undefined; prefix: string }
  | { kind: 'head' }
  | { kind: 'undo' };

const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const STORE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const DIGEST_PREFIX = /^sha256:([0-9a-f]{6,63})$/;

/** @see OCI distribution-spec v1.1, "Pulling manifests": what a tag may be */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/**
 * Parses a reference: empty (latest), `tag`, `sha256:<hex>` (whole, or its first six digits and more), `name:tag`,
 * `name@sha256:<hex>`, `head`, `undo`.
 *
 * @throws BentoError REF_INVALID naming what is wrong with it
 */
export function parseRef(written: string): Ref {
  const text = written.trim();
  if (text === '') return { kind: 'tag', store: undefined, tag: 'latest' };
  if (text === 'head') return { kind: 'head' };
  if (text === 'undo') return { kind: 'undo' };
  if (text.includes('/')) throw refInvalid(written, 'it names a registry or a path, not a checkpoint of this store');
  const pinned = text.includes('@') ? text.indexOf('@') : -1;
  if (pinned >= 0) return parseTarget(written, text.slice(0, pinned), text.slice(pinned + 1));
  if (text.startsWith('sha256:')) return parseTarget(written, undefined, text);
  const colon = text.lastIndexOf(':');
  if (colon < 0) return parseTarget(written, undefined, text);
  if (colon === 0 || colon === text.length - 1) throw refInvalid(written, 'empty store name or tag');
  return parseTarget(written, text.slice(0, colon), text.slice(colon + 1));
}

function parseTarget(written: string, store: string | undefined, target: string): Ref {
  if (store !== undefined && !STORE.test(store)) throw refInvalid(written, `"${store}" is not a store name`);
  if (isDigest(target)) return { kind: 'digest', store, digest: target };
  const prefix = DIGEST_PREFIX.exec(target)?.[1];
  if (prefix !== undefined) return { kind: 'prefix', store, prefix: `sha256:${prefix}` };
  if (!isTag(target)) throw refInvalid(written, `"${target}" is neither a tag nor a digest`);
  return { kind: 'tag', store, tag: target };
}

function refInvalid(written: string, why: string): BentoError {
  return new BentoError('REF_INVALID', `invalid ref "${written}": ${why}`, {
    hint: '`bento list` shows what there is',
  });
}
