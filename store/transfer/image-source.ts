import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { join, posix } from 'node:path';

import { toText, type ByteString } from '../byte-string.ts';
import { BentoError, describeSystemError, errnoOf } from '../errors.ts';
import { readTarMembers, type TarMember } from '../layers/tar-decode.ts';
import { BLOCK_BYTES, paddingOf } from '../layers/tar-fields.ts';
import { TarInput } from '../layers/tar-input.ts';
import { normalizePath } from '../layers/tar-name.ts';

/** Real archives have one entry for each blob, and a few folders. */
export const ARCHIVE_ENTRY_COUNT_MAX = 100_000;

const READ_BYTES = 1 << 20;
const GZIP_MAGIC = 0x1f8b;

/** Somebody else's folder or archive with an image in it, read by name. */
export interface ImageSource {
  readonly path: string;
  /** Whether others may add to it while it is open: a folder. */
  readonly changes: boolean;
  /**
   * @param name - in its one spelling, as `blobs/sha256/<hex>`
   * @param mayBeLink - follow one link to another file of the same archive, as archives of docker need
   * @returns undefined when there is no such file
   */
  open(name: string, options?: { mayBeLink: boolean }): Promise<SourceFile | undefined>;
  close(): Promise<void>;
}

/** A file of a source, opened. */
export interface SourceFile {
  readonly sizeBytes: number;
  /**
   * From an offset to the end, exactly, in pieces of at most 1 MiB.
   *
   * @throws BentoError FORMAT_INVALID when the file ends before
   */
  stream(range?: { offset: number; length: number }): AsyncGenerator<Buffer, void, undefined>;
  close(): Promise<void>;
}

/**
 * Opens a layout folder or a tar archive.
 *
 * @throws BentoError REF_NOT_FOUND when nothing is there, FORMAT_INVALID or FORMAT_UNSUPPORTED when it is neither
 */
export async function openImageSource(path: string): Promise<ImageSource> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw describeSystemError(error, `reading ${path}`);
  });
  if (found === undefined) throw new BentoError('REF_NOT_FOUND', `there is no file or folder ${path}`);
  if (found.isDirectory()) return new FolderSource(path);
  if (!found.isFile()) throw new BentoError('FORMAT_INVALID', `${path} is neither a folder nor a file`);
  return await ArchiveSource.open(path);
}

/**
 * A small file of a source.
 *
 * @param sizeMax - refuses anything larger: nothing that is parsed as one piece may be unbounded
 */
export async function readSourceFile(source: ImageSource, name: string, sizeMax: number): Promise<Buffer | undefined> {
  const file = await source.open(name);
  if (file === undefined) return undefined;
  try {
    if (file.sizeBytes > sizeMax) {
      throw new BentoError('FORMAT_INVALID', `${name} in ${source.path} is ${file.sizeBytes} bytes, limit ${sizeMax}`);
    }
    const parts: Buffer[] = [];
    for await (const part of file.stream()) parts.push(part);
    return Buffer.concat(parts);
  } finally {
    await file.close();
  }
}

class FolderSource implements ImageSource {
  readonly path: string;
  readonly changes = true;

  constructor(path: string) {
    this.path = path;
  }

  async open(name: string): Promise<SourceFile | undefined> {
    const handle = await openRegular(join(this.path, name));
    if (handle === undefined) return undefined;
    const { size } = await handle.stat();
    const range = { offset: 0, sizeBytes: size, what: join(this.path, name) };
    return {
      sizeBytes: size,
      stream: (part) => streamRange(handle, partOf(range, part)),
      close: async () => await handle.close(),
    };
  }

  async close(): Promise<void> {
    // every file has a handle of its own
  }
}

/** No link is followed and no pipe waited for. @throws BentoError FORMAT_INVALID when it is no regular file */
async function openRegular(path: string): Promise<FileHandle | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    if (errnoOf(error) === 'ELOOP') throw new BentoError('FORMAT_INVALID', `${path} is a link, not a file`);
    throw describeSystemError(error, `reading ${path}`);
  }
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new BentoError('FORMAT_INVALID', `${path} is not a regular file`);
}

type ArchiveEntry = { kind: 'file'; offset: number; sizeBytes: number } | { kind: 'link'; target: string };

/** A tar of which only the headers were read: each file is a range of it, and nothing is unpacked. */
class ArchiveSource implements ImageSource {
  readonly path: string;
  readonly changes = false;
  readonly #handle: FileHandle;
  readonly #entries: ReadonlyMap<ByteString, ArchiveEntry>;

  private constructor(path: string, handle: FileHandle, entries: ReadonlyMap<ByteString, ArchiveEntry>) {
    this.path = path;
    this.#handle = handle;
    this.#entries = entries;
  }

