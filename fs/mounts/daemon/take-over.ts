import { spawn } from 'node:child_process';
import { readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';

import { recvFd, sendFd, socketpair } from '../../../store/syscalls.ts';
import type { Backing, ConnectionSpec } from './connection.ts';
import { lineReader, type ControlReply } from './control.ts';
import { SMALL_HEAP } from './small-process.ts';

/** The descriptor on which whoever started the daemon waits for one line. */
export const READY_FD = 3;
/** The socket on which a predecessor hands over what it holds. */
const LEGACY_FD = 4;
const TAKE_OVER_TIMEOUT_MS = 20_000;

/** What one supervisor leaves to the next; the descriptors follow in this order: the lock, then the connections. */
export interface Legacy {
  connections: ConnectionSpec[];
  backings: Backing[];
}

/**
 * Starts another supervisor, of a newer bento say, and hands over what keeps mounts alive.
 *
 * @param fds - the lock's first, then those of the connections
 * @throws Error when it does not get ready; it is killed then, and everything is as it was
 */
export async function startSuccessor(
  program: string,
  storeRoot: string,
  { legacy, fds }: { legacy: Legacy; fds: readonly number[] },
): Promise<void> {
  const { ours, theirs } = socketpair();
  const child = spawn(process.execPath, [...SMALL_HEAP, program, storeRoot], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 1, 2, 'pipe', theirs],
    env: { ...process.env, BENTO_DAEMON_READY: '1', BENTO_DAEMON_TAKE_OVER: '1' },
  });
  const ready = child.stdio[READY_FD] as Socket;
  try {
    const text = Buffer.from(JSON.stringify(legacy));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(text.length);
    writeSync(ours, Buffer.concat([length, text]));
    for (const fd of fds) sendFd(ours, fd);
    const reply = await new Promise<ControlReply>((resolve, reject) => {
      setTimeout(() => reject(new Error('it was not ready in time')), TAKE_OVER_TIMEOUT_MS).unref();
      ready.on(
        'data',
        lineReader((line) => resolve(JSON.parse(line) as ControlReply)),
      );
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`it ended with status ${code ?? 'unknown'}`)));
    });
    if (!reply.ok) throw new Error(reply.message);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    ready.destroy();
    child.unref();
  }
}

/** What `startSuccessor` of the predecessor sends. @throws Error when it ends meanwhile */
export function receiveLegacy(): { legacy: Legacy; lockFd: number; fds: number[] } {
  const length = readExactly(4).readUInt32LE();
  const legacy = JSON.parse(readExactly(length).toString('utf8')) as Legacy;
  const lockFd = recvFd(LEGACY_FD);
  return { legacy, lockFd, fds: legacy.connections.map(() => recvFd(LEGACY_FD)) };
}

function readExactly(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const count = readSync(LEGACY_FD, bytes, at, length - at, null);
    if (count === 0) throw new Error('the predecessor ended while it handed over');
    at += count;
  }
  return bytes;
}
