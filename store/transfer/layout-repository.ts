import { createHash, type Hash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';

import { entryOf, parseAttachment } from '../attachment.ts';
import { digestOf, hexOf, isDigest, shortDigest, type Digest } from '../digest.ts';
import { BentoError, describeSystemError, errnoOf, type ErrorCode } from '../errors.ts';
import {
  indexEntry,
  isObject,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPES,
  parseDescriptor,
  parseObject,
  type Descriptor,
} from '../manifest.ts';
import { archiveIsClosed, nameOfPath } from '../registry/local-ref.ts';
import { fallbackTag, parseReferrers } from '../registry/referrers.ts';
import type {
  ReadOptions,
  RemoteManifest,
  Repository,
  RepositoryName,
  Uploaded,
  UploadOptions,
  UploadSource,
} from '../registry/repository.ts';
import { findTagged, listSource, typeOfManifest, type ImageList } from './image-list.ts';
import { openImageSource, readSourceFile, type ImageSource, type SourceFile } from './image-source.ts';
import { LayoutFolder } from './layout-folder.ts';
import { blobFile } from './source-image.ts';

/** What a folder says that is on a stick or a server which is not there any more. */
const GONE = ['EIO', 'ENODEV', 'ENXIO', 'ENOTCONN', 'ESTALE', 'ETIMEDOUT', 'EHOSTDOWN', 'EHOSTUNREACH'];

/** What is wrong with one manifest, and not with the folder. */
const UNREADABLE: readonly ErrorCode[] = ['REMOTE_INVALID', 'FORMAT_INVALID'];

/** What a manifest refers to. */
interface Link {
  subject: Digest;
  artifactType: string | undefined;
}

interface Opened {
  source: ImageSource;
  /** Of what does not change while it is open: all but a layout folder. */
  list: ImageList | undefined;
}

/**
 * `Repository` over an OCI layout folder, which is read and written, or over an archive, which is only read. A folder may be
 * used by many at once: what is listed in it is there as a whole. Close it.
 */
export class LayoutRepository implements Repository {
  readonly name: RepositoryName;
  readonly #path: string;
  readonly #shown: string;
  /** By manifest; undefined for one that refers to nothing. */
  readonly #links = new Map<Digest, Link | undefined>();
  #opened: Promise<Opened | undefined> | undefined;
  #folder: Promise<LayoutFolder> | undefined;

  /** @param path - absolute; need not be there */
  constructor(path: string) {
    this.name = nameOfPath(path);
    this.#path = path;
    this.#shown = `${this.name.registry}/${this.name.repository}`;
  }

  async close(): Promise<void> {
    const opened = await this.#opened?.catch(() => undefined);
    this.#opened = undefined;
    await opened?.source.close();
  }

  async headManifest(reference: string, options?: ReadOptions): Promise<Descriptor | undefined> {
    return (await this.getManifest(reference, options))?.descriptor;
  }

  async getManifest(reference: string, options?: ReadOptions): Promise<RemoteManifest | undefined> {
    return await this.#guard(`reading ${this.#named(reference)}`, options, async () => {
      const list = await this.#list();
      if (list === undefined) return undefined;
      if (isDigest(reference)) return await this.#manifestIn(list, reference);
      const digest = findTagged(list, reference, this.#shown)?.digest;
      const found = digest && (await this.#manifestIn(list, digest));
      if (digest === undefined || found !== undefined) return found;
      throw this.#invalid(`lists ${reference}, but does not hold its manifest ${digest}`);
    });
  }

  /** @returns undefined when it is not there */
  async #manifestIn(list: ImageList, digest: Digest): Promise<RemoteManifest | undefined> {
    const bytes = list.manifests.get(digest) ?? (await this.#readSmall(list.fileOf(digest)));
    if (bytes === undefined) return undefined;
    if (digestOf(bytes) !== digest) throw this.#invalid(`has other bytes than manifest ${digest}`);
    const mediaType = typeOfManifest(parseObject(bytes, `manifest ${digest}`));
    return { bytes, descriptor: { mediaType, digest, size: bytes.length } };
  }

  async putManifest(
    reference: string,
    { mediaType, bytes }: { mediaType: string; bytes: Uint8Array },
    options?: ReadOptions,
  ): Promise<{ keepsReferrers: boolean }> {
    const digest = digestOf(bytes);
    const size = bytes.length;
    if (isDigest(reference) && reference !== digest) throw this.#invalid(`was given other bytes than ${reference}`);
    const entry = entryFor(reference, Buffer.from(bytes), { mediaType, digest, size });
    return await this.#guard(`writing ${this.#named(reference)}`, options, async () => {
      const folder = await this.#writing();
      if (!(await folder.hasBlob({ digest, size })))
        await folder.putBlob(digest, async (handle) => await handle.writeFile(bytes));
      await folder.list([entry]);
      return { keepsReferrers: true }; // `referrers` looks at all that is listed
    });
  }

  /** @returns whether there was one. The tags that point at it go with it. */
  async deleteManifest(digest: Digest, options?: ReadOptions): Promise<boolean> {
    return await this.#guard(`deleting ${this.#named(digest)}`, options, async () => {
      if ((await this.getManifest(digest, options)) === undefined) return false;
      await (await this.#writing()).removeManifest(digest);
      return true;
    });
  }

  async tags(options?: ReadOptions): Promise<string[]> {
    return await this.#guard(`listing the tags of ${this.#shown}`, options, async () => {
      const list = await this.#list();
      return [...new Set(list?.images.flatMap(({ tag }) => tag ?? []))].sort();
    });
  }

  async blobSize(digest: Digest, options?: ReadOptions): Promise<number | undefined> {
    return await this.#guard(`looking for ${this.#named(digest)}`, options, async () => {
      const file = await this.#open(digest);
      await file?.close();
      return file?.sizeBytes;
    });
  }

  async readRange(
    digest: Digest,
    { offset, length, sizeBytes }: { offset: number; length: number; sizeBytes: number },
    options?: ReadOptions,
  ): Promise<Buffer> {
    return await this.#guard(`reading ${this.#named(digest)}`, options, async () => {
      const file = await this.#openWhole({ digest, sizeBytes });
      try {
        const parts: Buffer[] = [];
        for await (const part of file.stream({ offset, length })) parts.push(part);
        return Buffer.concat(parts);
      } finally {
        await file.close();
      }
    });
  }

  async *streamBlob(
    blob: { digest: Digest; sizeBytes: number },
    { offset = 0, ...options }: ReadOptions & { offset?: number } = {},
  ): AsyncGenerator<Buffer, void, undefined> {
    const what = `reading ${this.#named(blob.digest)}`;
    const file = await this.#guard(what, options, async () => await this.#openWhole(blob));
    try {
      const hash = offset === 0 ? createHash('sha256') : undefined;
      const pieces = file.stream({ offset, length: blob.sizeBytes - offset });
      for (;;) {
        const next = await this.#guard(what, options, async () => await pieces.next());
        if (next.done === true) break;
        hash?.update(next.value);
        yield next.value;
      }
      if (hash !== undefined) this.#check(hash, blob);
    } finally {
      await file.close();
    }
  }

  /** @param source - read once, from its beginning: what breaks here does not come back a moment later */
  async uploadBlob(
    { digest, sizeBytes }: { digest: Digest; sizeBytes: number },
    source: UploadSource,
    { onProgress, ...options }: UploadOptions = {},
  ): Promise<Uploaded> {
    return await this.#guard(`writing ${this.#named(digest)}`, options, async () => {
      const folder = await this.#writing();
      if (await folder.hasBlob({ digest, size: sizeBytes })) return 'there';
      await folder.putBlob(digest, async (handle) => {
        const hash = createHash('sha256');
        let sentBytes = 0;
        for await (const piece of source(0)) {
          options.signal?.throwIfAborted();
          hash.update(piece);
          await handle.writeFile(piece);
          sentBytes += piece.length;
          onProgress?.(sentBytes);
        }
        if (sentBytes !== sizeBytes)
          throw this.#invalid(`was given ${sentBytes} bytes, not ${sizeBytes}, as ${digest}`);
        this.#check(hash, { digest });
      });
      return 'sent';
    });
  }

  /** Of all that is listed, and of the fallback tag that a copy from a registry may have. */
  async referrers(digest: Digest, artifactType?: string, options?: ReadOptions): Promise<Descriptor[]> {
    const found = new Map<Digest, Descriptor>();
    await this.#guard(`listing what refers to ${digest}`, options, async () => {
      const list = await this.#list();
      for (const { descriptor } of list?.images ?? []) {
        const link = list && (await this.#linkOf(list, descriptor.digest));
        const isWanted = artifactType === undefined || link?.artifactType === artifactType;
        if (link?.subject === digest && isWanted) found.set(descriptor.digest, asReferrer(descriptor, link));
      }
    });
    const fallback = await this.getManifest(fallbackTag(digest), options);
    const told = fallback === undefined ? [] : parseReferrers(fallback.bytes, artifactType, this.#named(digest));
    for (const one of told) if (!found.has(one.digest)) found.set(one.digest, one);
    return [...found.values()];
  }

  /** Read once for each digest: a manifest never says anything else. One that cannot be read refers to nothing that is known. */
  async #linkOf(list: ImageList, digest: Digest): Promise<Link | undefined> {
    if (this.#links.has(digest)) return this.#links.get(digest);
    try {
      const manifest = await this.#manifestIn(list, digest);
      const link = manifest && linkIn(manifest);
      if (manifest !== undefined) this.#links.set(digest, link);
      return link;
    } catch (error) {
      if (error instanceof BentoError && UNREADABLE.includes(error.code)) return undefined;
      throw error;
    }
  }

  /** What is in it now; undefined when it is not there yet. */
  async #list(): Promise<ImageList | undefined> {
    const opened = await this.#reading();
    if (opened === undefined) return undefined;
    return opened.list ?? (await listSource(opened.source));
  }

  async #reading(): Promise<Opened | undefined> {
    this.#opened ??= this.#openSource();
    try {
      const opened = await this.#opened;
      const isGone = opened?.source.changes === true && !existsSync(this.#path); // a stick that was taken out
      if (opened === undefined || isGone) this.#opened = undefined; // it may come
      return isGone ? await this.#openSource() : opened;
    } catch (error) {
      this.#opened = undefined;
      throw error;
    }
  }

  async #openSource(): Promise<Opened | undefined> {
    if (!existsSync(this.#path)) {
      this.#requireParent();
      return undefined;
    }
    const source = await openImageSource(this.#path);
    try {
      const list = await listSource(source);
      if (list !== undefined) return { source, list: source.changes && list.isLayout ? undefined : list };
      if (source.changes && (await LayoutFolder.isEmpty(this.#path))) return undefined;
      throw this.#invalid('is neither an image layout nor an archive of images');
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** A stick that is not plugged in must not become a folder on the disk below. */
  #requireParent(): void {
    const parent = dirname(this.#path);
    if (existsSync(parent)) return;
    throw new BentoError('REMOTE_UNREACHABLE', `${this.#shown} is not there, and the folder ${parent} neither`, {
      hint: 'mount what it is on, or make that folder',
    });
  }

  async #writing(): Promise<LayoutFolder> {
    if (this.#path.endsWith('.tar') || (await this.#reading())?.source.changes === false) {
      throw archiveIsClosed(this.#shown);
    }
    this.#requireParent();
    this.#folder ??= LayoutFolder.prepare(this.#path);
    return await this.#folder;
  }

  async #readSmall(file: string): Promise<Buffer | undefined> {
    const opened = await this.#reading();
    return opened && (await readSourceFile(opened.source, file, MANIFEST_BYTES_MAX));
  }

  async #open(digest: Digest): Promise<SourceFile | undefined> {
    const opened = await this.#reading();
    if (opened === undefined) return undefined;
    const file = opened.list?.fileOf(digest) ?? blobFile(digest);
    return await opened.source.open(file, { mayBeLink: true });
  }

  async #openWhole({ digest, sizeBytes }: { digest: Digest; sizeBytes: number }): Promise<SourceFile> {
    const file = await this.#open(digest);
    if (file === undefined && !existsSync(this.#path))
      throw new BentoError('REMOTE_UNREACHABLE', `${this.#shown} is not there any more`, {
        hint: 'mount what it is on',
      });
    if (file === undefined) {
      throw new BentoError('REMOTE_NOT_FOUND', `${this.#shown} does not hold the blob ${digest} that its image needs`);
    }
    if (file.sizeBytes === sizeBytes) return file;
    await file.close();
    throw this.#invalid(`has ${file.sizeBytes} bytes for blob ${shortDigest(digest)}, not ${sizeBytes}`);
  }

  #check(hash: Hash, { digest }: { digest: Digest }): void {
    if (hash.digest('hex') !== hexOf(digest)) throw this.#invalid(`has other bytes than blob ${shortDigest(digest)}`);
  }

  /** Names what was going on when the file system failed. */
  async #guard<Result>(
    what: string,
    { signal, deadlineMs }: ReadOptions = {},
    run: () => Promise<Result>,
  ): Promise<Result> {
    signal?.throwIfAborted();
    if (deadlineMs !== undefined && performance.now() > deadlineMs)
      throw new BentoError('REMOTE_UNREACHABLE', `${what} took too long`);
    try {
      return await run();
    } catch (error) {
      if (!GONE.includes(errnoOf(error) ?? '')) throw describeSystemError(error, what);
      throw new BentoError('REMOTE_UNREACHABLE', `${what} failed: ${(error as Error).message}`, { cause: error });
    }
  }

  #named(reference: string): string {
    return `${this.#shown}${isDigest(reference) ? '@' : ':'}${reference}`;
  }

  #invalid(what: string): BentoError {
    return new BentoError('REMOTE_INVALID', `${this.#shown} ${what}`, {
      hint: 'nothing of it was kept; it was damaged or tampered with',
    });
  }
}

