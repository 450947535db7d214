import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { shortDigest } from '../../store/digest.ts';
import { errnoOf } from '../../store/errors.ts';
import type { MountRecord } from './mount-table.ts';

/** Lies in a directory below what is mounted on it, so that it is seen when nothing is. */
export const NOTE_NAME = 'BENTO-NOT-MOUNTED.txt';

const NOTE_BYTES_MAX = 16 << 10;
/** The last line: with it a note is recognised, and one that somebody wrote into is not taken for ours. */
const SEAL = /\(bento wrote this, and removes it: ([0-9a-f]{16})\)\n$/;

/** Why a note could not be written or removed, where that does not matter: the mount works without it. */
const UNWRITABLE = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'EDQUOT', 'ENOENT']);

/** Puts a note into an empty directory before something is mounted on it. Never over a file that is not ours. */
export function writeNote(record: MountRecord, storeRoot: string): void {
  const path = join(record.target, NOTE_NAME);
  removeNote(record.target);
  try {
    writeFileSync(path, sealed(noteText(record, storeRoot)), { flag: 'wx', mode: 0o644 });
  } catch (error) {
    const code = errnoOf(error) ?? '';
    if (code === 'EEXIST') return; // somebody else's
    if (!UNWRITABLE.has(code)) throw error;
    tryRemove(path); // the disk is full: half a note
  }
}

/** Takes our note away, if there is one. To be called when nothing is mounted on the directory. */
export function removeNote(dir: string): void {
  const path = join(dir, NOTE_NAME);
  if (isNote(path)) tryRemove(path);
}

function tryRemove(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    if (!UNWRITABLE.has(errnoOf(error) ?? '')) throw error;
  }
}

/** Whether nothing is in a directory but our note. @throws what readdir(2) says */
export function isVacant(dir: string): boolean {
  const names = readdirSync(dir);
  return names.length === 0 || (names.length === 1 && names[0] === NOTE_NAME && isNote(join(dir, NOTE_NAME)));
}

/** A regular file of ours, whole and as it was written. */
function isNote(path: string): boolean {
  const text = readSmallFile(path);
  const seal = SEAL.exec(text);
  return seal !== null && seal[1] === sealOf(text.slice(0, seal.index));
}

/** @returns nothing of what is no regular file, too large, or not ours to read */
function readSmallFile(path: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    return stat.isFile() && stat.size <= NOTE_BYTES_MAX ? readFileSync(fd, 'utf8') : '';
  } catch {
    return '';
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function sealed(text: string): string {
  return `${text}(bento wrote this, and removes it: ${sealOf(text)})\n`;
}

function sealOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function noteText(record: MountRecord, storeRoot: string): string {
  const { created, user } = record;
  const dir = shellWord(record.target);
  const isFork = record.kind === 'fork';
  return [
    'Nothing is mounted here now.',
    '',
    `This directory belongs to ${subject(record)},`,
    `made by ${user} on ${created.slice(0, 19).replace('T', ' ')} UTC.`,
    `Store: ${storeRoot}`,
    ...(isFork ? ['What was changed in the fork is in the store; nothing of it is lost.'] : []),
    '',
    '    bento mounts --restore',
    '        brings it back, with everything else of the store that is not mounted',
    `    bento ${isFork ? 'close' : 'unmount'} ${dir}`,
    `        ${isFork ? 'ends the fork' : 'forgets it'}`,
    '',
    'Run them in a workspace that uses this store, or with --dir <workspace>.',
    '',
    '',
  ].join('\n');
}

function subject({ kind, ref, manifest, workspaceId }: MountRecord): string {
  if (manifest === undefined) return 'a view of all workspaces and tags (bento mount --all)';
  const what = ref === shortDigest(manifest) ? ref : `${ref} (${shortDigest(manifest)})`;
  return `a ${kind === 'fork' ? 'fork' : 'mount'} of ${what}, workspace ${workspaceId}`;
}

function shellWord(word: string): string {
  return /^[\w/.,:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
