import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { checkLater, checkThat } from '../../../fs/doctor/check.ts';
import { examineMachine, kernelCheck, nodeCheck } from '../../../fs/doctor/machine.ts';
import {
  allowOtherCheck,
  deviceCheck,
  examineMounting,
  forkEngine,
  fuseCheck,
  mountEngine,
  passthroughCheck,
  resendCheck,
} from '../../../fs/doctor/mounting.ts';
import { tryFuse, tryOverlay } from '../../../fs/doctor/trial.ts';
import type { InitIn } from '../../../fs/protocol/init.ts';
import { BentoError } from '../../../store/errors.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

test('checkThat() makes a finding of what goes wrong with looking', async (t) => {
  const fail = (): never => {
    throw new Error('no /proc\nRequire stack:\n- here');
  };
  const expected = { id: 'x', title: 'X', state: 'unknown', finding: 'no /proc', advice: null, code: null } as const;
  t.like(checkThat('x', 'X', fail), expected);
  t.like(await checkLater('x', 'X', async () => await Promise.resolve().then(fail)), expected);
});

test('examineMachine() finds this machine fit for its own tests', (t) => {
  const checks = examineMachine();
  t.is(new Set(checks.map(({ id }) => id)).size, checks.length);
  t.deepEqual(
    checks.filter(({ state }) => state === 'broken'),
    [],
  );
  const memory = checks.find(({ id }) => id === 'memory')?.facts;
  t.true(Number(memory?.['totalBytes']) >= Number(memory?.['availableBytes']), JSON.stringify(memory));
  t.true(Number(memory?.['availableBytes']) > 1 << 20);
});

test('nodeCheck() and kernelCheck() compare numbers, not texts', (t) => {
  for (const version of ['20.19.0', '20.100.1', '22.0.0', '100.1.0']) t.is(nodeCheck(version).state, 'ok', version);
  for (const version of ['20.9.0', '20.18.99', '9.99.0']) {
    t.like(nodeCheck(version), { state: 'broken', code: 'FAILED', facts: { version } }, version);
  }
  t.is(kernelCheck('linux', '6.1.0-amd64').state, 'ok');
  t.is(kernelCheck('linux', '5.15.0').state, 'ok');
  t.is(kernelCheck('linux', '5.4.0-150-generic').state, 'limited');
  t.like(kernelCheck('darwin', '24.0.0'), { state: 'limited', finding: 'darwin 24.0.0' });
});

test('deviceCheck() tells the FUSE device from what stands in its place', (t) => {
  const folder = newFolder(t);
  t.regex(deviceCheck(join(folder, 'none')).advice ?? '', /^modprobe fuse;/);
  writeFileSync(join(folder, 'file'), '');
  t.like(deviceCheck(join(folder, 'file')), {
    state: 'missing',
    finding: `${join(folder, 'file')} is not the FUSE device`,
  });
  t.is(deviceCheck('/dev/null').state, 'missing');
});

test('allowOtherCheck() wants the line by itself, and only of ordinary users', (t) => {
  const config = join(newFolder(t), 'fuse.conf');
  t.is(allowOtherCheck(config, true).state, 'limited', 'no file');
  writeFileSync(config, '# user_allow_other\nuser_allow_other_not\n');
  t.like(allowOtherCheck(config, true), { state: 'limited', facts: { set: false } });
  t.is(allowOtherCheck(config, false).state, 'ok');
  writeFileSync(config, 'mount_max = 10\n  user_allow_other \n');
  t.like(allowOtherCheck(config, true), { state: 'ok', facts: { set: true } });
});

const OFFER: InitIn = { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags: ['PASSTHROUGH', 'HAS_RESEND'] };
const BARE: InitIn = { ...OFFER, minor: 31, flags: [] };

test('passthroughCheck() and resendCheck() go by what the kernel offers, and guess nothing', (t) => {
  t.is(passthroughCheck(OFFER, true).state, 'ok');
  t.is(passthroughCheck(OFFER, false).state, 'limited');
  t.like(passthroughCheck(BARE, true), { state: 'limited', facts: { offered: false } });
  t.is(passthroughCheck(undefined, true).state, 'unknown');
  t.is(resendCheck(OFFER).state, 'ok');
  t.is(resendCheck(BARE).state, 'limited');
  t.is(resendCheck(undefined).state, 'unknown');
});

