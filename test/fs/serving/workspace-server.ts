import { join } from 'node:path';

import { OpenFiles } from '../../../fs/overlay/open-files.ts';
import { Recovery } from '../../../fs/overlay/recovery.ts';
import { SessionLog } from '../../../fs/overlay/session-log.ts';
import { encodeRequestHeader, REPLY_HEADER_BYTES } from '../../../fs/protocol/header.ts';
import { OPCODE, type Operation } from '../../../fs/protocol/constants.ts';
import type { Session } from '../../../fs/serving/handlers.ts';
import type { Negotiated } from '../../../fs/serving/negotiate.ts';
import { answer, openSession } from '../../../fs/serving/serve-loop.ts';
import { workspaceHandlers, type ServedWorkspace } from '../../../fs/serving/workspace-handlers.ts';
import { closeFile } from '../../../store/file-calls.ts';
import { MAKING, nodeAt, type CowFolder } from '../../fixtures/cow-trees.ts';
import { MemoryTree } from './memory-tree.ts';

export interface WorkspaceReply {
  /** 0 or a negated errno. */
  error: number;
  body: Buffer;
}

const NOTHING = new MemoryTree({ type: 'dir', children: new Map() });

/** A request as a kernel sends it; `resent`: once more. */
export function workspaceRequest(
  operation: Operation,
  nodeId: number,
  body: Buffer,
  { unique, resent = false }: { unique: number; resent?: boolean },
): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(40), body]);
  const id = Buffer.alloc(8);
  id.writeBigUInt64LE(BigInt(unique) + (resent ? 1n << 63n : 0n));
  encodeRequestHeader({ bytes, opcode: OPCODE[operation], nodeId, uid: MAKING.uid, gid: MAKING.gid, pid: 1 }, id);
  return bytes;
}

/** What serves a workspace, without a kernel: one process after the other. */
export class WorkspaceServer {
  readonly folder: CowFolder;
  readonly session: Session;
  readonly workspace: ServedWorkspace;

  constructor(folder: CowFolder, flags: Negotiated['flags'] = ['SETXATTR_EXT']) {
    const { log, isResumed } = SessionLog.open(join(folder.dir, 'log'));
    const tree = folder.open(log.openNodes);
    const files = new OpenFiles(tree, undefined);
    this.folder = folder;
    this.workspace = { tree, files, log, recovery: isResumed ? new Recovery(tree) : undefined };
    const resume = { minor: 45, flags, maxWriteBytes: 1 << 20 };
    this.session = openSession(NOTHING, { handlers: workspaceHandlers(this.workspace), resume });
  }

  /** The process dies, and another one takes over. */
  killed(): WorkspaceServer {
    this.workspace.log.close();
    for (const { fd } of this.workspace.tree.nodes) if (fd >= 0) closeFile(fd);
    return new WorkspaceServer(this.folder, this.session.negotiated?.flags);
  }

  id(path: string): number {
    return nodeAt(this.workspace.tree, path).id;
  }

  /** Errors that are no plain answers are thrown. */
  ask(request: Buffer): WorkspaceReply {
    const replyBytes = answer(this.session, request, (error) => {
      throw error;
    });
    if (replyBytes === 'slow') throw new Error('nothing here is slow');
    const reply = Buffer.from(this.session.reply.subarray(0, replyBytes));
    return { error: reply.length === 0 ? 0 : reply.readInt32LE(4), body: reply.subarray(REPLY_HEADER_BYTES) };
  }
}
