import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { fromText, toFsPath, type ByteString } from '../../../store/byte-string.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { CowTree, type CowTreeOptions } from '../../overlay/cow-tree.ts';
import { OpenFiles, type Passthrough } from '../../overlay/open-files.ts';
import { Recovery } from '../../overlay/recovery.ts';
import { scratchIn, ScratchFolder } from '../../overlay/scratch-folder.ts';
import { SessionLog } from '../../overlay/session-log.ts';
import { finishSwitch, switchTree, type Switched } from '../../overlay/switch-tree.ts';
import { baseOf, dressRoot, readPlan, trashIn, upperOf } from '../../overlay/switch-upper.ts';
import { CheckpointBelow } from '../../serving/checkpoint-below.ts';
import { StoreTree } from '../../serving/store-tree.ts';
import { workspaceHandlers } from '../../serving/workspace-handlers.ts';
import type { ServeOptions } from '../../serving/serve-loop.ts';
import { registerBacking, releaseBacking } from './backing.ts';
import type { ConnectionKind } from './connection.ts';
import { runtimeDir, sessionLogOf } from './runtime-dir.ts';
import type { ConnectionToServe } from './serve-worker.ts';
import type { Serving } from './served-trees.ts';

export type WorkspaceKind = Extract<ConnectionKind, { kind: 'workspace' }>;

/** A workspace that a thread serves. */
export interface OpenWorkspace {
  options: Pick<ServeOptions, 'handlers'>;
  /** A switch that a crash interrupted was ended just now. */
  finished: Switched | undefined;
  /** Puts another checkpoint below it, as the plan in its folder says. @throws BentoError, ErrnoError */
  switch: (manifest: Digest) => Switched;
  /** To be called when it is unmounted. */
  close: () => void;
}

export function openServedWorkspace(
  serving: Serving,
  { fd, shows, negotiated }: ConnectionToServe & { shows: WorkspaceKind },
): OpenWorkspace {
  const forkDir = forkDirOf(serving, shows);
  const logPath = sessionLogOf(runtimeDir(serving.store.root), shows.fork);
  const { log, isResumed } = SessionLog.open(logPath);
  const options = treeOptions(serving, shows, log.openNodes);
  const { scratch } = options;
  if (!isResumed) begin(options);
  const tree = new CowTree(options);
  const finished = finishSwitch(tree, forkDir);
  for (const trash of trashIn(forkDir)) if (trash !== finished?.trash) rmSync(toFsPath(trash), { recursive: true });
  const files = new OpenFiles(tree, negotiated.flags.includes('PASSTHROUGH') ? passthroughOf(fd) : undefined);
  const recovery = isResumed ? new Recovery(tree) : undefined;
  return {
    options: { handlers: workspaceHandlers({ tree, files, log, recovery }) },
    finished,
    switch: (manifest) => {
      const plan = readPlan(forkDir);
      // Asked again after a crash: it was ended when this process opened the workspace.
      if (plan === undefined && baseOf(forkDir) === manifest) return { stale: 'all', trash: undefined };
      if (plan?.to !== manifest) throw new BentoError('FAILED', `${shows.fork} has no plan to be switched`);
      return switchTree(tree, forkDir, plan, checkpointBelow(serving, shows, plan.to));
    },
    close: () => {
      log.close();
      SessionLog.clear(logPath);
      scratch.clearOrphans();
    },
  };
}

function forkDirOf({ store }: Serving, { fork }: WorkspaceKind): ByteString {
  return fromText(join(store.root, 'forks', fork));
}

/** What a fork's tree is made of. @param openBefore - files that are open since before this process */
export function treeOptions(
  serving: Serving,
  shows: WorkspaceKind,
  openBefore: CowTreeOptions['openBefore'],
): CowTreeOptions {
  const forkDir = forkDirOf(serving, shows);
  return {
    upper: upperOf(forkDir),
    scratch: new ScratchFolder(scratchIn(forkDir)),
    lower: checkpointBelow(serving, shows, baseOf(forkDir) ?? shows.manifest),
    userxattr: shows.userxattr,
    owner: processOwner(),
    openBefore,
  };
}

function checkpointBelow(
  { entries, trees, reader, onRead }: Serving,
  { keepOwners }: WorkspaceKind,
  manifest: Digest,
): CheckpointBelow {
  const options = { owner: processOwner(), keepOwners, manifest, onRead };
  return new CheckpointBelow(new StoreTree(entries, trees, reader, options));
}

function processOwner(): { uid: number; gid: number } {
  return { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
}

/** Nothing of an earlier mount is in use any more; and a fork that nobody has seen yet looks as its checkpoint does. */
function begin({ upper, lower, scratch }: CowTreeOptions): void {
  scratch.clearOrphans();
  mkdirSync(toFsPath(upper), { recursive: true, mode: 0o700 });
  if (readdirSync(toFsPath(upper)).length === 0) dressRoot(upper, lower);
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