test('fuseCheck() and the engines say the same: a copy where FUSE is missing, a failure where it fails', (t) => {
  const [root, user] = [{ usable: 'root' } as const, { usable: 'user' } as const];
  const none = { usable: undefined, reason: '/dev/fuse does not exist' };
  const missing = {
    obstacle: new BentoError('FUSE_UNAVAILABLE', 'the kernel does not let us', { hint: 'add a right' }),
  };
  const failing = { obstacle: new BentoError('MOUNT_FAILED', 'fusermount3: too many mounts') };
  t.like(fuseCheck(root, { offer: OFFER }), { state: 'ok', finding: 'works, protocol 7.45' });
  t.like(fuseCheck(none, undefined), { state: 'missing', finding: none.reason });
  t.like(fuseCheck(root, missing), { state: 'missing', advice: 'add a right' });
  t.like(fuseCheck(user, failing), { state: 'broken', code: 'MOUNT_FAILED' });
  const [working, refused] = [
    { state: 'ok', finding: 'works' },
    { state: 'missing', finding: 'cannot be mounted' },
  ] as const;
  t.is(mountEngine(root, { offer: OFFER }).engine, 'bind');
  t.is(forkEngine(mountEngine(root, { offer: OFFER }), working).engine, 'overlay');
  t.deepEqual(forkEngine(mountEngine(root, { offer: OFFER }), refused), {
    engine: 'cow',
    why: 'overlayfs cannot be mounted',
  });
  t.is(mountEngine(user, { offer: OFFER }).engine, 'fuse');
  t.is(forkEngine(mountEngine(user, { offer: OFFER }), working).engine, 'cow');
  t.deepEqual(mountEngine(none, undefined), { engine: 'copy', why: none.reason });
  t.is(mountEngine(root, missing).engine, 'copy');
  t.deepEqual(mountEngine(user, failing), { engine: 'none', why: 'fusermount3: too many mounts' });
  t.like(forkEngine(mountEngine(user, failing), working), { engine: 'copy', why: 'fusermount3: too many mounts' });
});

const testMounting = testSerialNeeding({ root: true, fuse: true });

function leftovers(dir: string): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const names = readdirSync(dir).filter((name) => name.includes('bento-doctor'));
  return [...mounts.filter((line) => line.includes(`${dir}/`) && line.includes('bento-doctor')), ...names];
}

/** The environment belongs to the whole process, so these run one after another. */
function useTemporaryFolder(t: { teardown: (fn: () => void) => void }, folder: string): void {
  const before = process.env['TMPDIR'];
  process.env['TMPDIR'] = folder;
  t.teardown(() => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  });
}

testMounting('tryFuse() reads what the kernel offers and leaves nothing', (t) => {
  const folder = newFolder(t);
  useTemporaryFolder(t, folder);
  const offer = tryFuse('root');
  t.is(offer.major, 7);
  t.true(offer.flags.includes('ASYNC_READ'));
  t.deepEqual(leftovers(folder), []);
});

testMounting('tryOverlay() works where forks do, says why where it does not, and leaves nothing', (t) => {
  const folder = newFolder(t);
  const odd = join(folder, 'with, comma: colon \\ and blank');
  mkdirSync(odd);
  t.notThrows(() => tryOverlay(odd, { userxattr: false }));
  t.deepEqual(readdirSync(odd), []);

  const merged = join(folder, 'merged');
  for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(folder, name));
  const dirs = ['lower', 'upper', 'work'].map((name) => `${name}dir=${join(folder, name)}`);
  execFileSync('mount', ['-t', 'overlay', 'none', '-o', dirs.join(), merged]);
  t.teardown(() => execFileSync('umount', [merged]));
  t.throws(() => tryOverlay(merged, { userxattr: false }), { message: /mount/ }, 'an overlay cannot hold another');
  t.deepEqual(readdirSync(merged), []);
  t.deepEqual(leftovers(folder), []);

  const mounting = examineMounting(merged);
  t.like(mounting, { mount: { engine: 'bind' }, fork: { engine: 'cow' } });
  const overlay = mounting.checks.find(({ id }) => id === 'overlay');
  t.is(overlay?.state, 'missing');
  t.regex(overlay?.advice ?? '', /a store on ext4/);
  t.is(examineMounting(undefined).checks.find(({ id }) => id === 'overlay')?.state, 'unknown');
  t.deepEqual(leftovers(folder), []);
});

test.serial('examineMounting() says so when there is nowhere to mount on trial', (t) => {
  useTemporaryFolder(t, join(newFolder(t), 'missing'));
  t.throws(() => tryFuse('root'), { code: 'ENOENT' });
  const { checks, mount } = examineMounting(undefined);
  const fuse = checks.find(({ id }) => id === 'fuse');
  t.true(fuse?.state === 'broken' || fuse?.state === 'missing', JSON.stringify(fuse));
  t.true(['none', 'copy'].includes(mount.engine));
});
