import { baseName, joinPath, parentPath, toText, type ByteString } from '../byte-string.ts';
import type { Entry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import { escapePath, OPAQUE_MARKER, WHITEOUT_PREFIX } from './reserved-names.ts';

export const PATH_BYTES_MAX = 32 * 1024;
export const PATH_DEPTH_MAX = 4096;
/** What Linux allows for one name. */
export const NAME_BYTES_MAX = 255;

/** `.wh..wh.*` other than the opaque marker: housekeeping of old storage drivers, not part of any tree. */
const WHITEOUT_META_PREFIX = WHITEOUT_PREFIX + WHITEOUT_PREFIX;

/** How a path is written in a tar header; `truePath` travels beside it only when the name itself does not tell. */
export interface ArchivedName {
  tarName: ByteString;
  truePath?: ByteString;
}

/** What an archived name stands for. */
export type NameMeaning =
  | { kind: 'entry'; path: ByteString }
  | { kind: 'whiteout'; path: ByteString }
  | { kind: 'opaque'; path: ByteString }
  | { kind: 'nothing' };

/** The tar name of an entry: directories end with a slash, the root is `./`, a whiteout is `.wh.<name>`. */
export function archiveName(entry: Pick<Entry, 'path' | 'type'>): ArchivedName {
  const escaped = escapePath(entry.path);
  return withTruePath(entry.path, escaped, decorate(escaped, entry.type));
}

/** The tar name of the marker that makes a directory opaque; its true path is that of the directory. */
export function archiveOpaqueMarker(dir: ByteString): ArchivedName {
  const escaped = escapePath(dir);
  return withTruePath(dir, escaped, joinPath(escaped, OPAQUE_MARKER));
}

/** The tar name of the entry a hard link points at. */
export function archiveLinkTarget(path: ByteString): ArchivedName {
  const escaped = escapePath(path);
  return withTruePath(path, escaped, escaped);
}

/**
 * Reads an archived name back.
 *
 * @param truePath - the path that travelled beside the name, if one did; it is believed, never derived
 * @throws BentoError FORMAT_INVALID for a name that could leave the tree
 */
export function parseArchivedName(tarName: ByteString, truePath: ByteString | undefined): NameMeaning {
  const plain = normalizePath(tarName);
  const name = baseName(plain);
  if (name === OPAQUE_MARKER) return { kind: 'opaque', path: pathOr(truePath, parentPath(plain)) };
  if (name.startsWith(WHITEOUT_META_PREFIX)) return { kind: 'nothing' };
  if (!name.startsWith(WHITEOUT_PREFIX)) return { kind: 'entry', path: pathOr(truePath, plain) };
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (['', '.', '..'].includes(hidden)) throw invalidName(tarName, 'it hides no name');
  return { kind: 'whiteout', path: pathOr(truePath, joinPath(parentPath(plain), hidden)) };
}

/**
 * One spelling for one path: `./a`, `/a` and `a/` are all `a`; the root is the empty string.
 *
 * @throws BentoError FORMAT_INVALID for `..`, an empty component, a NUL, or a path beyond the limits
 */
export function normalizePath(name: ByteString): ByteString {
  if (isPlain(name)) return name;
  if (name === '') throw invalidName(name, 'it is empty');
  if (name.length > PATH_BYTES_MAX) throw invalidName(name, `it is longer than ${PATH_BYTES_MAX} bytes`);
  if (name.includes('\0')) throw invalidName(name, 'it contains a NUL');
  const components = name.replace(/^\/+/, '').replace(/\/+$/, '').split('/');
  if (components.length === 1 && components[0] === '') return '';
  if (components.length > PATH_DEPTH_MAX) throw invalidName(name, `it is deeper than ${PATH_DEPTH_MAX}`);
  if (components.includes('')) throw invalidName(name, 'it has an empty component');
  if (components.includes('..')) throw invalidName(name, 'it climbs with ..');
  return components.includes('.') ? components.filter((part) => part !== '.').join('/') : components.join('/');
}

const [NUL, DOT, SLASH] = [0, 0x2e, 0x2f];

/** Whether a name is spelled as `normalizePath` spells it. Layers have few others, and this is looked at several times for each. */
function isPlain(name: ByteString): boolean {
  if (name.length > PATH_BYTES_MAX) return false;
  let depth = 0;
  let start = 0;
  for (let at = 0; at <= name.length; at += 1) {
    const code = at === name.length ? SLASH : name.charCodeAt(at);
    if (code === NUL) return false;
    if (code !== SLASH) continue;
    const lengthBytes = at - start;
    if (lengthBytes === 0) return false;
    // A component of dots, `.` or `..`, or one like `a.`: the long way tells.
    if (lengthBytes <= 2 && name.charCodeAt(at - 1) === DOT) return false;
    depth += 1;
    start = at + 1;
  }
  return depth <= PATH_DEPTH_MAX;
}

/** @throws BentoError FORMAT_INVALID unless `path` is already in its one spelling, with names Linux can hold */
export function checkPath(path: ByteString): ByteString {
  if (path === '') return path;
  if (normalizePath(path) !== path) throw invalidName(path, 'it is not in its plain form');
  if (path.length > NAME_BYTES_MAX && path.split('/').some((name) => name.length > NAME_BYTES_MAX)) {
    throw invalidName(path, `a name in it is longer than ${NAME_BYTES_MAX} bytes`);
  }
  return path;
}

function pathOr(truePath: ByteString | undefined, path: ByteString): ByteString {
  return checkPath(truePath ?? path);
}

function withTruePath(path: ByteString, escaped: ByteString, tarName: ByteString): ArchivedName {
  return escaped === path ? { tarName } : { tarName, truePath: path };
}

function decorate(path: ByteString, type: Entry['type']): ByteString {
  if (type === 'dir') return path === '' ? './' : `${path}/`;
  if (type === 'whiteout') return joinPath(parentPath(path), WHITEOUT_PREFIX + baseName(path));
  return path;
}

function invalidName(name: ByteString, why: string): BentoError {
  return new BentoError('FORMAT_INVALID', `a layer names the path "${toText(name.slice(0, 200))}", but ${why}`);
}
