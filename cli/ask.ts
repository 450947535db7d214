import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';

import { BentoError } from '../store/errors.ts';

const STDIN_BYTES_MAX = 1 << 20;

/** Asks a person at the terminal. @param isSecret - nothing of the answer is shown @throws BentoError USAGE without a terminal */
export async function ask(question: string, isSecret = false): Promise<string> {
  if (!process.stdin.isTTY)
    throw new BentoError('USAGE', `${question}: there is no terminal to ask at`, {
      hint: 'use -u <user> --password-stdin',
    });
  process.stderr.write(`${question}: `);
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: isSecret ? silent : process.stderr, terminal: true });
  try {
    return await new Promise<string>((done, fail) => {
      lines.once('line', done);
      lines.once('SIGINT', () => process.kill(process.pid, 'SIGINT'));
      lines.once('close', () => fail(new BentoError('FAILED', 'nothing was entered')));
    });
  } finally {
    lines.close();
    if (isSecret) process.stderr.write('\n');
  }
}

/** All of stdin, without the newline at its end. */
export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > STDIN_BYTES_MAX) throw new BentoError('USAGE', `stdin has more than ${STDIN_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}
