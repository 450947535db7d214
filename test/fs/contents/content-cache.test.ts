import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import test, { type ExecutionContext } from 'ava';

import { findLeftovers } from '../../../fs/maintenance/leftovers.ts';
import { cacheCapBytes } from '../../../fs/contents/cache-cap.ts';
import { CachedContent } from '../../../fs/contents/cached-content.ts';
import { ContentCache, type ContentCacheOptions } from '../../../fs/contents/content-cache.ts';
import type { PartialContent } from '../../../fs/contents/partial-content.ts';
import { newVerifiedMemory } from '../../../fs/contents/verified-stamps.ts';
import { digestOf, hexOf, type Digest } from '../../../store/digest.ts';
import { Store } from '../../../store/store.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { noise } from '../../store/layers/layer-fixtures.ts';
import { flipByteAt, keep, namesIn, newTmpfs, touch } from './cache-fixtures.ts';

const CHILD = fileURLToPath(new URL('cache-child.js', import.meta.url));
const CAP = { capBytes: 1 << 30 };
const CONTENT = noise(300_000);
const DIGEST = digestOf(CONTENT);

function newCache(t: ExecutionContext, options: ContentCacheOptions = CAP): { cacheDir: string; cache: ContentCache } {
  const cacheDir = join(newFolder(t), 'cache');
  return { cacheDir, cache: new ContentCache(cacheDir, options) };
}

async function begin(cache: ContentCache, sizeBytes = CONTENT.length, digest = DIGEST): Promise<PartialContent> {
  const partial = await cache.begin(digest, sizeBytes);
  if (partial === undefined) throw new Error('it was not begun');
  return partial;
}

function contentOf(held: CachedContent | 'damaged' | undefined): Buffer | 'damaged' | undefined {
  if (!(held instanceof CachedContent)) return held;
  const out = Buffer.alloc(held.sizeBytes + 10);
  const sizeBytes = held.readNow(0, out);
  held.close();
  return out.subarray(0, sizeBytes);
}

/** A process that has said what it did. */
async function start(
  t: ExecutionContext,
  ...args: ['hold' | 'fill' | 'stall', string, Buffer]
): Promise<{ child: ChildProcessWithoutNullStreams; lines: Interface; said: string }> {
  const [what, cacheDir, content] = args;
  const file = join(newFolder(t), 'content');
  writeFileSync(file, content);
  const child = spawn(process.execPath, [CHILD, what, cacheDir, file]);
  child.stderr.pipe(process.stderr);
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface(child.stdout);
  const [said] = (await once(lines, 'line')) as [string];
  return { child, lines, said };
}

async function kill(child: ChildProcessWithoutNullStreams): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

// Making a copy

test('begin() and commit() make a private copy of what was written in any order, and nothing else', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const partial = await begin(cache);
  t.is(cache.open(DIGEST, CONTENT.length), undefined);
  const starts = Array.from({ length: 30 }, (_, i) => ((i * 7) % 30) * 10_000);
  await Promise.all(starts.slice(0, 20).map((at) => partial.write(at, CONTENT.subarray(at, at + 10_000))));
  t.false(partial.isWhole);
  t.true(partial.has(210_000));
  t.false(partial.has(starts[25] ?? 0));
  for (const at of starts) await partial.write(at, CONTENT.subarray(at, at + 10_000)); // some for the second time
  t.true(partial.isWhole);
  t.deepEqual(contentOf(await partial.commit()), CONTENT);
  t.deepEqual(namesIn(cacheDir), [hexOf(DIGEST), `${hexOf(DIGEST)}.used`]);
  t.is(statSync(cache.path(DIGEST)).mode & 0o777, 0o600);
  t.deepEqual(contentOf(cache.open(DIGEST, CONTENT.length)), CONTENT, 'verified by having been made');
});

test('commit() refuses bytes that are not the content, and abort() leaves nothing', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const partial = await begin(cache);
  await partial.write(0, noise(CONTENT.length, 2));
  await t.throwsAsync(partial.commit(), { code: 'DIGEST_MISMATCH' });
  await partial.abort();
  t.deepEqual(namesIn(cacheDir), []);
  await partial.write(0, CONTENT);
  await t.throwsAsync(partial.commit(), { instanceOf: TypeError });
  t.deepEqual(namesIn(cacheDir), []);
});

test('commit() finds that the bytes on disk are not those that were written', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const partial = await begin(cache);
  await partial.write(150_000, CONTENT.subarray(150_000));
  const [temporary = ''] = namesIn(cacheDir);
  flipByteAt(join(cacheDir, 'sha256', temporary), 200_000, CONTENT[200_000] ?? 0);
  await partial.write(0, CONTENT.subarray(0, 150_000));
  await t.throwsAsync(partial.commit(), { code: 'DIGEST_MISMATCH' });
  await partial.abort();
});

