import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';

import { ATTACHMENT_BYTES_MAX, isTitle, TITLE_BYTES_MAX, tooLarge } from '../store/attachment.ts';
import { temporaryBeside } from '../store/durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../store/errors.ts';
import type { FileToSend } from '../store/transfer/remote-attachments.ts';
import { rm } from 'node:fs/promises';

const READ_BYTES = 1 << 20;

/** A file that somebody wants to attach, opened; or stdin, a pipe, a device. Close it. */
export class AttachedInput {
  readonly title: string;
  /** For errors. */
  readonly shown: string;
  readonly #handle: FileHandle | undefined;
  readonly #isRegular: boolean;

  private constructor(title: string, shown: string, source: { handle: FileHandle | undefined; isRegular: boolean }) {
    this.title = title;
    this.shown = shown;
    this.#handle = source.handle;
    this.#isRegular = source.isRegular;
  }

  /**
   * @param written - `-` is stdin
   * @param name - its title; needed where there is no file name
   * @throws BentoError USAGE, REF_NOT_FOUND, TARGET_INVALID
   */
  static async open(written: string, name: string | undefined): Promise<AttachedInput> {
    if (written === '-') {
      return new AttachedInput(checkTitle(name, 'stdin'), 'stdin', { handle: undefined, isRegular: false });
    }
    const path = resolve(written);
    const handle = await open(path, 'r').catch((error: unknown) => {
      if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? ''))
        throw new BentoError('REF_NOT_FOUND', `there is no file ${path}`);
      throw describeSystemError(error, `reading ${path}`);
    });
    try {
      const found = await handle.stat();
      if (found.isDirectory())
        throw new BentoError('TARGET_INVALID', `${path} is a folder`, { hint: 'attach an archive of it' });
      if (found.isFile() && found.size > ATTACHMENT_BYTES_MAX) throw tooLarge(path);
      const title = checkTitle(name ?? (found.isFile() ? basename(path) : undefined), path);
      return new AttachedInput(title, path, { handle, isRegular: found.isFile() });
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Its bytes, once. A file that grows meanwhile is taken as far as it goes when its end is reached. */
  async *bytes(): AsyncGenerator<Buffer, void, undefined> {
    if (this.#handle === undefined) {
      yield* process.stdin as AsyncIterable<Buffer>;
      return;
    }
    for (;;) {
      const piece = Buffer.allocUnsafe(READ_BYTES);
      const { bytesRead } = await this.#handle.read(piece, 0, piece.length, null);
      if (bytesRead === 0) return;
      yield piece.subarray(0, bytesRead);
    }
  }

  /**
   * As a registry wants it, which has to know the digest first and may ask for a part again. What can be read only once is put
   * into a file without a name.
   */
  async forSending(): Promise<FileToSend & AsyncDisposable> {
    const spool = this.#isRegular ? undefined : await namelessFile();
    const hash = createHash('sha256');
    let sizeBytes = 0;
    try {
      for await (const piece of this.bytes()) {
        sizeBytes += piece.length;
        if (sizeBytes > ATTACHMENT_BYTES_MAX) throw tooLarge(this.shown);
        hash.update(piece);
        await spool?.writeFile(piece);
      }
    } catch (error) {
      await spool?.close();
      throw error;
    }
    const handle = spool ?? this.#handle;
    if (handle === undefined) throw new TypeError('neither a file nor a copy of one');
    return {
      digest: `sha256:${hash.digest('hex')}`,
      sizeBytes,
      source: (offset) => readFrom(handle, offset, sizeBytes),
      [Symbol.asyncDispose]: async () => await spool?.close(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle?.close();
  }
}

/** Up to the length that was hashed; a file that is shorter by now is refused by whoever counts. */
export async function* readFrom(
  handle: FileHandle,
  offset: number,
  end: number,
): AsyncGenerator<Buffer, void, undefined> {
  for (let at = offset; at < end;) {
    const piece = Buffer.allocUnsafe(Math.min(READ_BYTES, end - at));
    const { bytesRead } = await handle.read(piece, 0, piece.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield piece.subarray(0, bytesRead);
  }
}

/** Gone when it is closed, however the process ends. */
export async function namelessFile(): Promise<FileHandle> {
  const path = temporaryBeside(join(tmpdir(), 'file'));
  const handle = await open(path, 'wx+', 0o600).catch((error: unknown) => {
    throw describeSystemError(error, `writing to ${tmpdir()}`);
  });
  await rm(path);
  return handle;
}

function checkTitle(title: string | undefined, shown: string): string {
  if (title === undefined) throw new BentoError('USAGE', `${shown} has no name`, { hint: 'say --name <title>' });
  if (isTitle(title)) return title;
  throw new BentoError('USAGE', `"${title.slice(0, 100)}" cannot be the title of an attachment`, {
    hint: `a name without "/" and control characters, at most ${TITLE_BYTES_MAX} bytes: --name <title>`,
  });
}
