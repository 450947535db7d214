import { existsSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { BentoError } from '../../store/errors.ts';
import { contentsDir } from './cached-content.ts';

const CAP_BYTES_DEFAULT = 10 * 1024 ** 3;
/** Without a word from the user, the cache takes this part of what the disk has free, its own files counted as free. */
const FREE_PART = 4;

const SIZE = /^(\d{1,15})([KMGT]?)$/i;
const SUFFIXES = ['', 'K', 'M', 'G', 'T'];

/**
 * How many bytes the content cache may take: `BENTO_CACHE_MAX`, or 10 GiB, but no more than a quarter of the free disk.
 *
 * @returns 0 when the cache is off
 * @throws BentoError CONFIG_INVALID when `BENTO_CACHE_MAX` is no size
 */
export function cacheCapBytes(cacheDir: string, env: NodeJS.ProcessEnv = process.env): number {
  const wanted = env['BENTO_CACHE_MAX'];
  if (wanted !== undefined && wanted !== '') return parseCap(wanted);
  const free = freeBytes(cacheDir) + usedBytes(contentsDir(cacheDir));
  return Math.min(CAP_BYTES_DEFAULT, Math.floor(free / FREE_PART));
}

function parseCap(text: string): number {
  const [, digits, suffix = ''] = SIZE.exec(text.trim()) ?? [];
  if (digits !== undefined) return Number(digits) * 1024 ** SUFFIXES.indexOf(suffix.toUpperCase());
  throw new BentoError('CONFIG_INVALID', `BENTO_CACHE_MAX is "${text}", which is no size`, {
    hint: 'write bytes, or a number with K, M, G or T, as 20G; 0 turns the content cache off',
  });
}

/** Free for us on the disk that holds a folder, or will hold it. */
export function freeBytes(dir: string): number {
  const parent = dirname(dir);
  if (!existsSync(dir) && parent !== dir) return freeBytes(parent);
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}

function usedBytes(dir: string): number {
  if (!existsSync(dir)) return 0;
  const sizes = readdirSync(dir).map((name) => statSync(join(dir, name), { throwIfNoEntry: false })?.size ?? 0);
  return sizes.reduce((sum, size) => sum + size, 0);
}