function linkIn({ bytes, descriptor }: RemoteManifest): Link | undefined {
  const { subject, artifactType: own, config } = parseObject(bytes, `manifest ${descriptor.digest}`);
  if (!isObject(subject)) return undefined;
  const type = own ?? (isObject(config) ? config['mediaType'] : undefined);
  return {
    subject: parseDescriptor(subject, `subject of ${descriptor.digest}`).digest,
    artifactType: typeof type === 'string' ? type : undefined,
  };
}

/** As the referrers API of a registry lists it. */
function asReferrer({ mediaType, digest, size, annotations }: Descriptor, { artifactType }: Link): Descriptor {
  return {
    mediaType,
    digest,
    size,
    ...(artifactType !== undefined && { artifactType }),
    ...(annotations && { annotations }),
  };
}

/** How a manifest is listed in a folder: under a tag, as an attachment, or by its digest alone. */
function entryFor(reference: string, bytes: Buffer, descriptor: Descriptor): Descriptor {
  if (!isDigest(reference)) return indexEntry(descriptor, reference);
  const attachment =
    descriptor.mediaType === MEDIA_TYPES.manifest ? parseAttachment(bytes, descriptor.digest) : undefined;
  return attachment === undefined ? indexEntry(descriptor, undefined) : entryOf(attachment);
}
