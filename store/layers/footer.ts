import { BentoError } from '../errors.ts';

/** @see stargz-snapshotter, docs/estargz.md, "Footer": an empty gzip member whose Extra field tells where the TOC is. */
export const FOOTER_BYTES = 51;
const LEGACY_FOOTER_BYTES = 47; // CRFS stargz: the Extra field without a subfield header
const EXTERNAL_FOOTER_BYTES = 46; // the table of contents lives in another image

const HEAD = Buffer.from('1f8b080400000000' + '00ff', 'hex'); // flags: FEXTRA
const SUBFIELD_ID = Buffer.from('SG', 'latin1');
const MAGIC = 'STARGZ';
const EXTERNAL_MAGIC = 'STARGZEXTERNALTOC';
const OFFSET_DIGITS = 16;
const EMPTY_DEFLATE = Buffer.from('010000ffff', 'hex'); // a final stored block of length 0
const TRAILER = Buffer.alloc(8); // CRC32 and length, both 0

export type Footer =
  | { kind: 'estargz'; tocOffset: number; footerBytes: number }
  | { kind: 'legacy'; tocOffset: number; footerBytes: number }
  | { kind: 'external'; footerBytes: number };

export function encodeFooter(tocOffset: number): Buffer {
  const text = Buffer.from(tocOffset.toString(16).padStart(OFFSET_DIGITS, '0') + MAGIC, 'latin1');
  return Buffer.concat([HEAD, u16(text.length + 4), SUBFIELD_ID, u16(text.length), text, EMPTY_DEFLATE, TRAILER]);
}

/**
 * Recognises the footer at the end of a blob.
 *
 * @param tail - the last bytes of the blob, at least `FOOTER_BYTES` unless the blob is shorter
 * @returns undefined when the blob is an ordinary one
 * @throws BentoError FORMAT_INVALID when it is a footer that points outside the blob
 */
export function decodeFooter(tail: Buffer, blobBytes: number): Footer | undefined {
  const modern = textOf(tail.subarray(-FOOTER_BYTES), { sizeBytes: FOOTER_BYTES, hasSubfield: true });
  if (modern?.endsWith(MAGIC)) return located('estargz', modern, { blobBytes, footerBytes: FOOTER_BYTES });
  const legacy = textOf(tail.subarray(-LEGACY_FOOTER_BYTES), { sizeBytes: LEGACY_FOOTER_BYTES, hasSubfield: false });
  if (legacy?.endsWith(MAGIC)) return located('legacy', legacy, { blobBytes, footerBytes: LEGACY_FOOTER_BYTES });
  const external = textOf(tail.subarray(-EXTERNAL_FOOTER_BYTES), {
    sizeBytes: EXTERNAL_FOOTER_BYTES,
    hasSubfield: true,
  });
  return external === EXTERNAL_MAGIC ? { kind: 'external', footerBytes: EXTERNAL_FOOTER_BYTES } : undefined;
}

/** The text inside the Extra field, or undefined unless everything around it is exactly as it should be. */
function textOf(bytes: Buffer, form: { sizeBytes: number; hasSubfield: boolean }): string | undefined {
  const textBytes =
    form.sizeBytes - HEAD.length - 2 - (form.hasSubfield ? 4 : 0) - EMPTY_DEFLATE.length - TRAILER.length;
  const subfield = form.hasSubfield ? [SUBFIELD_ID, u16(textBytes)] : [];
  const before = Buffer.concat([HEAD, u16(textBytes + (form.hasSubfield ? 4 : 0)), ...subfield]);
  const after = Buffer.concat([EMPTY_DEFLATE, TRAILER]);
  const isFooter =
    bytes.length === form.sizeBytes &&
    bytes.subarray(0, before.length).equals(before) &&
    bytes.subarray(-after.length).equals(after);
  return isFooter ? bytes.toString('latin1', before.length, before.length + textBytes) : undefined;
}

function located(
  kind: 'estargz' | 'legacy',
  text: string,
  { blobBytes, footerBytes }: { blobBytes: number; footerBytes: number },
): Footer {
  const digits = text.slice(0, OFFSET_DIGITS);
  const tocOffset = /^[0-9a-f]{16}$/.test(digits) ? parseInt(digits, 16) : NaN;
  if (Number.isSafeInteger(tocOffset) && tocOffset < blobBytes - footerBytes) return { kind, tocOffset, footerBytes };
  throw new BentoError('FORMAT_INVALID', `the footer of a layer points outside the layer: ${JSON.stringify(digits)}`);
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
