import { readFileSync } from 'node:fs';

import { ContentCache } from '../../../fs/contents/content-cache.ts';
import { digestOf } from '../../../store/digest.ts';

/**
 * A process that uses a content cache: `hold` keeps the copy of a file's content open, `fill` makes one when its stdin ends,
 * `stall` begins to make one. Says what it has done, and stays until it is killed.
 */
const [, , what, cacheDir = '', file = ''] = process.argv;
const content = readFileSync(file);
const digest = digestOf(content);
const cache = new ContentCache(cacheDir, { capBytes: 1 << 30 });
/** Node closes a handle that nobody refers to any more, and its lock is gone. */
const kept: unknown[] = [];

async function hold(): Promise<string> {
  const held = await cache.openVerified(digest, content.length);
  kept.push(held);
  return typeof held === 'object' ? 'held' : `cannot hold it: ${String(held)}`;
}

async function stall(): Promise<string> {
  const partial = await cache.begin(digest, content.length);
  kept.push(partial);
  await partial?.write(0, content.subarray(0, 1000));
  return 'begun';
}

async function fill(): Promise<string> {
  const partial = await cache.begin(digest, content.length);
  process.stdout.write('ready\n');
  for await (const _ of process.stdin);
  for (let at = 0; at < content.length; at += 1000) await partial?.write(at, content.subarray(at, at + 1000));
  const kept = await partial?.commit();
  return kept?.sizeBytes === content.length ? 'filled' : 'not filled';
}

const steps: Record<string, () => Promise<string>> = { hold, stall, fill };
process.stdout.write(`${(await steps[what ?? '']?.()) ?? 'what?'}\n`);
setInterval(() => kept, 1000);
