import { closeSync, constants, fstatSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

import { toFsPath, type ByteString } from '../../../store/byte-string.ts';
import { isDigest, type Digest } from '../../../store/digest.ts';
import type { EntryType, Metadata } from '../../../store/entry.ts';
import { BentoError, errnoOf } from '../../../store/errors.ts';
import { parseObject } from '../../../store/manifest.ts';
import type { Owner } from '../../tree/disk-node.ts';

const VERSION = 1;
const JOURNAL_NAME = 'journal';
/** Of a restore that changes some millions of files. */
const JOURNAL_BYTES_MAX = 1 << 30;

/** What stood at a path when the restore was planned. If something else is there later, somebody wants it: it stays. */
export interface Expected {
  type: EntryType;
  sizeBytes: number;
  mtimeSec: number;
  mtimeNsec: number;
}

/** One change of the workspace. Each can be carried out again: the second time it finds nothing to do. */
export type Step =
  | { op: 'remove'; path: ByteString; expected: Expected }
  | { op: 'dir'; path: ByteString; expected: Expected | undefined }
  /** The new object waits in the staging folder under the number `from`. */
  | { op: 'put'; path: ByteString; from: number; expected: Expected | undefined };

/** What a directory gets when nothing more changes in it. */
export interface DirAttributes {
  path: ByteString;
  attributes: Pick<Metadata, 'mode' | 'uid' | 'gid' | 'mtimeSec' | 'mtimeNsec' | 'xattrs'>;
}

/** Everything that is left to do once a restore's new contents are staged. */
export interface Journal {
  /** In the order in which they are carried out. */
  steps: readonly Step[];
  /** Deepest first; the root (the empty path) comes last. */
  dirs: readonly DirAttributes[];
  /** Gets what the checkpoint says belongs to the owner of the workspace. */
  owner: Owner;
  /** Where the head goes: null for nowhere, as before the first save; absent when it stays. */
  head?: Digest | null;
}

/** Makes the journal durable, in one step: from now on the restore will be finished, come what may. */
export function writeJournal(staging: ByteString, journal: Journal): void {
  const temporary = toFsPath(`${staging}/${JOURNAL_NAME}.tmp`);
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeFileSync(fd, encodeJournal(journal));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, toFsPath(journalPath(staging)));
}

export function journalPath(staging: ByteString): ByteString {
  return `${staging}/${JOURNAL_NAME}`;
}

/**
 * The journal of a staging folder.
 *
 * @returns undefined when there is none: nothing but the staging folder was touched
 * @throws BentoError FORMAT_INVALID when it is not one that bento wrote
 */
export function readJournal(staging: ByteString): Journal | undefined {
  let fd: number;
  try {
    fd = openSync(toFsPath(journalPath(staging)), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile() || stats.size > JOURNAL_BYTES_MAX) throw invalid('it is no file of a sensible size');
    return decodeJournal(readFileSync(fd));
  } finally {
    closeSync(fd);
  }
}

function encodeJournal({ dirs, ...journal }: Journal): string {
  const encoded = dirs.map(({ path, attributes: { xattrs, ...rest } }) => ({
    path,
    attributes: {
      ...rest,
      ...(xattrs && { xattrs: [...xattrs].map(([name, value]) => [name, value.toString('base64')]) }),
    },
  }));
  return JSON.stringify({ version: VERSION, ...journal, dirs: encoded });
}

/** The folder lies in a directory that may have come from anybody: every value is looked at before it is believed. */
function decodeJournal(bytes: Buffer): Journal {
  const { version, steps, dirs, owner, head } = parseObject(bytes, 'journal');
  if (version !== VERSION) throw invalid(`its version is not ${VERSION}`);
  if (head !== undefined && head !== null && !(typeof head === 'string' && isDigest(head))) throw invalid('its head');
  const { uid, gid } = objectOf(owner);
  return {
    steps: listOf(steps).map(decodeStep),
    dirs: listOf(dirs).map(decodeDir),
    owner: { uid: numberOf(uid), gid: numberOf(gid) },
    ...(head !== undefined && { head }),
  };
}

function decodeStep(value: unknown): Step {
  const { op, path, from, expected } = objectOf(value);
  const place = pathOf(path);
  if (place === '') throw invalid('a step for the root');
  const was = expected === undefined ? undefined : decodeExpected(expected);
  if (op === 'remove' && was !== undefined) return { op, path: place, expected: was };
  if (op === 'dir') return { op, path: place, expected: was };
  if (op === 'put') return { op, path: place, from: numberOf(from), expected: was };
  throw invalid('an unknown step');
}

function decodeExpected(value: unknown): Expected {
  const { type, sizeBytes, mtimeSec, mtimeNsec } = objectOf(value);
  if (typeof type !== 'string') throw invalid('a type');
  return {
    type: type as EntryType, // compared with what is there, nothing else
    sizeBytes: numberOf(sizeBytes),
    mtimeSec: numberOf(mtimeSec),
    mtimeNsec: numberOf(mtimeNsec),
  };
}

function decodeDir(value: unknown): DirAttributes {
  const { path, attributes } = objectOf(value);
  const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = objectOf(attributes);
  return {
    path: pathOf(path),
    attributes: {
      mode: numberOf(mode) & 0o7777,
      uid: numberOf(uid),
      gid: numberOf(gid),
      mtimeSec: numberOf(mtimeSec),
      mtimeNsec: numberOf(mtimeNsec),
      ...(xattrs !== undefined && { xattrs: new Map(listOf(xattrs).map(decodeXattr)) }),
    },
  };
}

function decodeXattr(pair: unknown): [string, Buffer] {
  const [name, value] = listOf(pair);
  if (typeof name !== 'string' || typeof value !== 'string' || name.includes('\0')) throw invalid('an attribute');
  return [name, Buffer.from(value, 'base64')];
}

/** A path that stays in the workspace. */
function pathOf(value: unknown): ByteString {
  // eslint-disable-next-line no-control-regex -- a byte string has nothing beyond U+00FF, and a path no NUL
  if (typeof value !== 'string' || !/^[\x01-\xff]*$/.test(value)) throw invalid('a path');
  if (value !== '' && value.split('/').some((name) => name === '' || name === '.' || name === '..')) {
    throw invalid('a path that leads elsewhere');
  }
  return value;
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid('an object');
  return value as Record<string, unknown>;
}

function listOf(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw invalid('a list');
  return value;
}

function numberOf(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw invalid('a number');
  return value as number;
}

function invalid(what: string): BentoError {
  return new BentoError('FORMAT_INVALID', `the journal of an interrupted open cannot be read: ${what}`);
}
