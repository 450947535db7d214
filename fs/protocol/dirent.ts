import { decodeEntryOut, encodeEntryOut, ENTRY_OUT_BYTES, type EntryOut } from './attr.ts';
import { alignUp, expectAtLeast, readU64, writeU64 } from './wire.ts';

// struct fuse_dirent (linux/fuse.h): 24 bytes, the name, zeros up to a multiple of 8.
const INO = 0; // u64
const NEXT_OFFSET = 8; // u64, where the following READDIR resumes
const NAME_BYTES = 16; // u32
const TYPE = 20; // u32, S_IFMT bits >> 12
const NAME = 24;

const RECORD_ALIGNMENT = 8;
const S_IFMT_SHIFT = 12;

export interface Dirent {
  ino: number;
  /** The cookie with which a listing goes on after this record; 0 is the start. */
  nextOffset: number;
  /** With the type bits; only they are sent. */
  mode: number;
  /** One code unit (U+0000 to U+00FF) for each byte. */
  name: string;
}

/** Writes one record at `at` and returns its size in bytes, or 0 when `out` has no room: never half a record. */
export function encodeDirent(out: Buffer, at: number, dirent: Dirent): number {
  const sizeBytes = alignUp(NAME + dirent.name.length, RECORD_ALIGNMENT);
  if (at + sizeBytes > out.length) return 0;
  out.fill(0, at, at + sizeBytes); // padding must not carry old memory to the kernel
  writeU64(out, at + INO, dirent.ino);
  writeU64(out, at + NEXT_OFFSET, dirent.nextOffset);
  out.writeUInt32LE(dirent.name.length, at + NAME_BYTES);
  out.writeUInt32LE(dirent.mode >>> S_IFMT_SHIFT, at + TYPE);
  out.write(dirent.name, at + NAME, 'latin1');
  return sizeBytes;
}

/**
 * struct fuse_direntplus: what LOOKUP would answer, then the record. A nodeId of 0 sends no attributes: `.` and `..`
 * must do that, for the kernel counts every other record as a lookup.
 */
export function encodeDirentPlus(out: Buffer, at: number, entry: EntryOut | undefined, dirent: Dirent): number {
  const direntBytes = encodeDirent(out, at + ENTRY_OUT_BYTES, dirent);
  if (direntBytes === 0) return 0;
  if (entry === undefined) out.fill(0, at, at + ENTRY_OUT_BYTES);
  else encodeEntryOut(out, at, entry);
  return ENTRY_OUT_BYTES + direntBytes;
}

/** @throws ProtocolError when a record is cut off */
export function decodeDirents(body: Buffer): Dirent[] {
  return decodeRecords(body, (record) => decodeDirent(record));
}

/** @throws ProtocolError when a record is cut off */
export function decodeDirentsPlus(body: Buffer): { entry: EntryOut; dirent: Dirent; sizeBytes: number }[] {
  return decodeRecords(body, (record) => {
    expectAtLeast(record, ENTRY_OUT_BYTES, 'direntplus');
    const dirent = decodeDirent(record.subarray(ENTRY_OUT_BYTES));
    const entry = decodeEntryOut(record.subarray(0, ENTRY_OUT_BYTES));
    return { entry, dirent, sizeBytes: ENTRY_OUT_BYTES + dirent.sizeBytes };
  });
}

function decodeRecords<T extends { sizeBytes: number }>(body: Buffer, decode: (rest: Buffer) => T): T[] {
  const records: T[] = [];
  for (let at = 0; at < body.length;) {
    const record = decode(body.subarray(at));
    records.push(record);
    at += record.sizeBytes;
  }
  return records;
}

function decodeDirent(bytes: Buffer): Dirent & { sizeBytes: number } {
  expectAtLeast(bytes, NAME, 'dirent');
  const nameBytes = bytes.readUInt32LE(NAME_BYTES);
  const sizeBytes = alignUp(NAME + nameBytes, RECORD_ALIGNMENT);
  expectAtLeast(bytes, sizeBytes, 'dirent');
  return {
    ino: readU64(bytes, INO),
    nextOffset: readU64(bytes, NEXT_OFFSET),
    mode: (bytes.readUInt32LE(TYPE) << S_IFMT_SHIFT) >>> 0,
    name: bytes.toString('latin1', NAME, NAME + nameBytes),
    sizeBytes,
  };
}
