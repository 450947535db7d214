import { openSync, readSync, writeSync } from 'node:fs';

import { close, closeAll, ftruncate, open, pread, pwrite, read, write } from '../calls/files.ts';
import type { Outcome } from '../calls/libc.ts';
import { conflictingLock, flock, flockWaiting, setLock, setLockWaiting } from '../calls/locks.ts';
import { chdir, link, mkdir, rename, rmdir, unlink } from '../calls/names.ts';
import { text } from './observe.ts';

const CALLS = {
  chdir,
  close,
  closeAll: (): Outcome => {
    closeAll();
    return 0;
  },
  conflictingLock,
  flock,
  flockWaiting,
  ftruncate,
  link,
  mkdir,
  open,
  pread,
  pwrite,
  read,
  rename,
  rmdir,
  setLock,
  setLockWaiting,
  text,
  unlink,
  write,
} as const;

export type PartnerCalls = typeof CALLS;

/** Makes the calls that come through one fifo, one JSON line each, and says what they returned through the other. */
function serve(asks: number, answers: number): void {
  const piece = Buffer.alloc(65_536);
  for (let rest = ''; ;) {
    const length = readSync(asks, piece);
    if (length === 0) return; // whoever asked is gone
    const lines = (rest + piece.toString('latin1', 0, length)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) writeSync(answers, `${JSON.stringify(make(line))}\n`);
  }
}

function make(line: string): Outcome {
  const { name, args } = JSON.parse(line) as { name: keyof PartnerCalls; args: unknown[] };
  return (CALLS[name] as (...args: unknown[]) => Outcome)(...args);
}

// Imported for its types alone, this file does nothing.
const [, program, asks, answers] = process.argv;
if (program === import.meta.filename && asks !== undefined && answers !== undefined) {
  serve(openSync(asks, 'r'), openSync(answers, 'w'));
}
