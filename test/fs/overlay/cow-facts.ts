import { constants, fstatSync, readdirSync, readFileSync, readSync } from 'node:fs';

import type { CowNode } from '../../../fs/overlay/cow-node.ts';
import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { OpenFiles } from '../../../fs/overlay/open-files.ts';
import { listXattrs } from '../../../fs/overlay/set-attributes.ts';
import { toFsPath } from '../../../store/byte-string.ts';
import { readLink, statOf, xattrNamesOf, type FileStat } from '../../../store/file-calls.ts';
import { LOWER_TIME_SEC } from '../../fixtures/memory-lower.ts';

const { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } = constants;

/** What can be told of an object that does not depend on where it is kept. */
function describe(path: string, stat: FileStat, content: string, xattrs: Buffer): string {
  const kind = stat.mode & S_IFMT;
  const size = kind === S_IFDIR ? '' : ` ${stat.sizeBytes} bytes`;
  const time = stat.mtimeSec === LOWER_TIME_SEC ? ' old' : ' changed';
  const names = xattrs.toString('latin1').split('\0').sort().join(' ');
  return `${path}: ${stat.mode.toString(8)} nlink ${stat.nlink}${size}${time}${names} ${content}`;
}

/** Groups the names of one file. */
function sameAs(groups: Map<number, string>, id: number, path: string): string {
  const first = groups.get(id) ?? path;
  groups.set(id, first);
  return ` = ${first}`;
}

/** A line for each object of a workspace. */
export function factsOfCow(tree: CowTree): string[] {
  const facts: string[] = [];
  const groups = new Map<number, string>();
  const visit = (dir: CowNode, path: string): void => {
    facts.push(describe(path, tree.stat(dir), '', listXattrs(tree, dir, { withTrusted: true })));
    for (const entry of [...tree.list(dir)].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const node = tree.listed(dir, entry);
      const at = `${path}/${entry.name}`;
      if (node === undefined) facts.push(`${at}: listed, but gone`);
      else if (node.isDir) visit(node, at);
      else {
        const stat = entry.below?.stat ?? tree.stat(node);
        const text = contentOfCow(tree, node, stat) + sameAs(groups, node.id, at);
        facts.push(describe(at, stat, text, listXattrs(tree, node, { withTrusted: true })));
      }
    }
  };
  visit(tree.root, '');
  return facts;
}

export function contentOfCow(tree: CowTree, node: CowNode, { mode, sizeBytes }: FileStat): string {
  if ((mode & S_IFMT) === S_IFLNK) {
    const target = node.inUpper ? readLink(tree.path(node)) : tree.lower.link(node.lower ?? 0);
    return typeof target === 'number' ? `errno ${target}` : target.toString('latin1');
  }
  if ((mode & S_IFMT) !== S_IFREG) return '';
  const out = Buffer.alloc(sizeBytes + 10);
  const count = new OpenFiles(tree, undefined).read(node, 0, out);
  return out.toString('latin1', 0, Number(count));
}

/** The same of a directory on disk. */
export function factsOfPlain(root: string): string[] {
  const facts: string[] = [];
  const groups = new Map<number, string>();
  const visit = (path: string): void => {
    const stat = statOf(root + path);
    const xattrs = xattrNamesOf(root + path);
    if (typeof stat === 'number' || typeof xattrs === 'number') throw new Error(`cannot look at ${path}`);
    const isDir = (stat.mode & S_IFMT) === S_IFDIR;
    const text = isDir ? '' : contentOfPlain(root + path, stat) + sameAs(groups, stat.ino, path);
    facts.push(describe(path, stat, text, xattrs));
    if (isDir)
      for (const name of readdirSync(toFsPath(root + path), { encoding: 'latin1' }).sort()) visit(`${path}/${name}`);
  };
  visit('');
  return facts;
}

function contentOfPlain(path: string, { mode }: FileStat): string {
  if ((mode & S_IFMT) === S_IFLNK) return (readLink(path) as Buffer).toString('latin1');
  return (mode & S_IFMT) === S_IFREG ? readFileSync(toFsPath(path), 'latin1') : '';
}

/** What somebody sees who has a file open. */
export function factsOfFd(fd: number): string {
  const { size, nlink, mode } = fstatSync(fd);
  const out = Buffer.alloc(size);
  readSync(fd, out, 0, size, 0);
  return `${mode.toString(8)} nlink ${nlink} ${out.toString('latin1')}`;
}

export function factsOfHeld(tree: CowTree, node: CowNode): string {
  const stat = tree.stat(node);
  return `${stat.mode.toString(8)} nlink ${stat.nlink} ${contentOfCow(tree, node, stat)}`;
}
