import { createHash } from 'node:crypto';

import { toText, type ByteString } from '../byte-string.ts';
import { digestOf, type Digest } from '../digest.ts';
import type { Chunk, EntryType, Metadata, PackedEntry } from '../entry.ts';
import { BentoError } from '../errors.ts';
import { cutChunks } from './large-file.ts';
import type { LayerItem } from './layer-contents.ts';
import { BENTO_LINK, BENTO_PATH, parsePaxTime, xattrsOf, type Timestamp } from './pax-records.ts';
import { isFormatFile, LANDMARK_CONTENT, TOC_NAME } from './reserved-names.ts';
import { readTarMembers, sparseFile, type TarMember } from './tar-decode.ts';
import { MARKER_METADATA } from './tar-header.ts';
import type { TarInput } from './tar-input.ts';
import { checkPath, normalizePath, parseArchivedName } from './tar-name.ts';
import { TOC_ENTRY_COUNT_MAX } from './toc.ts';

const ENTRY_TYPES: ReadonlyMap<string, EntryType> = new Map<string, EntryType>([
  ['0', 'file'],
  ['7', 'file'], // "contiguous", which no system has
  ['1', 'hardlink'],
  ['2', 'symlink'],
  ['3', 'char'],
  ['4', 'block'],
  ['5', 'dir'],
  ['6', 'fifo'],
]);
const GNU_SPARSE = 'S';
const LANDMARK_DIGEST = digestOf(LANDMARK_CONTENT);

interface Content {
  digest: Digest;
  chunks: Chunk[];
}

/** Says what a tar says. Chunks are ranges of the uncompressed tar itself. */
export async function* readForeignItems(input: TarInput): AsyncGenerator<LayerItem, void, undefined> {
  const format = new FormatFiles();
  let entryCount = 0;
  for await (const member of readTarMembers(input)) {
    if (++entryCount > TOC_ENTRY_COUNT_MAX) {
      throw new BentoError('FORMAT_INVALID', `a layer has more than ${TOC_ENTRY_COUNT_MAX} entries`);
    }
    const type = typeOf(member);
    const content = type === 'file' ? await readContent(input, member.header.sizeBytes) : undefined;
    if (format.owns(member.header.name, content)) continue;
    const item = decodeMember(member, type, content);
    if (item) yield item;
  }
  await input.drain();
}

/**
 * Tells the format's own files from a user's of the same names. An archive with a landmark in it is an eStargz layer;
 * in any other the names mean nothing.
 */
class FormatFiles {
  #isEstargz = false;

  owns(name: ByteString, content: Content | undefined): boolean {
    if (!content || !isFormatFile(normalizePath(name))) return false;
    if (content.digest === LANDMARK_DIGEST) this.#isEstargz = true;
    return this.#isEstargz && (content.digest === LANDMARK_DIGEST || normalizePath(name) === TOC_NAME);
  }
}

function typeOf({ header }: TarMember): EntryType {
  const type = ENTRY_TYPES.get(header.typeFlag);
  if (type === 'file' && header.name.endsWith('/')) return 'dir'; // V7 has no other way to say it
  if (type) return type;
  if (header.typeFlag === GNU_SPARSE) throw sparseFile(header.name);
  const what = `"${toText(header.name)}" of type ${JSON.stringify(header.typeFlag)}`;
  throw new BentoError('FORMAT_UNSUPPORTED', `a layer holds ${what}, which bento cannot read`);
}

async function readContent(input: TarInput, sizeBytes: number): Promise<Content> {
  const hash = createHash('sha256');
  const chunks: Chunk[] = [];
  let blobOffset = input.offset;
  let fileOffset = 0;
  for await (const bytes of cutChunks(input.parts(sizeBytes))) {
    hash.update(bytes);
    const place = { blobOffset, blobBytes: bytes.length, innerOffset: 0 };
    chunks.push({ fileOffset, sizeBytes: bytes.length, digest: digestOf(bytes), ...place });
    blobOffset += bytes.length;
    fileOffset += bytes.length;
  }
  await input.skipPadding(sizeBytes);
  return { digest: `sha256:${hash.digest('hex')}`, chunks };
}

function decodeMember(member: TarMember, type: EntryType, content: Content | undefined): LayerItem | undefined {
  const meaning = parseArchivedName(member.header.name, member.records.get(BENTO_PATH));
  switch (meaning.kind) {
    case 'nothing':
      return undefined;
    case 'opaque':
      return meaning;
    case 'whiteout':
      return { kind: 'entry', entry: { path: meaning.path, type: 'whiteout', ...MARKER_METADATA, chunks: [] } };
    case 'entry':
      return { kind: 'entry', entry: decodeEntry(meaning.path, member, { type, content }) };
  }
}

function decodeEntry(
  path: ByteString,
  member: TarMember,
  { type, content }: { type: EntryType; content: Content | undefined },
): PackedEntry {
  if (path === '' && type !== 'dir') throw new BentoError('FORMAT_INVALID', 'the root of a layer is not a directory');
  return {
    path,
    ...decodeMetadata(type, member),
    ...(content && { digest: content.digest }),
    chunks: content?.chunks ?? [],
  };
}

function decodeMetadata(type: EntryType, member: TarMember): Metadata {
  const { header, records } = member;
  if (header.uid < 0 || header.gid < 0) throw new BentoError('FORMAT_INVALID', 'a tar header holds a negative owner');
  const { sec, nsec } = timeOf(member);
  const xattrs = xattrsOf(records);
  return {
    type,
    mode: type === 'symlink' ? 0o777 : header.mode,
    uid: header.uid,
    gid: header.gid,
    mtimeSec: sec,
    mtimeNsec: nsec,
    sizeBytes: type === 'file' ? header.sizeBytes : 0,
    ...((type === 'symlink' || type === 'hardlink') && { link: linkOf(type, member) }),
    ...((type === 'char' || type === 'block') && { rdev: { major: header.devMajor, minor: header.devMinor } }),
    ...(xattrs && { xattrs }),
  };
}

function timeOf({ header, records }: TarMember): Timestamp {
  const text = records.get('mtime');
  return text === undefined || text === '' ? { sec: header.mtimeSec, nsec: 0 } : parsePaxTime(text);
}

function linkOf(type: EntryType, { header, records }: TarMember): ByteString {
  const text = header.linkName;
  if (type === 'hardlink') return checkPath(records.get(BENTO_LINK) ?? normalizePath(text));
  if (text !== '' && !text.includes('\0')) return text;
  throw new BentoError('FORMAT_INVALID', `the symlink "${toText(header.name)}" of a layer points nowhere`);
}
