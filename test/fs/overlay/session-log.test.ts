import { appendFileSync, existsSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { SessionLog } from '../../../fs/overlay/session-log.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

const RECORD_BYTES = 32;
/** A node of the upper directory, as large as they come. */
const FAR_NODE = 2 ** 53 - 1;

function newPath(t: ExecutionContext): string {
  return join(newFolder(t), 'log');
}

/** What a successor finds. */
function successor(t: ExecutionContext, path: string): SessionLog {
  const { log, isResumed } = SessionLog.open(path);
  t.true(isResumed);
  return log;
}

test('SessionLog.open() tells whoever comes first from a successor, until the log is cleared', (t) => {
  const path = newPath(t);
  const first = SessionLog.open(path);
  t.false(first.isResumed);
  first.log.close();
  successor(t, path).close();
  SessionLog.clear(path);
  SessionLog.clear(path);
  t.false(existsSync(path));
  t.false(SessionLog.open(path).isResumed);
});

test('a successor knows the last request, and none before it', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.begin(7n, 12);
  log.begin(2n ** 63n - 1n, FAR_NODE);
  log.close();
  const next = successor(t, path);
  t.true(next.wasBegun(2n ** 63n - 1n));
  t.is(next.subject, FAR_NODE);
  t.false(next.wasCounted(2n ** 63n - 1n));
  t.false(next.wasBegun(7n));
  next.begin(8n);
  next.close();
  const third = successor(t, path);
  t.true(third.wasBegun(8n));
  t.is(third.subject, 0);
});

test('a successor knows what is open, how often and under which number', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.opened(1n, FAR_NODE, 5);
  log.opened(2n, FAR_NODE, 5);
  log.opened(3n, 4, 0);
  log.opened(4n, 6, 2 ** 32 - 1);
  log.closed(5n, 4);
  const open = [
    [FAR_NODE, { count: 2, backingId: 5 }],
    [6, { count: 1, backingId: 2 ** 32 - 1 }],
  ];
  t.deepEqual([...log.openNodes], open);
  log.close();
  const next = successor(t, path);
  t.deepEqual([...next.openNodes], open);
  t.true(next.wasCounted(5n));
  t.false(next.wasCounted(4n));
});

test('wasCounted() tells an open that was counted from one that was only begun', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.begin(9n);
  t.true(log.wasBegun(9n));
  t.false(log.wasCounted(9n));
  log.opened(9n, 4, 0);
  t.true(log.wasCounted(9n));
  log.close();
  t.true(successor(t, path).wasCounted(9n));
});

test('closing what is not open leaves nothing below zero', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.closed(1n, 4);
  log.opened(2n, 4, 3);
  log.close();
  t.deepEqual([...successor(t, path).openNodes], [[4, { count: 1, backingId: 3 }]]);
});

test('a record that is cut off counts for nothing, and those that follow are read all the same', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.opened(1n, 4, 0);
  log.opened(2n, 5, 0);
  log.close();
  for (const cut of [1, 8, RECORD_BYTES - 1]) {
    truncateSync(path, statSync(path).size - cut);
    const next = successor(t, path);
    t.deepEqual([...next.openNodes.keys()], [4]);
    t.true(next.wasCounted(1n));
    next.opened(3n, 5, 0);
    next.close();
    const third = successor(t, path);
    t.deepEqual([...third.openNodes.keys()], [4, 5], `${cut} bytes were missing`);
    t.true(third.wasCounted(3n));
    third.close();
  }
});

/** So many that the log is made anew, at a request that closes. */
function openAndCloseUntilCompacted(log: SessionLog, path: string): bigint {
  let unique = 100n;
  for (let size = 0; ;) {
    log.opened((unique += 1n), 7, 0);
    log.closed((unique += 1n), 7);
    const now = statSync(path).size;
    if (now < size) return unique;
    size = now;
  }
}

test('a log that grows is made anew, and says the same', (t) => {
  const path = newPath(t);
  const { log } = SessionLog.open(path);
  log.opened(1n, 4, 3);
  log.opened(2n, 4, 3);
  log.opened(3n, 7, 0);
  log.opened(4n, FAR_NODE, 9);
  const last = openAndCloseUntilCompacted(log, path);
  t.true(statSync(path).size < 20 * RECORD_BYTES);
  const open = [...log.openNodes];
  const next = successor(t, path);
  t.deepEqual([...next.openNodes], open);
  t.true(next.wasBegun(last));
  t.true(next.wasCounted(last), 'the close after which it was made anew, when it comes again');
  next.close();
  log.opened(last + 1n, 8, 0);
  log.close();
  t.deepEqual([...successor(t, path).openNodes.keys()].sort(), [4, 7, 8, FAR_NODE]);
});

test('a log of anything at all is read to its end', (t) => {
  const path = newPath(t);
  appendFileSync(path, Buffer.alloc(1000, 0xff));
  const next = successor(t, path);
  t.deepEqual([...next.openNodes], []);
  next.begin(5n);
  next.close();
  t.true(successor(t, path).wasBegun(5n));
  t.is(readFileSync(path).length % RECORD_BYTES, 0);
});
