import { BentoError } from '../../store/errors.ts';
import { isStoreName } from '../../store/store.ts';
import {
  type Config,
  ENV_FIELDS,
  type EnvEntry,
  type Hooks,
  type LayerConfig,
  OPEN_MODES,
  type OpenMode,
  type Recipient,
  type Retention,
  type RetentionTier,
  SECRETS_MODES,
  WATCH_METHODS,
  type WatchConfig,
  type WatchMethod,
} from './config-types.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { defaultStoreRoot, parseStorePlace, type StorePlace } from './store-name.ts';

/**
 * Parses what the YAML reader gives (mappings, lists, strings and nulls) into a Config, or says what is wrong in the
 * words the original used. By hand, since a schema library costs every command 30 to 70 ms at start.
 */

const DEFAULT_TIERS: RetentionTier[] = [
  { maxAgeMs: 3_600_000, resolutionMs: 0 },
  { maxAgeMs: 24 * 3_600_000, resolutionMs: 3_600_000 },
  { maxAgeMs: 168 * 3_600_000, resolutionMs: 24 * 3_600_000 },
];
const DEFAULT_KEEP_LAST = 10;
const DEFAULT_DEBOUNCE_SEC = 10;
const DEFAULT_WATCH_MESSAGE = 'auto-save';
const DEFAULT_HOOK_TIMEOUT_SEC = 300;
const PERIODIC_LAYERS = ['deps', 'agent'];
const KEY_PREFIX = 'bento-pk-';
const KEY_BYTES = 32;

/** @throws BentoError CONFIG_INVALID */
export function parseConfig(value: unknown, dir: string): Config {
  const root = fields(value, 'the file');
  const store = storePlace(text(root.get('store'), 'store'), dir);
  return {
    id: workspaceId(root.get('id')),
    head: text(root.get('head'), 'head'),
    extensions: root.has('extensions') ? texts(root.get('extensions'), 'extensions') : undefined,
    task: text(root.get('task'), 'task'),
    store: store.root,
    remote: text(root.get('remote'), 'remote') ?? store.remote,
    open: openMode(text(root.get('open'), 'open')),
    layers: layers(root.get('layers')),
    ignore: texts(root.get('ignore'), 'ignore'),
    env: env(root.get('env')),
    secretsMode: secretsMode(text(fields(root.get('secrets'), 'secrets').get('mode'), 'secrets.mode')),
    sender: text(root.get('sender'), 'sender'),
    recipients: recipients(root.get('recipients')),
    hooks: hooks(fields(root.get('hooks'), 'hooks')),
    retention: retention(fields(root.get('retention'), 'retention')),
    watch: watch(fields(root.get('watch'), 'watch')),
  };
}

function workspaceId(value: unknown): string | undefined {
  const id = text(value, 'id');
  if (id !== undefined && !isStoreName(id)) {
    throw invalid(`id "${id}" cannot name a folder of the store; use letters, digits, ".", "_" and "-"`);
  }
  return id;
}

function storePlace(path: string | undefined, dir: string): StorePlace {
  return path === undefined ? { root: defaultStoreRoot(), remote: undefined } : parseStorePlace(path, dir);
}

function openMode(value: string | undefined): OpenMode | undefined {
  const mode = OPEN_MODES.find((known) => known === value);
  if (mode === undefined && value !== undefined)
    throw invalid(`open "${value}" is invalid — must be "mount" or "copy"`);
  return mode;
}

function layers(value: unknown): LayerConfig[] | undefined {
  const items = list(value, 'layers');
  if (items.length === 0) return undefined;
  const parsed = items.map(layer);
  const names = new Set<string>();
  let hasCatchAll = false;
  for (const { name, patterns, catchAll } of parsed) {
    if (names.has(name)) throw invalid(`duplicate layer name "${name}" — each layer must have a unique name`);
    if (catchAll && hasCatchAll) throw invalid(`layer "${name}": only one catch_all layer is allowed`);
    if (patterns.length === 0 && !catchAll) throw invalid(`layer "${name}" ${EMPTY_LAYER}`);
    names.add(name);
    hasCatchAll ||= catchAll;
  }
  return parsed;
}

const EMPTY_LAYER =
  'has no patterns and is not a catch_all — it will always be empty; add patterns or set catch_all: true';

