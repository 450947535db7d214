import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
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

/** The last observation of every group, on whatever its checks left. */
export const REMOVAL = 'rm -rf removes what is left';
const REMOVED = { status: 0, stderr: '', left: false };

/**
 * Runs the checks of a group in the fixtures that are there, and removes these right afterwards: what lives shorter than a
 * write-back costs the disk nothing.
 */
export function runGroup(root: string, group: Group): Observations {
  const seen = group.checks.map((check) => [check.claim, runCheck(directoryOf(root, group, check), check)] as const);
  return new Map<string, Observation>([...seen, [REMOVAL, removeAll(path.join(root, group.name))]]);
}

/** By rm, which can remove what is deeper than a path is long. */
function removeAll(dir: string): Observation {
  const { status, stderr } = spawnSync('rm', ['-rf', dir], { encoding: 'latin1' });
  return { status, stderr: stderr.split('\n', 1)[0] ?? '', left: existsSync(dir) };
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
export function differences(expected: Observations, found: Observations): Difference[] {
  return [...expected]
    .map(([claim, wanted]) => ({ claim, expected: wanted, found: found.get(claim) ?? null }))
    .filter((both) => !isDeepStrictEqual(both.expected, both.found));
}

/** What the checks themselves say is to be seen. */
export function expectations(group: Group): Observations {
  const written = group.checks.map(({ claim, expected }) => [claim, expected] as const);
  return new Map<string, Observation>([...written, [REMOVAL, REMOVED]]);
}

export function describe({ claim, expected, found }: Difference): string {
  return `${claim}\n    expected ${JSON.stringify(expected)}\n    found    ${JSON.stringify(found)}`;
}
