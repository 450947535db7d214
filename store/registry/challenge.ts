/** One way to prove who asks, of a `WWW-Authenticate` header. */
export interface Challenge {
  scheme: string;
  parameters: ReadonlyMap<string, string>;
}

const SEPARATOR = /[\s,]*/y;
const TOKEN = /[\w!#$%&'*+.^`|~/-]+/y;
const EQUALS = /\s*=\s*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;

/** @param header - one or several, each with any number of challenges @see RFC 9110, 11.6.1 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const text = typeof header === 'string' ? header : (header ?? []).join(', ');
  const found: { scheme: string; parameters: Map<string, string> }[] = [];
  const scanner = new Scanner(text);
  for (;;) {
    scanner.take(SEPARATOR);
    const word = scanner.take(TOKEN)?.[0];
    if (word === undefined) return found;
    if (scanner.take(EQUALS) === undefined) {
      found.push({ scheme: word.toLowerCase(), parameters: new Map() });
      continue;
    }
    const quoted = scanner.take(QUOTED)?.[1];
    const value = quoted?.replace(/\\(.)/g, '$1') ?? scanner.take(TOKEN)?.[0] ?? '';
    found.at(-1)?.parameters.set(word.toLowerCase(), value);
  }
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#at = pattern.lastIndex;
    return match;
  }
}
