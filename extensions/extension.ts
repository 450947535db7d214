import { type Stats, statSync } from 'node:fs';
import { join } from 'node:path';

/**
 * What bento knows about one agent, language or tool, as plain data. Both functions are pure but for looking at the two
 * folders they are given, so a test needs only a temp folder.
 */
export interface Extension {
  readonly name: string;

  /** Whether this workspace uses the tool. */
  detect(workspace: string, home: string): boolean;

  /** Which paths go where. Also asked of an extension that `extensions:` names although it was not detected. */
  contribute(workspace: string, home: string): Contribution;
}

export interface Contribution {
  /**
   * Layer name to patterns in the gitignore dialect, relative to the workspace: a name without a slash matches at any
   * depth, a name with one is anchored at the root, and `x/**` takes the directory `x` whole.
   */
  layers: Record<string, string[]>;
  /** Patterns of files that no layer takes. */
  ignore: string[];
}

export function isFile(...path: string[]): boolean {
  return look(path)?.isFile() ?? false;
}

export function isDirectory(...path: string[]): boolean {
  return look(path)?.isDirectory() ?? false;
}

/** What cannot be looked at (a home of someone else, a symlink loop) counts as absent: detection never fails a save. */
function look(path: string[]): Stats | undefined {
  try {
    return statSync(join(...path), { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
