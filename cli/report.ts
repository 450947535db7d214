import { BentoError, describeSystemError, errnoOf } from '../store/errors.ts';
import { oneLine } from './terminal.ts';

/** How an error reaches the person or script that ran the command. */
export interface Report {
  /** For stderr, with the last newline. */
  text: string;
  exitCode: number;
}

const BUG_HINT = 'this looks like a bug in bento; BENTO_DEBUG=1 shows where it happened';

/**
 * @param during - what was going on, as in `running bento save`
 * @param format - `debug` adds the stack
 */
export function reportError(thrown: unknown, during: string, format: { json: boolean; debug: boolean }): Report {
  const error = describeFailure(thrown, during);
  const { code, message, hint, exitCode } = describe(error);
  const text = format.json
    ? `${JSON.stringify({ error: { code, message, hint } })}\n`
    : `Error: ${oneLine(message)}\n${hint === undefined ? '' : `${indentOf(code)}${oneLine(hint)}\n`}`;
  return { text: text + (format.debug ? `${stackOf(error)}\n` : ''), exitCode };
}

/**
 * Like `describeSystemError`, and for what SQLite says too. It is known by its code alone, so that no error loads a
 * database.
 */
export function describeFailure(error: unknown, what: string): unknown {
  const code = errnoOf(error) ?? '';
  const asErrno = code === 'SQLITE_FULL' ? 'ENOSPC' : /^SQLITE_(READONLY|CANTOPEN)/.test(code) ? 'EACCES' : undefined;
  if (asErrno === undefined) return describeSystemError(error, what);
  return describeSystemError(
    Object.assign(new Error((error as Error).message, { cause: error }), { code: asErrno }),
    what,
  );
}

function describe(error: unknown): { code: string; message: string; hint: string | undefined; exitCode: number } {
  if (error instanceof BentoError) {
    return { code: error.code, message: error.message, hint: error.hint, exitCode: error.exitCode };
  }
  const message = error instanceof Error ? error.message : String(error);
  const isSystemError = errnoOf(error) !== undefined;
  return { code: 'FAILED', message, hint: isSystemError ? undefined : BUG_HINT, exitCode: 1 };
}

/** Usage hints stand at the margin, as the original printed them. */
function indentOf(code: string): string {
  return code === 'USAGE' ? '' : '  ';
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `\nCaused by: ${stackOf(error.cause)}`;
  return (error.stack ?? error.message) + cause;
}
