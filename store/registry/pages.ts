import { BentoError } from '../errors.ts';
import { parseObject } from '../manifest.ts';
import { isTag } from '../ref.ts';
import { expectStatus, readBody } from './answers.ts';
import { headerOf, type HttpAnswer } from './exchange.ts';
import type { Host } from './host.ts';
import { PAGE_BYTES_MAX, PAGE_COUNT_MAX } from './limits.ts';
import type { ReadOptions } from './repository.ts';

export interface PagesRequest {
  url: URL;
  headers?: Record<string, string>;
  scopes: readonly string[];
  what: string;
  /** Whether the first answer means that there is no such list; default: 404. */
  isAbsent?: (answer: HttpAnswer) => boolean;
}

/**
 * A listing, page by page as `Link: <...>; rel="next"` leads, on the registry's own host only; nothing when the first page
 * is not there.
 *
 * @throws BentoError REMOTE_INVALID when pages do not end, or lead elsewhere
 */
export async function* pagesOf(
  host: Host,
  { url: first, headers, scopes, what, isAbsent = ({ status }) => status === 404 }: PagesRequest,
  options?: ReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const seen = new Set<string>();
  let url: URL | undefined = first;
  while (url !== undefined) {
    if (seen.has(url.href) || seen.size >= PAGE_COUNT_MAX) throw invalid(`${what}: its pages do not end`);
    seen.add(url.href);
    const asked: URL = url;
    const request = { method: 'GET', url: asked, scopes, ...(headers !== undefined && { headers }) } as const;
    const page = await host.ask(request, { options, what }, async (answer) => {
      if (seen.size === 1 && isAbsent(answer)) return undefined;
      await expectStatus(answer, [200], what);
      const next = nextPage(headerOf(answer, 'link'), asked);
      return { bytes: await readBody(answer, PAGE_BYTES_MAX, `a page of ${what}`), next };
    });
    if (page === undefined) return;
    if (page.next !== undefined && page.next.origin !== host.origin.origin)
      throw invalid(`${what}: the next page is elsewhere, at ${page.next.host}`);
    yield page.bytes;
    url = page.next;
  }
}

/** @see RFC 8288 */
function nextPage(link: string | undefined, from: URL): URL | undefined {
  const target = /<([^<>]*)>\s*;[^<]*\brel="?next"?/i.exec(link ?? '')?.[1];
  if (target === undefined) return undefined;
  if (URL.canParse(target, from.href)) return new URL(target, from);
  throw invalid(`${from.host} leads to no next page`);
}

/** `{ tags: [...] }`. @throws BentoError REMOTE_INVALID */
export function parseTags(bytes: Buffer, shown: string): string[] {
  const tags = objectOf(bytes, `the tags of ${shown}`)['tags'];
  if (tags === null || tags === undefined) return []; // as old registries have it for none
  if (!Array.isArray(tags)) throw invalid(`the tags of ${shown} are not a list`);
  return tags.map((tag: unknown) => {
    if (typeof tag === 'string' && isTag(tag)) return tag;
    throw invalid(`${shown} lists what is no tag`);
  });
}

/** A JSON object that a registry gave. @throws BentoError REMOTE_INVALID */
export function objectOf(bytes: Buffer, what: string): Record<string, unknown> {
  try {
    return parseObject(bytes, what);
  } catch (cause) {
    throw new BentoError('REMOTE_INVALID', `${what} are not a JSON object`, {
      hint: 'ask whoever runs the registry',
      cause,
    });
  }
}

function invalid(message: string): BentoError {
  return new BentoError('REMOTE_INVALID', message, { hint: 'ask whoever runs the registry' });
}
