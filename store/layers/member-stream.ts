import { createHash } from 'node:crypto';

import type { Digest } from '../digest.ts';
import { BlobOutput, type LayerSink } from './blob-output.ts';
import { gzipMember, gzipMemberSync } from './gzip-member.ts';
import { BLOCK_BYTES, paddingOf } from './tar-fields.ts';

/** Headers of entries without content gather in one member up to this size. Part of the format, like the gzip level. */
const HEADER_MEMBER_BYTES = 256 * 1024;

export interface MemberPlace {
  blobOffset: number;
  blobBytes: number;
}

/**
 * A tar stream cut into gzip members. Payload members begin and end with a payload, so their bytes depend on nothing
 * else; headers and padding go into members of their own between them.
 */
export class MemberStream {
  readonly #out: BlobOutput;
  readonly #diffId = createHash('sha256');
  #headers: Buffer[] = [];
  #headerBytes = 0;
  uncompressedBytes = 0;

  constructor(sink: LayerSink) {
    this.#out = new BlobOutput(sink);
  }

  get sizeBytes(): number {
    return this.#out.sizeBytes;
  }

  /** Adds tar bytes that are no payload. */
  async header(bytes: Buffer): Promise<void> {
    this.#count(bytes);
    this.#headers.push(bytes);
    this.#headerBytes += bytes.length;
    if (this.#headerBytes >= HEADER_MEMBER_BYTES) await this.#endHeaders();
  }

  /** Adds one payload member; `raw` is what `member` inflates to. */
  async payload(raw: Buffer, member: Buffer): Promise<MemberPlace> {
    await this.#endHeaders();
    this.#count(raw);
    const blobOffset = this.sizeBytes;
    await this.#out.write(member);
    return { blobOffset, blobBytes: member.length };
  }

  /** Zeros up to the next tar block. */
  async pad(): Promise<void> {
    const paddingBytes = paddingOf(this.uncompressedBytes);
    if (paddingBytes > 0) await this.header(Buffer.alloc(paddingBytes));
  }

  /** Ends the archive: `tocFile` and the two zero blocks share the last member; the footer follows it. */
  async finish(tocFile: Buffer, footerAt: (tocOffset: number) => Buffer): Promise<{ digest: Digest; diffId: Digest }> {
    await this.#endHeaders();
    const tocOffset = this.sizeBytes;
    const last = Buffer.concat([tocFile, Buffer.alloc(paddingOf(tocFile.length) + 2 * BLOCK_BYTES)]);
    this.#count(last);
    await this.#out.write(await gzipMember(last));
    await this.#out.write(footerAt(tocOffset));
    return { digest: await this.#out.finish(), diffId: `sha256:${this.#diffId.digest('hex')}` };
  }

  #count(bytes: Buffer): void {
    this.#diffId.update(bytes);
    this.uncompressedBytes += bytes.length;
  }

  async #endHeaders(): Promise<void> {
    if (this.#headerBytes === 0) return;
    const headers = Buffer.concat(this.#headers, this.#headerBytes);
    this.#headers = [];
    this.#headerBytes = 0;
    await this.#out.write(gzipMemberSync(headers));
  }
}
