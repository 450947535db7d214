import { toText, type ByteString } from '../byte-string.ts';
import { parseDigest, type Digest } from '../digest.ts';
import type { Chunk, EntryType, PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import { LayerCollector, type LayerContents, type LayerItem } from './layer-contents.ts';
import { isFormatFile, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME } from './reserved-names.ts';
import { MARKER_METADATA } from './tar-header.ts';
import { checkPath, normalizePath, parseArchivedName, PATH_BYTES_MAX } from './tar-name.ts';
import { CHUNK_BYTES_MAX, TOC_TYPES } from './toc.ts';
import * as field from './toc-fields.ts';
import { asCount, asObject, invalidToc } from './toc-fields.ts';
import { TocEntries, type Json } from './toc-json.ts';

const ENTRY_TYPES = new Map<unknown, EntryType>(
  Object.entries(TOC_TYPES)
    .filter(([type]) => type !== 'whiteout') // in a document it is a file; its name tells
    .map(([type, name]) => [name, type as EntryType]),
);

const NOTHING: Json = {};

/** An entry of the document with the `chunk` entries that follow it. */
interface Group {
  head: Json;
  name: ByteString;
  /** Its parts that have bytes in the blob: itself, if it is a file with content, and its chunks. */
  data: Json[];
}

export interface TocPlace {
  /** Where in the blob the member of the table of contents begins: no data lies behind it. */
  tocOffset: number;
}

/** What a table of contents says of its layer. */
export interface TocContents extends LayerContents {
  /** Where in the blob the files end that are wanted first: they begin at 0. Absent when none are. */
  prefetchEnd?: number;
}

/** As `TocDecoder`, of a document that is here as a whole. @throws BentoError as it does */
export function decodeToc(json: Buffer, place: TocPlace): TocContents {
  const decoder = new TocDecoder();
  decoder.push(json);
  return decoder.finish(place);
}

/**
 * Reads the table of contents of an eStargz layer, written by us or by anybody, as it comes. It is an attacker's until every
 * number and name in it has been checked, which happens here.
 *
 * Both methods throw BentoError FORMAT_INVALID when it breaks a rule, FORMAT_UNSUPPORTED when its chunks are larger than
 * `CHUNK_BYTES_MAX` or carry no digest (read the layer as plain tar+gzip then).
 */
export class TocDecoder {
  readonly #entries = new TocEntries();
  readonly #collector = new LayerCollector();
  readonly #members = new Members();
  readonly #landmarks: Group[] = [];
  /** The last one: more chunks of it may follow. */
  #group: Group | undefined;

  push(json: Buffer): void {
    for (const entry of this.#entries.push(json)) this.#take(entry);
  }

  finish({ tocOffset }: TocPlace): TocContents {
    for (const entry of this.#entries.finish()) this.#take(entry);
    this.#endGroup();
    this.#members.finish(tocOffset);
    const contents = this.#collector.finish();
    for (const { chunks } of contents.entries) for (const chunk of chunks) this.#members.measure(chunk);
    const prefetchEnd = endOfPrioritised(this.#landmarks, this.#members);
    return { ...contents, ...(prefetchEnd !== undefined && { prefetchEnd }) };
  }

  /** A chunk belongs to the entry it follows, whatever its own name says. */
  #take(entry: Json): void {
    if (entry['type'] === 'chunk') {
      if (this.#group === undefined) throw invalidToc('it begins with a chunk');
      this.#group.data.push(entry);
      return;
    }
    this.#endGroup();
    const hasData = entry['type'] === 'reg' && asCount(entry['size'], 'size') > 0;
    this.#group = { head: entry, name: nameOf(entry['name']), data: hasData ? [entry] : [] };
  }

  #endGroup(): void {
    const group = this.#group;
    if (group === undefined) return;
    for (const { offset } of group.data) this.#members.add(asCount(offset, 'offset'));
    const path = normalizePath(group.name);
    if (!isFormatFile(path)) {
      const item = decodeGroup(group);
      if (item) this.#collector.add(item);
    } else if (path !== TOC_NAME) this.#landmarks.push(group);
  }
}

/**
 * What the landmarks say. Of several the first counts, and none where it is said, too, that no files are wanted first; one
 * that is no file with content says nothing.
 */
function endOfPrioritised(landmarks: Group[], members: Members): number | undefined {
  const files = landmarks.filter(({ head }) => head['type'] === 'reg');
  if (files.some(({ name }) => normalizePath(name) === NO_PREFETCH_LANDMARK)) return undefined;
  const data = files.find(({ name }) => normalizePath(name) === PREFETCH_LANDMARK)?.data[0];
  if (data === undefined) return undefined;
  const offset = asCount(data['offset'], 'offset');
  // It should begin a member. In one that it shares, files that come before it are wanted, too.
  const end = asCount(data['innerOffset'], 'innerOffset') === 0 ? offset : members.endOf(offset);
  return end === 0 ? undefined : end;
}

function nameOf(json: unknown): ByteString {
  // Before the conversion to bytes: a UTF-16 unit is at least one byte, so nothing too long gets through.
  if (typeof json === 'string' && json.length > PATH_BYTES_MAX) throw invalidToc('a name is too long');
  return field.nameFromJson(json);
}

/** Where the members of a blob lie. Each ends where the next one begins, the last one at the table of contents. */
class Members {
  readonly #added: number[] = [];
  #starts = new Float64Array();
  #tocOffset = 0;

  add(start: number): void {
    this.#added.push(start);
  }

  /** All are known. @throws BentoError FORMAT_INVALID when one lies outside */
  finish(tocOffset: number): void {
    this.#starts = Float64Array.from(this.#added).sort();
    this.#tocOffset = tocOffset;
    if ((this.#starts.at(-1) ?? -1) >= tocOffset) throw invalidToc('an offset lies outside the blob');
  }

  measure(chunk: Chunk): void {
    chunk.blobBytes = this.endOf(chunk.blobOffset) - chunk.blobOffset;
  }

  endOf(start: number): number {
    let [low, high] = [0, this.#starts.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] ?? 0) > start) high = middle;
      else low = middle + 1;
    }
    return this.#starts[low] ?? this.#tocOffset;
  }
}

function decodeGroup(group: Group): LayerItem | undefined {
  const { head, name } = group;
  const bento = head['bento'] === undefined ? NOTHING : asObject(head['bento']);
  const truePath = bento['path'] === undefined ? undefined : field.bytesFromBase64(bento['path']);
  const meaning = parseArchivedName(name, truePath);
  switch (meaning.kind) {
    case 'nothing':
      return undefined;
    case 'opaque':
      return meaning;
    case 'whiteout':
      return { kind: 'entry', entry: { path: meaning.path, type: 'whiteout', ...MARKER_METADATA, chunks: [] } };
    case 'entry':
      return { kind: 'entry', entry: decodeEntry(meaning.path, group, bento) };
  }
}

function decodeEntry(path: ByteString, { head, data }: Group, bento: Json): PackedEntry {
  const type = ENTRY_TYPES.get(head['type']);
  if (!type) throw invalidToc(`"${toText(path)}" has a type that is none`);
  if (path === '' && type !== 'dir') throw invalidToc('its root is not a directory');
  if (type !== 'file' && data.length > 0) throw invalidToc(`"${toText(path)}" has chunks but is no file`);
  const sizeBytes = type === 'file' ? asCount(head['size'], 'size') : 0;
  const digest =
    type === 'file' && head['digest'] !== undefined ? parseDigest(head['digest'], 'a file digest') : undefined;
  const time = timeOf(head, bento);
  const entry: PackedEntry = {
    path,
    type,
    mode: type === 'symlink' ? 0o777 : asCount(head['mode'], 'mode') & 0o7777,
    uid: asCount(head['uid'], 'uid'),
    gid: asCount(head['gid'], 'gid'),
    mtimeSec: time.sec,
    mtimeNsec: time.nsec,
    sizeBytes,
    chunks: decodeChunks(data, { path, sizeBytes, digest }),
  };
  if (digest !== undefined) entry.digest = digest;
  if (hasLink(type)) entry.link = linkOf(type, head, bento);
  if (hasDevice(type))
    entry.rdev = { major: asCount(head['devMajor'], 'devMajor'), minor: asCount(head['devMinor'], 'devMinor') };
  const xattrs = field.xattrsFromJson(head['xattrs'], bento['xattrs']);
  if (xattrs !== undefined) entry.xattrs = xattrs;
  return entry;
}

function timeOf(head: Json, bento: Json): { sec: number; nsec: number } {
  if (bento['mtime'] !== undefined) return field.exactTimeFromJson(bento['mtime']);
  return head['modtime'] === undefined ? { sec: 0, nsec: 0 } : field.modtimeFromJson(head['modtime']);
}

function hasLink(type: EntryType): boolean {
  return type === 'symlink' || type === 'hardlink';
}

function hasDevice(type: EntryType): boolean {
  return type === 'char' || type === 'block';
}

function linkOf(type: EntryType, head: Json, bento: Json): ByteString {
  const exact = bento['link'] === undefined ? undefined : field.bytesFromBase64(bento['link']);
  const text = exact ?? nameOf(head['linkName']);
  if (type === 'hardlink') return checkPath(exact ?? normalizePath(text));
  if (text === '' || text.includes('\0')) throw invalidToc('a symlink points nowhere');
  return text;
}

/** What of a file is said by its first entry. */
interface FileHead {
  path: ByteString;
  sizeBytes: number;
  digest: Digest | undefined;
}

/** How long the members are that hold them, is known when all are. */
function decodeChunks(data: readonly Json[], file: FileHead): Chunk[] {
  let fileOffset = 0;
  const chunks = data.map((json) => {
    const chunk = decodeChunk(json, file, data.length === 1);
    if (chunk.fileOffset !== fileOffset) throw invalidToc(`the chunks of "${toText(file.path)}" leave gaps`);
    fileOffset += chunk.sizeBytes;
    return chunk;
  });
  if (fileOffset !== file.sizeBytes) throw invalidToc(`the chunks of "${toText(file.path)}" do not make up its size`);
  return chunks;
}

function decodeChunk(json: Json, { path, sizeBytes, digest: fileDigest }: FileHead, isOnly: boolean): Chunk {
  const fileOffset = asCount(json['chunkOffset'], 'chunkOffset');
  const length = asCount(json['chunkSize'], 'chunkSize') || sizeBytes - fileOffset;
  const innerOffset = asCount(json['innerOffset'], 'innerOffset');
  if (length <= 0 || length > sizeBytes) throw invalidToc(`"${toText(path)}" has a chunk of no length`);
  if (length > CHUNK_BYTES_MAX || innerOffset > CHUNK_BYTES_MAX) {
    throw unsupported(`"${toText(path)}" is cut into pieces of more than ${CHUNK_BYTES_MAX} bytes`);
  }
  const digest = json['chunkDigest'] ?? (isOnly ? fileDigest : undefined);
  if (digest === undefined) throw unsupported(`"${toText(path)}" has a chunk without a digest`);
  return {
    fileOffset,
    sizeBytes: length,
    // said twice of nearly every file: kept once
    digest: digest === fileDigest ? fileDigest : parseDigest(digest, 'a chunk digest'),
    blobOffset: asCount(json['offset'], 'offset'),
    blobBytes: 0,
    innerOffset,
  };
}

function unsupported(why: string): BentoError {
  return new BentoError('FORMAT_UNSUPPORTED', `the table of contents of a layer cannot be used: ${why}`);
}
