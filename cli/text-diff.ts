import { createTwoFilesPatch } from 'diff';

import { PathFinder } from '../fs/tree/tree.ts';
import type { Side } from '../fs/workspace/compare.ts';
import { toText, type ByteString } from '../store/byte-string.ts';
import { BentoError } from '../store/errors.ts';

/** Files larger than this are compared, but not line by line. Bytes. */
const TEXT_BYTES_MAX = 10 << 20;
/** A NUL byte this early makes a file binary, as git decides it. */
const BINARY_PROBE_BYTES = 8000;

/**
 * How one path differs, as a unified diff with three lines of context.
 *
 * @throws BentoError FAILED when neither side has it
 */
export function diffOfFile(before: Side, after: Side, path: ByteString): string {
  const old = readFile(before, path);
  const fresh = readFile(after, path);
  const shown = toText(path);
  if (old === undefined && fresh === undefined) {
    throw new BentoError('FAILED', `file ${shown} not found in ${before.label} or ${after.label}`);
  }
  if (old !== undefined && fresh !== undefined && old.equals(fresh)) return `No changes in ${shown}`;
  if ([old, fresh].some((bytes) => bytes !== undefined && isBinary(bytes)))
    return `Binary files a/${shown} and b/${shown} differ`;
  const patch = createTwoFilesPatch(`a/${shown}`, `b/${shown}`, text(old), text(fresh), undefined, undefined, {
    context: 3,
  });
  return patch
    .replace(/^=+\n/, '')
    .replace(`--- a/${shown}`, `--- a/${shown} (${before.label})`)
    .replace(`+++ b/${shown}`, `+++ b/${shown} (${after.label})`)
    .trimEnd();
}

function readFile(side: Side, path: ByteString): Buffer | undefined {
  const node = new PathFinder(side.tree).find(path);
  if (node?.type !== 'file') return undefined;
  if (node.sizeBytes > TEXT_BYTES_MAX) {
    throw new BentoError(
      'FAILED',
      `${toText(path)} is larger than ${TEXT_BYTES_MAX >> 20} MiB, too large for a text diff`,
    );
  }
  return Buffer.concat([...side.content(path, node)]);
}

function isBinary(bytes: Buffer): boolean {
  return bytes.subarray(0, BINARY_PROBE_BYTES).includes(0);
}

function text(bytes: Buffer | undefined): string {
  return bytes?.toString('utf8') ?? '';
}
