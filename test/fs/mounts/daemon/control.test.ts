import test from 'ava';

import {
  decodeError,
  encodeError,
  LINE_BYTES_MAX,
  lineReader,
  type ControlReply,
} from '../../../../fs/mounts/daemon/control.ts';
import { BentoError } from '../../../../store/errors.ts';

/** What the other side makes of an error, through JSON as on the socket. */
function overTheSocket(error: unknown): BentoError {
  const reply = JSON.parse(JSON.stringify(encodeError(error))) as ControlReply;
  if (reply.ok) throw new Error('an error is no success');
  return decodeError(reply);
}

test('encodeError() and decodeError() carry code, message and hint over the socket', (t) => {
  const error = overTheSocket(new BentoError('BLOB_MISSING', 'gone\nfor good', { hint: 'look elsewhere' }));
  t.true(error instanceof BentoError);
  t.like(error, { code: 'BLOB_MISSING', message: 'gone\nfor good', hint: 'look elsewhere' });
  t.is(overTheSocket(new BentoError('FAILED', 'x')).hint, undefined);
});

test('encodeError() makes DAEMON_FAILED of everything else', (t) => {
  t.like(overTheSocket(new TypeError('a mistake')), { code: 'DAEMON_FAILED', message: 'a mistake' });
  t.like(overTheSocket('a word'), { code: 'DAEMON_FAILED', message: 'a word' });
});

test('decodeError() of a code that this version does not know is DAEMON_FAILED', (t) => {
  for (const code of ['FROM_THE_FUTURE', 'toString', 'constructor', '__proto__']) {
    const reply = { ok: false, code, message: 'm' } as unknown as Extract<ControlReply, { ok: false }>;
    const error = decodeError(reply);
    t.is(error.code, 'DAEMON_FAILED', code);
    t.is(error.exitCode, 35, code);
  }
});

test('lineReader() puts lines together, however the socket cuts them, also inside a character', (t) => {
  const text = '{"op":"hello"}\n{"target":"/żółć 漢字"}\n\nunfinished';
  for (const pieceBytes of [1, 2, 3, 7, 1000]) {
    const lines: string[] = [];
    const read = lineReader((line) => lines.push(line));
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += pieceBytes) read(bytes.subarray(at, at + pieceBytes));
    t.deepEqual(lines, ['{"op":"hello"}', '{"target":"/żółć 漢字"}', ''], `in pieces of ${pieceBytes}`);
  }
});

test('lineReader() gives up on a line that does not end', (t) => {
  const read = lineReader(() => t.fail());
  t.notThrows(() => read(Buffer.alloc(LINE_BYTES_MAX, 'x')));
  t.throws(() => read(Buffer.from('x')), { code: 'DAEMON_FAILED' });
});
