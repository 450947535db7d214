import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { mkfifo } from '../../../../store/syscalls.ts';
import type { Outcome } from '../calls/libc.ts';
import type { PartnerCalls } from './partner-process.ts';

const PROGRAM = fileURLToPath(new URL('./partner-process.js', import.meta.url));

/**
 * A second process that makes the calls it is told to, one after the other, while this one waits: checks are synchronous.
 * It is asked through fifos, since Node hides the descriptors of a child's pipes.
 */
class Partner {
  readonly #child: ChildProcess;
  readonly #dir = mkdtempSync(path.join(tmpdir(), 'partner-'));
  readonly #asks: number;
  readonly #answers: number;

  constructor() {
    const [asks, answers] = [path.join(this.#dir, 'asks'), path.join(this.#dir, 'answers')];
    mkfifo(asks, 0o600);
    mkfifo(answers, 0o600);
    this.#child = spawn(process.execPath, [PROGRAM, asks, answers], { stdio: ['ignore', 'inherit', 'inherit'] });
    this.#child.unref();
    this.#asks = openSync(asks, 'w');
    this.#answers = openSync(answers, 'r');
  }

  /** Starts a call that may wait; `answer` has its outcome. */
  begin<K extends keyof PartnerCalls>(name: K, ...args: Parameters<PartnerCalls[K]>): void {
    writeSync(this.#asks, `${JSON.stringify({ name, args })}\n`);
  }

  /** @throws Error when the process is gone */
  answer(): Outcome {
    let line = '';
    const piece = Buffer.alloc(65_536);
    while (!line.endsWith('\n')) {
      const length = readSync(this.#answers, piece);
      if (length === 0) throw new Error('the partner process is gone');
      line += piece.toString('latin1', 0, length);
    }
    return JSON.parse(line) as Outcome;
  }

  call<K extends keyof PartnerCalls>(name: K, ...args: Parameters<PartnerCalls[K]>): Outcome {
    this.begin(name, ...args);
    return this.answer();
  }

  /** What it reads of a whole file. */
  text(path: string): Outcome {
    return this.call('text', path);
  }

  end(): void {
    closeSync(this.#asks);
    closeSync(this.#answers);
    this.#child.kill('SIGKILL');
    rmSync(this.#dir, { recursive: true });
  }
}

let partner: Partner | undefined;

/** The other process, standing in the directory of the check that runs. */
export function otherProcess(): Partner {
  partner ??= new Partner();
  partner.call('chdir', process.cwd());
  return partner;
}

/** The outcome of the call that `begin` started. */
export function answerOfOther(): Outcome {
  if (partner === undefined) throw new Error('nothing was begun');
  return partner.answer();
}

/** What a check left behind in the other process: descriptors and locks go, it leaves the directory. */
export function resetPartner(): void {
  if (partner === undefined) return;
  partner.call('closeAll');
  partner.call('chdir', '/');
}

export function endPartner(): void {
  partner?.end();
  partner = undefined;
}
