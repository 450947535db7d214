import { constants, homedir } from 'node:os';
import { resolve } from 'node:path';
import { BentoError } from '../store/errors.ts';
import type { ParsedArguments } from './arguments.ts';
import type { Command, Context } from './command.ts';
import { type CommandLine, readCommandLine } from './command-line.ts';
import { findCommand, type Found, loadCommand } from './registry.ts';
import { reportError } from './report.ts';
import { colorsFor, oneLine, ProgressLine } from './terminal.ts';
import { programVersion } from '../store/version.ts';

/**
 * The only place that touches argv, the terminal and the exit code. What a run does not need is imported late: the
 * commands, the parser, the help.
 */

const progressLine = new ProgressLine(process.stderr);
const interrupt = new AbortController();

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error; // `bento list | head -1` is no failure
  });
}

process.on('uncaughtException', (error) => process.exit(fail(error))); // rejections that nobody awaits end here too
process.exitCode = 1; // should nothing be left to wait for, although no end was reached
void main(process.argv.slice(2))
  .catch(fail)
  .then((code) => {
    process.exitCode = code;
  });

async function main(words: readonly string[]): Promise<number> {
  const line = readCommandLine(words);
  if (line.wantsVersion) return print(`bento version ${programVersion()}`);
  if (line.words.length === 0) return runWithoutCommand(words);
  if (line.words[0] === 'help') return showHelp(line.words.slice(1));
  return dispatch(findCommand(line.words), line);
}

/** Prints what went wrong. @returns the exit code */
function fail(error: unknown): number {
  const words = process.argv.slice(2);
  const during = `running bento ${readCommandLine(words).words[0] ?? ''}`.trimEnd();
  const own = words.slice(0, words.includes('--') ? words.indexOf('--') : undefined);
  const report = reportError(error, during, { json: own.includes('--json'), debug: isDebug() });
  progressLine.clear();
  process.stderr.write(report.text);
  return interrupt.signal.aborted ? exitCodeOfSignal(interrupt.signal.reason) : report.exitCode;
}

async function dispatch(found: Found, line: CommandLine): Promise<number> {
  if (found.kind === 'unknown') throw unknownCommand(found);
  if (found.kind === 'group') return showHelp([found.name]);
  return runCommand(await loadCommand(found.name), line.without(found.wordCount));
}

async function runCommand(command: Command, words: string[]): Promise<number> {
  const parsed = withoutWords(command, words) ?? (await import('./arguments.ts')).parseArguments(command, words);
  if (parsed.help) return showHelp(command.name.split(' '));
  if (command.handlesSignals !== true) listenForSignals(command.handlesInterrupt === true);
  const ctx = contextFor(parsed);
  const data = command.fetches === true ? await runFetching(command, ctx) : await command.run(ctx);
  progressLine.clear();
  print(ctx.json ? JSON.stringify(data ?? null, null, 2) : command.render(data, ctx));
  return command.exitCode?.(data, ctx) ?? 0;
}

/** Each time that it misses bytes of a blob, the whole of it is fetched; so it comes to an end. */
async function runFetching(command: Command, ctx: Context): Promise<unknown> {
  for (;;) {
    try {
      return await command.run(ctx);
    } catch (error) {
      const { fetchMissing } = await import('./lazy.ts');
      if (!(await fetchMissing(error, ctx))) throw error;
    }
  }
}

/** What the parser makes of no words at all, without loading it: `bento status` is run often. */
function withoutWords({ args, options = {} }: Command, words: readonly string[]): ParsedArguments | undefined {
  if (words.length > 0 || (args?.min ?? 0) > 0) return undefined;
  const defaults = { boolean: false, string: undefined, number: undefined, list: [] };
  const values = Object.entries(options).map(([name, { type }]): [string, unknown] => [name, defaults[type]]);
  return {
    args: [],
    rest: [],
    options: Object.fromEntries<unknown>(values),
    dir: '.',
    json: false,
    verbose: false,
    help: false,
  };
}

function contextFor({ args, rest, options, dir, json, verbose }: ParsedArguments): Context {
  const write = (stream: NodeJS.WriteStream) => (output: string | Uint8Array) => {
    progressLine.clear();
    stream.write(output);
  };
  const stderr = write(process.stderr);
  return {
    dir: resolve(dir),
    home: homedir(),
    json,
    verbose,
    args,
    rest,
    options: options as Context['options'], // parsed by the same description that gives the type
    signal: interrupt.signal,
    colors: colorsFor(process.stdout),
    progress: (event) => progressLine.update(event),
    note: (text) => stderr(`${oneLine(text)}\n`),
    stdout: json ? () => undefined : write(process.stdout),
    stderr,
  };
}

/** The first signal aborts the command's own way if it has one; otherwise, and the second time, it ends the process. */
function listenForSignals(isHandled: boolean): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      const endsNow = !isHandled || interrupt.signal.aborted;
      interrupt.abort(signal);
      if (!endsNow) return;
      progressLine.clear();
      process.exit(exitCodeOfSignal(signal)); // files are replaced by renames, so nothing is left half-written
    });
  }
}

/** 130 for SIGINT, 143 for SIGTERM, as shells have it. */
function exitCodeOfSignal(signal: unknown): number {
  return 128 + (signal === 'SIGTERM' ? constants.signals.SIGTERM : constants.signals.SIGINT);
}

async function runWithoutCommand(words: readonly string[]): Promise<number> {
  const { checkGlobalFlags } = await import('./arguments.ts');
  checkGlobalFlags(words);
  return showHelp([]);
}

async function showHelp(words: readonly string[]): Promise<number> {
  const { commandHelp, rootHelp } = await import('./help.ts');
  if (words.length === 0) return print(await rootHelp());
  const found = findCommand(words);
  if (found.kind === 'unknown') throw unknownCommand(found);
  return print(found.kind === 'group' ? await rootHelp(found.name) : commandHelp(await loadCommand(found.name)));
}

function unknownCommand({ word, parent }: { word: string; parent: string }): BentoError {
  return new BentoError('USAGE', `unknown command "${word}" for "${parent}"`, {
    hint: `Run '${parent} --help' for usage.`,
  });
}

function print(text: string): number {
  if (text !== '') process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
  return 0;
}

function isDebug(): boolean {
  return !['', '0', undefined].includes(process.env['BENTO_DEBUG']);
}
