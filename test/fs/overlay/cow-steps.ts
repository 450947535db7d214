import { constants } from 'node:fs';

import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { ErrnoError } from '../../../fs/overlay/errno-error.ts';
import {
  createEntry,
  linkEntry,
  mkdirEntry,
  mknodEntry,
  symlinkEntry,
  type Place,
} from '../../../fs/overlay/make-entries.ts';
import { rmdirEntry, unlinkEntry } from '../../../fs/overlay/remove-entries.ts';
import { renameEntry } from '../../../fs/overlay/rename-entry.ts';
import { setXattrOf } from '../../../fs/overlay/set-attributes.ts';
import { SETATTR } from '../../../fs/protocol/setattr.ts';
import type { ByteString } from '../../../store/byte-string.ts';
import * as calls from '../../../store/file-calls.ts';
import { change, MAKING, MAKING_DIR, nodeAt, placeAt, writeTo } from '../../fixtures/cow-trees.ts';
import { lowerDir, lowerFile, lowerLink, type LowerSample } from '../../fixtures/memory-lower.ts';
import type { Random } from '../../fixtures/random.ts';
import { NAMES, type CowPair } from './cow-pair.ts';

const { S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
const RENAMES = [0, 0, 0, calls.RENAME_NOREPLACE, calls.RENAME_EXCHANGE];

/** A checkpoint with the names that the steps use, hard links between its directories among it. */
export function randomLower(random: Random): LowerSample {
  const files = [lowerFile('linked'), lowerFile('linked too', 0o600)];
  const dir = (depth: number): LowerSample => {
    const children: Record<string, LowerSample> = {};
    for (const name of NAMES) {
      if (random.chance(0.35)) continue;
      if (random.chance(0.4) && depth < 3) children[name] = dir(depth + 1);
      else if (random.chance(0.4)) children[name] = random.pick(files);
      else
        children[name] = random.chance(0.15) ? lowerLink('to/a') : lowerFile(`${name}${depth}`.repeat(random.below(4)));
    }
    return lowerDir(children);
  };
  return dir(0);
}

interface Where {
  pair: CowPair;
  at: ByteString;
  other: ByteString;
  random: Random;
}

const WEIGHTS = {
  create: 4,
  mkdir: 4,
  symlink: 1,
  fifo: 0.5,
  link: 3,
  unlink: 5,
  rmdir: 4,
  rename: 10,
  write: 4,
  cut: 2,
  chmod: 3,
  xattr: 1,
  open: 3,
  close: 2,
  writeHeld: 2,
  forget: 4,
} as const;

type Step = (where: Where) => void;

const STEPS: Record<keyof typeof WEIGHTS, Step> = {
  create: ({ pair, at }) =>
    pair.both(
      `create ${at}`,
      (tree) => {
        const { node } = createEntry(tree, newPlace(tree, at), MAKING);
        calls.closeFile(node.fd);
        node.fd = -1;
      },
      () => made(calls.openFile(pair.plainPath(at), O_RDWR | O_CREAT | O_EXCL, 0o644)),
    ),
  mkdir: ({ pair, at }) =>
    pair.both(
      `mkdir ${at}`,
      (tree) => mkdirEntry(tree, newPlace(tree, at), MAKING_DIR),
      () => calls.makeDir(pair.plainPath(at), 0o755),
    ),
  symlink: ({ pair, at }) =>
    pair.both(
      `symlink ${at}`,
      (tree) => symlinkEntry(tree, newPlace(tree, at), MAKING, 'to/\xff'),
      () => calls.makeSymlink('to/\xff', pair.plainPath(at)),
    ),
  fifo: ({ pair, at }) =>
    pair.both(
      `mkfifo ${at}`,
      (tree) => mknodEntry(tree, newPlace(tree, at), { ...MAKING, mode: S_IFIFO | 0o600 }, 0),
      () => calls.makeNode(pair.plainPath(at), S_IFIFO | 0o600),
    ),
  link: ({ pair, at, other }) => {
    if (!exists(pair, at)) return;
    pair.both(
      `link ${at} to ${other}`,
      (tree) => linkEntry(tree, nodeAt(tree, at), newPlace(tree, other)),
      () => calls.link(pair.plainPath(at), pair.plainPath(other)),
    );
  },
  unlink: ({ pair, at }) =>
    pair.both(
      `unlink ${at}`,
      (tree) => unlinkEntry(tree, placeAt(tree, at)),
      () => calls.unlink(pair.plainPath(at)),
    ),
  rmdir: ({ pair, at }) =>
    pair.both(
      `rmdir ${at}`,
      (tree) => rmdirEntry(tree, placeAt(tree, at)),
      () => calls.removeDir(pair.plainPath(at)),
    ),
  rename: ({ pair, at, other, random }) => {
    if (at !== other && `${at}/`.startsWith(`${other}/`)) return; // a kernel says no before it asks
    const flags = random.pick(RENAMES);
    if (flags === calls.RENAME_EXCHANGE && other.startsWith(`${at}/`)) return;
    pair.both(
      `rename ${at} to ${other} ${flags}`,
      (tree) => renameEntry(tree, placeAt(tree, at), placeAt(tree, other), flags),
      () => calls.rename(pair.plainPath(at), pair.plainPath(other), flags),
    );
  },
  write: ({ pair, at }) => {
    if (kindOf(pair, at) !== S_IFREG) return;
    const text = `written ${pair.history.length}`;
    pair.both(
      `write ${at}`,
      (tree) => writeTo(tree, at, text, 3),
      () => writePlain(pair.plainPath(at), text, 3),
    );
  },
  cut: ({ pair, at, random }) => {
    if (kindOf(pair, at) !== S_IFREG) return;
    const sizeBytes = random.below(8);
    pair.both(
      `cut ${at} to ${sizeBytes}`,
      (tree) => change(tree, at, { valid: SETATTR.SIZE, sizeBytes }),
      () => calls.truncateFile(pair.plainPath(at), sizeBytes),
    );
  },
  chmod: ({ pair, at, random }) => {
    if (!exists(pair, at) || kindOf(pair, at) === S_IFLNK) return;
    const mode = random.pick([0o700, 0o755, 0o2775, 0o4711]);
    pair.both(
      `chmod ${at} ${mode.toString(8)}`,
      (tree) => change(tree, at, { valid: SETATTR.MODE, mode }),
      () => calls.changeMode(pair.plainPath(at), mode),
    );
  },
  xattr: ({ pair, at }) => {
    const kind = kindOf(pair, at);
    if (!exists(pair, at) || kind === S_IFLNK || kind === S_IFIFO) return;
    const xattr = { name: `user.x${pair.history.length % 3}`, value: Buffer.from('v'), flags: 1, killsSetgid: false };
    pair.both(
      `setxattr ${at}`,
      (tree) => setXattrOf(tree, nodeAt(tree, at), xattr),
      () => calls.setXattr(pair.plainPath(at), xattr.name, xattr.value, 1),
    );
  },
  open: ({ pair, at, random }) => pair.hold(at, random.pick([O_RDONLY, O_RDWR])),
  close: ({ pair, random }) => pair.letGo(random),
  writeHeld: ({ pair, random }) => pair.writeHeld(random),
  forget: ({ pair, random }) => pair.forget(random),
};

/** Does one thing, whatever comes of it. */
export function takeStep(pair: CowPair, random: Random): void {
  const kind = random.weighted(WEIGHTS);
  STEPS[kind]({ pair, at: pair.somePath(random), other: pair.somePath(random), random });
}

/** A name that nothing has: whoever serves a workspace sees to that. */
function newPlace(tree: CowTree, path: ByteString): Place {
  const place = placeAt(tree, path);
  if (tree.lookup(place.parent, place.name) !== undefined) throw new ErrnoError('EEXIST');
  return place;
}

function exists(pair: CowPair, path: ByteString): boolean {
  return kindOf(pair, path) !== 0;
}

/** The type's bits; 0 when there is nothing. */
function kindOf(pair: CowPair, path: ByteString): number {
  const stat = calls.statOf(pair.plainPath(path));
  return typeof stat === 'number' ? 0 : stat.mode & S_IFMT;
}

function made(fd: number): number {
  if (fd < 0) return fd;
  calls.closeFile(fd);
  return 0;
}

function writePlain(path: ByteString, text: string, offset: number): number {
  const fd = calls.openFile(path, O_RDWR);
  const done = calls.writeAt(fd, Buffer.from(text, 'latin1'), offset);
  calls.closeFile(fd);
  return Math.min(done, 0);
}
