import { randomBytes } from 'node:crypto';
import { constants, lstatSync } from 'node:fs';
import { type FileHandle, link, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Document, DocumentOptions, ParsedNode, ParseOptions, Scalar, SchemaOptions, YAMLMap } from 'yaml';
import type * as yamlModule from 'yaml';
import { isDigest } from '../../store/digest.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import { parseConfig } from './config-schema.ts';
import { readPlainYaml } from './plain-yaml.ts';

/**
 * `bento.yaml` as a file: read, changed key by key, and replaced at once. Comments, key order and keys that bento does
 * not know survive every change.
 */

/** A key of bento.yaml, or `key.subkey`, to its new value; undefined and empty values delete it. */
export type ConfigChanges = Record<string, unknown>;

export interface NewConfig {
  id: string;
  head?: string | undefined;
  task?: string | undefined;
  store: string;
  remote?: string | undefined;
  layers?: readonly unknown[] | undefined;
}

/** The order in which keys are written; others go to the end. */
const KEY_ORDER = [
  'id',
  'head',
  'extensions',
  'task',
  'store',
  'remote',
  'open',
  'layers',
  'ignore',
  'env',
  'secrets',
  'sender',
  'recipients',
  'hooks',
  'retention',
  'watch',
];
const NEW_RETENTION = {
  keep_last: 10,
  keep_tagged: true,
  tiers: [
    { max_age: '1h0m0s' },
    { max_age: '24h0m0s', resolution: '1h0m0s' },
    { max_age: '168h0m0s', resolution: '24h0m0s' },
  ],
};
const NEW_WATCH = { debounce: 10, message: 'auto-save' };

/**
 * Reads every scalar but null as the text that stands there: `mode: off` is `off`, a version `1.10` keeps its zero, an id
 * `0123` its own; and writes them back the same way.
 */
const SYNTAX: ParseOptions & DocumentOptions & SchemaOptions = {
  schema: 'core',
  customTags: (tags) => tags.filter((tag) => typeof tag === 'string' || !/:(bool|int|float)$/.test(tag.tag)),
  prettyErrors: false,
};

const FILE_BYTES_MAX = 1024 * 1024;
const ALIAS_EXPANSION_MAX = 100;
const LAYOUT = { indent: 4, lineWidth: 0, singleQuote: true };

let parser: typeof yamlModule | undefined;

/** Loaded when it is first needed: most commands read a file that `readPlainYaml` understands. */
function yaml(): typeof yamlModule {
  return (parser ??= createRequire(import.meta.url)('yaml') as typeof yamlModule);
}

export function configPath(dir: string): string {
  return join(dir, 'bento.yaml');
}

/** The text of a fresh `bento.yaml`, in the order and with the indentation that scripts rely on. */
export function renderNewConfig({ id, head, task, store, remote, layers }: NewConfig): string {
  const texts = { id, head, task, store, remote };
  return renderPlain(texts, layers) ?? renderDocument({ ...texts, layers });
}

export function renderDocument(values: NewConfig): string {
  const document = yaml().parseDocument('{}', SYNTAX);
  document.contents = null;
  applyChanges(document, { ...values, retention: NEW_RETENTION, watch: NEW_WATCH });
  return document.toString(LAYOUT);
}

/** Words that mean the same in quotes and without. */
const UNQUOTED = /^(?:sha256:[0-9a-f]{64}|(?!null$)[A-Za-z/][\w./-]*(?: [\w./-]+)*)$/i;
const NEW_POLICIES = [
  'retention:',
  `    keep_last: ${NEW_RETENTION.keep_last}`,
  `    keep_tagged: ${String(NEW_RETENTION.keep_tagged)}`,
  '    tiers:',
  ...NEW_RETENTION.tiers.flatMap((tier) =>
    Object.entries(tier).map(([key, value], at) => `        ${at === 0 ? '- ' : '  '}${key}: ${value}`),
  ),
  'watch:',
  `    debounce: ${NEW_WATCH.debounce}`,
  `    message: ${NEW_WATCH.message}`,
  '',
];

/** The same without `yaml`, which takes longer than a fork; undefined when it takes that to tell. */
function renderPlain(texts: Record<string, string | undefined>, layers: NewConfig['layers']): string | undefined {
  const lines = Object.entries(texts).flatMap(([key, text]) => (text ? [{ key, text }] : []));
  if (layers !== undefined || lines.some(({ text }) => !UNQUOTED.test(text) || isAmbiguous(text))) return undefined;
  return [...lines.map(({ key, text }) => `${key}: ${text}`), ...NEW_POLICIES].join('\n');
}

