import { asObject, invalidToc } from './toc-fields.ts';
import { TOC_ENTRY_COUNT_MAX, TOC_HEAD, TOC_JSON_BYTES_MAX, TOC_VERSION } from './toc.ts';

const HEAD = Buffer.from(TOC_HEAD);
const [NEWLINE, COMMA] = [0x0a, 0x2c];

export type Json = Record<string, unknown>;

/**
 * The entries of the document in their order. Ours has one in each line, which is parsed by itself and forgotten before the
 * next one: 30,000 as one value take half as long again. What is written otherwise is parsed as a whole from there on.
 *
 * @throws BentoError FORMAT_INVALID when it is no such document
 */
export function* readTocEntries(json: Buffer): Generator<Json, void, undefined> {
  if (json.length > TOC_JSON_BYTES_MAX) throw invalidToc(`it is longer than ${TOC_JSON_BYTES_MAX} bytes`);
  let count = 0;
  for (const entry of parseEntries(json)) {
    count += 1;
    if (count > TOC_ENTRY_COUNT_MAX) throw invalidToc(`it has more than ${TOC_ENTRY_COUNT_MAX} entries`);
    yield asObject(entry);
  }
}

function* parseEntries(json: Buffer): Generator<unknown, void, undefined> {
  let at = json.subarray(0, HEAD.length).equals(HEAD) ? HEAD.length : 0;
  const isLines = at > 0;
  while (isLines) {
    const end = json.indexOf(NEWLINE, at);
    const entry = end > at && json[end - 1] === COMMA ? parseLine(json.toString('utf8', at, end - 1)) : undefined;
    if (entry === undefined) break; // the last one, or something that is not ours
    yield entry;
    at = end + 1;
  }
  yield* parseWhole((isLines ? TOC_HEAD : '') + json.toString('utf8', at));
}

/** @returns undefined when it is no value by itself */
function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
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
