import path from 'node:path';
import process from 'node:process';

/**
 * Tells scripts/test.js, which started this ava, how far the run is. ava's TAP would be the usual way, but ava 7.0.0's
 * TAP reporter crashes when a test times out or ends its process, and takes every other result with it.
 */
async function observeRun({ events }) {
  for await (const event of events) {
    if (event.type === 'stats') {
      const { byFile, ...stats } = event.stats; // byFile is a Map and does not survive JSON
      process.send?.({ stats, fileCount: byFile.size });
    } else if (event.type === 'selected-test' && (event.skip || event.todo)) {
      process.send?.({
        skipped: `${path.relative('dist', event.testFile)} › ${event.title}${event.todo ? ' (to do)' : ''}`,
      });
    }
  }
}

/** Tests run compiled. One process per file: a test that mounts or changes directory must not touch its neighbours. */
export default {
  files: ['dist/test/**/*.test.js'],
  workerThreads: false,
  concurrency: 2,
  timeout: '5m',
  nonSemVerExperiments: { observeRunsFromConfig: true },
  observeRun,
};
