/**
 * Reads the YAML that bento itself writes, and what people mostly add to it, without loading a parser for all of YAML,
 * which takes longer than everything else a `bento status` does. It knows mappings, lists, and scalars on one line that
 * need no escapes; it never guesses: for anything else it says that it does not know, and the parser reads the file.
 */

/** Mappings, lists and text. */
type Value = string | Value[] | { [key: string]: Value };

interface Line {
  indent: number;
  text: string;
}

const PRINTABLE = /^[\n\x20-\x7e]*$/;
const KEY = /^([A-Za-z][A-Za-z0-9_]*):(?: (.+))?$/;
/** Nothing in it or at its ends means anything in YAML: ": " and " #" cannot occur, and it is no null. */
const PLAIN =
  /^(?!(?:null|Null|NULL)$)(?:~\/|[A-Za-z0-9./$])(?:[A-Za-z0-9./$~_@+=-]|:(?=[A-Za-z0-9./]))*(?: [A-Za-z0-9./$~_@+=-]+)*$/;
const QUOTED = /^'([^']*)'$|^"([^"\\]*)"$/;

/** Thrown and caught in this file alone. */
class Unknown extends Error {}

/** What the parser would make of the text; undefined when it takes the parser to tell. */
export function readPlainYaml(text: string): unknown {
  if (!PRINTABLE.test(text)) return undefined;
  const lines = text.split('\n').filter((line) => !/^ *(?:#.*)?$/.test(line));
  const reader = new Reader(lines.map((line) => ({ indent: line.search(/[^ ]/), text: line.trimStart() })));
  try {
    return reader.document();
  } catch (error) {
    if (error instanceof Unknown) return undefined;
    throw error;
  }
}

class Reader {
  readonly #lines: Line[];
  #at = 0;

  constructor(lines: Line[]) {
    this.#lines = lines;
  }

  document(): Value {
    const value = this.#mapping(0);
    if (this.#at < this.#lines.length) throw new Unknown();
    return value;
  }

  /** All following lines with exactly this indentation. */
  #mapping(indent: number): Value {
    const entries = new Map<string, Value>();
    for (let line = this.#peek(indent); line !== undefined && !isItem(line); line = this.#peek(indent)) {
      const [, key, rest] = KEY.exec(line.text) ?? [];
      if (key === undefined || entries.has(key) || !PLAIN.test(key)) throw new Unknown();
      this.#at += 1;
      entries.set(key, rest === undefined ? this.#block(indent) : scalar(rest));
    }
    if (entries.size === 0) throw new Unknown();
    return Object.fromEntries(entries);
  }

  /** What belongs to a key without a value on its line. A list may stand as far left as the key itself. */
  #block(indent: number): Value {
    const next = this.#lines[this.#at];
    if (next === undefined || next.indent < indent) throw new Unknown();
    if (isItem(next)) return this.#list(next.indent);
    if (next.indent === indent) throw new Unknown();
    return this.#mapping(next.indent);
  }

  #list(indent: number): Value {
    const items: Value[] = [];
    for (let line = this.#peek(indent); line !== undefined && isItem(line); line = this.#peek(indent)) {
      const text = line.text.slice(2);
      if (KEY.test(text)) {
        this.#lines[this.#at] = { indent: indent + 2, text }; // "- key: value" begins a mapping two columns further
        items.push(this.#mapping(indent + 2));
      } else {
        this.#at += 1;
        items.push(scalar(text));
      }
    }
    return items;
  }

  /** The next line of a block; undefined at its end. */
  #peek(indent: number): Line | undefined {
    const line = this.#lines[this.#at];
    if (line !== undefined && line.indent > indent) throw new Unknown();
    return line?.indent === indent ? line : undefined;
  }
}

function isItem({ text }: Line): boolean {
  return text.startsWith('- ') && text[2] !== ' ';
}

function scalar(text: string): string {
  const quoted = QUOTED.exec(text);
  if (quoted !== null) return quoted[1] ?? quoted[2] ?? '';
  if (!PLAIN.test(text)) throw new Unknown();
  return text;
}
