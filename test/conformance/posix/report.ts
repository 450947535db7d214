import { parseArgs } from 'node:util';

import { GROUPS } from './groups.ts';
import { ORIGINS } from './suite/judge.ts';
import type { Group } from './suite/check.ts';
import { ENGINES, type Engine } from './suite/engines.ts';
import { PosixWorld } from './suite/posix-world.ts';
import { describe, differences, expectations, type Difference } from './suite/run-checks.ts';

/**
 * Prints every difference from ext4, accepted or not:
 *
 *     node dist/test/conformance/posix/report.js [--engine overlay] [--group rename]
 */
const { values } = parseArgs({ options: { engine: { type: 'string' }, group: { type: 'string' } } });

const groups = GROUPS.filter(({ name }) => values.group === undefined || name === values.group);
const engines = ENGINES.filter(({ name }) => values.engine === undefined || name === values.engine);
const world = new PosixWorld(groups);

function print(where: string, all: readonly { group: Group; found: Difference[] }[]): void {
  const count = all.reduce((sum, { group }) => sum + group.checks.length, 0);
  const lines = all.flatMap(({ group, found }) => found.map((one) => `  ${group.name}: ${describe(one)}`));
  console.log([`${where}: ${count} checks, ${lines.length} differ`, ...lines].join('\n'));
}

async function reportEngine(engine: Engine): Promise<void> {
  for (const origin of ORIGINS) {
    const all = [];
    for (const group of groups) {
      const seen = await world.inFork(engine, origin, group);
      all.push({ group, found: differences(world.control(group), seen) });
    }
    print(`${engine.name}, ${origin}`, all);
  }
}

try {
  print(
    'ext4',
    groups.map((group) => ({ group, found: differences(expectations(group), world.control(group)) })),
  );
  for (const engine of engines) await reportEngine(engine);
} finally {
  await world.dispose();
}
