import { constants } from 'node:os';

import { isInForeground } from './processes.ts';

const RELAYED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const;
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

/**
 * From when it is made, signals do not end this process: the command that runs gets them, and what was made for it is
 * cleared away when it has ended.
 */
export class SignalRelay {
  /** The first that came while nobody ran. */
  early: NodeJS.Signals | undefined;
  #receiver: ((signal: NodeJS.Signals) => void) | undefined;

  constructor() {
    for (const signal of RELAYED) process.on(signal, () => this.#relay(signal));
  }

  /** @param receiver - undefined when the command has ended */
  sendTo(receiver: ((signal: NodeJS.Signals) => void) | undefined): void {
    this.#receiver = receiver;
  }

  /** A terminal sends its own to the command as well: twice means "at once" to many programs. */
  #relay(signal: NodeJS.Signals): void {
    if (this.#receiver === undefined) this.early ??= signal;
    else if (!(FROM_TERMINAL.includes(signal) && isInForeground())) this.#receiver(signal);
  }
}

/** As shells have it. */
export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + constants.signals[signal ?? 'SIGKILL'];
}
