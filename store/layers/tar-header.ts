import type { ByteString } from '../byte-string.ts';
import type { Entry, EntryType } from '../entry.ts';
import { BentoError } from '../errors.ts';
import * as field from './tar-fields.ts';
import { BLOCK_BYTES, getNumber, getText, octalMax, putOctal, putText } from './tar-fields.ts';
import {
  addXattrRecords,
  BENTO_LINK,
  BENTO_PATH,
  encodePaxRecords,
  encodePaxTime,
  type PaxRecords,
} from './pax-records.ts';
import { archiveLinkTarget, archiveName, archiveOpaqueMarker, type ArchivedName } from './tar-name.ts';

const TYPE_FLAGS: Record<EntryType, string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  dir: '5',
  fifo: '6',
  whiteout: '0',
};
const PAX_HEADER_FLAG = 'x';
/** Nobody extracts it; a fixed name keeps layers reproducible (Python's tarfile uses the same). */
const PAX_HEADER_NAME = '././@PaxHeader';
const MODE_MASK = 0o7777;

/** The fields of one header block as they stand, before any extended header has its say. */
export interface RawHeader {
  name: ByteString;
  typeFlag: string;
  mode: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  mtimeSec: number;
  linkName: ByteString;
  devMajor: number;
  devMinor: number;
}

/** Whiteouts and opaque markers have no owner, mode or time of their own: fixed ones keep layers reproducible. */
export const MARKER_METADATA = { mode: 0, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0, sizeBytes: 0 } as const;

/**
 * Everything that precedes an entry's content in a tar: USTAR, with a pax header before it when something does not fit.
 * An opaque directory is followed by its marker.
 *
 * @throws BentoError FORMAT_UNSUPPORTED when the extended attributes are too large to archive
 */
export function encodeTarHeader(entry: Entry): Buffer {
  if (entry.type === 'whiteout') return encodeMarker(archiveName(entry));
  const header = encodeHeader(entry, archiveName(entry));
  return entry.opaque === true ? Buffer.concat([header, encodeMarker(archiveOpaqueMarker(entry.path))]) : header;
}

/** The header of a file that belongs to the format, such as the table of contents. */
export function encodeFormatFileHeader(tarName: ByteString, sizeBytes: number): Buffer {
  return encodeHeader({ path: '', type: 'file', ...MARKER_METADATA, sizeBytes }, { tarName });
}

function encodeMarker(name: ArchivedName): Buffer {
  return encodeHeader({ path: '', type: 'file', ...MARKER_METADATA }, name);
}

function encodeHeader(entry: Entry, name: ArchivedName): Buffer {
  const link = linkOf(entry);
  const header: RawHeader = {
    name: name.tarName,
    typeFlag: TYPE_FLAGS[entry.type],
    mode: entry.mode & MODE_MASK,
    uid: entry.uid,
    gid: entry.gid,
    sizeBytes: entry.type === 'file' ? entry.sizeBytes : 0,
    mtimeSec: entry.mtimeSec,
    linkName: link.tarName,
    devMajor: entry.rdev?.major ?? 0,
    devMinor: entry.rdev?.minor ?? 0,
  };
  const records: PaxRecords = new Map();
  moveToPax(header, records, entry.mtimeNsec);
  if (name.truePath !== undefined) records.set(BENTO_PATH, name.truePath);
  if (link.truePath !== undefined) records.set(BENTO_LINK, link.truePath);
  if (entry.xattrs) addXattrRecords(records, entry.xattrs);
  const block = encodeRawHeader(header);
  return records.size === 0 ? block : Buffer.concat([encodePaxHeader(records), block]);
}

function linkOf(entry: Entry): ArchivedName {
  if (entry.type === 'hardlink') return archiveLinkTarget(entry.link ?? '');
  return { tarName: entry.type === 'symlink' ? (entry.link ?? '') : '' };
}

