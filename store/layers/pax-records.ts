import { fromBytes, toBytes, type ByteString } from '../byte-string.ts';
import type { Xattrs } from '../entry.ts';
import { BentoError } from '../errors.ts';

/** Keyword -> value, both as raw bytes. @see POSIX.1-2017, pax, "pax Extended Header" */
export type PaxRecords = Map<ByteString, ByteString>;

/** One extended header may be this long: room for every xattr Linux allows on common file systems. */
export const PAX_BYTES_MAX = 1024 * 1024;
export const PAX_RECORD_COUNT_MAX = 1024;

/** Carries a user's path when the tar name had to be escaped. */
export const BENTO_PATH = 'BENTO.path';
export const BENTO_LINK = 'BENTO.linkpath';
const XATTR_PREFIX = 'SCHILY.xattr.';

export interface Timestamp {
  sec: number;
  nsec: number;
}

/** Each record is `<length> <keyword>=<value>\n`; the length counts its own digits. */
export function encodePaxRecords(records: PaxRecords): Buffer {
  const encoded = [...records].map(([keyword, value]) => encodeRecord(` ${keyword}=${value}\n`)).join('');
  if (encoded.length > PAX_BYTES_MAX || records.size > PAX_RECORD_COUNT_MAX) {
    throw new BentoError('FORMAT_UNSUPPORTED', 'extended attributes and names together are too large for a layer');
  }
  return toBytes(encoded);
}

function encodeRecord(tail: ByteString): ByteString {
  let length = tail.length + String(tail.length).length;
  if (String(length).length + tail.length !== length) length++; // the carry made it one digit longer
  return `${length}${tail}`;
}

/** @throws BentoError FORMAT_INVALID when the lengths do not add up or there are too many records */
export function parsePaxRecords(bytes: Buffer, records: PaxRecords = new Map()): PaxRecords {
  const text = fromBytes(bytes);
  let count = 0;
  for (let at = 0; at < text.length;) {
    const end = recordEnd(text, at);
    const equals = text.indexOf('=', at);
    if (equals < 0 || equals >= end || ++count > PAX_RECORD_COUNT_MAX) throw invalidPax();
    records.set(text.slice(text.indexOf(' ', at) + 1, equals), text.slice(equals + 1, end - 1));
    at = end;
  }
  return records;
}

function recordEnd(text: ByteString, at: number): number {
  const length = /^[1-9][0-9]{0,7}(?= )/.exec(text.slice(at, at + 9))?.[0];
  const end = at + Number(length ?? 0);
  if (length === undefined || end > text.length || text[end - 1] !== '\n') throw invalidPax();
  return end;
}

/** `-1.5` is 1.5 seconds before 1970, which a file system calls second -2 and 500,000,000 nanoseconds. */
export function encodePaxTime({ sec, nsec }: Timestamp): string {
  const isBefore = sec < 0 && nsec > 0;
  const whole = isBefore ? -(sec + 1) : Math.abs(sec);
  const fraction = isBefore ? 1_000_000_000 - nsec : nsec;
  const digits = String(fraction).padStart(9, '0').replace(/0+$/, '');
  return `${sec < 0 ? '-' : ''}${whole}${digits === '' ? '' : `.${digits}`}`;
}

/** @throws BentoError FORMAT_INVALID when it is not a decimal number; digits beyond the ninth are dropped */
export function parsePaxTime(text: string): Timestamp {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
  if (!match)
    throw new BentoError('FORMAT_INVALID', `a tar header has the timestamp ${JSON.stringify(text.slice(0, 40))}`);
  const whole = Number(match[2]);
  const fraction = Number((match[3] ?? '').padEnd(9, '0').slice(0, 9));
  if (match[1] === '') return { sec: whole, nsec: fraction };
  return fraction === 0 ? { sec: 0 - whole, nsec: 0 } : { sec: -whole - 1, nsec: 1_000_000_000 - fraction };
}

/** GNU tar's spelling: `=` ends a keyword, so it becomes `%3D` inside one, and `%` becomes `%25`. */
export function addXattrRecords(records: PaxRecords, xattrs: Xattrs): void {
  for (const [name, value] of xattrs) {
    const keyword = name.replaceAll('%', '%25').replaceAll('=', '%3D');
    records.set(XATTR_PREFIX + keyword, fromBytes(value));
  }
}

export function xattrsOf(records: PaxRecords): Xattrs | undefined {
  const xattrs = new Map<ByteString, Buffer>();
  for (const [keyword, value] of records) {
    if (!keyword.startsWith(XATTR_PREFIX)) continue;
    const name = keyword.slice(XATTR_PREFIX.length).replaceAll('%3D', '=').replaceAll('%25', '%');
    xattrs.set(name, toBytes(value));
  }
  return xattrs.size === 0 ? undefined : xattrs;
}

function invalidPax(): BentoError {
  return new BentoError('FORMAT_INVALID', 'a tar holds a pax header whose records do not add up');
}
