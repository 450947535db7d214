import { chmod, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';

import { writeFileDurably } from '../durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../errors.ts';
import { lockFile } from '../lock.ts';
import { isObject, parseObject } from '../manifest.ts';
import type { Credentials } from './credentials.ts';

const FILE_BYTES_MAX = 4 << 20;

/** What is understood of a `config.json` of Docker or an `auth.json`; keys are hosts, or hosts with a path. */
export interface AuthFile {
  auths: ReadonlyMap<string, Credentials>;
  /** Host to the name of its helper. */
  helpers: ReadonlyMap<string, string>;
  /** The helper for all others. */
  store: string | undefined;
}

/** @returns undefined when there is none @throws BentoError CONFIG_INVALID, PERMISSION_DENIED */
export async function readAuthFile(path: string): Promise<AuthFile | undefined> {
  const json = await readJson(path);
  if (json === undefined) return undefined;
  const store = json['credsStore'];
  const helpers = Object.entries(isObject(json['credHelpers']) ? json['credHelpers'] : {});
  const auths = Object.entries(isObject(json['auths']) ? json['auths'] : {});
  return {
    auths: new Map(auths.flatMap(([key, value]) => named(plainKey(key), parseAuth(value)))),
    helpers: new Map(helpers.flatMap(([key, value]) => named(plainKey(key), typeof value === 'string' ? value : ''))),
    store: typeof store === 'string' && store !== '' ? store : undefined,
  };
}

function named<T>(key: string, value: T | undefined): [string, T][] {
  return value === undefined || value === '' ? [] : [[key, value]];
}

/** `https://host/v1/` to `host`: old files have such keys. */
function plainKey(key: string): string {
  const isUrl = /^https?:\/\//.test(key);
  const rest = key.replace(/^https?:\/\//, '');
  return isUrl ? rest.replace(/\/.*$/, '') : rest.replace(/\/(?:v[12]\/?)?$/, '');
}

/** `{ auth: base64 of "user:password" }`, `{ username, password }`, `{ identitytoken }`. */
function parseAuth(value: unknown): Credentials | undefined {
  if (!isObject(value)) return undefined;
  const { auth, username, password, identitytoken } = value;
  if (typeof identitytoken === 'string' && identitytoken !== '') return { kind: 'token', identityToken: identitytoken };
  const text = typeof auth === 'string' ? Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '') : '';
  const colon = text.indexOf(':');
  if (colon > 0) return { kind: 'basic', username: text.slice(0, colon), password: text.slice(colon + 1) };
  const isPlain = typeof username === 'string' && typeof password === 'string' && username !== '';
  return isPlain ? { kind: 'basic', username, password } : undefined;
}

/**
 * Changes the entry of one registry in bento's own file, which nobody else can read. What else is in it stays.
 *
 * @param credentials - undefined takes the entry away
 * @returns whether there was one before
 * @throws BentoError CONFIG_INVALID, PERMISSION_DENIED, NO_SPACE
 */
export async function changeAuth(
  path: string,
  key: string,
  credentials: { username: string; password: string } | undefined,
): Promise<boolean> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    using _lock = await lockFile(`${path}.lock`);
    const json = (await readJson(path)) ?? {};
    const entries = Object.entries(isObject(json['auths']) ? json['auths'] : {});
    const others = entries.filter(([name]) => name !== key);
    const existed = others.length < entries.length;
    if (credentials === undefined && !existed) return false;
    const { username, password } = credentials ?? {};
    const own = { auth: Buffer.from(`${username ?? ''}:${password ?? ''}`).toString('base64') };
    const auths = Object.fromEntries(credentials === undefined ? others : [...others, [key, own]]);
    await writeFileDurably(path, `${JSON.stringify({ ...json, auths }, null, 2)}\n`, 0o600);
    await chmod(path, 0o600);
    return existed;
  } catch (error) {
    throw describeSystemError(error, `writing ${path}`);
  }
}

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  const bytes = await readSmall(path);
  if (bytes === undefined || bytes.toString('utf8').trim() === '') return undefined;
  try {
    return parseObject(bytes, path);
  } catch (cause) {
    throw new BentoError('CONFIG_INVALID', `${path} is not a JSON object`, { hint: 'mend or remove it', cause });
  }
}

async function readSmall(path: string): Promise<Buffer | undefined> {
  try {
    const handle = await open(path, 'r');
    try {
      const { size } = await handle.stat();
      if (size > FILE_BYTES_MAX)
        throw new BentoError('CONFIG_INVALID', `${path} is larger than ${FILE_BYTES_MAX} bytes`, {
          hint: 'is it the right file?',
        });
      return await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw describeSystemError(error, `reading ${path}`);
  }
}
