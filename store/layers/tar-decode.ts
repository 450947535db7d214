import { fromBytes, toText, type ByteString } from '../byte-string.ts';
import { BentoError } from '../errors.ts';
import { parsePaxRecords, PAX_BYTES_MAX, type PaxRecords } from './pax-records.ts';
import { decodeTarHeader, type RawHeader } from './tar-header.ts';
import type { TarInput } from './tar-input.ts';

/** Headers that only describe the next one (pax, GNU long names); real tars have two or three. */
const EXTENSIONS_PER_ENTRY_MAX = 16;

const LONG_NAME = 'L';
const LONG_LINK = 'K';
const PAX_NEXT = 'x';
const PAX_GLOBAL = 'g';
const SPARSE_PREFIX = 'GNU.sparse.';

/** A header with everything that was said about it before. */
export interface TarMember {
  header: RawHeader;
  records: PaxRecords;
}

/**
 * Reads the headers of a tar one after the other: V7, USTAR, pax and GNU. The caller takes the content of each member
 * from `input` before asking for the next.
 *
 * @throws BentoError FORMAT_INVALID for anything that is no tar or has no end, FORMAT_UNSUPPORTED for sparse files
 */
export async function* readTarMembers(input: TarInput): AsyncGenerator<TarMember, void, undefined> {
  const globals: PaxRecords = new Map();
  for (;;) {
    const member = await readMember(input, globals);
    if (!member) return;
    yield member;
  }
}

async function readMember(input: TarInput, globals: PaxRecords): Promise<TarMember | undefined> {
  const records: PaxRecords = new Map(globals);
  for (let extensions = 0; extensions <= EXTENSIONS_PER_ENTRY_MAX; extensions++) {
    const block = await input.takeBlock();
    if (isZero(block)) return undefined; // two of them end an archive; one is enough to know
    const header = decodeTarHeader(block);
    if (header.sizeBytes < 0) throw new BentoError('FORMAT_INVALID', 'a tar header holds a negative size');
    if (!(await readExtension(input, header, { records, globals }))) return applyRecords(header, records);
  }
  throw new BentoError('FORMAT_INVALID', `a tar puts more than ${EXTENSIONS_PER_ENTRY_MAX} headers before one file`);
}

/** @returns false when the header is not about the next one */
async function readExtension(
  input: TarInput,
  header: RawHeader,
  { records, globals }: { records: PaxRecords; globals: PaxRecords },
): Promise<boolean> {
  switch (header.typeFlag) {
    case PAX_NEXT:
      parsePaxRecords(await readExtensionContent(input, header), records);
      return true;
    case PAX_GLOBAL:
      parsePaxRecords(await readExtensionContent(input, header), globals);
      for (const [keyword, value] of globals) if (!records.has(keyword)) records.set(keyword, value);
      return true;
    case LONG_NAME:
      records.set('path', untilNul(await readExtensionContent(input, header)));
      return true;
    case LONG_LINK:
      records.set('linkpath', untilNul(await readExtensionContent(input, header)));
      return true;
    default:
      return false;
  }
}

async function readExtensionContent(input: TarInput, { sizeBytes }: RawHeader): Promise<Buffer> {
  if (sizeBytes > PAX_BYTES_MAX) {
    throw new BentoError('FORMAT_INVALID', `a tar holds an extended header of ${sizeBytes} bytes`);
  }
  const content = await input.take(sizeBytes);
  await input.skipPadding(sizeBytes);
  return content;
}

function applyRecords(header: RawHeader, records: PaxRecords): TarMember {
  for (const keyword of records.keys()) {
    if (keyword.startsWith(SPARSE_PREFIX)) throw sparseFile(header.name);
  }
  // An empty value takes a record back (POSIX), and the field of the header counts again.
  const name = records.get('path') || header.name;
  const linkName = records.get('linkpath') || header.linkName;
  const sizeBytes = decimalOf(records, 'size') ?? header.sizeBytes;
  const uid = decimalOf(records, 'uid') ?? header.uid;
  const gid = decimalOf(records, 'gid') ?? header.gid;
  return { header: { ...header, name, linkName, sizeBytes, uid, gid }, records };
}

function decimalOf(records: PaxRecords, keyword: string): number | undefined {
  const text = records.get(keyword);
  if (text === undefined || text === '') return undefined;
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new BentoError('FORMAT_INVALID', `a tar holds a pax header whose ${keyword} is no number`);
}

export function sparseFile(name: ByteString): BentoError {
  return new BentoError('FORMAT_UNSUPPORTED', `a layer holds "${toText(name)}" as a GNU sparse file`, {
    hint: 'bento reads sparse files only when they were archived in full',
  });
}

function untilNul(content: Buffer): ByteString {
  const end = content.indexOf(0);
  return fromBytes(end < 0 ? content : content.subarray(0, end));
}

function isZero(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}
