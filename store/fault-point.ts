import { appendFileSync } from 'node:fs';

/** Set by crash tests: `<name>` or `<name>:<n>` kills the process there the n-th time; `log:<file>` writes down the names. */
const FAULT = process.env['BENTO_FAULT'];
const passed = new Map<string, number>();

/**
 * A named step at which the crash test ends the process as a power cut would: SIGKILL, nothing is cleaned up. Put one
 * wherever what is on disk has just become different in a way that matters. Costs nothing unless a test asks.
 */
export function faultPoint(name: string): void {
  if (FAULT === undefined) return;
  if (FAULT.startsWith('log:')) {
    appendFileSync(FAULT.slice('log:'.length), `${name}\n`);
    return;
  }
  const count = (passed.get(name) ?? 0) + 1;
  passed.set(name, count);
  const [wanted, at = '1'] = FAULT.split(':');
  if (wanted === name && count === Number(at)) process.kill(process.pid, 'SIGKILL');
}
