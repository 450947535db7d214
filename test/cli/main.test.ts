import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { parseArguments } from '../../cli/arguments.ts';
import { readCommandLine } from '../../cli/command-line.ts';
import { type Command, defineCommand } from '../../cli/command.ts';
import { findCommand } from '../../cli/registry.ts';
import { reportError } from '../../cli/report.ts';
import { colorsFor, formatProgress, formatSize, oneLine } from '../../cli/terminal.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

interface Result {
  status: number | null;
  stdout: string;
  stderr: string;
}

function bento(args: string[], env: NodeJS.ProcessEnv = {}): Result {
  const home = mkdtempSync(join(tmpdir(), 'bento-home-'));
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HOME: home, ...env },
  });
  return { status, stdout, stderr };
}

function workspace(...files: string[]): string {
  const dir = mkdtempSync(join(tmpdir(), 'bento-cli-'));
  for (const file of files) writeFileSync(join(dir, file), '');
  return dir;
}

test('bento without a command, --help and help print the help and exit 0', (t) => {
  for (const args of [[], ['--help'], ['-h'], ['help'], ['--json']]) {
    const { status, stdout, stderr } = bento(args);
    t.is(status, 0);
    t.is(stderr, '');
    t.regex(stdout, /Commands:\n {2}init {3,}Start tracking this directory\n/);
  }
});

test('bento <command> --help and bento help <command> describe the command', (t) => {
  const { status, stdout } = bento(['init', '--help']);
  t.is(status, 0);
  t.regex(stdout, /--task <text>/);
  t.regex(stdout, /-v, --verbose/);
  t.is(bento(['help', 'init']).stdout, stdout);
});

test('bento --version prints the version of the package, on the root only', (t) => {
  t.regex(bento(['--version']).stdout, /^bento version \S+\n$/);
  t.is(bento(['init', '--version']).stderr, 'Error: unknown flag: --version\n');
});

test('usage errors are in the words of the original and exit 2', (t) => {
  const cases: [string[], string][] = [
    [['frobnicate'], `Error: unknown command "frobnicate" for "bento"\nRun 'bento --help' for usage.\n`],
    [['help', 'frobnicate'], `Error: unknown command "frobnicate" for "bento"\nRun 'bento --help' for usage.\n`],
    [['constructor'], `Error: unknown command "constructor" for "bento"\nRun 'bento --help' for usage.\n`],
    [['init', '--frob'], 'Error: unknown flag: --frob\n'],
    [['init', '--frob=x'], 'Error: unknown flag: --frob\n'],
    [['--frob', 'init'], 'Error: unknown flag: --frob\n'],
    [['init', '-x'], "Error: unknown shorthand flag: 'x' in -x\n"],
    [['init', '--task'], 'Error: flag needs an argument: --task\n'],
  ];
  for (const [args, stderr] of cases) t.deepEqual(bento(args), { status: 2, stdout: '', stderr }, args.join(' '));
});

test('errors with --json are one JSON line on stderr', (t) => {
  const { status, stdout, stderr } = bento(['frobnicate', '--json']);
  t.is(status, 2);
  t.is(stdout, '');
  const hint = "Run 'bento --help' for usage.";
  t.deepEqual(JSON.parse(stderr), {
    error: { code: 'USAGE', message: 'unknown command "frobnicate" for "bento"', hint },
  });
});

test('bento init prints the lines of the original and writes both files', (t) => {
  const dir = workspace('AGENTS.md', 'package.json');
  const { status, stdout, stderr } = bento(['init', '--dir', dir, '--task', 'a task'], { XDG_DATA_HOME: '/data' });
  t.is(stderr, '');
  t.is(status, 0);
  t.is(
    stdout,
    'Detected extensions: agents-md, node\nCreated bento.yaml\nStore: /data/bento/store (local)\nCreated .bentoignore\n',
  );
  t.regex(
    readFileSync(join(dir, 'bento.yaml'), 'utf8'),
    /^id: ws-[0-9a-f]{16}\ntask: a task\nstore: \/data\/bento\/store\n/,
  );
});