/**
 * Writes a `bento.yaml` where there is none.
 *
 * @throws BentoError FAILED when there is one, TARGET_INVALID when there is no such directory
 */
export async function createConfig(dir: string, text: string): Promise<void> {
  if (lstatSync(configPath(dir), { throwIfNoEntry: false }) !== undefined) throw configExists(dir);
  const temporary = temporaryIn(dir);
  try {
    await writeNew(temporary, text);
    faultPoint('config.prepared');
    await linkOrCopy(temporary, configPath(dir), text);
    faultPoint('config.created');
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw configExists(dir); // somebody was quicker
    if (errnoOf(error) === 'ENOENT') throw new BentoError('TARGET_INVALID', `there is no directory ${dir}`);
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

function configExists(dir: string): BentoError {
  return new BentoError('FAILED', `bento.yaml already exists in ${dir}`);
}

async function writeNew(path: string, text: string): Promise<void> {
  await using file = await open(path, 'wx', 0o644);
  await file.writeFile(text);
  await file.sync();
}

/** A second name comes with all the content or not at all, and never in the place of another file. */
async function linkOrCopy(from: string, to: string, text: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!['EPERM', 'ENOTSUP', 'ENOSYS'].includes(errnoOf(error) ?? '')) throw error; // no hard links here, as on FAT
    await writeNew(to, text);
  }
}

function temporaryIn(dir: string): string {
  return join(dir, `.bento.yaml.${randomBytes(4).toString('hex')}.tmp`);
}

/** Whether a file of this name is a `bento.yaml` that is being written, or was when somebody was killed. */
export function isConfigTemporary(name: string): boolean {
  return /^\.bento\.yaml\.[0-9a-f]{8}\.tmp$/.test(name);
}

/** @throws BentoError CONFIG_MISSING; CONFIG_INVALID when it is no file or too large */
export async function readConfigText(dir: string): Promise<string> {
  try {
    // Not blocking: a FIFO of that name must not hang every command.
    await using file = await open(configPath(dir), constants.O_RDONLY | constants.O_NONBLOCK);
    return await readWhole(file);
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) throw error;
    throw new BentoError('CONFIG_MISSING', `no bento.yaml found in ${dir}`, {
      hint: 'run `bento init` first',
      cause: error,
    });
  }
}

async function readWhole(file: FileHandle): Promise<string> {
  const stats = await file.stat();
  if (!stats.isFile()) throw new BentoError('CONFIG_INVALID', 'bento.yaml is not a regular file');
  if (stats.size > FILE_BYTES_MAX) {
    throw new BentoError('CONFIG_INVALID', `bento.yaml is larger than ${FILE_BYTES_MAX} bytes`);
  }
  return file.readFile('utf8');
}

/**
 * Changes some keys of `bento.yaml` and leaves the rest as it is. The file is read afresh, so that what a person edited
 * while a long command ran is kept, and replaced in one step, so that a crash leaves the old one or the new one.
 *
 * @throws BentoError CONFIG_MISSING, CONFIG_INVALID (also when the change would make the file invalid: nothing is written)
 */
export async function updateConfig(dir: string, changes: ConfigChanges): Promise<void> {
  const before = await readConfigText(dir);
  const after = replaceLine(before, changes) ?? changeDocument(before, changes);
  checkConfigText(after, dir);
  if (after !== before) await replaceFile(await realpath(configPath(dir)), after);
}

/** @throws BentoError CONFIG_INVALID */
export function checkConfigText(text: string, dir = '/'): void {
  parseConfig(readPlainYaml(text) ?? parseYaml(text).toJS(), dir);
}

const HEAD_LINE = /^head: sha256:[0-9a-f]{64}$/m;

/** A head in the place of another, which every save writes, without taking the file apart; undefined for anything else. */
function replaceLine(text: string, { head, ...others }: ConfigChanges): string | undefined {
  const isHead = typeof head === 'string' && isDigest(head) && Object.keys(others).length === 0;
  if (!isHead || !HEAD_LINE.test(text) || readPlainYaml(text) === undefined) return undefined;
  return text.replace(HEAD_LINE, `head: ${head}`);
}

function changeDocument(text: string, changes: ConfigChanges): string {
  const { document } = parseYaml(text);
  applyChanges(document, changes);
  return document.toString({ ...LAYOUT, ...layoutOf(text) });
}

export interface ParsedYaml {
  document: Document<ParsedNode>;
  /** Mappings, lists, strings and nulls. */
  toJS(): unknown;
}

