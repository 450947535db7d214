import test, { type ExecutionContext } from 'ava';

import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { Recovery } from '../../../fs/overlay/recovery.ts';
import { CowFolder } from '../../fixtures/cow-trees.ts';
import { isRoot } from '../../fixtures/machine.ts';
import { Random } from '../../fixtures/random.ts';
import { factsOfCow, factsOfPlain } from './cow-facts.ts';
import { CowPair } from './cow-pair.ts';
import { randomLower, takeStep } from './cow-steps.ts';

const STEPS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 120);
const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '1,2,3,4,5,6').split(',').map(Number);

/** @param tree - who looks: somebody who knows nothing yet leaves unknown what the workspace's own process need not know */
function expectSame(t: ExecutionContext, pair: CowPair, when: string, tree = pair.tree): void {
  const [found, wanted] = [factsOfCow(tree), factsOfPlain(pair.plain)];
  const differ = [
    ...found.filter((line) => !wanted.includes(line)).map((line) => `found   ${line}`),
    ...wanted.filter((line) => !found.includes(line)).map((line) => `wanted  ${line}`),
    ...pair.heldDifferences(),
  ];
  if (differ.length > 0) throw new Error([...pair.history, when, ...differ].join('\n'));
  t.pass();
}

/** The process dies; the next one is asked for everything that the kernel knows, in any order. */
function restart(pair: CowPair, random: Random): void {
  const known = [...pair.idsByPath()].filter(([path]) => isRoot() || pair.isFileOrDir(path)); // root alone marks the rest
  pair.reopen();
  const recovery = new Recovery(pair.tree);
  for (const [path, id] of known.sort(() => random.next() - 0.5)) {
    const found = pair.tree.known(id) ?? recovery.find(id);
    if (found === undefined || found.isGone) pair.fail(`${path} is not found by its id ${id}`);
  }
  for (const id of pair.heldIds()) {
    const found = pair.tree.known(id) ?? recovery.find(id);
    if (found === undefined) pair.fail(`what is open is not found by its id ${id}`);
  }
  const now = pair.idsByPath();
  for (const [path, id] of known)
    if (now.get(path) !== id) pair.fail(`${path} had the id ${id}, and has ${now.get(path)}`);
}

for (const seed of SEEDS) {
  test(`a workspace does what a plain directory does, after restarts too (seed ${seed})`, (t) => {
    const random = new Random(seed);
    for (let round = 0; round < 4; round += 1) {
      const pair = new CowPair(t, new CowFolder(t, randomLower(random)));
      const looker = (): CowTree => (round % 2 === 0 ? pair.tree : pair.observer());
      expectSame(t, pair, 'at the beginning', looker());
      for (let i = 0; i < STEPS; i += 1) {
        takeStep(pair, random);
        expectSame(t, pair, 'after that', looker());
        if (random.chance(0.06)) {
          restart(pair, random);
          expectSame(t, pair, 'after a restart');
        }
        if (random.chance(0.03)) {
          pair.mountAgain();
          expectSame(t, pair, 'after mounting again', looker());
        }
      }
    }
  });
}
