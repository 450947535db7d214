/**
 * File names are bytes, not always UTF-8. Everywhere inside bento a name, path or link target is a *byte string*: a
 * JavaScript string with one code unit (U+0000 to U+00FF) for each byte. For ASCII that is the text itself; it compares
 * and sorts bytewise with `<`, works as a Map key and an SQLite TEXT, and loses nothing.
 */
export type ByteString = string;

const NON_ASCII = /[^\x00-\x7f]/; // eslint-disable-line no-control-regex

export function isAscii(text: string): boolean {
  return !NON_ASCII.test(text);
}

export function toBytes(name: ByteString): Buffer {
  return Buffer.from(name, 'latin1');
}

export function fromBytes(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** From ordinary text (an argument, a config value) to the bytes of its UTF-8 form. */
export function fromText(text: string): ByteString {
  return isAscii(text) ? text : Buffer.from(text, 'utf8').toString('latin1');
}

/** Whether the bytes are valid UTF-8. */
export function isUtf8(name: ByteString): boolean {
  if (isAscii(name)) return true;
  const bytes = toBytes(name);
  return Buffer.from(bytes.toString('utf8'), 'utf8').equals(bytes);
}

/** To text for people and JSON: UTF-8 decoded; bytes that are not UTF-8 become `\xHH`, control characters too. */
export function toText(name: ByteString): string {
  if (/^[\x20-\x7e]*$/.test(name)) return name;
  const text = isUtf8(name)
    ? toBytes(name).toString('utf8')
    : name.replace(/[\x80-\xff]/g, (c) => `\\x${c.charCodeAt(0).toString(16)}`);
  // eslint-disable-next-line no-control-regex -- a newline or an escape sequence in a name must not reach a terminal
  return text.replace(/[\x00-\x1f\x7f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** A path that Node's fs functions take unharmed: the string itself when ASCII, else the raw bytes. */
export function toFsPath(path: ByteString): string | Buffer {
  return isAscii(path) ? path : toBytes(path);
}

/** Joins a directory and a name; the empty directory is the root of a tree. */
export function joinPath(dir: ByteString, name: ByteString): ByteString {
  return dir === '' ? name : `${dir}/${name}`;
}

export function parentPath(path: ByteString): ByteString {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

export function baseName(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf('/') + 1);
}