/** @throws BentoError CONFIG_INVALID with the place of the first mistake */
export function parseYaml(text: string): ParsedYaml {
  const lineCounter = new (yaml().LineCounter)();
  const document = orInvalid(() => yaml().parseDocument(text, { ...SYNTAX, lineCounter }));
  const [mistake] = document.errors;
  if (mistake !== undefined) {
    const { line, col } = lineCounter.linePos(mistake.pos[0]);
    throw invalidYaml(`${line}:${col}: ${mistake.message}`, mistake);
  }
  return { document, toJS: () => orInvalid(() => document.toJS({ maxAliasCount: ALIAS_EXPANSION_MAX }) as unknown) };
}

/** The parser throws on nesting beyond the stack and on aliases that multiply. */
function orInvalid<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw invalidYaml(error instanceof Error ? error.message : String(error), error);
  }
}

function invalidYaml(message: string, cause: unknown): BentoError {
  return new BentoError('CONFIG_INVALID', `parsing bento.yaml: ${message.split('\n', 1)[0] ?? ''}`, { cause });
}

function applyChanges(document: Document, changes: ConfigChanges): void {
  const { isMap, YAMLMap } = yaml();
  if (!isMap(document.contents)) document.contents = new YAMLMap(document.schema);
  for (const [key, value] of Object.entries(changes)) {
    const dot = key.indexOf('.');
    const path = dot < 0 ? [key] : [key.slice(0, dot), key.slice(dot + 1)];
    if (isEmpty(value)) deletePath(document, path);
    else if (document.hasIn(path)) document.setIn(path, document.createNode(value, toScalar));
    else insertPath(document, document.contents as YAMLMap, path, value);
  }
}

/** Numbers and booleans plain; text in quotes when another reader would take it for one of those. */
function toScalar(_key: unknown, value: unknown): unknown {
  if (typeof value === 'number' || typeof value === 'boolean') return styled(String(value), 'PLAIN');
  return typeof value === 'string' && isAmbiguous(value) ? styled(value, 'QUOTE_DOUBLE') : value;
}

function styled(text: string, type: Scalar.Type): Scalar {
  const scalar = new (yaml().Scalar)(text);
  scalar.type = type;
  return scalar;
}

function isAmbiguous(text: string): boolean {
  return !Number.isNaN(Number(text)) || /^(?:true|false|[-+]?\.(?:inf|nan))$/i.test(text);
}

/** No `remote: ""` or `recipients: []`: scripts append keys as text, and the original cannot load some of them. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function deletePath(document: Document, path: string[]): void {
  document.deleteIn(path);
  const parent = path.slice(0, -1);
  const rest = parent.length > 0 ? document.getIn(parent) : undefined;
  if (yaml().isMap(rest) && rest.items.length === 0) document.deleteIn(parent);
}

/** A new top-level key goes where the table of keys has it, not to the end. */
function insertPath(document: Document, map: YAMLMap, path: string[], value: unknown): void {
  const [key = '', subkey] = path;
  const { isMap, Pair } = yaml();
  if (subkey !== undefined && isMap(map.get(key))) {
    document.setIn(path, document.createNode(value, toScalar));
    return;
  }
  map.delete(key);
  const node = document.createNode(subkey === undefined ? value : { [subkey]: value }, toScalar);
  const pair = new Pair(document.createNode(key), node);
  const rank = KEY_ORDER.indexOf(key);
  const next = map.items.findIndex((item) => KEY_ORDER.indexOf(String(item.key)) > rank);
  map.items.splice(rank < 0 || next < 0 ? map.items.length : next, 0, pair);
}

/** Keeps the indentation a person chose; a file without any gets ours. */
function layoutOf(text: string): { indent?: number; indentSeq?: boolean } {
  const indent = /^( +)[^\s#]/m.exec(text)?.[1]?.length;
  return {
    ...(indent === undefined ? {} : { indent }),
    ...(/^[\w-]+:[^\S\n]*\n- /m.test(text) ? { indentSeq: false } : {}),
  };
}

async function replaceFile(path: string, text: string): Promise<void> {
  const { mode, uid, gid } = await stat(path);
  const temporary = temporaryIn(dirname(path));
  try {
    await using file = await open(temporary, 'wx', 0o600);
    await file.writeFile(text);
    if (process.getuid?.() === 0) await file.chown(uid, gid); // root must not take the file from its owner
    await file.chmod(mode & 0o7777);
    await file.sync();
    faultPoint('config.written');
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await using folder = await open(dirname(path), 'r');
  await folder.sync();
}
