import { type Command, flagName, type OptionSpecs } from './command.ts';
import { GLOBAL_OPTIONS } from './arguments.ts';
import { COMMANDS, loadCommand } from './registry.ts';

const INTRODUCTION = `bento checkpoints everything git misses in an AI-agent workspace: dependencies, agent memory,
sessions, configuration and code. Checkpoints are OCI images that mount, fork and open at once.`;

/** Help for everything, or for the commands of one group. */
export async function rootHelp(group?: string): Promise<string> {
  const names = Object.keys(COMMANDS).filter((name) => group === undefined || name.startsWith(`${group} `));
  const commands = await Promise.all(names.map(loadCommand));
  const head = group === undefined ? INTRODUCTION : `Commands of bento ${group}`;
  return sections([
    head,
    section('Usage', [`bento ${group === undefined ? '' : `${group} `}<command> [arguments] [flags]`]),
    section('Commands', columns(commands.map(({ name, summary }) => [name, summary]))),
    section('Flags', columns([...flagRows(GLOBAL_OPTIONS), ...(group === undefined ? [VERSION_ROW] : [])])),
    `bento ${group === undefined ? '' : `${group} `}<command> --help says more about a command.`,
  ]);
}

export function commandHelp(command: Command): string {
  return sections([
    command.summary,
    command.details,
    section('Usage', [command.usage]),
    section('Flags', columns(flagRows(command.options ?? {}))),
    section('Flags of every command', columns(flagRows(GLOBAL_OPTIONS))),
  ]);
}

const VERSION_ROW: [string, string] = ['    --version', 'print the version'];

function flagRows(options: OptionSpecs): [string, string][] {
  return Object.entries(options).map(([name, spec]) => {
    const short = spec.short === undefined ? '   ' : `-${spec.short},`;
    const value = spec.type === 'boolean' ? '' : ` <${spec.value ?? spec.type}>`;
    return [`${short} --${flagName(name)}${value}`, spec.help];
  });
}

function columns(rows: [string, string][]): string[] {
  const width = Math.max(0, ...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `${left.padEnd(width)}   ${right}`);
}

function section(title: string, lines: string[]): string | undefined {
  return lines.length === 0 ? undefined : [`${title}:`, ...lines.map((line) => `  ${line}`)].join('\n');
}

function sections(parts: (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined).join('\n\n');
}
