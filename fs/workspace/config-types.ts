/** `bento.yaml` as the rest of bento sees it: checked, and with every default filled in, in memory only. */
export interface Config {
  /** Absent in hand-written files until a writing command calls `ensureId`. */
  id: string | undefined;
  /** Manifest digest this directory is at. */
  head: string | undefined;
  /** Absent: detect. */
  extensions: string[] | undefined;
  task: string | undefined;
  /** Absolute; `~`, `$VAR` and paths relative to the workspace are already resolved. */
  store: string;
  remote: string | undefined;
  /** Absent: `mount`. */
  open: OpenMode | undefined;
  /** Absent: the extensions decide. Present: they are not asked. */
  layers: LayerConfig[] | undefined;
  ignore: string[];
  env: Map<string, EnvEntry>;
  secretsMode: SecretsMode | undefined;
  sender: string | undefined;
  recipients: Recipient[];
  hooks: Hooks;
  retention: Retention;
  watch: WatchConfig;
}

export const WATCH_METHODS = ['realtime', 'periodic', 'off'] as const;
export const SECRETS_MODES = ['scrub', 'block', 'off'] as const;
/** How `bento open` makes a new directory. */
export const OPEN_MODES = ['mount', 'copy'] as const;
export type OpenMode = (typeof OPEN_MODES)[number];
export type WatchMethod = (typeof WATCH_METHODS)[number];
export type SecretsMode = (typeof SECRETS_MODES)[number];

export interface LayerConfig {
  name: string;
  patterns: string[];
  catchAll: boolean;
  watch: WatchMethod;
  skipSecretScan: boolean;
}

/** A literal value, or where to find one when it is needed. */
export type EnvEntry = { value: string } | ({ source: string } & Partial<Record<EnvField, string>>);
export const ENV_FIELDS = ['var', 'path', 'key', 'role', 'command'] as const;
export type EnvField = (typeof ENV_FIELDS)[number];

export interface Recipient {
  name: string;
  /** `bento-pk-` and 32 bytes in base64url. */
  key: string;
}

export interface Hooks {
  /** Hook name to shell command; names nobody runs are kept. */
  commands: Map<string, string>;
  timeoutSec: number;
}

export interface Retention {
  keepLast: number;
  keepTagged: boolean;
  tiers: RetentionTier[];
}

export interface RetentionTier {
  maxAgeMs: number;
  /** Keep one checkpoint per this long; 0 keeps all. */
  resolutionMs: number;
}

export interface WatchConfig {
  debounceSec: number;
  message: string;
  skipSecretScan: boolean;
}
