import { ERRNO } from '../protocol/constants.ts';
import { encodeDirent, encodeDirentPlus } from '../protocol/dirent.ts';
import { REPLY_HEADER_BYTES, type Request } from '../protocol/header.ts';
import { decodeReadIn } from '../protocol/read.ts';
import { entryOf, modeOf } from './attributes.ts';
import type { Outcome, Session } from './handlers.ts';
import { TRANSFER_MAX_BYTES } from './negotiate.ts';
import type { ServedDirent } from './served-tree.ts';

const BODY = REPLY_HEADER_BYTES;

/** What `..` is said to have for an ino; nobody looks, and 0 would make C libraries skip it. */
const UNKNOWN_INO = 0xffff_ffff;

/** `.` and `..` are records 0 and 1; entry i of the tree is record i + 2. */
const DOTS = ['.', '..'] as const;

/** How much may be in the middle of being listed before the oldest listing is asked for again. */
const LISTING_COUNT_MAX = 64;
const LISTED_ENTRIES_MAX = 200_000;

/** ESTALE for a nodeId that is no directory of the tree. */
export function readdir(session: Session, request: Request): Outcome {
  return listDirectory(session, request, encodeName);
}

/** As readdir, with all that a lookup of each name would answer. */
export function readdirplus(session: Session, request: Request): Outcome {
  return listDirectory(session, request, encodeNameAndEntry);
}

/** One directory being listed into a reply. */
interface Page {
  session: Session;
  nodeId: number;
  out: Buffer;
  entries: readonly ServedDirent[];
}

/** Writes record `position` at `at` and returns its size in bytes, or 0 when there is no room for it. */
type EncodeRecord = (page: Page, at: number, position: number) => number;

/** A record's cookie is the next one's position, so that a listing goes on even after we were restarted. */
function listDirectory(session: Session, { nodeId, bytes }: Request, encode: EncodeRecord): Outcome {
  const { offset, sizeBytes } = decodeReadIn(bytes);
  if (sizeBytes > TRANSFER_MAX_BYTES) return -ERRNO.EINVAL;
  const entries = entriesOf(session, nodeId, offset);
  if (entries === undefined) return -ERRNO.ESTALE;
  const page = { session, nodeId, out: session.reply.subarray(0, BODY + sizeBytes), entries };
  const end = encodeRecords(page, offset, encode);
  if (end === BODY) session.listings.delete(nodeId); // an empty reply ends the listing
  return end - BODY;
}

/** Writes records from `first` until the reply is full or all are written; returns where it stopped writing. */
function encodeRecords(page: Page, first: number, encode: EncodeRecord): number {
  const count = DOTS.length + page.entries.length;
  let at = BODY;
  for (let position = first; position < count; position += 1) {
    const sizeBytes = encode(page, at, position);
    if (sizeBytes === 0) break;
    at += sizeBytes;
  }
  return at;
}

function encodeName(page: Page, at: number, position: number): number {
  const { out, entries } = page;
  const entry = entries[position - DOTS.length];
  if (entry === undefined) return encodeDirent(out, at, dotOf(page, position));
  const { name, node } = entry;
  return encodeDirent(out, at, { ino: node.ino, nextOffset: position + 1, mode: modeOf(node), name });
}

function encodeNameAndEntry(page: Page, at: number, position: number): number {
  const { out, entries, session, nodeId } = page;
  const entry = entries[position - DOTS.length];
  if (entry === undefined) return encodeDirentPlus(out, at, undefined, dotOf(page, position));
  const { name, node } = entry;
  const dirent = { ino: node.ino, nextOffset: position + 1, mode: modeOf(node), name };
  return encodeDirentPlus(out, at, entryOf(session, nodeId, node), dirent);
}

function dotOf({ session, nodeId }: Page, position: number): Parameters<typeof encodeDirent>[2] {
  const name = position === 0 ? DOTS[0] : DOTS[1];
  const ino = position === 0 ? session.tree.getattr(nodeId)?.ino : undefined;
  return { ino: ino ?? UNKNOWN_INO, nextOffset: position + 1, mode: S_IFDIR, name };
}

const S_IFDIR = 0o040000;

/** A long listing takes many requests; the tree is asked once. */
function entriesOf({ tree, listings }: Session, nodeId: number, offset: number): readonly ServedDirent[] | undefined {
  const known = offset === 0 ? undefined : listings.get(nodeId);
  if (known !== undefined) return known;
  const entries = tree.readdir(nodeId);
  if (entries === undefined) return undefined;
  makeRoom(listings);
  listings.set(nodeId, entries);
  return entries;
}

/** Listings that somebody gave up half-way stay until others need their place. */
function makeRoom(listings: Session['listings']): void {
  let listed = 0;
  for (const entries of listings.values()) listed += entries.length;
  for (const [oldest, entries] of listings) {
    if (listings.size < LISTING_COUNT_MAX && listed <= LISTED_ENTRIES_MAX) return;
    listings.delete(oldest);
    listed -= entries.length;
  }
}
