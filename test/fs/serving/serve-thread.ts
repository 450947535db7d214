import { parentPort, workerData } from 'node:worker_threads';

import { serve } from '../../../fs/serving/serve-loop.ts';
import type { ServedTree } from '../../../fs/serving/served-tree.ts';
import { sampleTree } from './memory-tree.ts';

/** A worker thread that serves the sample tree on the descriptor it is given, and reports what happens. */
const { fd } = workerData as { fd: number };

/** The sample tree, in which looking for `never` takes for ever. */
function tree(): ServedTree {
  const sample = sampleTree();
  const lookup = sample.lookup.bind(sample);
  const served: ServedTree = sample;
  served.lookup = (parent, name) => (name === 'never' ? 'slow' : lookup(parent, name));
  return served;
}

serve(fd, tree(), {
  onInit: (negotiated) => parentPort?.postMessage({ negotiated }),
  onError: (error, request) => parentPort?.postMessage({ error: String(error), ...request }),
  onSlow: () => parentPort?.postMessage({ slow: true }),
});
