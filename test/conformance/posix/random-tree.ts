import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { compareByWalk } from '../../fixtures/compare-trees.ts';
import { Random } from '../../fixtures/random.ts';
import { chmod, setxattr } from './calls/attributes.ts';
import {
  close,
  O_CREAT,
  O_EXCL,
  O_NONBLOCK,
  O_RDWR,
  O_TRUNC,
  open,
  pread,
  pwrite,
  truncate,
  write,
} from './calls/files.ts';
import type { Outcome } from './calls/libc.ts';
import {
  exchange,
  link,
  mkdir,
  mknod,
  RENAME_NOREPLACE,
  rename,
  renameat2,
  rmdir,
  symlink,
  unlink,
} from './calls/names.ts';
import { names, text } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';
import type { Engine } from './suite/engines.ts';

const WEIGHTS = {
  create: 12,
  write: 12,
  replace: 5,
  truncate: 5,
  mkdir: 8,
  rmdir: 6,
  unlink: 9,
  rename: 16,
  noReplace: 3,
  exchange: 6,
  link: 5,
  symlink: 3,
  fifo: 1,
  chmod: 4,
  xattr: 3,
  list: 6,
  read: 8,
  hold: 5,
  writeHeld: 6,
  readHeld: 6,
  release: 4,
  removeAll: 1,
} as const;
type Operation = keyof typeof WEIGHTS;

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f'];
const DEPTH_MAX = 4;
const FILE_BYTES_MAX = 300_000;
/** Held open at once. */
const HELD_MAX = 12;

/** The same tree for the same seed: directories and files under few names, so that operations meet. */
export function makeTree(root: string, seed: number): void {
  const random = new Random(seed);
  mkdirSync(root, { recursive: true });
  for (let at = 0; at < 25; at++) mkdir(path.join(root, randomPath(random)));
  for (let at = 0; at < 80; at++)
    put(
      path.join(root, randomPath(random)),
      random
        .bytes(1 + random.below(200))
        .toString('latin1')
        .repeat(1 + random.below(400)),
    );
}

function put(file: string, contents: string): Outcome {
  const fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_NONBLOCK);
  const result = write(fd, contents);
  return typeof fd === 'number' ? [result, close(fd)].join() : fd;
}

function randomPath(random: Random): string {
  return Array.from({ length: 1 + random.below(DEPTH_MAX) }, () => random.pick(NAMES)).join('/');
}

/** What a step does, decided before anything is done, so that two trees get the same. */
interface Step {
  operation: Operation;
  one: string;
  other: string;
  number: number;
  contents: string;
  /** Whether another process shall make the call. */
  elsewhere: boolean;
}

/** One of the two trees, and the files of it that are held open. */
class Side {
  readonly root: string;
  readonly held: Outcome[] = [];

  constructor(root: string) {
    this.root = root;
  }

  do(step: Step): Outcome | readonly string[] {
    const [one, other] = [path.join(this.root, step.one), path.join(this.root, step.other)];
    const { number, contents } = step;
    switch (step.operation) {
      case 'create':
        return closed(open(one, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK));
      case 'write':
        return this.#write(one, contents, number);
      case 'replace':
        return put(one, contents);
      case 'truncate':
        return truncate(one, number);
      case 'mkdir':
        return step.elsewhere ? otherProcess().call('mkdir', one) : mkdir(one);
      case 'rmdir':
        return step.elsewhere ? otherProcess().call('rmdir', one) : rmdir(one);
      case 'unlink':
        return step.elsewhere ? otherProcess().call('unlink', one) : unlink(one);
      case 'rename':
        return step.elsewhere ? otherProcess().call('rename', one, other) : rename(one, other);
      case 'noReplace':
        return renameat2(one, other, RENAME_NOREPLACE);
      case 'exchange':
        return exchange(one, other);
      case 'link':
        return step.elsewhere ? otherProcess().call('link', one, other) : link(one, other);
      case 'symlink':
        return symlink(step.other, one);
      case 'fifo':
        return mknod(one, 0o010644);
      case 'chmod':
        return chmod(one, 0o600 | (number & 0o177));
      case 'xattr':
        return setxattr(one, `user.n${number % 3}`, contents.slice(0, 50));
      case 'list':
        return names(one);
      case 'read':
        return step.elsewhere ? otherProcess().text(one) : text(one);
      case 'hold':
        if (this.held.length < HELD_MAX) this.held.push(open(one, O_RDWR | O_NONBLOCK));
        return typeof this.held.at(-1) === 'number' ? 0 : (this.held.pop() ?? 0);
      case 'writeHeld':
        return this.#onHeld(number, (fd) => pwrite(fd, contents.slice(0, 5000), number % 100_000));
      case 'readHeld':
        return this.#onHeld(number, (fd) => pread(fd, 10_000, number % 100_000));
      case 'release':
        return this.held.length === 0 ? 0 : close(this.held.shift() ?? -1);
      case 'removeAll':
        return this.#removeAll(one);
    }
  }

