import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { canReflink, locksExclude, ScratchFile } from '../../../fs/doctor/scratch-file.ts';
import { daemonCheck, examineStore, judgeMounts, judgeSpace } from '../../../fs/doctor/store-health.ts';
import type { DaemonHealth } from '../../../fs/mounts/daemon/control.ts';
import { BentoError } from '../../../store/errors.ts';
import { Store } from '../../../store/store.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

const HEALTH: DaemonHealth = {
  pid: 5,
  version: '1.2.3',
  serverPid: 6,
  state: 'serving',
  restartCount: 0,
  lastDeath: undefined,
};

test('daemonCheck() tells a daemon that is well from one that is not', (t) => {
  t.like(daemonCheck('none'), { state: 'ok', facts: { running: false } });
  t.like(daemonCheck('silent'), { state: 'broken', code: 'DAEMON_FAILED' });
  t.like(daemonCheck(new BentoError('PERMISSION_DENIED', 'not private', { hint: 'remove it' })), {
    state: 'broken',
    code: 'PERMISSION_DENIED',
    finding: 'not private',
    advice: 'remove it',
  });
  t.like(daemonCheck(HEALTH, '1.2.3'), { state: 'ok', facts: { running: true, pid: 5, serverPid: 6 } });
  t.is(daemonCheck(HEALTH, '1.2.2').state, 'ok', 'newer than we are');
  t.regex(daemonCheck(HEALTH, '1.3.0').advice ?? '', /version 1\.3\.0/);
  t.is(daemonCheck({ ...HEALTH, state: 'restarting', serverPid: undefined }, '1.2.3').state, 'limited');
  const failing = daemonCheck({ ...HEALTH, state: 'failing', restartCount: 4, lastDeath: 'SIGSEGV' }, '1.2.3');
  t.like(failing, { state: 'broken', code: 'DAEMON_FAILED', facts: { restartCount: 4, lastDeath: 'SIGSEGV' } });
  t.regex(failing.finding, /died 4 time\(s\), last: SIGSEGV/);
});

test('judgeMounts() goes by the worst, and names all', (t) => {
  t.like(judgeMounts([], 0), { state: 'ok', finding: 'none' });
  t.like(judgeMounts(['mounted', 'copy', 'mounted', 'elsewhere'], 0), {
    state: 'ok',
    finding: '2 mounted, 1 copy, 1 elsewhere',
    facts: { mounted: 2, copy: 1, elsewhere: 1, notMounted: 0, broken: 0, leftBehind: 0 },
  });
  t.like(judgeMounts(['not mounted', 'mounted'], 0), { state: 'limited', code: null });
  t.regex(judgeMounts(['not mounted', 'unfinished'], 0).advice ?? '', /--restore/);
  t.regex(judgeMounts(['unfinished'], 0).advice ?? '', /unmount --force/);
  t.like(judgeMounts(['broken', 'not mounted'], 0), { state: 'broken', code: 'DAEMON_FAILED' });
  t.like(judgeMounts(['not answering'], 0), { state: 'broken', facts: { notAnswering: 1 } });
  const left = judgeMounts(['mounted'], 2);
  t.like(left, { state: 'limited', finding: '1 mounted, 2 left by a daemon that was killed' });
  t.regex(left.advice ?? '', /unmount --all/);
});

test('judgeSpace() minds bytes and files, where files are counted', (t) => {
  t.is(judgeSpace(10 * 2 ** 30, 1_000_000).state, 'ok');
  t.is(judgeSpace(10 * 2 ** 30, null).state, 'ok');
  t.is(judgeSpace(500 << 20, null).state, 'limited');
  t.is(judgeSpace(10 * 2 ** 30, 500).state, 'limited');
  t.like(judgeSpace(10 * 2 ** 30, 0), { state: 'broken', code: 'NO_SPACE' });
  t.like(judgeSpace(1 << 20, 1_000_000), { state: 'broken', finding: 'only 1 MiB and 1000000 files' });
});

test('ScratchFile is seen by nobody, can be written and locked', (t) => {
  const folder = newFolder(t);
  {
    using file = new ScratchFile(folder);
    t.true(file.fd > 2);
    t.deepEqual(readdirSync(folder), []);
  }
  t.true(locksExclude(folder));
  t.is(typeof canReflink(folder), 'boolean');
  t.deepEqual(readdirSync(folder), []);
  t.throws(() => new ScratchFile(join(folder, 'missing')), { code: 'ENOENT' });
  t.throws(() => new ScratchFile('/proc'), undefined, 'which holds no files of ours');
});

test('examineStore() looks at a store that is not there without making it, and at where it would be', async (t) => {
  const folder = newFolder(t);
  const root = join(folder, 'not', 'there');
  const { checks, place } = await examineStore(new Store(root));
  t.is(place, folder);
  t.deepEqual(readdirSync(folder), []);
  t.like(
    checks.find(({ id }) => id === 'store'),
    { state: 'ok', facts: { path: root, exists: false } },
  );
  t.deepEqual(
    checks.filter(({ state }) => state === 'broken' || state === 'unknown'),
    [],
  );
});

test('examineStore() says so when the place is no directory, or something on the way is not', async (t) => {
  const file = join(newFolder(t), 'file');
  writeFileSync(file, 'x');
  for (const root of [file, join(file, 'below')]) {
    const { checks, place } = await examineStore(new Store(root));
    t.is(place, undefined);
    t.like(
      checks.find(({ id }) => id === 'store'),
      { state: 'broken', code: 'TARGET_INVALID' },
    );
    t.deepEqual(
      checks.filter(({ id, state }) => id !== 'store' && state === 'broken'),
      [],
    );
  }
});
