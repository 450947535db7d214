import { closeSync, existsSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';

import { allowGarbage } from '../../../store/buffer-garbage.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { PollSet } from '../../../store/syscalls.ts';
import { packError, type ThreadError } from '../../../store/thread-error.ts';
import type { FilePart } from '../../contents/content-not-here.ts';
import type { Switched } from '../../overlay/switch-tree.ts';
import type { ConnectionSpec } from './connection.ts';
import { Connection, serve, serveBuffers, type ServeOptions } from '../../serving/serve-loop.ts';
import { FirstReads, ReadLog } from '../../serving/read-log.ts';
import { openServedWorkspace, type OpenWorkspace } from './served-workspace.ts';
import { openServing, servedTree, type Serving } from './served-trees.ts';

/**
 * What a thread that answers FUSE requests is given. With a connection of its own it blocks in read(2) on it, which costs
 * least; without one it polls those that are posted to it, after a write to `wakeFd`.
 */
export interface ServeWorkerData {
  storeRoot: string;
  verified: SharedArrayBuffer;
  /** For the `ReadLog` of the process. */
  reads: SharedArrayBuffer;
  /** Where requests that take long go. */
  slow: MessagePort;
  only?: ConnectionToServe;
  wakeFd?: number;
}

export interface ConnectionToServe extends ConnectionSpec {
  fd: number;
}

/** A request for the slow lane. */
export interface SlowRequest {
  target: string;
  bytes: Uint8Array;
  /** It comes back when this part of a file was fetched. */
  missing: FilePart | undefined;
}

/** What the slow lane says: a request can be answered now. Only to threads that poll, after a write to their `wakeFd`. */
export interface AnswerAgain {
  again: Pick<SlowRequest, 'target' | 'bytes'>;
}

/** What a thread that serves several connections is told. */
export type ServeWorkerOrder = { serve: ConnectionToServe } | SwitchOrder;

export interface SwitchOrder {
  /** Mount point of a workspace. */
  switch: string;
  manifest: Digest;
}

/** A workspace shows another checkpoint: since it was asked to, or since a crash in the middle of that. */
export interface SwitchedMessage extends Switched {
  target: string;
}

export interface NotSwitchedMessage {
  target: string;
  failed: ThreadError;
}

/** A line for the daemon's log, the end of a mount, or what became of an order. */
export type ServeWorkerMessage =
  { ended: string } | { error: string; operation: string; nodeId: number } | SwitchedMessage | NotSwitchedMessage;

/**
 * How often to look for a next request before going to sleep, about 60 µs. Whoever works with files asks again within
 * microseconds, and a thread that sleeps on an idle processor takes 30 µs to be woken: measured in a virtual machine, a
 * request then costs 65 µs instead of 38.
 */
const LOOKS_MAX = 128;
/** How many requests of one connection are answered before the others get their turn. */
const TURN_MAX = 32;
const GARBAGE_BYTES_MAX = 32 << 20;

const { storeRoot, verified, reads, slow, only, wakeFd } = workerData as ServeWorkerData;
allowGarbage(GARBAGE_BYTES_MAX, 'major');
const firstReads = new FirstReads(new ReadLog(reads));

/** A connection among others. */
interface Polled {
  connection: Connection;
  target: string;
  close: () => void;
  workspace: OpenWorkspace | undefined;
}

interface Service {
  tree: Parameters<typeof serve>[1];
  options: ServeOptions;
  /** To be called when it is unmounted. */
  close: () => void;
  workspace: OpenWorkspace | undefined;
}

function serviceFor(serving: Serving, connection: ConnectionToServe): Service {
  const { tree, options } = servedTree(serving, connection);
  const { target, shows } = connection;
  const workspace = shows.kind === 'workspace' ? openServedWorkspace(serving, { ...connection, shows }) : undefined;
  if (workspace?.finished !== undefined) tell({ target, ...workspace.finished });
  return {
    tree,
    workspace,
    close: () => workspace?.close(),
    options: {
      ...options,
      ...workspace?.options,
      onSlow: (bytes, missing) =>
        slow.postMessage({ target, bytes, missing } satisfies SlowRequest, [bytes.buffer as ArrayBuffer]),
      onError: (error, { operation, nodeId }) =>
        tell({ error: error instanceof Error ? error.message : String(error), operation, nodeId }),
    },
  };
}

function tell(message: ServeWorkerMessage): void {
  parentPort?.postMessage(message);
}

function end({ fd, target, close }: { fd: number; target: string; close: () => void }): void {
  close();
  closeSync(fd);
  tell({ ended: target });
}

function serveOnly(serving: Serving, connection: ConnectionToServe): void {
  const { tree, options, close } = serviceFor(serving, connection);
  serve(connection.fd, tree, options);
  end({ ...connection, close });
}

/** Serves what the parent posts, all in one thread: fifty mounts of an ordinary user cost one. */
function servePolled(serving: Serving, wake: number): never {
  const buffers = serveBuffers();
  const served = new Map<number, Polled>();
  const polled = new PollSet();
  polled.fds = [wake];
  for (;;) {
    for (const fd of polled.wait()) {
      if (fd === wake) takeNew();
      else serveTurn(fd);
    }
  }

  function takeNew(): void {
    readSync(wake, Buffer.alloc(8), 0, 8, null);
    for (let order = receive(); order !== undefined; order = receive()) {
      if ('serve' in order) add(order.serve);
      else tell(switchWorkspace(order));
    }
    for (let order = receiveAgain(); order !== undefined; order = receiveAgain()) answerAgain(order);
    polled.fds = [wake, ...served.keys()];
  }

  function add(connection: ConnectionToServe): void {
    const { fd, target } = connection;
    if (isClosed(connection)) {
      end({ fd, target, close: () => undefined });
      return;
    }
    const { tree, options, ...service } = serviceFor(serving, connection);
    const answering = new Connection(fd, tree, { ...options, buffers });
    served.set(fd, { ...service, connection: answering, target });
  }

  function switchWorkspace({ switch: target, manifest }: SwitchOrder): SwitchedMessage | NotSwitchedMessage {
    try {
      const found = [...served.values()].find((entry) => entry.target === target);
      if (found?.workspace === undefined) throw new BentoError('NOT_MOUNTED', `no workspace on ${target}`);
      return { target, ...found.workspace.switch(manifest) };
    } catch (error) {
      return { target, failed: packError(error) };
    }
  }

  function answerAgain({ again: { target, bytes } }: AnswerAgain): void {
    const found = [...served.values()].find((entry) => entry.target === target);
    found?.connection.answerAgain(bytes);
  }

  function serveTurn(fd: number): void {
    const found = served.get(fd);
    if (found === undefined) return;
    let looks = 1;
    for (let count = 0; count < TURN_MAX;) {
      const outcome = found.connection.answerOne();
      if (outcome === 'idle') {
        looks -= 1;
        if (looks > 0) continue;
        return;
      }
      if (outcome === 'answered') {
        count += 1;
        looks = LOOKS_MAX;
        continue;
      }
      served.delete(fd);
      polled.fds = [wake, ...served.keys()];
      end({ fd, target: found.target, close: found.close });
      return;
    }
  }
}

/** A fork that was ended while a server died: nobody can be using what is not there any more. */
function isClosed({ shows }: ConnectionToServe): boolean {
  return shows.kind === 'workspace' && !existsSync(join(storeRoot, 'forks', shows.fork));
}

function receive(): ServeWorkerOrder | undefined {
  const received = parentPort === null ? undefined : receiveMessageOnPort(parentPort);
  return received?.message as ServeWorkerOrder | undefined;
}

function receiveAgain(): AnswerAgain | undefined {
  return receiveMessageOnPort(slow)?.message as AnswerAgain | undefined;
}

async function main(): Promise<void> {
  const serving: Serving = { ...(await openServing(storeRoot, verified)), onRead: (id) => firstReads.note(id) };
  if (only !== undefined) serveOnly(serving, only);
  else if (wakeFd !== undefined) servePolled(serving, wakeFd);
  serving.reader.close();
  serving.index.close();
}

void main();
