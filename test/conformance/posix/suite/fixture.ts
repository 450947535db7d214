import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

import { lsetxattr, mkfifo, mknod } from '../../../../store/syscalls.ts';

/** An ordinary user and another one; their groups have the same numbers. */
export const USER = 1001;
export const OTHER = 1002;

export const LARGE_BYTES = 3 * 1024 * 1024 + 1234;
export const SPARSE_BYTES = 1024 * 1024;
/** Where the sparse file has its data: one block at the start, one at this offset. */
export const SPARSE_DATA = 512 * 1024;

/** Before every check, in whole seconds. */
export const FIXTURE_TIME = 1_500_000_000;

const FILES: Record<string, { text: string; mode?: number; owner?: number }> = {
  small: { text: 'small contents\n' },
  other: { text: 'other contents\n', mode: 0o640 },
  empty: { text: '' },
  'hard-1': { text: 'hard contents\n' },
  attributed: { text: 'attributed\n' },
  suid: { text: 'suid\n', mode: 0o6755, owner: USER },
  mine: { text: 'mine\n', mode: 0o600, owner: USER },
  theirs: { text: 'theirs\n', mode: 0o644, owner: OTHER },
  public: { text: 'public\n', mode: 0o666 },
  'dir/inside': { text: 'inside\n' },
  'dir/below/deep': { text: 'deep\n' },
  'full/file': { text: 'file\n' },
  'sticky/mine': { text: 'mine\n', mode: 0o666, owner: USER },
  'sticky/theirs': { text: 'theirs\n', mode: 0o666, owner: OTHER },
  'home/mine': { text: 'mine\n', mode: 0o644, owner: USER },
  'closed/inside': { text: 'inside\n' },
};

const FOLDERS: Record<string, { mode?: number; owner?: number }> = {
  dir: {},
  'dir/below': {},
  full: {},
  hollow: {},
  sticky: { mode: 0o1777 },
  /** Belongs to the ordinary user, as do things in it. */
  home: { owner: USER },
  'home/dir': { owner: USER },
  /** New things in it get its group. */
  setgid: { mode: 0o2777, owner: OTHER },
  open: { mode: 0o777 },
  closed: { mode: 0o700 },
};

const SYMLINKS: Record<string, string> = {
  'to-small': 'small',
  'to-dir': 'dir',
  'to-nowhere': 'nowhere',
  'loop-1': 'loop-2',
  'loop-2': 'loop-1',
};

/** The tree a check works on: some of everything, all with the same old time. */
export function makeFixture(dir: string, { large }: { large: boolean }): void {
  const at = (name: string): string => path.join(dir, name);
  process.umask(0o022);
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  chmodSync(dir, 0o777);
  for (const name of Object.keys(FOLDERS)) mkdirSync(at(name));
  for (const [name, { text }] of Object.entries(FILES)) writeFileSync(at(name), text);
  if (large) writeFileSync(at('large'), largeContents());
  makeSparse(at('sparse'));
  linkSync(at('hard-1'), at('hard-2'));
  for (const [name, target] of Object.entries(SYMLINKS)) symlinkSync(target, at(name));
  lchownSync(at('to-nowhere'), USER, USER);
  lsetxattr(at('attributed'), 'user.one', Buffer.from('first'));
  lsetxattr(at('attributed'), 'user.two', Buffer.from('second'));
  mkfifo(at('fifo'), 0o644);
  mknod(at('null'), 0o020666, 1, 3);
  chmodSync(at('null'), 0o666);
  for (const [name, { mode = 0o644, owner = 0 }] of Object.entries(FILES)) dress(at(name), { mode, owner }, 0o644);
  for (const [name, { mode = 0o755, owner = 0 }] of Object.entries(FOLDERS)) dress(at(name), { mode, owner }, 0o755);
  for (const name of fixtureNames(large).reverse()) lutimesSync(at(name), FIXTURE_TIME, FIXTURE_TIME);
}

/** Only what is not so already: there are fifty objects in each of a thousand fixtures. */
function dress(file: string, wanted: { mode: number; owner: number }, made: number): void {
  if (wanted.owner !== 0) chownSync(file, wanted.owner, wanted.owner);
  if (wanted.mode !== made) chmodSync(file, wanted.mode); // after chown, which takes suid away
}

function fixtureNames(large: boolean): string[] {
  const names = ['.', 'sparse', 'hard-2', 'fifo', 'null', ...Object.keys(FOLDERS), ...Object.keys(FILES)];
  return [...names, ...Object.keys(SYMLINKS), ...(large ? ['large'] : [])];
}

let contents: Buffer | undefined;

/** Every 16 bytes say where they are, so that a piece in a wrong place is seen. */
export function largeContents(): Buffer {
  if (contents === undefined) {
    contents = Buffer.alloc(LARGE_BYTES);
    for (let at = 0; at < LARGE_BYTES; at += 16) contents.write(`${at.toString().padStart(15, '.')}\n`, at, 'latin1');
  }
  return contents;
}

function makeSparse(file: string): void {
  const fd = openSync(file, 'w', 0o644);
  writeSync(fd, Buffer.alloc(4096, 'a'), 0, 4096, 0);
  writeSync(fd, Buffer.alloc(4096, 'b'), 0, 4096, SPARSE_DATA);
  ftruncateSync(fd, SPARSE_BYTES);
  closeSync(fd);
}
