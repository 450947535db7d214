import { parentPort, workerData } from 'node:worker_threads';

import { serve } from '../../../fs/serving/serve-loop.ts';
import { sampleTree } from './memory-tree.ts';

/** A worker thread that serves the sample tree on the descriptor it is given, and reports what happens. */
const { fd } = workerData as { fd: number };

serve(fd, sampleTree(), {
  onInit: (negotiated) => parentPort?.postMessage({ negotiated }),
  onError: (error, request) => parentPort?.postMessage({ error: String(error), ...request }),
});
