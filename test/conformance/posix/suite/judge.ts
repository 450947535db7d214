import { ACCEPTED } from './accepted.ts';
import type { Group } from './check.ts';
import { REMOVAL, type Difference } from './run-checks.ts';

/** Where the object of a check comes from: the read-only checkpoint below, or made in the fork. */
export type Origin = 'checkpoint' | 'fresh';
export const ORIGINS: readonly Origin[] = ['checkpoint', 'fresh'];

/** Differences that nobody accepted, and accepted ones that did not occur. */
export function judge(
  found: readonly Difference[],
  where: { engine: string; origin: Origin; group: Group },
): { unexpected: Difference[]; gone: string[] } {
  const prefix = `${where.group.name}: `;
  const accepted = ACCEPTED.filter(({ engine, origins }) => engine === where.engine && origins.includes(where.origin))
    .flatMap(({ checks }) => checks)
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length));
  const claims = found.map(({ claim }) => claim);
  return {
    unexpected: found.filter(({ claim }) => !accepted.includes(claim)),
    gone: accepted.filter((claim) => !claims.includes(claim)),
  };
}

/** Names in the table that belong to no check. */
export function acceptedButUnknown(groups: readonly Group[]): string[] {
  const claims = groups.map(({ name, checks }) =>
    [...checks.map(({ claim }) => claim), REMOVAL].map((claim) => `${name}: ${claim}`),
  );
  const known = new Set(claims.flat());
  return ACCEPTED.flatMap(({ checks }) => checks).filter((name) => !known.has(name));
}
