import { writeSync } from 'node:fs';

import { type Negotiated, serve } from '../../../fs/serving/serve-loop.ts';
import { sampleTree } from './memory-tree.ts';

/**
 * A process that serves the sample tree on descriptor 3, to be killed. Without an argument it hangs in the first READ;
 * with one (what its predecessor negotiated, as JSON) it goes on where that one stopped.
 */
const NEGOTIATED_BY_PREDECESSOR = process.argv[2];

function say(message: unknown): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

function hang(): never {
  say({ reading: true });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  throw new Error('nobody wakes this thread');
}

if (NEGOTIATED_BY_PREDECESSOR === undefined) {
  const tree = sampleTree();
  tree.read = hang;
  serve(3, tree, { onInit: (negotiated) => say({ negotiated }) });
} else {
  serve(3, sampleTree(), { resume: JSON.parse(NEGOTIATED_BY_PREDECESSOR) as Negotiated });
}
