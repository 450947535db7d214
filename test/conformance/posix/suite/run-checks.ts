import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { closeAll } from '../calls/files.ts';
import { unmapAll } from '../calls/memory.ts';
import { umask } from '../calls/attributes.ts';
import type { Check, Group, Observation } from './check.ts';
import { makeFixture } from './fixture.ts';
import { resetPartner } from './partner.ts';

/** What each check of a group saw, by its claim. */
export type Observations = ReadonlyMap<string, Observation>;

function directoryOf(root: string, group: Group, check: Check): string {
  return path.join(root, group.name, group.shared === true ? 'shared' : String(group.checks.indexOf(check)));
}

export function makeFixtures(root: string, group: Group): void {
  const wanted = new Map(group.checks.map((check) => [directoryOf(root, group, check), check]));
  for (const [dir, check] of wanted) makeFixture(dir, check);
}

/** Runs the checks of a group in the fixtures that are there. */
export function runGroup(root: string, group: Group): Observations {
  return new Map(group.checks.map((check) => [check.claim, runCheck(directoryOf(root, group, check), check)]));
}

function runCheck(dir: string, check: Check): Observation {
  process.chdir(dir);
  const mask = umask(0o022);
  try {
    return check.run();
  } catch (error) {
    return `threw ${String(error)}`;
  } finally {
    umask(mask);
    unmapAll();
    closeAll();
    resetPartner();
    process.chdir('/');
  }
}

export interface Difference {
  claim: string;
  expected: Observation;
  found: Observation;
}

/** Checks that saw something else. */
export function differences(group: Group, expected: Observations, found: Observations): Difference[] {
  return group.checks
    .map(({ claim }) => ({ claim, expected: expected.get(claim) ?? null, found: found.get(claim) ?? null }))
    .filter((both) => !isDeepStrictEqual(both.expected, both.found));
}

/** What the checks themselves say is to be seen. */
export function expectations(group: Group): Observations {
  return new Map(group.checks.map(({ claim, expected }) => [claim, expected]));
}

export function describe({ claim, expected, found }: Difference): string {
  return `${claim}\n    expected ${JSON.stringify(expected)}\n    found    ${JSON.stringify(found)}`;
}
