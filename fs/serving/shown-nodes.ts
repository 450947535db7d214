import { ENTRY_TYPES, type ShownRow } from '../../index/rows.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { ServedNode } from './served-tree.ts';

export interface Owner {
  uid: number;
  gid: number;
}

/** To whom what is shown belongs. */
export interface Ownership {
  owner: Owner;
  /**
   * True: everything belongs to whom the checkpoint says, and to `owner` what it says belongs to the owner of the
   * workspace. False: everything belongs to `owner`.
   */
  keepOwners: boolean;
}

/** What is shown of an entry, under its own id. Of devices, a row does not say the number. */
export function nodeOfRow(row: ShownRow, { owner, keepOwners }: Ownership): ServedNode {
  const [id, , type, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, nlink] = row;
  return {
    type: ENTRY_TYPES[type] ?? 'file',
    mode,
    uid: keepOwners && uid !== 0 ? uid : owner.uid,
    gid: keepOwners && gid !== 0 ? gid : owner.gid,
    mtimeSec,
    mtimeNsec,
    sizeBytes,
    nodeId: id,
    ino: id,
    nlink,
  };
}

/** What is shown of an object of a merged tree, under the id of the row that provides it. */
export function nodeOfTree(node: CheckpointNode, { owner, keepOwners }: Ownership): ServedNode {
  const { id, type, mode, uid, gid, mtimeSec, mtimeNsec, nlink, rdev, link } = node;
  return {
    type,
    mode,
    uid: keepOwners && uid !== 0 ? uid : owner.uid,
    gid: keepOwners && gid !== 0 ? gid : owner.gid,
    mtimeSec,
    mtimeNsec,
    sizeBytes: type === 'symlink' ? (link?.length ?? 0) : node.sizeBytes, // lstat(2): the length of the target
    nodeId: id,
    ino: id,
    nlink,
    ...(rdev && { rdev }),
  };
}
