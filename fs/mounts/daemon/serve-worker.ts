import { closeSync, readSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads';

import { allowGarbage } from '../../../store/buffer-garbage.ts';
import { PollSet } from '../../../store/syscalls.ts';
import type { ConnectionSpec } from './connection.ts';
import { Connection, serve, serveBuffers, type ServeOptions } from '../../serving/serve-loop.ts';
import { StoreTree } from '../../serving/store-tree.ts';
import { openServedWorkspace } from './served-workspace.ts';
import { openServing, servedTree } from './served-trees.ts';

/**
 * What a thread that answers FUSE requests is given. With a connection of its own it blocks in read(2) on it, which costs
 * least; without one it polls those that are posted to it, after a write to `wakeFd`.
 */
export interface ServeWorkerData {
  storeRoot: string;
  verified: SharedArrayBuffer;
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
}

/** A line for the daemon's log, or the end of a mount. */
export type ServeWorkerMessage = { ended: string } | { error: string; operation: string; nodeId: number };

/**
 * How often to look for a next request before going to sleep. Whoever works with files asks again within microseconds, sooner
 * than a sleeping thread is woken. Where nobody does, it is soon given up.
 */
const PATIENCE_MAX = 32;
const PATIENCE_MIN = 2;
/** How many requests of one connection are answered before the others get their turn. */
const TURN_MAX = 32;
const GARBAGE_BYTES_MAX = 32 << 20;

const { storeRoot, verified, slow, only, wakeFd } = workerData as ServeWorkerData;
allowGarbage(GARBAGE_BYTES_MAX, 'major');
const serving = await openServing(storeRoot, verified);

/** A connection among others. */
interface Polled {
  connection: Connection;
  target: string;
  close: () => void;
  /** `PATIENCE_*` */
  patience: number;
}

interface Service {
  tree: Parameters<typeof serve>[1];
  options: ServeOptions;
  /** To be called when it is unmounted. */
  close: () => void;
}

function serviceFor(connection: ConnectionToServe): Service {
  const { tree, options } = servedTree(serving, connection);
  const { target, shows } = connection;
  const workspace =
    shows.kind === 'workspace' && tree instanceof StoreTree
      ? openServedWorkspace(storeRoot, { ...connection, shows }, tree)
      : undefined;
  return {
    tree,
    close: () => workspace?.close(),
    options: {
      ...options,
      ...workspace?.options,
      onSlow: (bytes) => slow.postMessage({ target, bytes } satisfies SlowRequest, [bytes.buffer as ArrayBuffer]),
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

function serveOnly(connection: ConnectionToServe): void {
  const { tree, options, close } = serviceFor(connection);
  serve(connection.fd, tree, options);
  end({ ...connection, close });
}

/** Serves what the parent posts, all in one thread: fifty mounts of an ordinary user cost one. */
function servePolled(wake: number): never {
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
    for (let next = receive(); next !== undefined; next = receive()) {
      const { tree, options, close } = serviceFor(next);
      served.set(next.fd, {
        connection: new Connection(next.fd, tree, { ...options, buffers }),
        target: next.target,
        close,
        patience: PATIENCE_MIN,
      });
    }
    polled.fds = [wake, ...served.keys()];
  }

  function serveTurn(fd: number): void {
    const found = served.get(fd);
    if (found === undefined) return;
    let patience = found.patience;
    for (let count = 0; count < TURN_MAX;) {
      const outcome = found.connection.answerOne();
      if (outcome === 'idle') {
        patience -= 1;
        if (patience > 0) continue;
        found.patience = Math.max(PATIENCE_MIN, found.patience >> 1);
        return;
      }
      if (outcome === 'answered') {
        count += 1;
        if (patience < found.patience) found.patience = PATIENCE_MAX;
        patience = found.patience;
        continue;
      }
      served.delete(fd);
      polled.fds = [wake, ...served.keys()];
      end({ fd, target: found.target, close: found.close });
      return;
    }
  }
}

function receive(): ConnectionToServe | undefined {
  const received = parentPort === null ? undefined : receiveMessageOnPort(parentPort);
  return received?.message as ConnectionToServe | undefined;
}

if (only !== undefined) serveOnly(only);
else if (wakeFd !== undefined) servePolled(wakeFd);
serving.reader.close();
serving.index.close();
