import { close, dup, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY, open, write } from './calls/files.ts';
import {
  conflictingLock,
  F_RDLCK,
  F_UNLCK,
  F_WRLCK,
  flock,
  LOCK_EX,
  LOCK_SH,
  LOCK_UN,
  setLock,
  setOpenFileLock,
} from './calls/locks.ts';
import { rename } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { answerOfOther, otherProcess } from './suite/partner.ts';
import { text } from './suite/observe.ts';

/** flock(2) and fcntl(2) locks between two processes. */
export const LOCKS: Group = {
  name: 'locks',
  checks: [
    check(
      'flock() shuts another process out, and lets it in',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          flock(here, LOCK_EX),
          otherProcess().call('flock', there, LOCK_EX),
          flock(here, LOCK_UN),
          otherProcess().call('flock', there, LOCK_EX),
          flock(here, LOCK_EX),
        ];
      },
      [0, 'EAGAIN', 0, 0, 'EAGAIN'],
    ),
    check(
      'flock() shared by two, not alone',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          flock(here, LOCK_SH),
          otherProcess().call('flock', there, LOCK_SH),
          flock(here, LOCK_EX),
          otherProcess().call('flock', there, LOCK_UN),
          flock(here, LOCK_EX),
        ];
      },
      [0, 0, 'EAGAIN', 0, 0],
    ),
    check('flock() of a file open for reading', () => flock(open('small', O_RDONLY), LOCK_EX), 0),
    check(
      'flock() of a directory',
      () => [flock(open('dir', O_RDONLY), LOCK_EX), flock(open('dir', O_RDONLY), LOCK_EX)],
      [0, 'EAGAIN'],
    ),
    check(
      'flock() through two descriptors of one process',
      () => [flock(open('small', O_RDWR), LOCK_EX), flock(open('small', O_RDWR), LOCK_SH)],
      [0, 'EAGAIN'],
    ),
    check(
      'flock() belongs to a duplicate, too',
      () => {
        const fd = open('small', O_RDWR);
        const copy = dup(fd);
        return [
          flock(fd, LOCK_EX),
          flock(copy, LOCK_EX),
          close(fd),
          flock(open('small', O_RDWR), LOCK_EX),
          close(copy),
          flock(open('small', O_RDWR), LOCK_EX),
        ];
      },
      [0, 0, 0, 'EAGAIN', 0, 0],
    ),
    check(
      'flock() ends with the descriptor',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        const here = open('small', O_RDWR);
        return [
          otherProcess().call('flock', there, LOCK_EX),
          flock(here, LOCK_EX),
          otherProcess().call('close', there),
          flock(here, LOCK_EX),
        ];
      },
      [0, 'EAGAIN', 0, 0],
    ),
    check(
      'flock() counts for both names of a file',
      () => [flock(open('hard-1', O_RDWR), LOCK_EX), flock(open('hard-2', O_RDWR), LOCK_EX)],
      [0, 'EAGAIN'],
    ),
    check(
      'flock() taken through what is open for reading counts for what is opened for writing',
      () => [flock(open('small', O_RDONLY), LOCK_EX), flock(open('small', O_RDWR), LOCK_EX)],
      [0, 'EAGAIN'],
    ),
    check(
      'flock() counts after the file was written',
      () => {
        const fd = open('small', O_RDONLY);
        return [
          flock(fd, LOCK_EX),
          write(open('small', O_WRONLY), 'x'),
          flock(open('small', O_RDONLY), LOCK_EX),
          otherProcess().call('flock', otherProcess().call('open', 'small', O_RDWR), LOCK_SH),
        ];
      },
      [0, 1, 'EAGAIN', 'EAGAIN'],
    ),
    check(
      'flock() counts after the file was moved',
      () => {
        const fd = open('small', O_RDWR);
        return [flock(fd, LOCK_EX), rename('small', 'moved'), flock(open('moved', O_RDWR), LOCK_EX)];
      },
      [0, 0, 'EAGAIN'],
    ),
    check(
      'flock() that waits gets the lock when it is free',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        const taken = flock(here, LOCK_EX);
        otherProcess().begin('flockWaiting', there, LOCK_EX);
        const results = [taken, flock(here, LOCK_UN)];
        return [results, answerOfOther(), flock(here, LOCK_EX)];
      },
      [[0, 0], 0, 'EAGAIN'],
    ),
    check(
      'fcntl() shuts another process out of a range',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          setLock(here, F_WRLCK, { start: 2, lengthBytes: 5 }),
          otherProcess().call('setLock', there, F_WRLCK, { start: 6, lengthBytes: 5 }),
          otherProcess().call('setLock', there, F_WRLCK, { start: 7, lengthBytes: 5 }),
          otherProcess().call('setLock', there, F_RDLCK, { start: 0, lengthBytes: 3 }),
          otherProcess().call('setLock', there, F_RDLCK, { start: 0, lengthBytes: 2 }),
        ];
      },
      [0, 'EAGAIN', 0, 'EAGAIN', 0],
    ),
    check(
      'fcntl() tells what is in the way',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          setLock(here, F_WRLCK, { start: 2, lengthBytes: 5 }),
          otherProcess().call('conflictingLock', there, F_RDLCK, {}),
          otherProcess().call('conflictingLock', there, F_RDLCK, { start: 7 }),
          conflictingLock(here, F_WRLCK),
        ];
      },
      [0, 'write 2+5', 'free', 'free'],
    ),
    check(
      'fcntl() read locks are shared, a write lock is not',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          setLock(here, F_RDLCK),
          otherProcess().call('setLock', there, F_RDLCK),
          otherProcess().call('setLock', there, F_WRLCK),
          setLock(here, F_UNLCK),
          otherProcess().call('setLock', there, F_WRLCK),
        ];
      },
      [0, 0, 'EAGAIN', 0, 0],
    ),
    check(
      'fcntl() unlocks a part',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          setLock(here, F_WRLCK, { lengthBytes: 10 }),
          setLock(here, F_UNLCK, { start: 4, lengthBytes: 2 }),
          otherProcess().call('setLock', there, F_WRLCK, { start: 4, lengthBytes: 2 }),
          otherProcess().call('conflictingLock', there, F_WRLCK, { start: 6 }),
          otherProcess().call('conflictingLock', there, F_WRLCK, {}),
        ];
      },
      [0, 0, 0, 'write 6+4', 'write 0+4'],
    ),
    check(
      'fcntl() locks of one process do not conflict',
      () => [setLock(open('small', O_RDWR), F_WRLCK), setLock(open('small', O_RDWR), F_WRLCK)],
      [0, 0],
    ),
    check(
      'fcntl() locks go when any descriptor of the file is closed',
      () => {
        const [here, again, there] = [
          open('small', O_RDWR),
          open('small', O_RDONLY),
          otherProcess().call('open', 'small', O_RDWR),
        ];
        return [
          setLock(here, F_WRLCK),
          otherProcess().call('setLock', there, F_WRLCK),
          close(again),
          otherProcess().call('setLock', there, F_WRLCK),
        ];
      },
      [0, 'EAGAIN', 0, 0],
    ),
    check(
      'fcntl() locks of another process end with its descriptor',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          otherProcess().call('setLock', there, F_WRLCK),
          setLock(here, F_RDLCK),
          otherProcess().call('close', there),
          setLock(here, F_RDLCK),
        ];
      },
      [0, 'EAGAIN', 0, 0],
    ),
    check(
      'fcntl() write lock of what is open for reading gives EBADF',
      () => [setLock(open('small', O_RDONLY), F_WRLCK), setLock(open('small', O_WRONLY), F_RDLCK)],
      ['EBADF', 'EBADF'],
    ),
    check(
      'fcntl() read lock of what is open for reading counts for another process that writes',
      () => {
        const here = open('small', O_RDONLY);
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [
          setLock(here, F_RDLCK),
          otherProcess().call('setLock', there, F_WRLCK),
          otherProcess().call('write', there, 'x'),
          otherProcess().call('setLock', there, F_WRLCK),
          otherProcess().call('conflictingLock', there, F_WRLCK, {}),
        ];
      },
      [0, 'EAGAIN', 1, 'EAGAIN', 'read 0+0'],
    ),
    check(
      'fcntl() behind the end, and on a byte far away',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        return [
          setLock(here, F_WRLCK, { start: 2 ** 40, lengthBytes: 1 }),
          otherProcess().call('setLock', there, F_WRLCK, { start: 2 ** 40, lengthBytes: 1 }),
          otherProcess().call('setLock', there, F_WRLCK, { start: 0, lengthBytes: 100 }),
        ];
      },
      [0, 'EAGAIN', 0],
    ),
    check(
      'fcntl() that waits gets the lock when it is free',
      () => {
        const [here, there] = [open('small', O_RDWR), otherProcess().call('open', 'small', O_RDWR)];
        const taken = setLock(here, F_WRLCK);
        otherProcess().begin('setLockWaiting', there, F_WRLCK);
        const results = [taken, setLock(here, F_UNLCK)];
        return [results, answerOfOther(), setLock(here, F_RDLCK)];
      },
      [[0, 0], 0, 'EAGAIN'],
    ),
    check(
      'fcntl() counts for both names of a file',
      () => {
        const there = otherProcess().call('open', 'hard-2', O_RDWR);
        return [setLock(open('hard-1', O_RDWR), F_WRLCK), otherProcess().call('setLock', there, F_WRLCK)];
      },
      [0, 'EAGAIN'],
    ),
    check(
      'fcntl() by open file conflicts within a process',
      () => [setOpenFileLock(open('small', O_RDWR), F_WRLCK), setOpenFileLock(open('small', O_RDWR), F_WRLCK)],
      [0, 'EAGAIN'],
    ),
    check(
      'fcntl() by open file conflicts with one by process',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [setOpenFileLock(open('small', O_RDWR), F_WRLCK), otherProcess().call('setLock', there, F_RDLCK)];
      },
      [0, 'EAGAIN'],
    ),
    check(
      'flock() and fcntl() do not see one another',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [flock(open('small', O_RDWR), LOCK_EX), otherProcess().call('setLock', there, F_WRLCK)];
      },
      [0, 0],
    ),
    check(
      'locks are advisory',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [setLock(open('small', O_RDWR), F_WRLCK), otherProcess().call('write', there, 'X'), text('small')];
      },
      [0, 1, 'Xmall contents\n'],
    ),
    checkLarge(
      'locks of a large file, as SQLite takes them',
      () => {
        const [here, there] = [open('large', O_RDWR), otherProcess().call('open', 'large', O_RDWR)];
        const pending = { start: 0x4000_0000, lengthBytes: 1 };
        const shared = { start: 0x4000_0002, lengthBytes: 510 };
        return [
          setLock(here, F_RDLCK, shared),
          otherProcess().call('setLock', there, F_RDLCK, shared),
          setLock(here, F_WRLCK, pending),
          otherProcess().call('setLock', there, F_RDLCK, pending),
          setLock(here, F_WRLCK, shared),
          otherProcess().call('setLock', there, F_UNLCK, shared),
          setLock(here, F_WRLCK, shared),
        ];
      },
      [0, 0, 0, 'EAGAIN', 'EAGAIN', 0, 0],
    ),
    check(
      'locks of a new file',
      () => {
        const here = open('new', O_RDWR | O_CREAT);
        const there = otherProcess().call('open', 'new', O_RDWR);
        return [
          flock(here, LOCK_EX),
          otherProcess().call('flock', there, LOCK_SH),
          setLock(here, F_WRLCK),
          otherProcess().call('setLock', there, F_RDLCK),
        ];
      },
      [0, 'EAGAIN', 0, 'EAGAIN'],
    ),
  ],
};
