import { randomBytes } from 'node:crypto';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { BentoError } from '../../store/errors.ts';
import { pathOfName } from '../../store/registry/local-ref.ts';
import { parseRemoteRef } from '../../store/registry/remote-ref.ts';
import { isStoreName, RESERVED_STORE_NAMES } from '../../store/store.ts';

/** `ws-` and 16 lowercase hex digits. */
export function newWorkspaceId(): string {
  return `ws-${randomBytes(8).toString('hex')}`;
}

/** `$XDG_DATA_HOME/bento/store`, else `~/.local/share/bento/store`; on macOS `~/.bento/store`. */
export function defaultStoreRoot(env: NodeJS.ProcessEnv = process.env, platform: string = process.platform): string {
  if (platform === 'darwin') return join(homedir(), '.bento', 'store');
  const dataHome = env['XDG_DATA_HOME'];
  return join(dataHome?.startsWith('/') ? dataHome : join(homedir(), '.local', 'share'), 'bento', 'store');
}

/** @throws BentoError CONFIG_INVALID, when `name` cannot be a workspace id */
export function assertStoreName(name: string): void {
  if (isStoreName(name)) return;
  const reason = RESERVED_STORE_NAMES.includes(name) ? 'the store uses that name itself' : 'not a usable folder name';
  throw new BentoError('CONFIG_INVALID', `"${name}" cannot be a workspace id: ${reason}`, {
    hint: 'letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 128',
  });
}

/** What a user says a store is. */
export interface StorePlace {
  /** Absolute. */
  root: string;
  /** A registry that was named instead of a folder: checkpoints are kept at the default place, and pushed to it. */
  remote: string | undefined;
}

/**
 * Parses a configured store: a path, in which `~`, `$VAR` and `${VAR}` are expanded and which is relative to the workspace;
 * `file:///path`; or `oci://registry/path` and `docker://registry/path`.
 *
 * @throws BentoError CONFIG_INVALID for everything else with a scheme, which would make a folder of that name, and for a
 *   variable that is not set; an empty one would make the store `/something`
 */
export function parseStorePlace(path: string, dir: string, env: NodeJS.ProcessEnv = process.env): StorePlace {
  const expanded = expandPath(path, env);
  if (!SCHEME.test(expanded)) return { root: resolve(dir, expanded), remote: undefined };
  const registry = /^(?:oci|docker):\/\/(?!\.{0,2}\/)/.test(expanded);
  if (!registry && !expanded.startsWith('file:')) throw noStore(path, 'bento has stores in folders only');
  try {
    const { tag, digest, ...name } = parseRemoteRef(expanded, dir);
    if (tag !== undefined || digest !== undefined) throw noStore(path, 'it names one checkpoint');
    if (registry) return { root: defaultStoreRoot(env), remote: `${name.registry}/${name.repository}` };
    return { root: pathOfName(name) ?? '/', remote: undefined };
  } catch (error) {
    if (!(error instanceof BentoError) || error.code !== 'REF_INVALID') throw error;
    throw noStore(path, error.message);
  }
}

/** The folder alone: see `parseStorePlace`. */
export function resolveStoreRoot(path: string, dir: string, env: NodeJS.ProcessEnv = process.env): string {
  return parseStorePlace(path, dir, env).root;
}

const SCHEME = /^(?:[A-Za-z][A-Za-z0-9+.-]*:\/\/|(?:file|oci|docker|oci-archive|docker-archive):)/;

function expandPath(path: string, env: NodeJS.ProcessEnv): string {
  const home = /^~(?=\/|$)/.test(path) ? join(homedir(), path.slice(1)) : path;
  return home.replace(/\$(?:\{(\w+)\}|(\w+))/g, (_, braced?: string, bare?: string) => {
    const name = braced ?? bare ?? '';
    const value = env[name];
    if (value === undefined || value === '') {
      throw new BentoError('CONFIG_INVALID', `bento.yaml: store "${path}" uses $${name}, which is not set`);
    }
    return value;
  });
}

function noStore(path: string, why: string): BentoError {
  return new BentoError('CONFIG_INVALID', `bento.yaml: "${path}" cannot be the store: ${why}`, {
    hint: 'write /path, file:///path, or oci://registry/path to keep checkpoints here and push them there',
  });
}
