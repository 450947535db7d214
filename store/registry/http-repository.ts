import { digestOf, isDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { isObject, MANIFEST_BYTES_MAX, MEDIA_TYPES, type Descriptor } from '../manifest.ts';
import { contentLength, expectStatus, plain, readBody } from './answers.ts';
import { BlobReader } from './blob-reader.ts';
import { uploadBlob } from './blob-upload.ts';
import { headerOf, type HttpAnswer, type HttpRequest } from './exchange.ts';
import type { Host, HostRequest } from './host.ts';
import { fallbackTag, parseReferrers } from './referrers.ts';
import { pagesOf, parseTags } from './pages.ts';
import { REFERRER_COUNT_MAX, TAG_COUNT_MAX } from './limits.ts';
import type {
  RangeOptions,
  ReadOptions,
  RemoteManifest,
  Repository,
  RepositoryName,
  Uploaded,
  UploadOptions,
  UploadSource,
} from './repository.ts';

const DOCKER_TYPES = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
const MANIFEST_TYPES: readonly string[] = [MEDIA_TYPES.manifest, MEDIA_TYPES.index, ...DOCKER_TYPES];

/** `Repository` over HTTP. @see OCI distribution-spec v1.1 */
export class HttpRepository implements Repository {
  readonly name: RepositoryName;
  readonly #path: string;
  readonly #host: Host;
  readonly #blobs: BlobReader;
  /** Until it says otherwise; then the fallback tags are asked for at once. */
  #hasReferrers = true;

  /** @param path - of the repository, as the registry knows it */
  constructor(name: RepositoryName, path: string, host: Host) {
    this.name = name;
    this.#path = path;
    this.#host = host;
    this.#blobs = new BlobReader(host, { path, shown: this.#shown, scopes: this.#reading });
  }

  async headManifest(reference: string, options?: ReadOptions): Promise<Descriptor | undefined> {
    const what = `looking for ${this.#named(reference)}`;
    const told = await this.#host.ask(this.#manifestRequest('HEAD', reference), { options, what }, async (answer) => {
      if (answer.status === 404) return undefined;
      await expectStatus(answer, [200], what);
      return toldDescriptor(answer) ?? 'untold';
    });
    if (told === 'untold') return (await this.getManifest(reference, options))?.descriptor;
    if (told !== undefined && isDigest(reference) && told.digest !== reference)
      throw this.#other(reference, told.digest);
    return told;
  }

  async getManifest(reference: string, options?: ReadOptions): Promise<RemoteManifest | undefined> {
    const shown = this.#named(reference);
    const what = `reading ${shown}`;
    return await this.#host.ask(this.#manifestRequest('GET', reference), { options, what }, async (answer) => {
      if (answer.status === 404) return undefined;
      await expectStatus(answer, [200], what);
      const bytes = await readBody(answer, MANIFEST_BYTES_MAX, shown);
      const digest = digestOf(bytes);
      const expected = isDigest(reference) ? reference : headerOf(answer, 'docker-content-digest');
      if (expected !== undefined && isDigest(expected) && expected !== digest) throw this.#other(reference, digest);
      return { bytes, descriptor: { mediaType: this.#typeOf(answer, bytes, shown), digest, size: bytes.length } };
    });
  }

  async putManifest(
    reference: string,
    manifest: { mediaType: string; bytes: Uint8Array },
    options?: ReadOptions,
  ): Promise<{ keepsReferrers: boolean }> {
    const what = `writing ${this.#named(reference)}`;
    const request: HostRequest = {
      method: 'PUT',
      url: this.#url(`manifests/${reference}`),
      headers: { 'content-type': manifest.mediaType },
      body: Buffer.from(manifest.bytes),
      scopes: this.#writing,
    };
    return await this.#host.ask(request, { options, what }, async (answer) => {
      await expectStatus(answer, [200, 201, 202], what);
      const told = headerOf(answer, 'docker-content-digest');
      const digest = digestOf(manifest.bytes);
      if (told !== undefined && isDigest(told) && told !== digest) throw this.#other(reference, told);
      return { keepsReferrers: headerOf(answer, 'oci-subject') !== undefined };
    });
  }

  async deleteManifest(digest: Digest, options?: ReadOptions): Promise<boolean> {
    const what = `deleting ${this.#named(digest)}`;
    const url = this.#url(`manifests/${digest}`);
    const request: HostRequest = { method: 'DELETE', url, scopes: [`repository:${this.#path}:delete`] };
    return await this.#host.ask(request, { options, what }, async (answer) => {
      if (answer.status === 404) return false;
      await expectStatus(answer, [200, 202, 204], what);
      return true;
    });
  }

  async tags(options?: ReadOptions): Promise<string[]> {
    const what = `listing the tags of ${this.#shown}`;
    const tags: string[] = [];
    const pages = pagesOf(this.#host, { url: this.#url('tags/list'), scopes: this.#reading, what }, options);
    for await (const page of pages) {
      for (const tag of parseTags(page, this.#shown)) tags.push(tag);
      if (tags.length > TAG_COUNT_MAX) throw invalid(`${this.#shown} has more than ${TAG_COUNT_MAX} tags`);
    }
    return tags;
  }

  async blobSize(digest: Digest, options?: ReadOptions): Promise<number | undefined> {
    return await this.#blobs.size(digest, options);
  }

  async readRange(
    digest: Digest,
    range: { offset: number; length: number; sizeBytes: number },
    options?: RangeOptions,
  ): Promise<Buffer | 'ignored'> {
    return await this.#blobs.readRange(digest, range, options);
  }

  streamBlob(
    blob: { digest: Digest; sizeBytes: number },
    options?: ReadOptions & { offset?: number },
  ): AsyncGenerator<Buffer, void, undefined> {
    return this.#blobs.stream(blob, options);
  }

  async uploadBlob(
    blob: { digest: Digest; sizeBytes: number },
    source: UploadSource,
    options?: UploadOptions,
  ): Promise<Uploaded> {
    const size = await this.blobSize(blob.digest, options);
    if (size === blob.sizeBytes) return 'there';
    if (size !== undefined)
      throw invalid(`${this.#shown} has ${blob.digest} with ${size} bytes, not ${blob.sizeBytes}`);
    const place = {
      path: this.#path,
      shown: this.#shown,
      scopes: this.#writing,
      has: async () => (await this.blobSize(blob.digest, options)) === blob.sizeBytes,
    };
    return await uploadBlob(this.#host, place, { ...blob, source }, options);
  }

  async referrers(digest: Digest, artifactType?: string, options?: ReadOptions): Promise<Descriptor[]> {
    if (!this.#hasReferrers) return await this.#fallbackReferrers(digest, artifactType, options);
    const what = `listing what refers to ${this.#named(digest)}`;
    const url = this.#url(`referrers/${digest}`);
    if (artifactType !== undefined) url.searchParams.set('artifactType', artifactType);
    const headers = { accept: MEDIA_TYPES.index };
    const found: Descriptor[] = [];
    let isKept = false;
    const request = { url, headers, scopes: this.#reading, what, isAbsent: knowsNoReferrers };
    for await (const page of pagesOf(this.#host, request, options)) {
      isKept = true;
      for (const one of parseReferrers(page, artifactType, this.#named(digest))) found.push(one);
      if (found.length > REFERRER_COUNT_MAX)
        throw invalid(`more than ${REFERRER_COUNT_MAX} refer to ${this.#named(digest)}`);
    }
    this.#hasReferrers = isKept;
    return isKept ? found : await this.#fallbackReferrers(digest, artifactType, options);
  }

  /** @see OCI distribution-spec v1.1, "Unavailable Referrers API" */
  async #fallbackReferrers(digest: Digest, artifactType?: string, options?: ReadOptions): Promise<Descriptor[]> {
    const tag = fallbackTag(digest);
    const index = await this.getManifest(tag, options);
    if (index === undefined) return [];
    if (index.descriptor.mediaType !== MEDIA_TYPES.index) throw invalid(`${this.#named(tag)} is not an index`);
    return parseReferrers(index.bytes, artifactType, this.#named(tag));
  }

  #manifestRequest(method: 'GET' | 'HEAD', reference: string): HostRequest {
    const headers: HttpRequest['headers'] = { accept: MANIFEST_TYPES.join(', ') };
    return { method, url: this.#url(`manifests/${reference}`), headers, scopes: this.#reading };
  }

  /** The type that the header and the manifest itself say; where the header is vague, the manifest's word is enough. */
  #typeOf(answer: HttpAnswer, bytes: Buffer, shown: string): string {
    const told = mediaTypeOf(answer);
    const own = ownType(bytes);
    if (told !== undefined && own !== undefined && told !== own)
      throw invalid(`${shown} is called ${told}, but says ${own}`);
    const type = told ?? own;
    if (type !== undefined) return type;
    throw invalid(`${shown} is no manifest: its type is "${plain(headerOf(answer, 'content-type') ?? '')}"`);
  }

  #other(reference: string, digest: Digest): BentoError {
    return invalid(`${this.#named(reference)} has other bytes than its digest says: ${digest}`);
  }

  #url(rest: string): URL {
    return new URL(`/v2/${this.#path}/${rest}`, this.#host.origin);
  }

  get #shown(): string {
    return `${this.name.registry}/${this.name.repository}`;
  }

  #named(reference: string): string {
    return `${this.#shown}${isDigest(reference) ? '@' : ':'}${reference}`;
  }

  get #reading(): string[] {
    return [`repository:${this.#path}:pull`];
  }

  get #writing(): string[] {
    return [`repository:${this.#path}:pull,push`];
  }
}

/** 404 is what the specification says; others do not know the way, or show a page for people. */
function knowsNoReferrers(answer: HttpAnswer): boolean {
  if (answer.status !== 200) return answer.status === 404 || answer.status === 405;
  const type = headerOf(answer, 'content-type')?.split(';')[0]?.trim().toLowerCase();
  return type === 'text/html';
}

function toldDescriptor(answer: HttpAnswer): Descriptor | undefined {
  const digest = headerOf(answer, 'docker-content-digest');
  const size = contentLength(answer);
  const mediaType = mediaTypeOf(answer);
  if (digest === undefined || !isDigest(digest) || size === undefined || mediaType === undefined) return undefined;
  return { mediaType, digest, size };
}

function mediaTypeOf(answer: HttpAnswer): string | undefined {
  const type = headerOf(answer, 'content-type')?.split(';')[0]?.trim().toLowerCase();
  return MANIFEST_TYPES.find((known) => known === type);
}

function ownType(bytes: Buffer): string | undefined {
  try {
    const json: unknown = JSON.parse(bytes.toString('utf8'));
    const type = isObject(json) ? json['mediaType'] : undefined;
    return MANIFEST_TYPES.find((known) => known === type);
  } catch {
    return undefined; // whoever parses it says so better
  }
}

function invalid(message: string): BentoError {
  return new BentoError('REMOTE_INVALID', message, { hint: 'ask whoever runs the registry' });
}
