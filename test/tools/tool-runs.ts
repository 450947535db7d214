import { spawn } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';

import type { ByteString } from '../../store/byte-string.ts';
import { compareByWalk, type Attribute } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { forkWith, WRITING_ENGINES, type WritingEngine } from '../fixtures/fork-engines.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** What somebody does with tools in a directory. */
export interface ToolRun {
  /** Fills the directory that is saved and then forked. */
  prepare: (place: Place) => void | Promise<void>;
  /** Works in a fork or a copy of that; what it returns has to be the same in both. */
  work: (place: Place) => Promise<string>;
  /** What the tools write by the clock or by chance. */
  ignore?: readonly ByteString[];
  /** All times are given, so that they are equal too. */
  setsTimes?: boolean;
  /** What is left is saved, opened elsewhere and compared. Default true. */
  saves?: boolean;
}

/** Where work is done. */
export interface Place {
  /** The same path, whether it is a fork or not: what holds its path in it is equal too. */
  dir: string;
  env: Readonly<Record<string, string>>;
}

const OWN_FILES: readonly ByteString[] = ['.', 'bento.yaml', '.bentoignore'];
const TOOL_TIMEOUT_MS = 180_000;

/** One test for each engine: the tools do in a fork what they do on the disk, and leave the same. */
export function testInForks(title: string, tools: readonly string[], run: ToolRun): void {
  for (const engine of WRITING_ENGINES) {
    testSerialNeeding({ root: true, fuse: true, tools: ['cp', ...tools] })(`${title} (${engine})`, async (t) => {
      await compareRuns(t, engine, run);
    });
  }
}

async function compareRuns(t: ExecutionContext, engine: WritingEngine, run: ToolRun): Promise<void> {
  const sandbox = newSandbox(t);
  const { env } = sandbox;
  await run.prepare({ dir: sandbox.workspace, env });
  (await sandbox.bento(['init'])).ok();
  writeFileSync(path.join(sandbox.workspace, '.bentoignore'), '');
  (await sandbox.bento(['save'])).ok();

  const dir = sandbox.path('work');
  const control = sandbox.path('control');
  await runTool({ dir: sandbox.root, env }, 'cp', ['-a', sandbox.workspace, dir]);
  const expected = await run.work({ dir, env });
  renameSync(dir, control);

  await forkWith(sandbox, engine, { target: dir });
  const found = await run.work({ dir, env });
  t.is(found, expected);
  forgetInodes();
  const times: Attribute[] = run.setsTimes === true ? [] : ['mtimeNs'];
  const ignore = [...OWN_FILES, ...(run.ignore ?? [])];
  t.deepEqual(compareByWalk(control, dir, { ignore, ignoreAttributes: times }), []);
  if (run.saves !== false) await assertSaves(t, sandbox, dir);
}

async function assertSaves(t: ExecutionContext, sandbox: Sandbox, dir: string): Promise<void> {
  const opened = sandbox.path('opened');
  (await sandbox.bento(['save', '--dir', dir])).ok();
  (await sandbox.bento(['open', '--copy', 'head', opened, '--dir', dir])).ok();
  t.deepEqual(compareByWalk(dir, opened, { ignore: OWN_FILES }), [], 'opened elsewhere after a save');
  const left = (await sandbox.bento(['diff', '--dir', dir, '--name-only'])).ok().stdout;
  t.is(left, '', 'nothing is unsaved after a save');
}

/** A name that overlayfs hard-linked while its inode was in use shows the lower's number until the kernel forgets it. */
function forgetInodes(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '2');
}

export interface ToolOptions {
  cwd?: string;
  env?: Readonly<Record<string, string>>;
  input?: string;
}

/** Runs a program. @returns what it printed @throws Error when it fails, with all it said */
export async function runTool(
  { dir, env }: Place,
  program: string,
  args: readonly string[],
  { cwd = dir, env: more = {}, input }: ToolOptions = {},
): Promise<string> {
  const child = spawn(program, args, {
    cwd,
    env: { ...env, LC_ALL: 'C.UTF-8', ...more },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: TOOL_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  const out: Buffer[] = [];
  const said: Buffer[] = [];
  child.stdout.on('data', (piece: Buffer) => out.push(piece));
  child.stderr.on('data', (piece: Buffer) => said.push(piece));
  child.stdin.on('error', () => undefined); // one that reads no input closes the pipe early
  child.stdin.end(input);
  const failure = await new Promise<string | undefined>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code === 0 ? undefined : `exited with ${code ?? signal ?? '?'}`));
  });
  const printed = Buffer.concat(out).toString('latin1');
  if (failure === undefined) return printed;
  const line = [program, ...args].join(' ').slice(0, 2000);
  throw new Error(`${line} in ${cwd} ${failure}\n${Buffer.concat(said).toString()}\n${printed.slice(-2000)}`);
}

/** Runs lines of shell that all have to succeed. @returns what they print, the complaints among it */
export async function shell(place: Place, script: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  return await runTool(place, 'sh', ['-euc', `exec 2>&1\n${script}`], { env });
}
