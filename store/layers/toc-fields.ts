import { fromBytes, fromText, isUtf8, toBytes, type ByteString } from '../byte-string.ts';
import type { Xattrs } from '../entry.ts';
import { BentoError } from '../errors.ts';
import type { Timestamp } from './pax-records.ts';

/** What JSON cannot say in the fields of the eStargz specification; other readers skip it. */
export interface BentoFields {
  /** True path, base64. */
  path?: string;
  /** True link target, base64. */
  link?: string;
  /** `<seconds>.<nine digits>`, for years RFC 3339 cannot write. */
  mtime?: string;
  /** Base64 of the name -> base64 of the value, when some name is not UTF-8. */
  xattrs?: Record<string, string>;
}

// RFC 3339 has four digits for the year.
const RFC3339_SEC_MIN = -62_167_219_200; // 0000-01-01
const RFC3339_SEC_MAX = 253_402_300_799; // 9999-12-31T23:59:59

export function toBase64(bytes: ByteString): string {
  return toBytes(bytes).toString('base64');
}

/** @throws BentoError FORMAT_INVALID when it is not canonical base64 */
export function fromBase64(text: unknown): Buffer {
  if (typeof text === 'string') {
    const bytes = Buffer.from(text, 'base64');
    if (bytes.toString('base64') === text) return bytes;
  }
  throw invalidToc('a value is not base64');
}

export function bytesFromBase64(text: unknown): ByteString {
  return fromBytes(fromBase64(text));
}

/** A name for JSON. Bytes of a name that is not UTF-8 become `%HH`: readable, but the truth is in `bento.path`. */
export function nameToJson(name: ByteString): string {
  if (isUtf8(name)) return toBytes(name).toString('utf8');
  return name.replace(/[\x80-\xff]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`);
}

export function nameFromJson(name: unknown): ByteString {
  if (typeof name === 'string') return fromText(name);
  throw invalidToc('a name is not a string');
}

/** The last second that was written out: files made together share it. */
let lastSec = { sec: 0, text: '1970-01-01T00:00:00' };

/** RFC 3339 in UTC, with a fraction when there are nanoseconds; undefined when the year does not fit. */
export function modtimeToJson({ sec, nsec }: Timestamp): string | undefined {
  if (sec < RFC3339_SEC_MIN || sec > RFC3339_SEC_MAX) return undefined;
  if (lastSec.sec !== sec) lastSec = { sec, text: new Date(sec * 1000).toISOString().slice(0, -'.000Z'.length) };
  const whole = lastSec.text;
  const fraction = nsec === 0 ? '' : `.${String(nsec).padStart(9, '0').replace(/0+$/, '')}`;
  return `${whole}${fraction}Z`;
}

/** The last second that was read in. */
let lastRead = { sec: 0, text: '1970-01-01T00:00:00Z' };

/** @throws BentoError FORMAT_INVALID when it is not a timestamp in UTC */
export function modtimeFromJson(text: unknown): Timestamp {
  if (text === lastRead.text) return { sec: lastRead.sec, nsec: 0 };
  const match = typeof text === 'string' && /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/.exec(text);
  if (!match) throw invalidToc('a modtime is not RFC 3339 in UTC');
  const whole = `${match[1] ?? ''}Z`;
  if (lastRead.text !== whole) lastRead = { sec: Date.parse(whole) / 1000, text: whole };
  const { sec } = lastRead;
  if (!Number.isSafeInteger(sec)) throw invalidToc('a modtime is no date');
  return { sec, nsec: Number((match[2] ?? '').padEnd(9, '0')) };
}

export function exactTimeToJson({ sec, nsec }: Timestamp): string {
  return `${sec}.${String(nsec).padStart(9, '0')}`;
}

/** @throws BentoError FORMAT_INVALID when it is not of the form `-12.000000345`, seconds rounded down */
export function exactTimeFromJson(text: unknown): Timestamp {
  const match = typeof text === 'string' && /^(-?\d{1,15})\.(\d{9})$/.exec(text);
  if (!match) throw invalidToc('bento.mtime is not a timestamp');
  return { sec: Number(match[1]), nsec: Number(match[2]) };
}

/** `plain` when JSON can hold every name, else `exact`, whose names are base64 too. */
export function xattrsToJson(xattrs: Xattrs): { plain?: Record<string, string>; exact?: Record<string, string> } {
  const isText = [...xattrs.keys()].every(isUtf8);
  const name = isText ? nameToJson : toBase64;
  const json = Object.fromEntries([...xattrs].map(([key, value]) => [name(key), value.toString('base64')]));
  return isText ? { plain: json } : { exact: json };
}

/** @throws BentoError FORMAT_INVALID when a name or value cannot be read */
export function xattrsFromJson(xattrs: unknown, exact: unknown): Xattrs | undefined {
  if (xattrs === undefined && exact === undefined) return undefined;
  const read = exact === undefined ? nameFromJson : bytesFromBase64;
  const pairs = Object.entries(asObject(exact ?? xattrs ?? {}));
  return pairs.length === 0 ? undefined : new Map(pairs.map(([key, value]) => [read(key), fromBase64(value)]));
}

/** @throws BentoError FORMAT_INVALID when it is not a JSON object */
export function asObject(json: unknown): Record<string, unknown> {
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw invalidToc('an object is missing');
}

/** A count, size or offset that may be left out when it is 0. */
export function asCount(json: unknown, what: string): number {
  const value = json ?? 0;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalidToc(`${what} is not a whole number`);
}

export function invalidToc(why: string, cause?: unknown): BentoError {
  return new BentoError('FORMAT_INVALID', `the table of contents of a layer cannot be read: ${why}`, { cause });
}