test('commit() gives up quietly when its temporary file is gone', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const partial = await begin(cache);
  await partial.write(0, CONTENT);
  rmSync(join(cacheDir, 'sha256', namesIn(cacheDir)[0] ?? ''));
  t.is(await partial.commit(), undefined);
  t.deepEqual(namesIn(cacheDir), []);
});

// Verifying

test('openVerified() verifies a copy that another process made; open() does not give it away before', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  const restarted = new ContentCache(cacheDir, CAP);
  t.true(restarted.has(DIGEST));
  t.is(restarted.open(DIGEST, CONTENT.length), undefined);
  t.deepEqual(contentOf(await restarted.openVerified(DIGEST, CONTENT.length)), CONTENT);
  t.deepEqual(contentOf(restarted.open(DIGEST, CONTENT.length)), CONTENT);
});

test('openVerified() on one thread is enough for all that share the memory', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  const verified = newVerifiedMemory();
  const [one, two] = [
    new ContentCache(cacheDir, { ...CAP, verified }),
    new ContentCache(cacheDir, { ...CAP, verified }),
  ];
  contentOf(await one.openVerified(DIGEST, CONTENT.length));
  t.deepEqual(contentOf(two.open(DIGEST, CONTENT.length)), CONTENT);
});

test('a change of a verified copy makes it unverified; one with wrong bytes is removed', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const changes: Record<string, { change: (path: string) => void; found: Buffer | 'damaged' }> = {
    'another time': { change: touch, found: CONTENT },
    'the same bytes in another file': { change: (path) => replace(path, CONTENT), found: CONTENT },
    'other bytes in another file': { change: (path) => replace(path, noise(CONTENT.length, 3)), found: 'damaged' },
    'a flipped byte': { change: (path) => flipByteAt(path, 299_999, CONTENT[299_999] ?? 0), found: 'damaged' },
    'cut off': { change: (path) => truncateSync(path, CONTENT.length - 1), found: 'damaged' },
    'too long': { change: (path) => truncateSync(path, CONTENT.length + 1), found: 'damaged' },
  };
  for (const [what, { change, found }] of Object.entries(changes)) {
    if (!cache.has(DIGEST)) await keep(cache, CONTENT);
    t.deepEqual(contentOf(cache.open(DIGEST, CONTENT.length)), CONTENT, what);
    change(cache.path(DIGEST));
    t.is(cache.open(DIGEST, CONTENT.length), undefined, what);
    t.deepEqual(contentOf(await cache.openVerified(DIGEST, CONTENT.length)), found, what);
    if (found === 'damaged') t.deepEqual(namesIn(cacheDir), [], what);
  }
});

function replace(path: string, content: Buffer): void {
  rmSync(path);
  writeFileSync(path, content);
}

test('a content with another size than the copy is not read from it', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  for (const sizeBytes of [CONTENT.length - 1, CONTENT.length + 1]) {
    t.is(cache.open(DIGEST, sizeBytes), undefined);
    t.is(await cache.openVerified(DIGEST, sizeBytes), undefined);
    t.is(await new ContentCache(cacheDir, CAP).openVerified(DIGEST, sizeBytes), undefined);
  }
  t.deepEqual(contentOf(cache.open(DIGEST, CONTENT.length)), CONTENT, 'it is none the worse for it');
});

test('readNow() and read() of a copy that is shorter than it was say so', async (t) => {
  const { cache } = newCache(t);
  await keep(cache, CONTENT);
  using held = cache.open(DIGEST, CONTENT.length);
  t.deepEqual(await held?.read(299_000, 5000), CONTENT.subarray(299_000));
  t.deepEqual(await held?.read(400_000, 5000), Buffer.alloc(0));
  truncateSync(cache.path(DIGEST), 299_500);
  t.is(held?.readNow(299_000, Buffer.alloc(5000)), undefined);
  t.is(await held?.read(299_000, 5000), undefined);
});

// Room

/** A cache with room for three contents of 100,000 bytes, whose clock goes on by an hour at each look. */
function smallCache(t: ExecutionContext): { cacheDir: string; cache: ContentCache; contents: Buffer[] } {
  let hours = 0;
  const now = (): Date => new Date(1_700_000_000_000 + hours++ * 3_600_000);
  const contents = [1, 2, 3, 4, 5].map((seed) => noise(100_000, seed));
  return { ...newCache(t, { capBytes: 350_000, now }), contents };
}

function digestsOf(contents: readonly Buffer[]): Digest[] {
  return contents.map((content) => digestOf(content));
}

