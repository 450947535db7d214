const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const WHOLE = /^[+-]?(?:\d+(?:\.\d*)?(?:ms|s|m|h))+$/;
const PART = /(\d+(?:\.\d*)?)(ms|s|m|h)/g;

/** Reads a duration as Go writes it (`1h`, `1h30m`, `1.5h`, `0`). @returns milliseconds, or undefined for anything else */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  if (!WHOLE.test(text)) return undefined;
  let totalMs = 0;
  for (const [, amount, unit = ''] of text.matchAll(PART)) totalMs += Number(amount) * (UNIT_MS[unit] ?? NaN);
  return text.startsWith('-') ? -totalMs : totalMs;
}

/** Writes a duration as Go does: `168h0m0s`, `1m30s`, `0s`. */
export function formatDuration(durationMs: number): string {
  const sign = durationMs < 0 ? '-' : '';
  const seconds = Math.abs(durationMs) / 1000;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  const rest = `${Number((seconds % 60).toFixed(3))}s`;
  if (hours > 0) return `${sign}${hours}h${minutes}m${rest}`;
  return minutes > 0 ? `${sign}${minutes}m${rest}` : sign + rest;
}
