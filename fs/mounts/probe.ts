import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';

/** How long whoever serves a mount may take to answer before it counts as silent, in milliseconds. */
const ANSWER_TIMEOUT_MS = 2_000;
/** How long the prober may take to start on a busy machine, on top. */
const START_TIMEOUT_MS = 8_000;
/** Each mount that hangs holds one thread of the prober. libuv allows 1024. */
const THREADS_MAX = 512;

/** `gone`: the kernel has ended the connection, nobody will answer. `silent`: somebody holds it, but does not answer. */
export type Answer = 'answers' | 'gone' | 'silent';

/**
 * What the prober runs: it looks up one name in each directory, all at once, and tells a line for each that answered. In a
 * process of its own, since a thread that waits for a FUSE server cannot be ended, nor can its process.
 */
const PROBER = `
const { lstat } = require('node:fs');
const GONE = new Set(['ENOTCONN', 'ECONNABORTED', 'EIO', 'ESTALE']);
const paths = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
process.stdout.write('ready\\n');
paths.forEach((path, at) => lstat(path, (error) =>
  process.stdout.write(at + (GONE.has(error?.code) ? ' gone\\n' : ' answers\\n'))));
`;

/** Asks whoever serves each of these directories for a name that nobody asked for before. Takes two seconds at most once asked. */
export async function probe(targets: readonly string[]): Promise<Map<string, Answer>> {
  const answers = new Map<string, Answer>(targets.map((target) => [target, 'silent']));
  if (targets.length === 0) return answers;
  const prober = spawn(process.execPath, ['-e', PROBER], {
    cwd: '/',
    detached: true, // it may have to be left behind
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { UV_THREADPOOL_SIZE: String(Math.min(targets.length, THREADS_MAX)) },
  });
  try {
    const name = `.bento-probe-${randomBytes(8).toString('hex')}`;
    prober.stdin.on('error', () => undefined); // it ended at once: all stay silent
    prober.stdin.end(JSON.stringify(targets.map((target) => `${target}/${name}`)));
    await listen(prober, (at, answer) => answers.set(targets[at] ?? '', answer), targets.length);
  } finally {
    leave(prober);
  }
  return answers;
}

/** Whether somebody answers for one mount, without waiting for long. */
export async function answers(target: string): Promise<boolean> {
  return (await probe([target])).get(target) === 'answers';
}

/** Until all have answered, or the time is over. */
async function listen(
  prober: ChildProcess & { stdout: Readable },
  onAnswer: (at: number, answer: Answer) => void,
  count: number,
): Promise<void> {
  await new Promise<void>((resolve) => {
    let timer = setTimeout(resolve, START_TIMEOUT_MS);
    let rest = '';
    let answered = 0;
    const onLine = (line: string): void => {
      if (line === 'ready') {
        clearTimeout(timer);
        timer = setTimeout(resolve, ANSWER_TIMEOUT_MS);
        return;
      }
      const [at, answer] = line.split(' ');
      onAnswer(Number(at), answer === 'gone' ? 'gone' : 'answers');
      answered += 1;
      if (answered === count) finish();
    };
    const finish = (): void => {
      clearTimeout(timer);
      resolve();
    };
    prober.stdout.on('data', (piece: Buffer) => {
      const lines = (rest + piece.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      lines.forEach(onLine);
    });
    prober.once('error', finish);
    prober.stdout.once('close', finish);
  });
}

/** The kernel ends it as soon as it can; nobody waits for that. */
function leave(prober: ChildProcess & { stdin: Writable; stdout: Readable }): void {
  prober.kill('SIGKILL');
  prober.stdin.destroy();
  prober.stdout.destroy();
  prober.unref();
}