test('begin() evicts what was used longest ago, and as little as need be', async (t) => {
  const { cache, contents } = smallCache(t);
  const [a, b, c, d, e] = digestsOf(contents);
  for (const content of contents.slice(0, 3)) await keep(cache, content);
  for (const digest of [a, b]) if (digest !== undefined) cache.open(digest, 100_000)?.close();
  await keep(cache, contents[3] ?? Buffer.alloc(0));
  t.deepEqual(
    [a, b, c, d].map((digest) => cache.has(digest as Digest)),
    [true, true, false, true],
  );
  await keep(cache, contents[4] ?? Buffer.alloc(0));
  t.deepEqual(
    [a, b, c, d, e].map((digest) => cache.has(digest as Digest)),
    [false, true, false, true, true],
  );
});

test('begin() evicts nothing that is held, and nothing at all when that does not make room', async (t) => {
  const { cache, contents } = smallCache(t);
  const [a, b, c] = digestsOf(contents) as [Digest, Digest, Digest];
  for (const content of contents.slice(0, 3)) await keep(cache, content);
  using held = cache.open(a, 100_000);
  t.is(await cache.begin(DIGEST, 260_000), undefined);
  t.deepEqual(
    [a, b, c].map((digest) => cache.has(digest)),
    [true, true, true],
  );
  for (const at of [3, 4]) await keep(cache, contents[at] ?? Buffer.alloc(0));
  t.deepEqual(
    [a, b, c].map((digest) => cache.has(digest)),
    [true, false, false],
  );
  t.deepEqual(contentOf(held), contents[0]);
});

test('begin() counts what is being copied as if it were whole, and takes nothing larger than the cap', async (t) => {
  const { cacheDir, cache, contents } = smallCache(t);
  t.is(await cache.begin(DIGEST, 350_001), undefined);
  const partial = await begin(cache, 300_000);
  t.is(await cache.begin(digestOf(contents[0] ?? ''), 100_000), undefined);
  await partial.abort();
  await keep(cache, contents[0] ?? Buffer.alloc(0));
  t.is(namesIn(cacheDir).length, 2);
});

test('a cap of 0 turns the cache off, and trim() empties it', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  const off = new ContentCache(cacheDir, { capBytes: 0 });
  t.false(off.has(DIGEST));
  t.is(off.open(DIGEST, CONTENT.length), undefined);
  t.is(await off.openVerified(DIGEST, CONTENT.length), undefined);
  t.is(await off.begin(DIGEST, CONTENT.length), undefined);
  await off.trim();
  t.deepEqual(namesIn(cacheDir), []);
});

test('trim() evicts down to the cap, though something held keeps it from getting there', async (t) => {
  const { cacheDir, cache, contents } = smallCache(t);
  const [a, b, c] = digestsOf(contents) as [Digest, Digest, Digest];
  for (const content of contents.slice(0, 3)) await keep(cache, content);
  using held = cache.open(b, 100_000);
  await new ContentCache(cacheDir, { capBytes: 50_000 }).trim();
  t.deepEqual(
    [a, b, c].map((digest) => cache.has(digest)),
    [false, true, false],
  );
  t.truthy(held);
});

test('a folder that is no folder costs nobody anything', async (t) => {
  const { cacheDir, cache } = newCache(t);
  mkdirSync(cacheDir);
  writeFileSync(join(cacheDir, 'sha256'), '');
  t.is(await cache.begin(DIGEST, CONTENT.length), undefined);
  t.is(cache.open(DIGEST, CONTENT.length), undefined);
  await cache.trim();
});

testNeeding({ root: true })(
  'begin() evicts for the sake of a full disk, and gives up when that is not enough',
  async (t) => {
    const cacheDir = join(newTmpfs(t, 2 << 20), 'cache');
    const cache = new ContentCache(cacheDir, CAP);
    const [large, larger] = [noise(1_200_000), noise(1_300_000)];
    const digest = await keep(cache, large);
    t.is(await cache.begin(digestOf(''), 3 << 20), undefined);
    t.true(cache.has(digest));
    await keep(cache, larger);
    t.false(cache.has(digest));
  },
);

testNeeding({ root: true })('write() on a full disk fails, and abort() takes back what was written', async (t) => {
  const disk = newTmpfs(t, 2 << 20);
  const cache = new ContentCache(join(disk, 'cache'), CAP);
  const partial = await begin(cache, 1_500_000);
  writeFileSync(join(disk, 'other'), noise(1_500_000));
  await t.throwsAsync(partial.write(0, noise(1_500_000)), { code: 'ENOSPC' });
  await partial.abort();
  t.deepEqual(namesIn(join(disk, 'cache')), []);
});

