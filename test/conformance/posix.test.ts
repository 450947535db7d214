import { tmpdir } from 'node:os';

import test from 'ava';

import { whatIsMissing } from '../fixtures/machine.ts';
import { testSerialIf } from '../fixtures/external-tools.ts';
import { GROUPS } from './posix/groups.ts';
import { acceptedButUnknown, judge, ORIGINS } from './posix/suite/judge.ts';
import { ENGINES } from './posix/suite/engines.ts';
import { PosixWorld, isExt4 } from './posix/suite/posix-world.ts';
import { describe, differences, expectations } from './posix/suite/run-checks.ts';

const missing = whatIsMissing({ root: true, fuse: true });
const reason = missing ?? 'the temporary folder is not on ext4';
const testPosix = testSerialIf(missing === undefined && isExt4(tmpdir()), reason);

const world = new PosixWorld(GROUPS);
test.after.always(() => world.dispose());

test('a check is known by its name', (t) => {
  const names = GROUPS.flatMap(({ name, checks }) => checks.map(({ claim }) => `${name}: ${claim}`));
  t.deepEqual(
    names.filter((name, at) => names.indexOf(name) !== at),
    [],
  );
  t.deepEqual(acceptedButUnknown(GROUPS), []);
  t.log(`${names.length} checks in ${GROUPS.length} groups`);
});

for (const group of GROUPS) {
  testPosix(`ext4, the control, ${group.name}`, (t) => {
    const found = differences(expectations(group), world.control(group));
    t.is(found.map(describe).join('\n'), '');
    t.log(`${group.checks.length} checks`);
  });
}

for (const engine of ENGINES) {
  for (const group of GROUPS) {
    testPosix(`${engine.name}, ${group.name}`, async (t) => {
      const lines = [];
      for (const origin of ORIGINS) {
        const found = differences(world.control(group), await world.inFork(engine, origin, group));
        const { unexpected, gone } = judge(found, { engine: engine.name, origin, group });
        lines.push(...unexpected.map((one) => `${origin}: ${describe(one)}`));
        lines.push(
          ...gone.map((claim) => `${origin}: ${claim}\n    is accepted as a difference, but equal to ext4 now`),
        );
      }
      t.is(lines.join('\n'), '');
      t.log(`${group.checks.length * ORIGINS.length} checks`);
    });
  }
}