test('bento init refuses a directory that is tracked already, a missing one and a bad id', (t) => {
  const dir = workspace('bento.yaml', '.bentoignore');
  t.deepEqual(bento(['init', '--dir', dir]), {
    status: 1,
    stdout: '',
    stderr: `Error: bento.yaml already exists in ${dir}\n`,
  });
  t.is(bento(['init', `--dir=${dir}/gone`]).status, 21);
  t.is(bento(['init', '--dir', workspace(), '--id', 'blobs']).status, 4);
});

test('bento init --json prints the data; flags may stand before the command; extra arguments are ignored', (t) => {
  const dir = workspace('.bentoignore');
  const { stdout } = bento(['--dir', dir, '--json', 'init', 'extra', '--id=shared', '--store', '/s']);
  t.deepEqual(JSON.parse(stdout), { dir, id: 'shared', store: '/s', extensions: [], createdIgnore: false });
  t.true(stdout.startsWith('{\n  "dir"'));
});

test('bento into a closed pipe is quiet', async (t) => {
  const child = spawn(process.execPath, [MAIN, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (data) => (stderr += String(data)));
  const status = await new Promise((resolve) => child.on('close', resolve));
  t.is(stderr, '');
  t.is(status, 0);
});

const COMMAND: Command = defineCommand({
  name: 'try',
  summary: 'Try things',
  usage: 'bento try <a> [b]',
  args: { min: 1, max: 2 },
  options: {
    message: { type: 'string', short: 'm', help: '' },
    skipSecretScan: { type: 'boolean', short: 's', help: '' },
    noMount: { type: 'boolean', help: '' },
    keep: { type: 'number', help: '' },
    exclude: { type: 'list', short: 'e', help: '' },
  },
  run: () => null,
  render: () => '',
});

function parse(...words: string[]): Record<string, unknown> {
  const { args, options } = parseArguments(COMMAND, words);
  return { args, ...options };
}

const NOTHING = { message: undefined, skipSecretScan: false, noMount: false, keep: undefined, exclude: [] };

test('parseArguments() takes flags before, between and after arguments, in every form', (t) => {
  t.deepEqual(parse('a'), { args: ['a'], ...NOTHING });
  for (const words of ['-m v a', 'a -m v', 'a -mv', 'a --message v', '--message=v a']) {
    t.deepEqual(parse(...words.split(' ')), { args: ['a'], ...NOTHING, message: 'v' }, words);
  }
  t.deepEqual(parse('a', '-smv', 'b')['message'], 'v');
  t.deepEqual(parse('-e', 'x', 'a', '--exclude=y', 'b')['exclude'], ['x', 'y']);
  t.deepEqual(parse('--', '-a', '--skip-secret-scan=true')['args'], ['-a', '--skip-secret-scan=true']);
  t.is(parse('a', '--message=')['message'], '');
  t.is(parse('a', '--message=a=b')['message'], 'a=b');
});

test('parseArguments() takes booleans with and without a value, and names that begin with no-', (t) => {
  t.true(parse('a', '--skip-secret-scan')['skipSecretScan']);
  t.true(parse('a', '--skip-secret-scan=true')['skipSecretScan']);
  t.false(parse('a', '--skip-secret-scan=false')['skipSecretScan']);
  t.true(parse('a', '--no-mount')['noMount']);
});

test('parseArguments() reads whole numbers only', (t) => {
  t.is(parse('a', '--keep', '0')['keep'], 0);
  t.is(parse('a', '--keep=-3')['keep'], -3);
  t.throws(() => parse('a', '--keep', 'x'), { message: 'invalid argument "x" for "--keep" flag: not a whole number' });
});

test('parseArguments() counts arguments in the words of the original', (t) => {
  t.throws(() => parse(), { message: 'accepts between 1 and 2 arg(s), received 0', code: 'USAGE' });
  const counted = (min: number, max: number, ...words: string[]) =>
    parseArguments({ ...COMMAND, args: { min, max } }, words).args;
  t.throws(() => counted(2, 2, 'a'), { message: 'accepts 2 arg(s), received 1' });
  t.throws(() => counted(0, 1, 'a', 'b'), { message: 'accepts at most 1 arg(s), received 2' });
  t.deepEqual(parseArguments(COMMAND, ['--help']).args, []);
});

test('readCommandLine() finds the command behind flags', (t) => {
  const find = (...words: string[]) => readCommandLine(words).words;
  t.deepEqual(find('--dir', 'save', 'list'), ['list']);
  t.deepEqual(find('--dir=x', '-v', '--json', 'env', 'set', 'A=1', 'x'), ['env', 'set', 'A=1']);
  t.deepEqual(find('-m', 'text', 'save'), ['save']);
  t.deepEqual(find('--', 'save'), []);
  t.deepEqual(readCommandLine(['--dir', 'x', 'env', '-v', 'set', 'env']).without(2), ['--dir', 'x', '-v', 'env']);
  t.true(readCommandLine(['--version', 'save']).wantsVersion);
  t.false(readCommandLine(['save', '--version']).wantsVersion);
});

test('findCommand() knows commands, groups and what stands in for them', (t) => {
  const names = ['save', 'recipients add', 'sessions', 'sessions inspect'];
  t.deepEqual(findCommand(['save', 'x'], names), { kind: 'command', name: 'save', wordCount: 1 });
  t.deepEqual(findCommand(['r', 'add'], names), { kind: 'command', name: 'recipients add', wordCount: 2 });
  t.deepEqual(findCommand(['recipients'], names), { kind: 'group', name: 'recipients' });
  t.deepEqual(findCommand(['recipients', 'x'], names), { kind: 'unknown', word: 'x', parent: 'bento recipients' });
  t.deepEqual(findCommand(['sessions', 'x'], names), { kind: 'command', name: 'sessions', wordCount: 1 });
  t.deepEqual(findCommand(['sessions', 'inspect'], names), { kind: 'command', name: 'sessions inspect', wordCount: 2 });
});

test('reportError() prints the message, then the hint, and the exit code of the error', (t) => {
  const plain = { json: false, debug: false };
  const error = new BentoError('REF_NOT_FOUND', 'no checkpoint is called\x1b[31m x\ny', { hint: 'bento list' });
  t.deepEqual(reportError(error, '', plain), {
    text: 'Error: no checkpoint is called\ufffd[31m x y\n  bento list\n',
    exitCode: 10,
  });
  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  t.regex(reportError(full, 'running bento save', plain).text, /^Error: no space left while running bento save\n/);
  t.is(reportError(full, '', plain).exitCode, 40);
  const missing = Object.assign(new Error("ENOENT: no such file or directory, open '/x'"), { code: 'ENOENT' });
  t.deepEqual(reportError(missing, '', plain), { text: `Error: ${missing.message}\n`, exitCode: 1 });
  t.regex(
    reportError(new TypeError('x is undefined'), '', { json: false, debug: true }).text,
    /BENTO_DEBUG[^]*\n {4}at /,
  );
  t.is(reportError('thrown text', '', plain).exitCode, 1);
});

test('formatSize() and shortDigest() write as the original does', (t) => {
  t.deepEqual([0, 1023, 1024, 1536, 1024 ** 2, 5 * 1024 ** 3, 2048 * 1024 ** 3].map(formatSize), ['0B', '1023B', '1.0KB', '1.5KB', '1.0MB', '5.0GB', '2048.0GB']); // prettier-ignore
  t.is(shortDigest(`sha256:${'a'.repeat(64)}`), `sha256:${'a'.repeat(12)}...`);
});

test('colorsFor() colours terminals only', (t) => {
  t.is(colorsFor({ isTTY: false }, {}).green('x'), 'x');
  t.is(colorsFor({ isTTY: true }, { NO_COLOR: '1' }).green('x'), 'x');
  t.is(colorsFor({ isTTY: true }, {}).green('x'), '\x1b[32mx\x1b[39m');
});

test('formatProgress() shows counts and sizes on one line', (t) => {
  t.is(formatProgress({ label: 'Scanning' }), 'Scanning...');
  t.is(formatProgress({ label: 'Packing', done: 2, total: 10 }), 'Packing: 2/10');
  t.is(formatProgress({ label: 'Fetching', done: 1536, unit: 'bytes' }), 'Fetching: 1.5KB');
  t.is(oneLine('a\n b\x07'), 'a b\ufffd');
});
