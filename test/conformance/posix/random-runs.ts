import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { Sandbox } from '../../fixtures/sandbox.ts';
import { closeAll } from './calls/files.ts';
import { unmapAll } from './calls/memory.ts';
import { exerciseFile } from './random-file.ts';
import { exerciseTrees, makeTree } from './random-tree.ts';
import type { Engine } from './suite/engines.ts';
import { largeContents } from './suite/fixture.ts';

/** One checkpoint with trees and files for so many runs, and a fork of it. */
export interface RandomRuns {
  engine: Engine;
  /** Numbers from `seed` on. */
  seed: number;
  runs: number;
  steps: number;
}

const SMALL = Buffer.from('small contents\n'.repeat(500));

interface Subject {
  name: string;
  contents: Buffer;
  bytesMax: number;
}

/** Files of the checkpoint, small and large, and one that is made in the fork. */
const SUBJECTS: readonly Subject[] = [
  { name: 'fresh', contents: Buffer.alloc(0), bytesMax: 300_000 },
  { name: 'small', contents: SMALL, bytesMax: 300_000 },
  { name: 'large', contents: largeContents(), bytesMax: 4_000_000 },
];

/** @throws Error with the seed of the run that failed */
export async function runAtRandom(sandbox: Sandbox, { engine, seed, runs, steps }: RandomRuns): Promise<void> {
  const seeds = Array.from({ length: runs }, (_, at) => seed + at);
  const folder = sandbox.makeFolder('ws', 'random');
  for (const one of seeds) {
    makeTree(path.join(folder, `tree-${one}`), one);
    makeTree(sandbox.path('control', `tree-${one}`), one);
    for (const { name, contents } of SUBJECTS)
      if (name !== 'fresh') writeFileSync(path.join(folder, `${name}-${one}`), contents);
  }
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save', '-m', 'random'])).ok();
  (await sandbox.bento(['fork', ...engine.forkOptions, 'cp-1', sandbox.path('fork')])).ok();
  for (const one of seeds) runSeed(sandbox, { seed: one, steps, engine });
}

function runSeed(sandbox: Sandbox, { seed, steps, engine }: { seed: number; steps: number; engine: Engine }): void {
  try {
    const at = (name: string): string => sandbox.path('fork', 'random', `${name}-${seed}`);
    exerciseTrees(sandbox.path('control', `tree-${seed}`), at('tree'), { seed, steps, engine });
    for (const { name, contents, bytesMax } of SUBJECTS) exerciseFile(at(name), contents, { seed, steps, bytesMax });
    const lower = readFileSync(path.join(sandbox.workspace, 'random', `large-${seed}`));
    if (!lower.equals(largeContents())) throw new Error(`seed ${seed}: a fork changed the workspace it comes from`);
  } finally {
    unmapAll();
    closeAll();
  }
}
