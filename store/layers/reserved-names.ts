import { createHash } from 'node:crypto';

import { toBytes, type ByteString } from '../byte-string.ts';

/** `.wh.<name>` hides `<name>` of the layers below (OCI image-spec, layer.md, "Whiteouts"). */
export const WHITEOUT_PREFIX = '.wh.';
/** Inside a directory: nothing of its lower namesakes shows through. */
export const OPAQUE_MARKER = '.wh..wh..opq';
/** The table of contents of an eStargz layer. */
export const TOC_NAME = 'stargz.index.json';
export const PREFETCH_LANDMARK = '.prefetch.landmark';
export const NO_PREFETCH_LANDMARK = '.no.prefetch.landmark';
/** What is in either landmark. */
export const LANDMARK_CONTENT = Buffer.from([0x0f]);

/** Set before a name that would otherwise mean something else inside a layer. */
const ESCAPE_PREFIX = '.bento-name.';
const NAME_BYTES_MAX = 255;
const HASH_HEX_DIGITS = 32;

/** Files of the format itself: in the root of an eStargz layer they are not part of the tree. */
const FORMAT_NAMES: ReadonlySet<ByteString> = new Set([TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK]);
/** `__external__` is where the original bento keeps files from outside the workspace. */
const ROOT_NAMES: ReadonlySet<ByteString> = new Set([...FORMAT_NAMES, '__external__']);

/** Whether this normalised tar path belongs to the eStargz format rather than to the user. */
export function isFormatFile(path: ByteString): boolean {
  return FORMAT_NAMES.has(path);
}

/**
 * The path under which a user's path is archived. Almost always the same; a component that a layer would misread is
 * escaped, and the true path then travels beside the entry (`BENTO.path`, `bento.path`). Nobody unescapes a name.
 */
export function escapePath(path: ByteString): ByteString {
  // Every reserved name but two begins with a dot: most paths are done after two cheap looks.
  if (!path.startsWith('.') && !path.includes('/.') && !path.startsWith('s') && !path.startsWith('_')) return path;
  const components = path.split('/');
  return components.map((name, depth) => (isReserved(name, depth) ? escapeName(name) : name)).join('/');
}

function isReserved(name: ByteString, depth: number): boolean {
  if (name.startsWith(WHITEOUT_PREFIX) || name.startsWith(ESCAPE_PREFIX)) return true;
  return depth === 0 && ROOT_NAMES.has(name);
}

function escapeName(name: ByteString): ByteString {
  if (ESCAPE_PREFIX.length + name.length <= NAME_BYTES_MAX) return ESCAPE_PREFIX + name;
  const hash = createHash('sha256').update(toBytes(name)).digest('hex');
  return ESCAPE_PREFIX + hash.slice(0, HASH_HEX_DIGITS);
}
