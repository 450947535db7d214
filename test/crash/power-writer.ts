import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';

import { contentOf, lineOf, type Claim } from './power-claims.ts';

/**
 * Writes in the directory it is started in until it is killed, and prints a line of JSON for everything of which the kernel
 * said that it is on the disk.
 */
const REPLACED = 5;
const FILES_PER_FOLDER = 20;

function claim(...claims: Claim[]): void {
  writeSync(1, claims.map((one) => `${JSON.stringify(one)}\n`).join('')); // at once, not when the loop is idle
}

function sync(...paths: string[]): void {
  for (const name of paths) {
    const fd = openSync(name, 'r');
    fsyncSync(fd);
    closeSync(fd);
  }
}

/** @param name - what the content says it is */
function write(file: string, version: number, name = file): void {
  const fd = openSync(file, 'w');
  writeSync(fd, contentOf(name, version));
  fsyncSync(fd);
  closeSync(fd);
}

/** A new file in a folder that was made not long before. */
function writeNew(at: number): Claim {
  const folder = `new/folder-${Math.floor(at / FILES_PER_FOLDER)}`;
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `file-${at}`);
  write(file, at);
  sync(folder, 'new', '.');
  return { kind: 'file', path: file, version: at };
}

/** As an editor saves: there is always a whole file of this name. Some of them hide a file of the checkpoint. */
function replace(at: number): Claim {
  const file = `saved/replaced-${at % REPLACED}`;
  write('saved/temporary', at, file);
  renameSync('saved/temporary', file);
  sync('saved');
  return { kind: 'file', path: file, version: at };
}

function append(file: string, at: number): Claim {
  const fd = openSync(file, 'a');
  writeSync(fd, lineOf(file, at));
  fsyncSync(fd);
  closeSync(fd);
  sync(path.dirname(file), '.');
  return { kind: 'lines', path: file, lineCount: at + 1 };
}

function removeSaved(name: string): Claim {
  unlinkSync(path.join('saved', name));
  sync('saved');
  return { kind: 'gone', path: path.join('saved', name) };
}

/** A folder with a file is moved to another folder. */
function move(at: number): Claim[] {
  const from = `from-${at}`;
  mkdirSync(from);
  const file = `moved/${from}/file`;
  write(`${from}/file`, at, file);
  sync(from, '.');
  mkdirSync('moved', { recursive: true });
  renameSync(from, `moved/${from}`);
  sync(`moved/${from}`, 'moved', '.');
  return [
    { kind: 'file', path: file, version: at },
    { kind: 'gone', path: from },
  ];
}

const doomed = readdirSync('saved').filter((name) => name.startsWith('doomed-'));
for (let at = 0; ; at += 1) {
  claim(writeNew(at));
  claim(replace(at));
  claim(append('new-log', at), append('saved/log', at));
  claim(...move(at));
  const name = doomed.pop();
  if (name !== undefined) claim(removeSaved(name));
}
