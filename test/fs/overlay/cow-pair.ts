import { closeSync, constants, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import type { CowNode } from '../../../fs/overlay/cow-node.ts';
import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { OpenFiles } from '../../../fs/overlay/open-files.ts';
import { Recovery } from '../../../fs/overlay/recovery.ts';
import { toFsPath, type ByteString } from '../../../store/byte-string.ts';
import * as calls from '../../../store/file-calls.ts';
import { errnoOfCall, nodeAt, type CowFolder } from '../../fixtures/cow-trees.ts';
import { LOWER_TIME_SEC, type MemoryLower } from '../../fixtures/memory-lower.ts';
import type { Random } from '../../fixtures/random.ts';
import { factsOfFd, factsOfHeld } from './cow-facts.ts';

export const NAMES = ['a', 'b', 'c', 'd', 'e\xe9'];
const { O_RDWR } = constants;

interface Held {
  id: number;
  fd: number;
  flags: number;
}

/** A workspace, and an ordinary directory with which the same is done. */
export class CowPair {
  tree: CowTree;
  readonly plain: string;
  readonly history: string[] = [];
  readonly #folder: CowFolder;
  #held: Held[] = [];

  constructor(t: ExecutionContext, folder: CowFolder) {
    this.#folder = folder;
    this.plain = join(folder.dir, 'plain');
    materialise(folder.lower, folder.lower.root.id, this.plain, new Map());
    calls.setTimes(folder.upper, [LOWER_TIME_SEC, 0], [LOWER_TIME_SEC, 0]);
    this.tree = folder.open();
    t.teardown(() => {
      for (const { fd } of this.#held) closeSync(fd);
    });
  }

  get #files(): OpenFiles {
    return new OpenFiles(this.tree, undefined);
  }

  fail(what: string): never {
    throw new Error([...this.history, what].join('\n'));
  }

  /** Another process serves it, which knows what is open. */
  reopen(): void {
    const counts = new Map<number, number>();
    for (const { id } of this.#held) counts.set(id, (counts.get(id) ?? 0) + 1);
    this.#closeDescriptors();
    this.tree = this.#folder.open(new Map([...counts].map(([id, count]) => [id, { count, backingId: 0 }])));
    this.history.push('restart');
  }

  /** Nothing is open any more. */
  mountAgain(): void {
    for (const { fd } of this.#held) closeSync(fd);
    this.#held = [];
    this.#closeDescriptors();
    this.tree = this.#folder.mountAgain();
    this.history.push('mount again');
  }

  /** Somebody else who looks at the same workspace; not where something is open, of which only its own process knows. */
  observer(): CowTree {
    return this.#held.length > 0 ? this.tree : this.#folder.open();
  }

  #closeDescriptors(): void {
    for (const { fd } of this.tree.nodes) if (fd >= 0) calls.closeFile(fd);
  }

  heldIds(): number[] {
    return this.#held.map(({ id }) => id);
  }

  heldDifferences(): string[] {
    return this.#held.flatMap(({ id, fd }) => {
      const [found, wanted] = [factsOfHeld(this.tree, this.#heldNode(id)), factsOfFd(fd)];
      return found === wanted ? [] : [`open: found ${found}, wanted ${wanted}`];
    });
  }

  #heldNode(id: number): CowNode {
    const node = this.tree.known(id) ?? new Recovery(this.tree).find(id);
    return node ?? this.fail(`what is open is not known by its id ${id}`);
  }

  idsByPath(): Map<string, number> {
    const ids = new Map<string, number>();
    const visit = (dir: CowNode, path: string): void => {
      for (const entry of this.tree.list(dir)) {
        const node = this.tree.listed(dir, entry);
        if (node === undefined) continue;
        ids.set(`${path}/${entry.name}`, node.id);
        if (node.isDir) visit(node, `${path}/${entry.name}`);
      }
    };
    visit(this.tree.root, '');
    return ids;
  }

  /** An existing directory and any name. */
  somePath(random: Random): ByteString {
    const dirs = [''];
    for (const dir of dirs)
      for (const entry of readdirSync(toFsPath(this.plainPath(dir)), { encoding: 'latin1', withFileTypes: true }))
        if (entry.isDirectory()) dirs.push(dir === '' ? entry.name : `${dir}/${entry.name}`);
    const dir = random.pick(dirs);
    const name = random.pick(NAMES);
    return dir === '' ? name : `${dir}/${name}`;
  }

  /** Does the same to both, and compares how that ends. */
  both(what: string, act: (tree: CowTree) => unknown, plainly: () => number): void {
    this.history.push(what);
    const found = errnoOfCall(() => act(this.tree));
    const wanted = Math.max(0, -plainly());
    if (found !== wanted) this.fail(`errno ${found}, wanted ${wanted}`);
  }

  isFileOrDir(path: ByteString): boolean {
    const stat = calls.statOf(this.plain + path);
    const kind = typeof stat === 'number' ? 0 : stat.mode & constants.S_IFMT;
    return kind === constants.S_IFREG || kind === constants.S_IFDIR;
  }

  plainPath(path: ByteString): ByteString {
    return `${this.plain}/${path}`;
  }

  hold(path: string, flags: number): void {
    const stat = calls.statOf(this.plainPath(path));
    if (typeof stat === 'number' || (stat.mode & constants.S_IFMT) !== constants.S_IFREG) return;
    const node = nodeAt(this.tree, path);
    this.history.push(`open ${path} ${flags}`);
    this.#files.prepare(node, { flags, killsSetuid: false });
    this.#files.count(node, 0);
    this.#held.push({ id: node.id, fd: openSync(toFsPath(this.plainPath(path)), flags), flags });
  }

  letGo(random: Random): void {
    if (this.#held.length === 0) return;
    const held = random.pick(this.#held);
    this.history.push(`close ${held.id}`);
    this.#held = this.#held.filter((other) => other !== held);
    closeSync(held.fd);
    this.#files.release(this.#heldNode(held.id));
  }

  writeHeld(random: Random): void {
    const writable = this.#held.filter(({ flags }) => flags === O_RDWR);
    if (writable.length === 0) return;
    const { id, fd } = random.pick(writable);
    const bytes = Buffer.from(`held ${this.history.length}`);
    this.history.push(`write ${id}`);
    this.#files.write(this.#heldNode(id), bytes, { offset: 2, killsSetuid: false });
    writeSync(fd, bytes, 0, bytes.length, 2);
  }

  forget(random: Random): void {
    const node = random.pick([...this.tree.nodes]);
    this.history.push(`forget ${node.id}`);
    this.tree.forget(node.id, 1e9);
  }
}

function materialise(lower: MemoryLower, id: number, path: string, made: Map<number, string>): void {
  const stat = lower.stat(id);
  if (stat === undefined) throw new Error('no such object');
  const before = made.get(id);
  made.set(id, path);
  const kind = stat.mode & constants.S_IFMT;
  if (before !== undefined) calls.link(before, path);
  else if (kind === constants.S_IFLNK) calls.makeSymlink(lower.link(id).toString('latin1'), path);
  else if (kind === constants.S_IFDIR) {
    mkdirSync(toFsPath(path));
    for (const entry of lower.list(id)) materialise(lower, entry.id, `${path}/${entry.name}`, made);
  } else {
    const content = Buffer.alloc(stat.sizeBytes);
    lower.read(id, 0, content);
    writeFileSync(toFsPath(path), content);
  }
  if (kind !== constants.S_IFLNK) calls.changeMode(path, stat.mode & 0o7777);
  calls.setTimes(path, [LOWER_TIME_SEC, 0], [LOWER_TIME_SEC, 0]);
}
