import { isUtf8, type ByteString } from '../byte-string.ts';
import { digestOf } from '../digest.ts';
import type { Chunk, Entry, EntryType, PackedEntry } from '../entry.ts';
import type { Timestamp } from './pax-records.ts';
import { archiveLinkTarget, archiveName, archiveOpaqueMarker, type ArchivedName } from './tar-name.ts';
import * as field from './toc-fields.ts';
import type { BentoFields } from './toc-fields.ts';

export const TOC_VERSION = 1;
/** What our documents begin with; one line for each entry follows. */
export const TOC_HEAD = `{"version":${TOC_VERSION},"entries":[\n`;
export const TOC_JSON_BYTES_MAX = 256 * 1024 * 1024;
export const TOC_ENTRY_COUNT_MAX = 4_000_000;
/** bento cuts files into pieces of this size. */
export const CHUNK_BYTES = 1024 * 1024;
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
/** Names that JSON writes as they are. */
const PLAIN_NAME = /^[ !#-[\]-~]+$/;
const PLAIN_SEC_MAX = 253_402_300_799; // RFC 3339 has four digits for the year

type Json = Record<string, unknown>;

/** Lines are kept as text up to this many characters, then as bytes: millions of little strings are slow to keep. */
const PENDING_CHARS_MAX = 256 * 1024;

/** The document, put together line by line; one line an entry, so that people can read it too. */
export class TocBuilder {
  readonly #parts: Buffer[] = [];
  #pending = TOC_HEAD;
  #isFirst = true;

  /** The entry itself, then its further chunks or its opaque marker. */
  add(entry: PackedEntry): void {
    this.addLine(encodeLine(entry));
    if (entry.type === 'whiteout') return;
    const name = archiveName(entry);
    for (const chunk of entry.chunks.slice(1)) {
      this.addLine(JSON.stringify({ ...encodeName(name), type: 'chunk', ...encodeChunk(chunk) }));
    }
    if (entry.opaque === true) this.addLine(encodeMarker(entry.path, archiveOpaqueMarker(entry.path)));
  }

  addLine(line: string): void {
    this.#pending += this.#isFirst ? line : `,\n${line}`;
    this.#isFirst = false;
    if (this.#pending.length >= PENDING_CHARS_MAX) this.#settle();
  }

  finish(): Buffer {
    this.#pending += '\n]}\n';
    this.#settle();
    return Buffer.concat(this.#parts);
  }

  #settle(): void {
    this.#parts.push(Buffer.from(this.#pending, 'utf8'));
    this.#pending = '';
  }
}

function encodeLine(entry: PackedEntry): string {
  const name = archiveName(entry);
  if (entry.type === 'whiteout') return encodeMarker(entry.path, name);
  const [first] = entry.chunks;
  if (first !== undefined && isPlain(entry, name)) return encodePlainFile(entry, first);
  return JSON.stringify({
    ...encodeName(name),
    ...encodeMetadata(entry),
    ...(first && encodeChunk(first)),
    ...encodeExtras(entry),
  });
}

/** Nearly every entry of a layer: a file of one chunk about which there is nothing special to say. */
function isPlain(entry: PackedEntry, name: ArchivedName): boolean {
  return (
    entry.type === 'file' &&
    entry.chunks.length === 1 &&
    entry.xattrs === undefined &&
    name.truePath === undefined &&
    PLAIN_NAME.test(name.tarName) &&
    entry.sizeBytes < CHUNK_BYTES &&
    entry.mtimeSec > 0 &&
    entry.mtimeSec < PLAIN_SEC_MAX
  );
}

/** The same line as for any other entry, six times as fast (100,000 of them: 0.08 s instead of 0.5 s). */
function encodePlainFile(entry: PackedEntry, chunk: Chunk): string {
  const { path, sizeBytes, mode, uid, gid, digest } = entry;
  return (
    `{"name":"${path}","type":"reg","size":${sizeBytes},"modtime":"${field.modtimeToJson(timeOf(entry)) ?? ''}"` +
    `${mode === 0 ? '' : `,"mode":${mode}`}${uid === 0 ? '' : `,"uid":${uid}`}${gid === 0 ? '' : `,"gid":${gid}`}` +
    `,"digest":"${digest ?? ''}","offset":${chunk.blobOffset}` +
    `${chunk.innerOffset === 0 ? '' : `,"innerOffset":${chunk.innerOffset}`},"chunkDigest":"${chunk.digest}"}`
  );
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
