import test from 'ava';

import { decodeError, encodeError, LINE_BYTES_MAX, lineReader } from '../../../fs/mounts/control.ts';
import { BentoError } from '../../../store/errors.ts';

function linesOf(...pieces: (string | Buffer)[]): string[] {
  const lines: string[] = [];
  const read = lineReader((line) => void lines.push(line));
  for (const piece of pieces) read(Buffer.from(piece as string));
  return lines;
}

test('lineReader() puts lines together however the socket cuts them', (t) => {
  t.deepEqual(linesOf('{"a":1}\n{"b"', ':2}', '\n', '{"c":3}\n\n{"unfinished"'), ['{"a":1}', '{"b":2}', '{"c":3}', '']);
});

test('lineReader() refuses a line that never ends', (t) => {
  t.throws(() => linesOf('x'.repeat(LINE_BYTES_MAX), 'x'), { instanceOf: BentoError, code: 'DAEMON_FAILED' });
  t.deepEqual(linesOf('x'.repeat(LINE_BYTES_MAX), '\n'), ['x'.repeat(LINE_BYTES_MAX)]);
});

test('encodeError() and decodeError() carry code, message and hint over the socket', (t) => {
  const error = new BentoError('BLOB_MISSING', 'blob é is gone', { hint: 'look elsewhere' });
  const reply = JSON.parse(JSON.stringify(encodeError(error))) as ReturnType<typeof encodeError>;
  if (reply.ok) return t.fail();
  t.like(decodeError(reply), { code: 'BLOB_MISSING', message: 'blob é is gone', hint: 'look elsewhere' });
});

test('encodeError() makes DAEMON_FAILED of what has no code, and decodeError() of a code it does not know', (t) => {
  t.like(encodeError(new TypeError('oops')), { ok: false, code: 'DAEMON_FAILED', message: 'oops' });
  t.like(encodeError('thrown text'), { ok: false, code: 'DAEMON_FAILED', message: 'thrown text' });
  const unknown = { ok: false, code: 'NEWER_CODE' as 'FAILED', message: 'm', hint: undefined } as const;
  t.like(decodeError(unknown), { code: 'DAEMON_FAILED', message: 'm', hint: undefined });
});
