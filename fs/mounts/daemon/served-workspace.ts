import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { fromText, toFsPath, type ByteString } from '../../../store/byte-string.ts';
import { changeMode, changeOwner, setTimes, setXattr } from '../../../store/file-calls.ts';
import { CowTree } from '../../overlay/cow-tree.ts';
import type { LowerTree } from '../../overlay/lower-tree.ts';
import { isMark } from '../../overlay/marks.ts';
import { OpenFiles, type Passthrough } from '../../overlay/open-files.ts';
import { Recovery } from '../../overlay/recovery.ts';
import { ScratchFolder } from '../../overlay/scratch-folder.ts';
import { SessionLog } from '../../overlay/session-log.ts';
import { CheckpointBelow } from '../../serving/checkpoint-below.ts';
import type { StoreTree } from '../../serving/store-tree.ts';
import { workspaceHandlers } from '../../serving/workspace-handlers.ts';
import type { ServeOptions } from '../../serving/serve-loop.ts';
import { registerBacking, releaseBacking } from './backing.ts';
import type { ConnectionKind } from './connection.ts';
import { runtimeDir } from './runtime-dir.ts';
import type { ConnectionToServe } from './serve-worker.ts';

export type WorkspaceKind = Extract<ConnectionKind, { kind: 'workspace' }>;

/** A workspace that a thread serves. */
export interface OpenWorkspace {
  options: Pick<ServeOptions, 'handlers'>;
  /** To be called when it is unmounted. */
  close: () => void;
}

/** @param below - the checkpoint that it is a fork of, alone */
export function openServedWorkspace(
  storeRoot: string,
  { fd, shows, negotiated }: ConnectionToServe & { shows: WorkspaceKind },
  below: StoreTree,
): OpenWorkspace {
  const dir = join(storeRoot, 'forks', shows.fork);
  const logPath = runtimeDir(storeRoot).sessionLog(shows.fork);
  const { log, isResumed } = SessionLog.open(logPath);
  const scratch = new ScratchFolder(fromText(join(dir, 'cow')));
  const lower = new CheckpointBelow(below);
  const upper = fromText(join(dir, 'upper'));
  if (!isResumed) begin(upper, lower, scratch);
  const tree = new CowTree({
    upper,
    scratch,
    lower,
    userxattr: shows.userxattr,
    owner: { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
    openBefore: log.openNodes,
  });
  const files = new OpenFiles(tree, negotiated.flags.includes('PASSTHROUGH') ? passthroughOf(fd) : undefined);
  const recovery = isResumed ? new Recovery(tree) : undefined;
  return {
    options: { handlers: workspaceHandlers({ tree, files, log, recovery }) },
    close: () => {
      log.close();
      SessionLog.clear(logPath);
      scratch.clearOrphans();
    },
  };
}

/** Nothing of an earlier mount is in use any more; and a fork that nobody has seen yet looks as its checkpoint does. */
function begin(upper: ByteString, lower: LowerTree, scratch: ScratchFolder): void {
  scratch.clearOrphans();
  mkdirSync(toFsPath(upper), { recursive: true, mode: 0o700 });
  if (readdirSync(toFsPath(upper)).length > 0) return;
  const { id, stat } = lower.root;
  changeOwner(upper, stat.uid, stat.gid);
  changeMode(upper, stat.mode & 0o7777);
  for (const [name, value] of lower.xattrs(id) ?? []) if (!isMark(name)) setXattr(upper, name, value);
  setTimes(upper, [stat.atimeSec, stat.atimeNsec], [stat.mtimeSec, stat.mtimeNsec]);
}

/** Where the kernel does not do it once, it never will. */
function passthroughOf(connectionFd: number): Passthrough {
  let works = true;
  return {
    register: (fd) => {
      if (!works) return 0;
      try {
        return registerBacking(connectionFd, fd);
      } catch {
        works = false;
        return 0;
      }
    },
    release: (backingId) => {
      try {
        releaseBacking(connectionFd, backingId);
      } catch {
        // It went with what it was for.
      }
    },
  };
}
