import { isObject } from './manifest.ts';

/** The object in the label `dev.bento.config`: what the workspace was when it was saved. */
export interface CheckpointMeta {
  schemaVersion: string;
  workspaceId?: string;
  extensions?: string[];
  task?: string;
  message?: string;
  remote?: string;
  parentCheckpoint?: string;
  /** Sequence number. */
  checkpoint: number;
  /** RFC 3339; empty when nobody said. */
  created: string;
  status?: string;
  repos?: RepoState[];
  environment?: { os: string; arch: string };
  /** As saved; nothing in it is run or resolved. */
  env?: Record<string, unknown>;
  hooks?: Record<string, unknown>;
  layers?: LayerMeta[];
  ignore?: string[];
  retention?: { keepLast?: number; keepTagged?: boolean };
}

export interface RepoState {
  path: string;
  remote?: string;
  /** `HEAD` when detached. */
  branch?: string;
  /** Absent before the first commit. */
  sha?: string;
}

export interface LayerMeta {
  name: string;
  patterns?: string[];
  catchAll?: boolean;
}

type Json = Record<string, unknown>;

/** Takes from somebody else's object what has the right type; the rest is as if it were not there. */
export function parseMeta(json: Json): CheckpointMeta {
  const environment = isObject(json['environment']) ? json['environment'] : {};
  return {
    schemaVersion: textOf(json, 'schemaVersion').schemaVersion ?? '1.0.0',
    ...textOf(json, 'workspaceId'),
    ...textOf(json, 'task'),
    ...textOf(json, 'message'),
    ...textOf(json, 'remote'),
    ...textOf(json, 'parentCheckpoint'),
    ...textOf(json, 'status'),
    ...textsOf(json, 'extensions'),
    ...textsOf(json, 'ignore'),
    checkpoint: Number.isSafeInteger(json['checkpoint']) ? Number(json['checkpoint']) : 0,
    created: textOf(json, 'created').created ?? '',
    ...('os' in environment && { environment: { os: String(environment['os']), arch: String(environment['arch']) } }),
    ...(isObject(json['env']) && { env: json['env'] }),
    ...(isObject(json['hooks']) && { hooks: json['hooks'] }),
    ...listOf(json, 'repos', parseRepo),
    ...listOf(json, 'layers', parseLayer),
    ...(isObject(json['retention']) && { retention: parseRetention(json['retention']) }),
  };
}

function parseRepo(json: Json): RepoState[] {
  const { path } = textOf(json, 'path');
  return path === undefined
    ? []
    : [{ path, ...textOf(json, 'remote'), ...textOf(json, 'branch'), ...textOf(json, 'sha') }];
}

function parseLayer(json: Json): LayerMeta[] {
  const { name } = textOf(json, 'name');
  if (name === undefined) return [];
  return [{ name, ...textsOf(json, 'patterns'), ...(json['catchAll'] === true && { catchAll: true }) }];
}

function parseRetention({ keepLast, keepTagged }: Json): NonNullable<CheckpointMeta['retention']> {
  return {
    ...(typeof keepLast === 'number' && { keepLast }),
    ...(typeof keepTagged === 'boolean' && { keepTagged }),
  };
}

function textOf<Key extends string>(json: Json, key: Key): Partial<Record<Key, string>> {
  const value = json[key];
  return typeof value === 'string' ? ({ [key]: value } as Record<Key, string>) : {};
}

function textsOf<Key extends string>(json: Json, key: Key): Partial<Record<Key, string[]>> {
  const value = json[key];
  if (!Array.isArray(value)) return {};
  return { [key]: value.filter((text) => typeof text === 'string') } as Record<Key, string[]>;
}

function listOf<Key extends string, Item>(
  json: Json,
  key: Key,
  parse: (item: Json) => Item[],
): Partial<Record<Key, Item[]>> {
  const value = json[key];
  if (!Array.isArray(value)) return {};
  return { [key]: value.filter(isObject).flatMap(parse) } as Record<Key, Item[]>;
}
