import type { ErrorCode } from '../../store/errors.ts';

/**
 * - `ok`: as it should be
 * - `limited`: works, but something that others have does not, or less well
 * - `missing`: is not there; bento does without
 * - `broken`: commands fail because of it
 * - `unknown`: could not be found out
 */
export type CheckState = 'ok' | 'limited' | 'missing' | 'broken' | 'unknown';

/** What was found out about one thing that bento uses. */
export interface Check {
  /** For scripts: never changes its meaning. */
  id: string;
  title: string;
  state: CheckState;
  /** One line. */
  finding: string;
  /** What to do about it, in one line; null when there is nothing to do. */
  advice: string | null;
  /** Of what is broken: the error that commands end with. */
  code: ErrorCode | null;
  /** The same as the finding, for scripts. */
  facts: Readonly<Record<string, Fact>>;
}

export type Fact = string | number | boolean | null | readonly string[];

export interface Details {
  advice?: string;
  facts?: Check['facts'];
}

/** Makes the check of one thing; each function takes the finding. */
export interface CheckMaker {
  ok(finding: string, details?: Details): Check;
  limited(finding: string, details?: Details): Check;
  missing(finding: string, details?: Details): Check;
  unknown(finding: string, details?: Details): Check;
  broken(code: ErrorCode, finding: string, details?: Details): Check;
}

/** Looks at one thing: whatever goes wrong with looking is a finding, too. */
export function checkThat(id: string, title: string, look: (check: CheckMaker) => Check): Check {
  const check = makerOf(id, title);
  try {
    return look(check);
  } catch (error) {
    return check.unknown(firstLine(error));
  }
}

/** The same for what takes a while. */
export async function checkLater(
  id: string,
  title: string,
  look: (check: CheckMaker) => Promise<Check>,
): Promise<Check> {
  const check = makerOf(id, title);
  try {
    return await look(check);
  } catch (error) {
    return check.unknown(firstLine(error));
  }
}

/** What an error says, without what a stack or a list would add. */
export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0] ?? '';
}

function makerOf(id: string, title: string): CheckMaker {
  const make =
    (state: CheckState) =>
    (finding: string, { advice, facts = {} }: Details = {}): Check => ({
      id,
      title,
      state,
      finding,
      advice: advice ?? null,
      code: null,
      facts,
    });
  return {
    ok: make('ok'),
    limited: make('limited'),
    missing: make('missing'),
    unknown: make('unknown'),
    broken: (code, finding, details) => ({ ...make('broken')(finding, details), code }),
  };
}