  static async open(path: string): Promise<ArchiveSource> {
    const handle = await open(path, constants.O_RDONLY).catch((error: unknown) => {
      throw describeSystemError(error, `reading ${path}`);
    });
    try {
      return new ArchiveSource(path, handle, await listArchive(path, handle));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  open(name: string, { mayBeLink } = { mayBeLink: false }): Promise<SourceFile | undefined> {
    const first = this.#entries.get(name);
    const entry = first?.kind === 'link' && mayBeLink ? this.#entries.get(first.target) : first;
    if (entry === undefined) return Promise.resolve(undefined);
    if (entry.kind === 'link') {
      return Promise.reject(new BentoError('FORMAT_INVALID', `${toText(name)} in ${this.path} is a link, not a file`));
    }
    const range = { ...entry, what: `${toText(name)} in ${this.path}` };
    const stream: SourceFile['stream'] = (part) => streamRange(this.#handle, partOf(range, part));
    return Promise.resolve({ sizeBytes: entry.sizeBytes, stream, close: () => Promise.resolve() });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Reads the headers alone: the position jumps over what files hold. */
async function listArchive(path: string, handle: FileHandle): Promise<Map<ByteString, ArchiveEntry>> {
  const { size } = await handle.stat();
  await refuseCompressed(path, handle);
  const cursor = { at: 0 };
  const input = new TarInput(readBlocks(handle, cursor));
  const entries = new Map<ByteString, ArchiveEntry>();
  let entryCount = 0;
  try {
    for await (const member of readTarMembers(input)) {
      if (++entryCount > ARCHIVE_ENTRY_COUNT_MAX) {
        throw new BentoError('FORMAT_INVALID', `it has more than ${ARCHIVE_ENTRY_COUNT_MAX} entries`);
      }
      addMember(entries, member, { offset: cursor.at, sizeMax: size - cursor.at });
      if (!isLink(member)) cursor.at += member.header.sizeBytes + paddingOf(member.header.sizeBytes);
    }
  } catch (error) {
    if (!(error instanceof BentoError)) throw describeSystemError(error, `reading ${path}`);
    throw new BentoError(error.code, `${path} is no archive that bento can read: ${error.message}`, { cause: error });
  }
  return entries;
}

async function refuseCompressed(path: string, handle: FileHandle): Promise<void> {
  const magic = Buffer.alloc(2);
  await handle.read(magic, 0, 2, 0);
  if (magic.readUInt16BE(0) !== GZIP_MAGIC) return;
  throw new BentoError('FORMAT_UNSUPPORTED', `${path} is compressed as a whole`, {
    hint: 'unpack it first, for example with gunzip',
  });
}

/** One block at a time, so that the reader of the tar never holds bytes of what is jumped over. */
async function* readBlocks(handle: FileHandle, cursor: { at: number }): AsyncGenerator<Buffer, void, undefined> {
  for (;;) {
    const block = Buffer.alloc(BLOCK_BYTES);
    const { bytesRead } = await handle.read(block, 0, BLOCK_BYTES, cursor.at);
    if (bytesRead === 0) return;
    cursor.at += bytesRead;
    yield block.subarray(0, bytesRead);
  }
}

function isLink({ header }: TarMember): boolean {
  return header.typeFlag === '1' || header.typeFlag === '2';
}

function addMember(
  entries: Map<ByteString, ArchiveEntry>,
  { header }: TarMember,
  { offset, sizeMax }: { offset: number; sizeMax: number },
): void {
  const name = normalizePath(header.name);
  const isFile = ['0', '7'].includes(header.typeFlag) && !header.name.endsWith('/');
  const shown = toText(name.slice(0, 200));
  if (header.sizeBytes > sizeMax) throw new BentoError('FORMAT_INVALID', `it is cut off within "${shown}"`);
  if (!isFile && !isLink({ header, records: new Map() })) {
    if (header.typeFlag === '5' || header.name.endsWith('/')) return;
    throw new BentoError('FORMAT_INVALID', `"${shown}" in it is neither a file nor a folder`);
  }
  if (entries.has(name)) throw new BentoError('FORMAT_INVALID', `it holds "${shown}" twice`);
  if (isFile) entries.set(name, { kind: 'file', offset, sizeBytes: header.sizeBytes });
  else entries.set(name, { kind: 'link', target: linkTarget(name, header) });
}

/** @throws BentoError FORMAT_INVALID for one that leads out of the archive */
function linkTarget(name: ByteString, { linkName, typeFlag }: TarMember['header']): ByteString {
  const target = typeFlag === '1' ? linkName : posix.join(posix.dirname(name), linkName);
  if ((typeFlag === '2' && linkName.startsWith('/')) || target.split('/').includes('..')) {
    const shown = `"${toText(name.slice(0, 200))}" points at "${toText(linkName.slice(0, 200))}"`;
    throw new BentoError('FORMAT_INVALID', `its link ${shown}, outside of it`);
  }
  return normalizePath(target);
}

interface FileRange {
  offset: number;
  sizeBytes: number;
  what: string;
}

/** @throws BentoError FORMAT_INVALID when the file does not have it */
function partOf(file: FileRange, part: { offset: number; length: number } | undefined): FileRange {
  if (part === undefined) return file;
  const { offset, sizeBytes, what } = file;
  if (part.offset + part.length > sizeBytes)
    throw new BentoError('FORMAT_INVALID', `${what} ends before byte ${part.offset + part.length}`);
  return { offset: offset + part.offset, sizeBytes: part.length, what };
}

async function* streamRange(
  handle: FileHandle,
  { offset, sizeBytes, what }: FileRange,
): AsyncGenerator<Buffer, void, undefined> {
  for (let done = 0; done < sizeBytes;) {
    const piece = Buffer.allocUnsafe(Math.min(READ_BYTES, sizeBytes - done));
    const { bytesRead } = await handle.read(piece, 0, piece.length, offset + done);
    if (bytesRead === 0) throw new BentoError('FORMAT_INVALID', `${what} ends before byte ${sizeBytes}`);
    done += bytesRead;
    yield piece.subarray(0, bytesRead);
  }
}
