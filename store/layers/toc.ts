import { isUtf8, type ByteString } from '../byte-string.ts';
import { digestOf } from '../digest.ts';
import type { Chunk, Entry, EntryType, PackedEntry } from '../entry.ts';
import type { Timestamp } from './pax-records.ts';
import { archiveLinkTarget, archiveName, archiveOpaqueMarker, type ArchivedName } from './tar-name.ts';
import * as field from './toc-fields.ts';
import type { BentoFields } from './toc-fields.ts';

export const TOC_VERSION = 1;
export const TOC_JSON_BYTES_MAX = 256 * 1024 * 1024;
export const TOC_ENTRY_COUNT_MAX = 4_000_000;
/** bento cuts files into pieces of this size. */
export const CHUNK_BYTES = 4 * 1024 * 1024;
/** Other writers may cut otherwise; a piece is held in memory, so there is an end to it. */
export const CHUNK_BYTES_MAX = 64 * 1024 * 1024;

export const TOC_TYPES = {
  file: 'reg',
  dir: 'dir',
  symlink: 'symlink',
  hardlink: 'hardlink',
  char: 'char',
  block: 'block',
  fifo: 'fifo',
  whiteout: 'reg',
} as const satisfies Record<EntryType, string>;
const EMPTY_DIGEST = digestOf('');

type Json = Record<string, unknown>;

/** The lines of an entry in the table of contents: itself, then its further chunks or its opaque marker. */
export function encodeTocEntry(entry: PackedEntry): string[] {
  const name = archiveName(entry);
  if (entry.type === 'whiteout') return [encodeMarker(entry.path, name)];
  const [first, ...rest] = entry.chunks;
  const metadata = encodeMetadata(entry);
  const lines = [
    JSON.stringify({ ...encodeName(name), ...metadata, ...(first && encodeChunk(first)), ...encodeExtras(entry) }),
  ];
  for (const chunk of rest) lines.push(JSON.stringify({ ...encodeName(name), type: 'chunk', ...encodeChunk(chunk) }));
  if (entry.opaque === true) lines.push(encodeMarker(entry.path, archiveOpaqueMarker(entry.path)));
  return lines;
}

/** The whole document; one line an entry, so that people can read it too. */
export function encodeToc(lines: readonly string[]): Buffer {
  return Buffer.from(`{"version":${TOC_VERSION},"entries":[\n${lines.join(',\n')}\n]}\n`, 'utf8');
}

function encodeName(name: ArchivedName): Json {
  return { name: field.nameToJson(name.tarName) };
}

/** A whiteout or an opaque marker: an empty file whose name is all it says. */
function encodeMarker(path: ByteString, name: ArchivedName): string {
  const bento = isTold(path, name) ? {} : { bento: { path: field.toBase64(path) } };
  return JSON.stringify({ ...encodeName(name), type: 'reg', digest: EMPTY_DIGEST, ...bento });
}

/** Whether the name in the JSON is enough to know the path. */
function isTold(path: ByteString, name: ArchivedName): boolean {
  return name.truePath === undefined && isUtf8(path);
}

function encodeMetadata(entry: PackedEntry): Json {
  const time = timeOf(entry);
  return {
    type: TOC_TYPES[entry.type],
    size: unlessZero(entry.sizeBytes),
    modtime: time.sec === 0 && time.nsec === 0 ? undefined : field.modtimeToJson(time),
    linkName: entry.link === undefined ? undefined : field.nameToJson(archivedLink(entry, entry.link).tarName),
    mode: unlessZero(entry.mode),
    uid: unlessZero(entry.uid),
    gid: unlessZero(entry.gid),
    devMajor: unlessZero(entry.rdev?.major),
    devMinor: unlessZero(entry.rdev?.minor),
    digest: entry.digest,
  };
}

function encodeChunk(chunk: Chunk): Json {
  return {
    offset: chunk.blobOffset,
    innerOffset: unlessZero(chunk.innerOffset),
    chunkOffset: unlessZero(chunk.fileOffset),
    // The specification leaves it out for a shorter last chunk, which then reaches to the end of the file.
    chunkSize: chunk.sizeBytes === CHUNK_BYTES ? CHUNK_BYTES : undefined,
    chunkDigest: chunk.digest,
  };
}

/** Extended attributes and `bento`, each only when there is something to say. */
function encodeExtras(entry: PackedEntry): Json {
  const { path, link } = entry;
  const time = timeOf(entry);
  const bento: BentoFields = {};
  if (!isTold(path, archiveName(entry))) bento.path = field.toBase64(path);
  if (link !== undefined && !isTold(link, archivedLink(entry, link))) bento.link = field.toBase64(link);
  if (field.modtimeToJson(time) === undefined) bento.mtime = field.exactTimeToJson(time);
  const xattrs = entry.xattrs && field.xattrsToJson(entry.xattrs);
  if (xattrs?.exact) bento.xattrs = xattrs.exact;
  return { xattrs: xattrs?.plain, ...(Object.keys(bento).length > 0 && { bento }) };
}

function archivedLink(entry: Entry, link: ByteString): ArchivedName {
  return entry.type === 'hardlink' ? archiveLinkTarget(link) : { tarName: link };
}

function timeOf(entry: Entry): Timestamp {
  return { sec: entry.mtimeSec, nsec: entry.mtimeNsec };
}

function unlessZero(value: number | undefined): number | undefined {
  return value === 0 ? undefined : value;
}

/** The line of a file that belongs to the format, such as a landmark. */
export function encodeFormatFileEntry(name: ByteString, content: Buffer, offset: number): string {
  const digest = digestOf(content);
  return JSON.stringify({ name, type: 'reg', size: content.length, offset, digest, chunkDigest: digest });
}
