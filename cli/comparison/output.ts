import { BentoError } from '../../store/errors.ts';
import { isUtf8 } from 'node:buffer';
import type { Context } from '../command.ts';
import { ByteOutput } from '../text-diff/byte-output.ts';

/** A patch becomes one string of JSON, which has to fit one of JavaScript's. */
const JSON_PATCH_BYTES_MAX = 128 << 20;

/** What `--json` shows of what was written. */
export interface WrittenPatch {
  /** As text; null when nothing was written. Bytes that are not UTF-8 are replaced. */
  patch: string | null;
  /** Its very bytes, when the text cannot hold them. */
  patchBase64?: string;
}

/** Where the lines of a comparison go: straight to stdout, or with `--json` into the result. */
export class PatchOutput {
  readonly bytes: ByteOutput;
  readonly #kept: Buffer[] = [];
  #keptBytes = 0;

  constructor({ json, stdout }: Pick<Context, 'json' | 'stdout'>) {
    this.bytes = new ByteOutput(json ? (piece) => this.#keep(piece) : stdout);
  }

  end(): WrittenPatch {
    this.bytes.flush();
    if (this.#keptBytes === 0) return { patch: null };
    const bytes = Buffer.concat(this.#kept);
    return { patch: bytes.toString('utf8'), ...(!isUtf8(bytes) && { patchBase64: bytes.toString('base64') }) };
  }

  #keep(piece: Buffer): void {
    this.#keptBytes += piece.length;
    if (this.#keptBytes > JSON_PATCH_BYTES_MAX) {
      throw new BentoError('FAILED', `the patch is larger than ${JSON_PATCH_BYTES_MAX >> 20} MiB, too large for JSON`, {
        hint: 'leave out --json, or compare less with --file',
      });
    }
    this.#kept.push(piece);
  }
}
