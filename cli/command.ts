import type { Colors, ProgressEvent } from './terminal.ts';

/**
 * What a command is. One file in cli/commands/ describes it once; help, parsing and `--json` come from the description.
 * `run` does the work and returns data, `render` makes text of the data; neither touches argv, the terminal or the exit
 * code.
 */
export interface CommandSpec<Options extends OptionSpecs, Data> {
  /** One word, or two for a command in a group: `env set`. */
  name: string;
  summary: string;
  /** `bento tag <checkpoint> <ref>` */
  usage: string;
  /** Longer help, printed between the summary and the flags. */
  details?: string;
  /** How many arguments it takes; absent: extra ones are ignored. */
  args?: { min: number; max: number };
  options?: Options;
  /**
   * Ctrl-C only aborts `ctx.signal`, and the command winds down by itself; a second Ctrl-C ends it at once. Without this
   * the first one does.
   */
  handlesInterrupt?: boolean;
  /** Signals are its own affair: none of them ends it or aborts `ctx.signal`. */
  handlesSignals?: boolean;
  /**
   * Needs contents of checkpoints, and what it did before it missed them does no harm when done twice: where they are still in
   * a registry, they are fetched and it is run again.
   */
  fetches?: boolean;
  /** What stands after `--` is for another program: `ctx.rest` has it as it is. */
  takesRest?: boolean;
  run(ctx: Context<Options>): Data | Promise<Data>;
  /** Lines for people, without the last newline; empty for none. */
  render(data: Data, ctx: Context<Options>): string;
  /** For commands whose result is a verdict, as in `diff --exit-code`; absent: 0. */
  exitCode?(data: Data, ctx: Context<Options>): number;
}

/** Option name in camelCase to its description: `skipSecretScan` is the flag `--skip-secret-scan`. */
export type OptionSpecs = Record<string, OptionSpec>;

export interface OptionSpec {
  /** `number` takes whole numbers; `list` may be given several times. */
  type: 'boolean' | 'string' | 'number' | 'list';
  help: string;
  /** One letter: `m` for `-m`. */
  short?: string;
  /** What the value is called in the help: `path` gives `--store <path>`. */
  value?: string;
}

interface OptionTypes {
  boolean: boolean;
  string: string | undefined;
  number: number | undefined;
  list: string[];
}

export type OptionValues<Options extends OptionSpecs> = { [Name in keyof Options]: OptionTypes[Options[Name]['type']] };

/** Everything a command gets from the outside. */
export interface Context<Options extends OptionSpecs = OptionSpecs> {
  /** The workspace directory (`--dir`), absolute. It may not exist. */
  dir: string;
  /** The user's home directory. */
  home: string;
  json: boolean;
  verbose: boolean;
  /** As many as `args` of the description allows; all of them when it says nothing. */
  args: readonly string[];
  /** Of a command that takes it: what stood after `--`. */
  rest: readonly string[];
  options: OptionValues<Options>;
  /** Aborted on SIGINT and SIGTERM. */
  signal: AbortSignal;
  /** For `render`; they leave text alone when stdout is not a terminal. */
  colors: Colors;
  /** Shows how far a long step is, on one line of stderr that is redrawn; nothing when stderr is not a terminal. */
  progress(event: ProgressEvent): void;
  /** One line on stderr, with and without `--json`: warnings and remarks. */
  note(text: string): void;
  /** For output that cannot wait for `render`, such as a stream or a long listing; bytes go out unchanged. Never with `--json`. */
  stdout(output: string | Uint8Array): void;
  stderr(text: string): void;
}

/** A command whose types are forgotten, for code that handles all of them alike. */
export type Command = CommandSpec<OptionSpecs, unknown>;

/** Gives `run` and `render` their types. */
export function defineCommand<const Options extends OptionSpecs, Data>(
  spec: CommandSpec<Options, Data>,
): CommandSpec<Options, Data> {
  return spec;
}

/** `skipSecretScan` to `skip-secret-scan`. */
export function flagName(option: string): string {
  return option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
