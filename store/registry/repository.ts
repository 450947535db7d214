import type { Digest } from '../digest.ts';
import type { Descriptor } from '../manifest.ts';

/** Where a repository is. */
export interface RepositoryName {
  /** `host` or `host:port`, as written; Docker Hub is `docker.io`. `file://` is this machine (`local-ref.ts`). */
  registry: string;
  /** Path below it, as in `me/workspace`; of a folder or archive of this machine, as in its address. */
  repository: string;
}

/** A manifest or index as a registry gave it: its bytes have the digest that the descriptor says. */
export interface RemoteManifest {
  descriptor: Descriptor;
  bytes: Buffer;
}

export interface ReadOptions {
  /** Ends it, with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Gives up when there is no answer by then, `performance.now()` milliseconds; default: the client's own limits. */
  deadlineMs?: number;
}

export interface RangeOptions extends ReadOptions {
  /** Gets the bytes as they come, from `at` in the blob on; after a broken connection from the beginning again. May not be called. */
  onBytes?: ((at: number, bytes: Buffer) => void) | undefined;
}

export interface UploadOptions extends ReadOptions {
  /** Repositories of the same registry that may have it: it is mounted from there instead of sent. */
  mountFrom?: readonly string[];
  /** Called with the bytes that the registry has of it, growing; after a broken connection it may go back. */
  onProgress?: (sentBytes: number) => void;
}

/** What became of an upload: `there` and `mounted` cost no bytes. */
export type Uploaded = 'there' | 'mounted' | 'sent';

/** Bytes to be sent, from any offset on: an upload that broke goes on where the registry says. */
export type UploadSource = (offset: number) => AsyncIterable<Uint8Array>;

/**
 * One repository of a registry, or a layout folder or archive that is used like one. Everything is tried again as long as that may help (a broken connection, 408, 429, 500, 502,
 * 503 and 504, an expired token or URL); everything has a time limit and a size limit.
 *
 * Errors of all methods: BentoError REMOTE_UNREACHABLE, REMOTE_DENIED, REMOTE_INVALID, REMOTE_REFUSED, and REMOTE_NOT_FOUND
 * where nothing else is said.
 *
 * @see OCI distribution-spec v1.1
 */
export interface Repository {
  readonly name: RepositoryName;

  /** @returns undefined when there is no such manifest */
  headManifest(reference: string, options?: ReadOptions): Promise<Descriptor | undefined>;

  /** @param reference - tag or digest @returns undefined when there is no such manifest; index and Docker types, too */
  getManifest(reference: string, options?: ReadOptions): Promise<RemoteManifest | undefined>;

  /**
   * @param manifest.bytes - sent as they are
   * @returns whether the registry says that it keeps referrers itself (`OCI-Subject`)
   */
  putManifest(
    reference: string,
    manifest: { mediaType: string; bytes: Uint8Array },
    options?: ReadOptions,
  ): Promise<{ keepsReferrers: boolean }>;

  /** All tags, page by page, in the registry's order; none when there is no such repository. */
  tags(options?: ReadOptions): Promise<string[]>;

  /** @returns bytes; undefined when it is not there */
  blobSize(digest: Digest, options?: ReadOptions): Promise<number | undefined>;

  /**
   * A range of a blob, not verified: whoever asks checks the digests of what is in it.
   *
   * @param range.sizeBytes - of the whole blob
   * @returns exactly `length` bytes; 'ignored' when the registry sends the whole blob instead (its body is not read)
   */
  readRange(
    digest: Digest,
    range: { offset: number; length: number; sizeBytes: number },
    options?: RangeOptions,
  ): Promise<Buffer | 'ignored'>;

  /**
   * A blob from `offset` to its end. A broken connection is taken up where it broke. From offset 0 on the digest is checked:
   * the last step throws REMOTE_INVALID when the bytes are not the blob's, or are more or fewer than `sizeBytes`.
   */
  streamBlob(
    blob: { digest: Digest; sizeBytes: number },
    options?: ReadOptions & { offset?: number },
  ): AsyncGenerator<Buffer, void, undefined>;

  /** Sends a blob unless it is there. In one request, or in pieces where that broke, from where the registry has it. */
  uploadBlob(
    blob: { digest: Digest; sizeBytes: number },
    source: UploadSource,
    options?: UploadOptions,
  ): Promise<Uploaded>;

  /** @returns whether there was one. The tags that point at it go with it. */
  deleteManifest(digest: Digest, options?: ReadOptions): Promise<boolean>;

  /** What refers to a manifest: by the API, else by the fallback tag `sha256-<hex>`; empty when nothing does. */
  referrers(digest: Digest, artifactType?: string, options?: ReadOptions): Promise<Descriptor[]>;
}

/** Makes repositories: connections, tokens and limits are shared by all of them. */
export interface Registries {
  repository(name: RepositoryName): Repository;
  /** Ends what is under way. */
  close(): Promise<void>;
}
