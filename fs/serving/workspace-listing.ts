import type { CowNode } from '../overlay/cow-node.ts';
import type { Listed } from '../overlay/listed.ts';
import { ERRNO } from '../protocol/constants.ts';
import { encodeDirent, encodeDirentPlus, type Dirent } from '../protocol/dirent.ts';
import { REPLY_HEADER_BYTES, type Request } from '../protocol/header.ts';
import { decodeReadIn } from '../protocol/read.ts';
import { FOREVER_SEC } from './attributes.ts';
import type { Outcome, Session } from './handlers.ts';
import { TRANSFER_MAX_BYTES } from './negotiate.ts';
import { attrOfStat, nodeOf, type ServedWorkspace } from './workspace-handlers.ts';

const BODY = REPLY_HEADER_BYTES;
const S_IFDIR = 0o040000;
/** `.` and `..` come first; an entry's cookie follows theirs. */
const DOTS = ['.', '..'] as const;

/** ESTALE for a nodeId that is no directory of the workspace. */
export function listWorkspace(
  workspace: ServedWorkspace,
  { nodeId, bytes }: Request,
  session: Session,
  { plus }: { plus: boolean },
): Outcome {
  const { offset, sizeBytes } = decodeReadIn(bytes);
  if (sizeBytes > TRANSFER_MAX_BYTES) return -ERRNO.EINVAL;
  const dir = nodeOf(workspace, nodeId);
  if (!dir.isDir) return -ERRNO.ENOTDIR;
  const page = { out: session.reply.subarray(0, BODY + sizeBytes), at: BODY };
  if (dir.isGone) return 0;
  if (!encodeDots(page, dir, offset, plus)) return page.at - BODY;
  for (const entry of workspace.tree.list(dir)) {
    if (entry.cookie + DOTS.length <= offset) continue;
    if (!encodeEntry(workspace, page, { dir, entry, plus })) break;
  }
  if (page.at === BODY) dir.listing = undefined; // an empty reply ends the listing
  return page.at - BODY;
}

interface Page {
  out: Buffer;
  at: number;
}

/** @returns false when there was no room for them */
function encodeDots(page: Page, dir: CowNode, offset: number, plus: boolean): boolean {
  for (let position = offset; position < DOTS.length; position += 1) {
    const up = dir.names[0]?.parent ?? dir;
    const dirent: Dirent = {
      ino: position === 0 ? dir.id : up.id,
      nextOffset: position + 1,
      mode: S_IFDIR,
      name: DOTS[position] ?? '',
    };
    if (!encode(page, plus, undefined, dirent)) return false;
  }
  return true;
}

/** @returns false when there was no room for it; one that is gone meanwhile is left out */
function encodeEntry(
  { tree }: ServedWorkspace,
  page: Page,
  { dir, entry, plus }: { dir: CowNode; entry: Listed; plus: boolean },
): boolean {
  const node = tree.listed(dir, entry);
  if (node === undefined) return true;
  const attr = attrOfStat(entry.below?.stat ?? tree.stat(node), node.id);
  const { id: nodeId, generation } = node;
  const dirent = { ino: nodeId, nextOffset: entry.cookie + DOTS.length, mode: attr.mode, name: entry.name };
  const times = { entryValidSec: FOREVER_SEC, attrValidSec: FOREVER_SEC };
  if (!encode(page, plus, { nodeId, generation, ...times, attr }, dirent)) return false;
  if (plus) node.lookups += 1;
  return true;
}

function encode(page: Page, plus: boolean, entry: Parameters<typeof encodeDirentPlus>[2], dirent: Dirent): boolean {
  const { out, at } = page;
  const sizeBytes = plus ? encodeDirentPlus(out, at, entry, dirent) : encodeDirent(out, at, dirent);
  page.at += sizeBytes;
  return sizeBytes > 0;
}