function layer(value: unknown, index: number): LayerConfig {
  const where = `layers[${index}]`;
  const item = fields(value, where);
  const name = text(item.get('name'), `${where}.name`);
  if (name === undefined) throw invalid(`layer ${index} has an empty name`);
  return {
    name,
    patterns: texts(item.get('patterns'), `${where}.patterns`),
    catchAll: name === 'project' || flag(item.get('catch_all'), `${where}.catch_all`),
    watch: watchMethod(name, text(item.get('watch'), `${where}.watch`)),
    skipSecretScan: flag(item.get('skip_secret_scan'), `${where}.skip_secret_scan`),
  };
}

function watchMethod(layerName: string, value: string | undefined): WatchMethod {
  if (value === undefined) return PERIODIC_LAYERS.includes(layerName) ? 'periodic' : 'realtime';
  const method = WATCH_METHODS.find((known) => known === value);
  if (method !== undefined) return method;
  throw invalid(`layer "${layerName}" has invalid watch value "${value}" — must be "realtime", "periodic", or "off"`);
}

function env(value: unknown): Map<string, EnvEntry> {
  return new Map(Array.from(fields(value, 'env'), ([name, entry]) => [name, envEntry(name, entry)]));
}

function envEntry(name: string, value: unknown): EnvEntry {
  if (value === null) return { value: '' };
  if (typeof value === 'string') return { value };
  if (Array.isArray(value)) throw unparsable('env entry must be a string or a mapping, got sequence');
  const item = fields(value, `env.${name}`);
  const source = text(item.get('source'), `env.${name}.source`);
  if (source === undefined) throw unparsable("env entry has mapping form but no 'source' field");
  const entry: EnvEntry = { source };
  for (const field of ENV_FIELDS) {
    const found = text(item.get(field), `env.${name}.${field}`);
    if (found !== undefined) entry[field] = found;
  }
  return entry;
}

function secretsMode(value: string | undefined): Config['secretsMode'] {
  if (value === undefined) return undefined;
  const mode = SECRETS_MODES.find((known) => known === value);
  if (mode === undefined) throw invalid(`secrets.mode "${value}" is invalid — must be "scrub", "block", or "off"`);
  return mode;
}

function recipients(value: unknown): Recipient[] {
  const names = new Set<string>();
  return list(value, 'recipients').map((entry, index) => {
    const item = fields(entry, `recipients[${index}]`);
    const name = text(item.get('name'), `recipients[${index}].name`);
    if (name === undefined) throw invalid(`recipients[${index}] has an empty name`);
    if (names.has(name)) throw invalid(`duplicate recipient name "${name}" — each recipient must have a unique name`);
    names.add(name);
    const where = `recipients[${index}] ("${name}")`;
    return { name, key: publicKey(text(item.get('key'), where), where) };
  });
}

function publicKey(key: string | undefined, where: string): string {
  if (key === undefined) throw invalid(`${where} has an empty key`);
  if (!key.startsWith(KEY_PREFIX)) throw invalid(`${where} key must start with "${KEY_PREFIX}"`);
  const encoded = key.slice(KEY_PREFIX.length);
  const foreign = encoded.search(/[^A-Za-z0-9_-]/);
  if (foreign >= 0) throw invalid(`${where} invalid base64url in key: illegal base64 data at input byte ${foreign}`);
  const lengthBytes = Buffer.from(encoded, 'base64url').length;
  if (lengthBytes !== KEY_BYTES) {
    throw invalid(`${where} decoded key must be exactly ${KEY_BYTES} bytes, got ${lengthBytes}`);
  }
  return key;
}

function hooks(map: Map<string, unknown>): Hooks {
  const timeoutSec = whole(map.get('timeout'), 'hooks.timeout') ?? 0;
  if (timeoutSec < 0) throw invalid(`hooks.timeout must be >= 0 (got ${timeoutSec})`);
  const commands = new Map<string, string>();
  for (const [name, value] of map) {
    const command = name === 'timeout' ? undefined : text(value, `hooks.${name}`);
    if (command !== undefined) commands.set(name, command);
  }
  return { commands, timeoutSec: timeoutSec === 0 ? DEFAULT_HOOK_TIMEOUT_SEC : timeoutSec };
}

