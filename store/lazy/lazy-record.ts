import { readFileSync, readdirSync } from 'node:fs';

import { lazyDir, lazyPath } from '../blob-paths.ts';
import type { Digest } from '../digest.ts';
import { writeFileDurably } from '../durable.ts';
import { errnoOf } from '../errors.ts';
import { isObject } from '../manifest.ts';

/** A repository that has a blob. */
export interface LazySource {
  registry: string;
  repository: string;
  /** Whether it is asked without TLS, as the user wished when it was named. */
  plainHttp: boolean;
}

/** What is known of a blob that is only partly here: `<hex>.json` beside it. */
export interface LazyRecord {
  sizeBytes: number;
  /** Where it can be had, last named first. */
  sources: readonly LazySource[];
  /** Whether the rest is fetched while somebody uses it, or only what is read. */
  fetchesRest: boolean;
  /** The blob begins with files that are read first: so many bytes are fetched before the others. */
  prefetchEnd?: number;
}

const SOURCE_COUNT_MAX = 8;
const RECORD_NAME = /^([0-9a-f]{64})\.json$/;

/** @returns undefined when there is none, or one that cannot be understood: then the blob is fetched as if nothing were here */
export function readRecord(storeRoot: string, digest: Digest): LazyRecord | undefined {
  try {
    return parseRecord(JSON.parse(readFileSync(recordPath(storeRoot, digest), 'utf8')));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

export async function writeRecord(storeRoot: string, digest: Digest, record: LazyRecord): Promise<void> {
  await writeFileDurably(recordPath(storeRoot, digest), JSON.stringify(record));
}

/** The same record with a source in front. */
export function withSource(record: LazyRecord, source: LazySource): LazyRecord {
  const others = record.sources.filter((known) => !isSameSource(known, source));
  return { ...record, sources: [source, ...others].slice(0, SOURCE_COUNT_MAX) };
}

/** The blobs of which a part is here. */
export function lazyDigests(storeRoot: string): Digest[] {
  try {
    return readdirSync(lazyDir(storeRoot)).flatMap((name): Digest[] => {
      const hex = RECORD_NAME.exec(name)?.[1];
      return hex === undefined ? [] : [`sha256:${hex}`];
    });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

export function recordPath(storeRoot: string, digest: Digest): string {
  return `${lazyPath(storeRoot, digest)}.json`;
}

function isSameSource(one: LazySource, other: LazySource): boolean {
  return one.registry === other.registry && one.repository === other.repository;
}

function parseRecord(json: unknown): LazyRecord | undefined {
  if (!isObject(json)) return undefined;
  const { sizeBytes, sources, fetchesRest, prefetchEnd } = json;
  if (!Number.isSafeInteger(sizeBytes) || !Array.isArray(sources)) return undefined;
  return {
    sizeBytes: sizeBytes as number,
    sources: sources.flatMap((source) => parseSource(source) ?? []),
    fetchesRest: fetchesRest === true,
    ...(Number.isSafeInteger(prefetchEnd) && { prefetchEnd: prefetchEnd as number }),
  };
}

function parseSource(json: unknown): LazySource | undefined {
  if (!isObject(json)) return undefined;
  const { registry, repository, plainHttp } = json;
  if (typeof registry !== 'string' || typeof repository !== 'string') return undefined;
  return { registry, repository, plainHttp: plainHttp === true };
}
