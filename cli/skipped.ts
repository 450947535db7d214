import type { Context } from './command.ts';

/** Something that is not saved, as people and programs are told. */
export interface Skipped {
  path: string;
  reason: string;
}

/** More of them are a busy directory, where no single one tells anything. */
const NOTED_MAX = 20;

/** Says what is not saved, and why: never silent, and never thousands of lines. */
export function noteSkipped(skipped: readonly Skipped[], ctx: Pick<Context, 'note'>): void {
  for (const { path, reason } of skipped.slice(0, NOTED_MAX)) ctx.note(`note: ${path} is not saved: ${reason}`);
  const more = skipped.length - NOTED_MAX;
  if (more > 0) ctx.note(`note: ${more} more ${more === 1 ? 'is' : 'are'} not saved; --json lists them all`);
}