function retention(map: Map<string, unknown>): Retention {
  const keepLast = whole(map.get('keep_last'), 'retention.keep_last') ?? DEFAULT_KEEP_LAST;
  if (keepLast < 0) throw invalid(`retention.keep_last must be >= 0 (got ${keepLast})`);
  const tiers = list(map.get('tiers'), 'retention.tiers').map(tier);
  tiers.forEach((current, index) => checkTierOrder(current, tiers[index - 1], index));
  return {
    keepLast,
    keepTagged: flag(map.get('keep_tagged'), 'retention.keep_tagged'),
    tiers: tiers.length > 0 ? tiers : DEFAULT_TIERS.map((defaults) => ({ ...defaults })),
  };
}

function tier(value: unknown, index: number): RetentionTier {
  const where = `retention.tiers[${index}]`;
  const item = fields(value, where);
  const maxAgeMs = parseDuration(text(item.get('max_age'), where) ?? '') ?? 0;
  const resolutionMs = parseDuration(text(item.get('resolution'), where) ?? '0');
  if (maxAgeMs <= 0) throw invalid(`${where}: max_age must be a positive duration (e.g. "1h", "24h")`);
  if (resolutionMs === undefined) throw invalid(`${where}: resolution must be a duration (e.g. "1h")`);
  if (resolutionMs < 0) throw invalid(`${where}: resolution must be >= 0`);
  return { maxAgeMs, resolutionMs };
}

function checkTierOrder(current: RetentionTier, previous: RetentionTier | undefined, index: number): void {
  const where = `retention.tiers[${index}]`;
  const age = formatDuration(current.maxAgeMs);
  if (current.resolutionMs >= current.maxAgeMs) {
    const resolution = formatDuration(current.resolutionMs);
    throw invalid(`${where}: resolution (${resolution}) must be smaller than max_age (${age})`);
  }
  if (previous !== undefined && current.maxAgeMs <= previous.maxAgeMs) {
    const before = formatDuration(previous.maxAgeMs);
    throw invalid(`${where}: max_age (${age}) must be larger than previous tier (${before})`);
  }
}

function watch(map: Map<string, unknown>): WatchConfig {
  const debounceSec = whole(map.get('debounce'), 'watch.debounce') ?? 0;
  if (debounceSec < 0) throw invalid(`watch.debounce must be >= 1 second (got ${debounceSec})`);
  return {
    debounceSec: debounceSec === 0 ? DEFAULT_DEBOUNCE_SEC : debounceSec,
    message: text(map.get('message'), 'watch.message') ?? DEFAULT_WATCH_MESSAGE,
    skipSecretScan: flag(map.get('skip_secret_scan'), 'watch.skip_secret_scan'),
  };
}

// The shapes below are all that YAML has. Absent, null and empty are the same thing, as in the original.

function fields(value: unknown, where: string): Map<string, unknown> {
  if (value === undefined || value === null) return new Map();
  if (typeof value === 'object' && !Array.isArray(value)) return new Map(Object.entries(value));
  throw unparsable(`${where} must be a mapping`);
}

function list(value: unknown, where: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value as unknown[];
  throw unparsable(`${where} must be a list`);
}

function texts(value: unknown, where: string): string[] {
  return list(value, where).flatMap((item, index) => text(item, `${where}[${index}]`) ?? []);
}

function text(value: unknown, where: string): string | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value); // tagged so, as in `!!int 5`
  throw unparsable(`${where} must be a single value`);
}

function whole(value: unknown, where: string): number | undefined {
  const digits = text(value, where);
  if (digits === undefined) return undefined;
  const parsed = Number(digits);
  if (/^[+-]?\d+$/.test(digits) && Number.isSafeInteger(parsed)) return parsed;
  throw unparsable(`${where} must be a whole number, got "${digits}"`);
}

function flag(value: unknown, where: string): boolean {
  const word = text(value, where)?.toLowerCase() ?? 'false';
  if (word === 'true' || word === 'false') return word === 'true';
  throw unparsable(`${where} must be true or false, got "${word}"`);
}

function invalid(message: string): BentoError {
  return new BentoError('CONFIG_INVALID', `bento.yaml: ${message}`);
}

function unparsable(message: string): BentoError {
  return new BentoError('CONFIG_INVALID', `parsing bento.yaml: ${message}`);
}
