import { basename } from 'node:path';

import { fromText, toBytes, type ByteString } from '../../store/byte-string.ts';
import { hexOf, type Digest } from '../../store/digest.ts';

/** A name longer than this is no file name (NAME_MAX, linux/limits.h). */
const NAME_BYTES_MAX = 255;
/** An id that bento made up, which people do not know their workspace by. */
const MADE_UP_ID = /^ws-([0-9a-f]{16})$/;
const SHORT_ID_LENGTH = 8;
const SEQUENCE_TAG = /^cp-([1-9][0-9]{0,14})$/;

/**
 * What the workspaces of a store are called as folders: by the id that somebody gave them, else by the name of their
 * directory, else by the id that was made up. Of several with one name, each has the first 8 digits of its id added.
 *
 * @param workspaces - in ascending order of their ids; `dirs` with the best first
 */
export function nameWorkspaces(
  workspaces: readonly { id: string; dirs: readonly string[] }[],
): Map<string, ByteString> {
  const wanted = workspaces.map(({ id, dirs }) => ({ id, name: knownName(id, dirs[0]) }));
  const counts = countEach(wanted.map(({ name }) => name));
  const taken = new Set<ByteString>();
  const names = new Map<string, ByteString>();
  for (const { id, name } of wanted) {
    const plain = counts.get(name) === 1 ? [name] : [];
    names.set(id, takeFirst([...plain, suffixed(name, shortId(id)), suffixed(name, id), fromText(id)], taken));
  }
  return names;
}

function knownName(id: string, dir: string | undefined): ByteString {
  const known = MADE_UP_ID.test(id) && dir !== undefined ? basename(dir) : id;
  return asFileName(known) ?? fromText(id);
}

function shortId(id: string): string {
  return (MADE_UP_ID.exec(id)?.[1] ?? id).slice(0, SHORT_ID_LENGTH);
}

/**
 * What the tags of a workspace are called as names in a folder: for each manifest its tags, the one that shows the
 * checkpoint first. That is `cp-N` where there is one, `latest` only where there is no other.
 */
export function nameTags(tags: ReadonlyMap<string, Digest>): Map<Digest, ByteString[]> {
  const taken = new Set<ByteString>();
  const named = new Map<Digest, ByteString[]>();
  for (const [tag, digest] of [...tags].sort(([a], [b]) => compareTags(a, b))) {
    const name = asFileName(tag) ?? '_';
    const unique = takeFirst([name, suffixed(name, hexOf(digest).slice(0, SHORT_ID_LENGTH))], taken);
    const names = named.get(digest);
    if (names === undefined) named.set(digest, [unique]);
    else names.push(unique);
  }
  return named;
}

/** `cp-1`, `cp-2`, `cp-10`, then what people chose, then undo slots, then `latest`. */
function compareTags(a: string, b: string): number {
  const difference = rankOf(a) - rankOf(b);
  if (difference !== 0) return difference;
  const [mine, theirs] = [sequenceOf(a), sequenceOf(b)];
  if (mine !== theirs) return mine - theirs;
  return a < b ? -1 : 1;
}

function rankOf(tag: string): number {
  if (SEQUENCE_TAG.test(tag)) return 0;
  if (tag === 'latest') return 3;
  return tag.startsWith('pre-open') ? 2 : 1;
}

function sequenceOf(tag: string): number {
  return Number(SEQUENCE_TAG.exec(tag)?.[1] ?? 0);
}

/** Undefined when nothing of the text can stand as a file name. Separators and control characters become `_`. */
function asFileName(text: string): ByteString | undefined {
  // eslint-disable-next-line no-control-regex -- what a terminal would obey must not come out of `ls`
  const name = cut(fromText(text.replace(/[/\x00-\x1f\x7f-\x9f]/g, '_')), NAME_BYTES_MAX);
  return ['', '.', '..'].includes(name) ? undefined : name;
}

function suffixed(name: ByteString, suffix: string): ByteString {
  const end = `-${suffix}`;
  return `${cut(name, NAME_BYTES_MAX - end.length)}${end}`;
}

/** Cuts between characters: half a UTF-8 sequence would show as rubbish. */
function cut(name: ByteString, bytesMax: number): ByteString {
  let end = Math.min(name.length, bytesMax);
  while (end > 0 && end < name.length && ((toBytes(name)[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return name.slice(0, end);
}

/** The first candidate that nobody has yet; the last one with a number when all are taken. */
function takeFirst(candidates: readonly ByteString[], taken: Set<ByteString>): ByteString {
  const last = candidates.at(-1) ?? '_';
  let name = candidates.find((candidate) => !taken.has(candidate));
  for (let count = 2; name === undefined; count += 1) {
    const numbered = suffixed(last, String(count));
    if (!taken.has(numbered)) name = numbered;
  }
  taken.add(name);
  return name;
}

function countEach(names: readonly ByteString[]): Map<ByteString, number> {
  const counts = new Map<ByteString, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}
