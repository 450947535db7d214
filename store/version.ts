import { readFileSync } from 'node:fs';

/** The version of this program, as its package says. */
export function programVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

/** Whether version `a` came out after version `b`; only the three numbers count. */
export function isNewer(a: string, b: string): boolean {
  const [mine, theirs] = [a, b].map((version) => version.split(/[.+-]/, 3).map(Number));
  const at = [0, 1, 2].find((part) => mine?.[part] !== theirs?.[part]);
  return at !== undefined && (mine?.[at] ?? 0) > (theirs?.[at] ?? 0);
}