testNeeding({ root: true })(
  'cacheCapBytes() is a quarter of the free disk, what the cache holds counted as free',
  async (t) => {
    const cacheDir = join(newTmpfs(t, 8 << 20), 'cache');
    const before = cacheCapBytes(cacheDir, {});
    t.true(before > 1.9 * (1 << 20) && before <= 2 << 20, String(before));
    await keep(new ContentCache(cacheDir, CAP), noise(4 << 20));
    t.true(Math.abs(cacheCapBytes(cacheDir, {}) - before) < 1 << 14);
  },
);

test('cacheCapBytes() takes BENTO_CACHE_MAX as bytes, or with a suffix', (t) => {
  const dir = newFolder(t);
  const capOf = (text: string): number => cacheCapBytes(dir, { BENTO_CACHE_MAX: text });
  t.deepEqual(['0', '1000', '3k', '20M', '7G', '1T'].map(capOf), [0, 1000, 3072, 20 << 20, 7 * 2 ** 30, 2 ** 40]);
  t.true(cacheCapBytes(dir, { BENTO_CACHE_MAX: '' }) > 0);
  t.true(cacheCapBytes(dir, {}) <= 10 * 2 ** 30);
  for (const text of ['x', '-1', '1.5G', '10 GB', 'G'])
    t.throws(() => capOf(text), { code: 'CONFIG_INVALID', message: new RegExp(`BENTO_CACHE_MAX is "${text}"`) });
});

// Several processes

test('two processes that copy the same content at once both have it, and one copy remains', async (t) => {
  const { cacheDir, cache } = newCache(t);
  const fillers = [await start(t, 'fill', cacheDir, CONTENT), await start(t, 'fill', cacheDir, CONTENT)];
  t.is(namesIn(cacheDir).length, 2, 'each has a temporary file of its own');
  const said = await Promise.all(
    fillers.map(async ({ child, lines }) => {
      child.stdin.end();
      return (await once(lines, 'line')) as unknown;
    }),
  );
  t.deepEqual(said, [['filled'], ['filled']]);
  t.deepEqual(namesIn(cacheDir), [hexOf(DIGEST), `${hexOf(DIGEST)}.used`]);
  t.deepEqual(readFileSync(cache.path(DIGEST)), CONTENT);
});

test('what another process holds is not evicted before that process ends', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  const { child, said } = await start(t, 'hold', cacheDir, CONTENT);
  t.is(said, 'held');
  const small = new ContentCache(cacheDir, { capBytes: 400_000 });
  t.is(await small.begin(digestOf(''), 200_000), undefined);
  await small.trim();
  await new ContentCache(cacheDir, { capBytes: 0 }).trim();
  t.true(cache.has(DIGEST));
  await kill(child);
  const partial = await begin(small, 200_000, digestOf(''));
  t.false(cache.has(DIGEST));
  await partial.abort();
});

test('what a killed process was copying is cleared away, by trim() or by gc, and not what others are copying', async (t) => {
  const store = new Store(newFolder(t));
  const cache = new ContentCache(store.cacheDir, CAP);
  const leftovers = (): string[] => findLeftovers(store, [], new Set(), new Date()).map(({ path }) => path);
  const ours = await begin(cache);
  const { child } = await start(t, 'stall', store.cacheDir, CONTENT);
  await cache.trim();
  t.is(namesIn(store.cacheDir).length, 2);
  t.deepEqual(leftovers(), []);
  await kill(child);
  const [litter] = leftovers();
  t.true(existsSync(litter ?? ''));
  await cache.trim();
  t.deepEqual(leftovers(), []);
  t.false(existsSync(litter ?? ''));
  t.is(namesIn(store.cacheDir).length, 1);
  await ours.write(0, CONTENT);
  t.deepEqual(contentOf(await ours.commit()), CONTENT);
});

test('trim() clears the marks of copies that are gone', async (t) => {
  const { cacheDir, cache } = newCache(t);
  await keep(cache, CONTENT);
  rmSync(cache.path(DIGEST));
  t.is(namesIn(cacheDir).length, 1);
  await cache.trim();
  t.deepEqual(namesIn(cacheDir), []);
});

test('a use is noted beside the copy, at most once a minute', async (t) => {
  let now = new Date(1_700_000_000_000);
  const { cache } = newCache(t, { ...CAP, now: () => now });
  await keep(cache, CONTENT);
  const mark = `${cache.path(DIGEST)}.used`;
  const noted = (afterSec: number): number => {
    now = new Date(1_700_000_000_000 + afterSec * 1000);
    cache.open(DIGEST, CONTENT.length)?.close();
    return statSync(mark).mtimeMs / 1000 - 1_700_000_000;
  };
  t.deepEqual([noted(0), noted(59), noted(61), noted(100)], [0, 0, 61, 61]);
  utimesSync(mark, 0, 0);
  t.deepEqual(contentOf(cache.open(DIGEST, CONTENT.length)), CONTENT);
});
