import { randomBytes } from 'node:crypto';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { BentoError } from '../../store/errors.ts';
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

/**
 * Makes a configured store root absolute: `~`, `$VAR` and `${VAR}` are expanded, the rest is relative to the workspace.
 *
 * @throws BentoError CONFIG_INVALID for a variable that is not set; an empty one would make the store `/something`
 */
export function resolveStoreRoot(path: string, dir: string, env: NodeJS.ProcessEnv = process.env): string {
  const home = /^~(?=\/|$)/.test(path) ? join(homedir(), path.slice(1)) : path;
  const expanded = home.replace(/\$(?:\{(\w+)\}|(\w+))/g, (_, braced?: string, bare?: string) => {
    const name = braced ?? bare ?? '';
    const value = env[name];
    if (value === undefined || value === '') {
      throw new BentoError('CONFIG_INVALID', `bento.yaml: store "${path}" uses $${name}, which is not set`);
    }
    return value;
  });
  return resolve(dir, expanded);
}
