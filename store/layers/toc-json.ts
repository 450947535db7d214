import { randomUUID } from 'node:crypto';

import { asObject, invalidToc } from './toc-fields.ts';
import { TOC_ENTRY_COUNT_MAX, TOC_HEAD, TOC_JSON_BYTES_MAX, TOC_VERSION } from './toc.ts';

const HEAD = Buffer.from(TOC_HEAD);
const [NEWLINE, COMMA] = [0x0a, 0x2c];

export type Json = Record<string, unknown>;

/**
 * Takes the document piece by piece, and gives its entries in their order. Ours has one in each line, which is parsed by
 * itself, and forgotten before the next one: 30,000 as one value take half as long again. What is written otherwise is kept,
 * from there on, and parsed as a whole.
 */
export class TocEntries {
  /** Not parsed yet. */
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #form: 'unknown' | 'lines' | 'rest of lines' | 'other' = 'unknown';
  #sizeBytes = 0;
  #count = 0;

  /** @throws BentoError FORMAT_INVALID when it is no such document */
  *push(json: Buffer): Generator<Json, void, undefined> {
    this.#sizeBytes += json.length;
    if (this.#sizeBytes > TOC_JSON_BYTES_MAX) throw invalidToc(`it is longer than ${TOC_JSON_BYTES_MAX} bytes`);
    this.#keep(json);
    const isBegun = this.#form !== 'unknown';
    if (!isBegun && this.#keptBytes >= HEAD.length) this.#begin();
    if (this.#form === 'lines' && (!isBegun || json.includes(NEWLINE))) yield* this.#lines();
  }

  /** What is left when all of it was pushed. @throws BentoError FORMAT_INVALID */
  *finish(): Generator<Json, void, undefined> {
    const rest = this.#take().toString('utf8');
    for (const entry of this.#count === 0 ? parseWhole(this.#head + rest) : parseRest(rest)) yield this.#counted(entry);
  }

  /** What was taken from the beginning of the document. */
  get #head(): string {
    return this.#form === 'lines' || this.#form === 'rest of lines' ? TOC_HEAD : '';
  }

  #begin(): void {
    const json = this.#take();
    const isOurs = json.subarray(0, HEAD.length).equals(HEAD);
    this.#form = isOurs ? 'lines' : 'other';
    this.#keep(isOurs ? json.subarray(HEAD.length) : json);
  }

  *#lines(): Generator<Json, void, undefined> {
    const json = this.#take();
    let at = 0;
    for (let end = json.indexOf(NEWLINE); end >= 0; end = json.indexOf(NEWLINE, at)) {
      const entry = json[end - 1] === COMMA ? parseLine(json.toString('utf8', at, end - 1)) : undefined;
      if (entry === undefined) {
        this.#form = 'rest of lines'; // the last one, or something that is not ours
        break;
      }
      yield this.#counted(entry);
      at = end + 1;
    }
    this.#keep(json.subarray(at));
  }

  #counted(entry: unknown): Json {
    this.#count += 1;
    if (this.#count > TOC_ENTRY_COUNT_MAX) throw invalidToc(`it has more than ${TOC_ENTRY_COUNT_MAX} entries`);
    return asObject(entry);
  }

  #keep(json: Buffer): void {
    this.#kept.push(json);
    this.#keptBytes += json.length;
  }

  #take(): Buffer {
    const [only] = this.#kept;
    const json = this.#kept.length === 1 && only !== undefined ? only : Buffer.concat(this.#kept);
    this.#kept = [];
    this.#keptBytes = 0;
    return json;
  }
}

/** @returns undefined when it is no value by itself */
function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** The same behind entries that were taken already: a second list instead of theirs, or a comma too many, is refused. */
function parseRest(rest: string): unknown[] {
  const taken = randomUUID();
  const [first, ...entries] = parseWhole(`${TOC_HEAD}"${taken}",${rest}`);
  if (first !== taken) throw invalidToc('it has several lists of entries');
  return entries;
}

function parseWhole(text: string): unknown[] {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw invalidToc('it is not JSON', cause);
  }
  const { version, entries } = asObject(document);
  if (version !== TOC_VERSION) throw invalidToc(`its version is not ${TOC_VERSION}`);
  if (!Array.isArray(entries)) throw invalidToc('it has no entries');
  return entries;
}
