/** How long a registry may take, and how often it is asked again. Milliseconds, unless the name says otherwise. */
export interface TimeLimits {
  connectMs: number;
  /** From the request to the head of the answer. */
  headersMs: number;
  /** Without a byte in a body, either way. */
  idleMs: number;
  /** From the last byte of an upload to the answer: a registry copies and hashes the blob then. */
  commitMs: number;
  /** For an answer that is read as a whole (a manifest, tags, a token), with all its bytes. */
  wholeMs: number;
  /** The first pause before asking again; it doubles each time, up to `pauseMaxMs`. */
  pauseMs: number;
  pauseMaxMs: number;
  /** The longest that `Retry-After` is obeyed. */
  retryAfterMaxMs: number;
  /** How often something is tried in all, without any progress between. */
  tryCountMax: number;
  /** So long at least a registry that has answered before is tried again when it cannot be reached: networks come back. */
  outageMs: number;
}

export const TIME_LIMITS: Readonly<TimeLimits> = {
  connectMs: 30_000,
  headersMs: 30_000,
  idleMs: 30_000,
  commitMs: 300_000,
  wholeMs: 300_000,
  pauseMs: 500,
  pauseMaxMs: 8_000,
  retryAfterMaxMs: 60_000,
  tryCountMax: 6,
  outageMs: 120_000,
};

export const CONNECTION_COUNT_MAX = 8; // to one host
export const REDIRECT_COUNT_MAX = 5;
export const ERROR_BYTES_MAX = 64 << 10;
export const TOKEN_REPLY_BYTES_MAX = 1 << 20;
export const PAGE_BYTES_MAX = 4 << 20;
export const PAGE_COUNT_MAX = 1000;
export const TAG_COUNT_MAX = 1_000_000;
export const REFERRER_COUNT_MAX = 10_000;
export const TOKEN_COUNT_MAX = 1000;
/** Slower than this a range of a blob is given up. */
export const BYTES_PER_MS_MIN = 4;