  end(): void {
    for (const fd of this.held.splice(0)) close(fd);
  }

  #write(file: string, contents: string, at: number): Outcome {
    const fd = open(file, O_RDWR | O_NONBLOCK);
    if (typeof fd === 'string') return fd;
    const result = pwrite(fd, contents, at);
    return [result, close(fd)].join();
  }

  #onHeld(number: number, call: (fd: Outcome) => Outcome): Outcome {
    const fd = this.held[number % Math.max(this.held.length, 1)];
    return fd === undefined ? 'nothing held' : call(fd);
  }

  /** A small rm -rf, of what its own listing says. */
  #removeAll(dir: string): Outcome {
    const list = names(dir);
    if (typeof list === 'string') return list;
    for (const name of list) if (unlink(path.join(dir, name)) === 'EISDIR') this.#removeAll(path.join(dir, name));
    return rmdir(dir);
  }
}

function closed(fd: Outcome): Outcome {
  return typeof fd === 'string' ? fd : close(fd);
}

export interface TreeRun {
  seed: number;
  steps: number;
  engine: Engine;
}

/**
 * Does the same at random in two equal trees, one of them on ext4, and compares what each call says and, at the end, the
 * trees. What the engine refuses with EXDEV, which any caller of rename(2) must expect, is not asked of ext4.
 *
 * @throws Error that names the seed, the step and both outcomes
 */
export function exerciseTrees(control: string, subject: string, { seed, steps, engine }: TreeRun): void {
  const random = new Random(seed);
  const sides = { control: new Side(control), subject: new Side(subject) };
  const weights = engine.breaksHardLinks === true ? { ...WEIGHTS, link: 0 } : WEIGHTS;
  for (let at = 0; at < steps; at++) {
    const step = randomStep(random, weights);
    const found = sides.subject.do(step);
    if (found === 'EXDEV') continue;
    const wanted = sides.control.do(step);
    if (String(found) !== String(wanted))
      throw new Error(`seed ${seed}, step ${at}: ${told(step)} gives ${shown(found)}, on ext4 ${shown(wanted)}`);
  }
  sides.subject.end();
  sides.control.end();
  const differences = compareByWalk(control, subject, { ignoreAttributes: ['mtimeNs'] });
  if (differences.length > 0)
    throw new Error(`seed ${seed}, after ${steps} steps:\n${differences.slice(0, 20).join('\n')}`);
}

function randomStep(random: Random, weights: Readonly<Record<Operation, number>>): Step {
  return {
    operation: random.weighted(weights),
    one: randomPath(random),
    other: randomPath(random),
    number: random.below(FILE_BYTES_MAX),
    contents: random
      .bytes(1 + random.below(40))
      .toString('latin1')
      .repeat(1 + random.below(random.chance(0.1) ? 2000 : 20)),
    elsewhere: random.chance(0.2),
  };
}

function told({ operation, one, other, number, elsewhere }: Step): string {
  return `${operation} ${one} (${other}, ${number}${elsewhere ? ', in another process' : ''})`;
}

function shown(outcome: Outcome | readonly string[]): string {
  return JSON.stringify(typeof outcome === 'string' ? outcome.slice(0, 60) : outcome);
}
