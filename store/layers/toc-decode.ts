import { toText, type ByteString } from '../byte-string.ts';
import { parseDigest } from '../digest.ts';
import type { Chunk, EntryType, Metadata, PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import { LayerCollector, type LayerContents, type LayerItem } from './layer-contents.ts';
import { isFormatFile, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK } from './reserved-names.ts';
import { MARKER_METADATA } from './tar-header.ts';
import { checkPath, normalizePath, parseArchivedName, PATH_BYTES_MAX } from './tar-name.ts';
import { CHUNK_BYTES_MAX, TOC_ENTRY_COUNT_MAX, TOC_JSON_BYTES_MAX, TOC_TYPES, TOC_VERSION } from './toc.ts';
import * as field from './toc-fields.ts';
import { asCount, asObject, invalidToc } from './toc-fields.ts';

const ENTRY_TYPES = new Map<unknown, EntryType>(
  Object.entries(TOC_TYPES)
    .filter(([type]) => type !== 'whiteout') // in a document it is a file; its name tells
    .map(([type, name]) => [name, type as EntryType]),
);

type Json = Record<string, unknown>;

/** An entry of the document with the `chunk` entries that follow it. */
interface Group {
  head: Json;
  name: ByteString;
  chunks: Json[];
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

/**
 * Reads the table of contents of an eStargz layer, written by us or by anybody. It is an attacker's until every number
 * and name in it has been checked, which happens here.
 *
 * @throws BentoError FORMAT_INVALID when it breaks a rule, FORMAT_UNSUPPORTED when its chunks are larger than
 *   `CHUNK_BYTES_MAX` or carry no digest (read the layer as plain tar+gzip then)
 */
export function decodeToc(json: Buffer, { tocOffset }: TocPlace): TocContents {
  const groups = groupEntries(parseEntries(json));
  const ends = memberEnds(groups, tocOffset);
  const collector = new LayerCollector();
  for (const group of groups) {
    const item = decodeGroup(group, ends);
    if (item) collector.add(item);
  }
  const prefetchEnd = endOfPrioritised(groups, ends);
  return { ...collector.finish(), ...(prefetchEnd !== undefined && { prefetchEnd }) };
}

/**
 * What the landmarks say. Of several the first counts, and none where it is said, too, that no files are wanted first; one
 * that is no file with content says nothing.
 */
function endOfPrioritised(groups: Group[], ends: ReadonlyMap<number, number>): number | undefined {
  const landmarks = groups.filter(
    ({ head, name }) => name.endsWith('.landmark') && head['type'] === 'reg' && isFormatFile(normalizePath(name)),
  );
  if (landmarks.some(({ name }) => normalizePath(name) === NO_PREFETCH_LANDMARK)) return undefined;
  const landmark = landmarks.find(({ name }) => normalizePath(name) === PREFETCH_LANDMARK);
  const [data] = landmark === undefined ? [] : dataOf(landmark);
  if (data === undefined) return undefined;
  const offset = asCount(data['offset'], 'offset');
  // It should begin a member. In one that it shares, files that come before it are wanted, too.
  const end = asCount(data['innerOffset'], 'innerOffset') === 0 ? offset : (ends.get(offset) ?? offset);
  return end === 0 ? undefined : end;
}

function parseEntries(json: Buffer): unknown[] {
  if (json.length > TOC_JSON_BYTES_MAX) throw invalidToc(`it is longer than ${TOC_JSON_BYTES_MAX} bytes`);
  let document: unknown;
  try {
    document = JSON.parse(json.toString('utf8'));
  } catch (cause) {
    throw invalidToc('it is not JSON', cause);
  }
  const { version, entries } = asObject(document);
  if (version !== TOC_VERSION) throw invalidToc(`its version is not ${TOC_VERSION}`);
  if (!Array.isArray(entries)) throw invalidToc('it has no entries');
  if (entries.length > TOC_ENTRY_COUNT_MAX) throw invalidToc(`it has more than ${TOC_ENTRY_COUNT_MAX} entries`);
  return entries;
}

/** A chunk belongs to the entry it follows, whatever its own name says. */
function groupEntries(entries: unknown[]): Group[] {
  const groups: Group[] = [];
  for (const entry of entries) {
    const json = asObject(entry);
    if (json['type'] !== 'chunk') groups.push({ head: json, name: nameOf(json['name']), chunks: [] });
    else if (groups.length > 0) groups.at(-1)?.chunks.push(json);
    else throw invalidToc('it begins with a chunk');
  }
  return groups;
}

function nameOf(json: unknown): ByteString {
  // Before the conversion to bytes: a UTF-16 unit is at least one byte, so nothing too long gets through.
  if (typeof json === 'string' && json.length > PATH_BYTES_MAX) throw invalidToc('a name is too long');
  return field.nameFromJson(json);
}

/** Member start -> member end: the next larger start, for the last one that of the table of contents itself. */
function memberEnds(groups: Group[], tocOffset: number): ReadonlyMap<number, number> {
  const offsets = new Set<number>();
  for (const group of groups) for (const json of dataOf(group)) offsets.add(asCount(json['offset'], 'offset'));
  const sorted = [...offsets].sort((a, b) => a - b);
  const last = sorted.at(-1);
  if (last !== undefined && last >= tocOffset) throw invalidToc('an offset lies outside the blob');
  return new Map(sorted.map((offset, i) => [offset, sorted[i + 1] ?? tocOffset]));
}

/** The parts of a group that have bytes in the blob. */
function dataOf({ head, chunks }: Group): Json[] {
  const hasData = head['type'] === 'reg' && asCount(head['size'], 'size') > 0;
  return hasData ? [head, ...chunks] : chunks;
}

function decodeGroup(group: Group, ends: ReadonlyMap<number, number>): LayerItem | undefined {
  const { head, name } = group;
  if (isFormatFile(normalizePath(name))) return undefined;
  const bento = asObject(head['bento'] ?? {});
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
      return { kind: 'entry', entry: decodeEntry(meaning.path, group, { bento, ends }) };
  }
}

function decodeEntry(
  path: ByteString,
  group: Group,
  { bento, ends }: { bento: Json; ends: ReadonlyMap<number, number> },
): PackedEntry {
  const { head } = group;
  const type = ENTRY_TYPES.get(head['type']);
  if (!type) throw invalidToc(`"${toText(path)}" has a type that is none`);
  if (path === '' && type !== 'dir') throw invalidToc('its root is not a directory');
  if (type !== 'file' && group.chunks.length > 0) throw invalidToc(`"${toText(path)}" has chunks but is no file`);
  const sizeBytes = type === 'file' ? asCount(head['size'], 'size') : 0;
  return {
    path,
    ...decodeMetadata(type, head, bento),
    sizeBytes,
    ...(type === 'file' && head['digest'] !== undefined && { digest: parseDigest(head['digest'], 'a file digest') }),
    chunks: decodeChunks(group, { path, sizeBytes, ends }),
  };
}

function decodeMetadata(type: EntryType, head: Json, bento: Json): Metadata {
  const xattrs = field.xattrsFromJson(head['xattrs'], bento['xattrs']);
  const time = timeOf(head, bento);
  return {
    type,
    mode: type === 'symlink' ? 0o777 : asCount(head['mode'], 'mode') & 0o7777,
    uid: asCount(head['uid'], 'uid'),
    gid: asCount(head['gid'], 'gid'),
    mtimeSec: time.sec,
    mtimeNsec: time.nsec,
    sizeBytes: 0,
    ...(hasLink(type) && { link: linkOf(type, head, bento) }),
    ...(hasDevice(type) && {
      rdev: { major: asCount(head['devMajor'], 'devMajor'), minor: asCount(head['devMinor'], 'devMinor') },
    }),
    ...(xattrs && { xattrs }),
  };
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

interface FilePlace {
  path: ByteString;
  sizeBytes: number;
  ends: ReadonlyMap<number, number>;
}

function decodeChunks(group: Group, file: FilePlace): Chunk[] {
  const chunks: Chunk[] = [];
  let fileOffset = 0;
  for (const json of dataOf(group)) {
    const chunk = decodeChunk(json, group, file);
    if (chunk.fileOffset !== fileOffset) throw invalidToc(`the chunks of "${toText(file.path)}" leave gaps`);
    chunks.push(chunk);
    fileOffset += chunk.sizeBytes;
  }
  if (fileOffset !== file.sizeBytes) throw invalidToc(`the chunks of "${toText(file.path)}" do not make up its size`);
  return chunks;
}

function decodeChunk(json: Json, group: Group, { path, sizeBytes, ends }: FilePlace): Chunk {
  const fileOffset = asCount(json['chunkOffset'], 'chunkOffset');
  const length = asCount(json['chunkSize'], 'chunkSize') || sizeBytes - fileOffset;
  const blobOffset = asCount(json['offset'], 'offset');
  const innerOffset = asCount(json['innerOffset'], 'innerOffset');
  if (length <= 0 || length > sizeBytes) throw invalidToc(`"${toText(path)}" has a chunk of no length`);
  if (length > CHUNK_BYTES_MAX || innerOffset > CHUNK_BYTES_MAX) {
    throw unsupported(`"${toText(path)}" is cut into pieces of more than ${CHUNK_BYTES_MAX} bytes`);
  }
  const digest = json['chunkDigest'] ?? (group.chunks.length === 0 ? group.head['digest'] : undefined);
  if (digest === undefined) throw unsupported(`"${toText(path)}" has a chunk without a digest`);
  return {
    fileOffset,
    sizeBytes: length,
    digest: parseDigest(digest, 'a chunk digest'),
    blobOffset,
    blobBytes: (ends.get(blobOffset) ?? blobOffset) - blobOffset,
    innerOffset,
  };
}

function unsupported(why: string): BentoError {
  return new BentoError('FORMAT_UNSUPPORTED', `the table of contents of a layer cannot be used: ${why}`);
}
