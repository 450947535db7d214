import type { Command } from './command.ts';

/**
 * Every command, in the order of the help. Each is imported when it is run, so a start pays for one command only; a name
 * of two words is a command in a group.
 */
export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  init: async () => (await import('./commands/init.ts')).init,
  save: async () => (await import('./commands/save.ts')).save,
  status: async () => (await import('./commands/status.ts')).status,
  list: async () => (await import('./commands/list.ts')).list,
  inspect: async () => (await import('./commands/inspect.ts')).inspect,
  diff: async () => (await import('./commands/diff.ts')).diff,
  tag: async () => (await import('./commands/tag.ts')).tag,
  attach: async () => (await import('./commands/attach.ts')).attach,
  'attach get': async () => (await import('./commands/attach-get.ts')).attachGet,
  'attach rm': async () => (await import('./commands/attach-rm.ts')).attachRm,
  open: async () => (await import('./commands/open.ts')).open,
  push: async () => (await import('./commands/push.ts')).push,
  pull: async () => (await import('./commands/pull.ts')).pull,
  mount: async () => (await import('./commands/mount.ts')).mount,
  mounts: async () => (await import('./commands/mounts.ts')).mounts,
  unmount: async () => (await import('./commands/unmount.ts')).unmount,
  fork: async () => (await import('./commands/fork.ts')).fork,
  exec: async () => (await import('./commands/exec.ts')).exec,
  close: async () => (await import('./commands/close.ts')).close,
  login: async () => (await import('./commands/login.ts')).login,
  logout: async () => (await import('./commands/logout.ts')).logout,
  export: async () => (await import('./commands/export.ts')).exportCommand,
  import: async () => (await import('./commands/import.ts')).importCommand,
  gc: async () => (await import('./commands/gc.ts')).gc,
  verify: async () => (await import('./commands/verify.ts')).verify,
  doctor: async () => (await import('./commands/doctor.ts')).doctor,
};

/** Other names for commands and groups. */
const ALIASES: Readonly<Record<string, string>> = { r: 'recipients' };

/** What the first words of a command line mean. */
export type Found =
  | { kind: 'command'; name: string; wordCount: 1 | 2 }
  | { kind: 'group'; name: string }
  | { kind: 'unknown'; word: string; parent: string };

/** @param words - the first one or two words that are not flags */
export function findCommand(words: readonly string[], names: readonly string[] = Object.keys(COMMANDS)): Found {
  const [given = '', second] = words;
  const first = Object.hasOwn(ALIASES, given) ? (ALIASES[given] ?? given) : given;
  const both = `${first} ${second ?? ''}`;
  if (names.includes(both)) return { kind: 'command', name: both, wordCount: 2 };
  if (names.includes(first)) return { kind: 'command', name: first, wordCount: 1 };
  const isGroup = names.some((name) => name.startsWith(`${first} `));
  if (!isGroup) return { kind: 'unknown', word: given, parent: 'bento' };
  return second === undefined
    ? { kind: 'group', name: first }
    : { kind: 'unknown', word: second, parent: `bento ${first}` };
}

/** @param name - as `findCommand` gives it */
export async function loadCommand(name: string): Promise<Command> {
  const load = COMMANDS[name];
  if (load === undefined) throw new RangeError(`no command is called ${name}`);
  return load();
}