/** What USTAR cannot hold goes into `records`; the header keeps as much of it as fits. */
function moveToPax(header: RawHeader, records: PaxRecords, mtimeNsec: number): void {
  if (!splitName(header.name)) {
    records.set('path', header.name);
    header.name = header.name.slice(0, field.NAME.bytes);
  }
  if (header.linkName.length > field.LINK_NAME.bytes) {
    records.set('linkpath', header.linkName);
    header.linkName = header.linkName.slice(0, field.LINK_NAME.bytes);
  }
  for (const [key, keyword, where] of [
    ['uid', 'uid', field.UID],
    ['gid', 'gid', field.GID],
    ['sizeBytes', 'size', field.SIZE],
  ] as const) {
    if (header[key] <= octalMax(where)) continue;
    records.set(keyword, String(header[key]));
    header[key] = 0;
  }
  if (mtimeNsec === 0 && header.mtimeSec >= 0 && header.mtimeSec <= octalMax(field.MTIME)) return;
  records.set('mtime', encodePaxTime({ sec: header.mtimeSec, nsec: mtimeNsec }));
  header.mtimeSec = Math.min(Math.max(header.mtimeSec, 0), octalMax(field.MTIME));
}

function encodePaxHeader(records: PaxRecords): Buffer {
  const content = encodePaxRecords(records);
  const bytes = Buffer.alloc(BLOCK_BYTES + content.length + field.paddingOf(content.length));
  paxBlock(content.length).copy(bytes);
  content.copy(bytes, BLOCK_BYTES);
  return bytes;
}

/** The header before pax records says nothing but their length; nearly all of a layer have the same. */
let lastPaxBlock: { sizeBytes: number; block: Buffer } = { sizeBytes: -1, block: Buffer.alloc(0) };

function paxBlock(sizeBytes: number): Buffer {
  if (lastPaxBlock.sizeBytes === sizeBytes) return lastPaxBlock.block;
  const nothing = { mode: 0, uid: 0, gid: 0, mtimeSec: 0, linkName: '', devMajor: 0, devMinor: 0 };
  const block = encodeRawHeader({ name: PAX_HEADER_NAME, typeFlag: PAX_HEADER_FLAG, sizeBytes, ...nothing });
  lastPaxBlock = { sizeBytes, block };
  return block;
}

function encodeRawHeader(header: RawHeader): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const [prefix, name] = splitName(header.name) ?? ['', header.name];
  putText(block, field.NAME, name);
  putText(block, field.PREFIX, prefix);
  putOctal(block, field.MODE, header.mode);
  putOctal(block, field.UID, header.uid);
  putOctal(block, field.GID, header.gid);
  putOctal(block, field.SIZE, header.sizeBytes);
  putOctal(block, field.MTIME, header.mtimeSec);
  putText(block, field.TYPE_FLAG, header.typeFlag);
  putText(block, field.LINK_NAME, header.linkName);
  putText(block, field.MAGIC, field.USTAR_MAGIC);
  putOctal(block, field.DEV_MAJOR, header.devMajor);
  putOctal(block, field.DEV_MINOR, header.devMinor);
  return field.sealHeader(block);
}

/** Splits a name at a slash so that both sides fit their fields; undefined when no slash will do. */
function splitName(name: ByteString): [prefix: ByteString, name: ByteString] | undefined {
  if (name.length <= field.NAME.bytes) return ['', name];
  if (name.length > field.PREFIX.bytes + 1 + field.NAME.bytes) return undefined;
  const slash = name.indexOf('/', name.length - field.NAME.bytes - 1);
  if (slash <= 0 || slash > field.PREFIX.bytes || slash === name.length - 1) return undefined;
  return [name.slice(0, slash), name.slice(slash + 1)];
}

/** @throws BentoError FORMAT_INVALID when the checksum is wrong or a number is not one */
export function decodeTarHeader(block: Buffer): RawHeader {
  if (!field.hasValidChecksum(block)) throw new BentoError('FORMAT_INVALID', 'a tar header has a wrong checksum');
  const name = getText(block, field.NAME);
  const isUstar = block.toString('latin1', field.MAGIC.at, field.MAGIC.at + 6) === 'ustar\0';
  const prefix = isUstar ? getText(block, field.PREFIX) : '';
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    typeFlag: getText(block, field.TYPE_FLAG) || '0', // V7 wrote a NUL for a file
    mode: getNumber(block, field.MODE) & MODE_MASK,
    uid: getNumber(block, field.UID),
    gid: getNumber(block, field.GID),
    sizeBytes: getNumber(block, field.SIZE),
    mtimeSec: getNumber(block, field.MTIME),
    linkName: getText(block, field.LINK_NAME),
    devMajor: getNumber(block, field.DEV_MAJOR),
    devMinor: getNumber(block, field.DEV_MINOR),
  };
}
