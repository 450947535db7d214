import { Command as Parser, CommanderError, Option } from 'commander';
import { BentoError } from '../store/errors.ts';
import { type Command, flagName, type OptionSpec, type OptionSpecs } from './command.ts';

/** The flags that every command has. */
export const GLOBAL_OPTIONS = {
  dir: { type: 'string', value: 'path', help: 'workspace directory (default: the current one)' },
  json: { type: 'boolean', help: 'print the result as JSON' },
  verbose: { type: 'boolean', short: 'v', help: 'say more' },
  help: { type: 'boolean', short: 'h', help: 'print this help' },
} as const satisfies OptionSpecs;

/** A command line, understood. */
export interface ParsedArguments {
  args: string[];
  rest: readonly string[];
  options: Record<string, unknown>;
  dir: string;
  json: boolean;
  verbose: boolean;
  help: boolean;
}

/**
 * Parses the words after the command's own, in the forms people know from the original: flags before, between and after
 * arguments, `--flag value`, `--flag=value`, `-m value`, `-mvalue`, `-vm value`, `--flag=false`, and `--` to end them.
 *
 * @throws BentoError USAGE, in cobra's words
 */
export function parseArguments(command: Command, all: readonly string[]): ParsedArguments {
  const specs: OptionSpecs = { ...command.options, ...GLOBAL_OPTIONS };
  const { words, rest } = command.takesRest === true ? splitAtDashes(all) : { words: all, rest: [] };
  const flags = parseFlags(specs, words);
  const valuesOf = (names: OptionSpecs) =>
    Object.fromEntries(Object.keys(names).map((name) => [name, flags.value(name)]));
  const { dir, json, verbose, help } = valuesOf(GLOBAL_OPTIONS);
  const isHelp = help === true;
  if (!isHelp) checkCount(command, flags.args);
  return {
    args: flags.args.slice(0, command.args?.max),
    rest,
    options: valuesOf(command.options ?? {}),
    dir: typeof dir === 'string' && dir !== '' ? dir : '.',
    json: json === true,
    verbose: verbose === true,
    help: isHelp,
  };
}

function splitAtDashes(all: readonly string[]): { words: readonly string[]; rest: readonly string[] } {
  const at = all.indexOf('--');
  return at < 0 ? { words: all, rest: [] } : { words: all.slice(0, at), rest: all.slice(at + 1) };
}

/** For a command line without a command: whatever it has must be a flag that bento itself knows. */
export function checkGlobalFlags(words: readonly string[]): void {
  parseFlags(GLOBAL_OPTIONS, words);
}

interface ParsedFlags {
  args: string[];
  value(name: string): unknown;
}

function parseFlags(specs: OptionSpecs, words: readonly string[]): ParsedFlags {
  const parser = new Parser()
    .argument('[args...]')
    .helpOption(false)
    .exitOverride()
    .showSuggestionAfterError(false)
    .configureOutput({ writeErr: () => undefined });
  const options = new Map(Object.entries(specs).map(([name, spec]) => [name, toOption(name, spec)]));
  for (const option of options.values()) parser.addOption(option);
  try {
    parser.parse(expandBooleans(specs, words), { from: 'user' });
  } catch (error) {
    throw error instanceof CommanderError ? usageError(error, words) : error;
  }
  return { args: parser.args, value: (name) => valueOf(parser, options.get(name), specs[name]) };
}

function toOption(name: string, spec: OptionSpec): Option {
  const flags = `${spec.short === undefined ? '' : `-${spec.short}, `}--${flagName(name)}`;
  if (spec.type === 'boolean') return new Option(flags);
  const option = new Option(`${flags} <${spec.value ?? spec.type}>`);
  if (spec.type === 'number') option.argParser((text) => toWholeNumber(text, flags));
  if (spec.type === 'list') option.argParser((text, before: string[] | undefined) => [...(before ?? []), text]);
  return option;
}

function toWholeNumber(text: string, flags: string): number {
  const value = Number(text);
  if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new BentoError('USAGE', `invalid argument "${text}" for "${flags}" flag: not a whole number`);
}

/** commander takes `--no-x` for the opposite of a flag `x`; ours are called what they are called. */
function valueOf(parser: Parser, option: Option | undefined, spec: OptionSpec | undefined): unknown {
  if (option === undefined || spec === undefined) return undefined;
  const value: unknown = parser.getOptionValue(option.attributeName());
  if (spec.type === 'boolean') return option.negate ? value === false : value === true;
  return spec.type === 'list' ? (value ?? []) : value;
}

/** `--flag=true` and `--flag=false`, which commander does not know. */
function expandBooleans(specs: OptionSpecs, words: readonly string[]): string[] {
  const booleans = new Set(
    Object.keys(specs)
      .filter((name) => specs[name]?.type === 'boolean')
      .map(flagName),
  );
  const end = words.indexOf('--');
  return words.flatMap((word, at) => {
    const [, name = '', value] = /^--([^=]+)=(true|false)$/.exec(word) ?? [];
    if ((end >= 0 && at > end) || !booleans.has(name)) return [word];
    return value === 'true' ? [`--${name}`] : [];
  });
}

function checkCount(command: Command, { length }: readonly string[]): void {
  if (command.args === undefined) return;
  const { min, max } = command.args;
  if (length >= min && length <= max) return;
  throw new BentoError('USAGE', `accepts ${countRule(min, max)}, received ${length}`, {
    hint: `Usage: ${command.usage}`,
  });
}

function countRule(min: number, max: number): string {
  if (min === max) return `${min} arg(s)`;
  return min === 0 ? `at most ${max} arg(s)` : `between ${min} and ${max} arg(s)`;
}

/** Says it as the original's parser did, which scripts and people know. */
function usageError(error: CommanderError, words: readonly string[]): BentoError {
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? '';
  if (error.code === 'commander.unknownOption') return unknownFlag(quoted, words);
  if (error.code === 'commander.optionMissingArgument') {
    return new BentoError('USAGE', `flag needs an argument: ${/--[\w-]+/.exec(quoted)?.[0] ?? quoted}`);
  }
  return new BentoError('USAGE', error.message.replace(/^error: /, ''));
}

/** @param flag - as it was written, possibly with `=value` */
function unknownFlag(flag: string, words: readonly string[]): BentoError {
  if (flag.startsWith('--')) return new BentoError('USAGE', `unknown flag: ${flag.replace(/=.*$/s, '')}`);
  const letter = flag.slice(1, 2);
  const word = words.find((one) => /^-[^-]/.test(one) && one.includes(letter)) ?? flag;
  return new BentoError('USAGE', `unknown shorthand flag: '${letter}' in ${word}`);
}
