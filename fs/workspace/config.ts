import { resolve } from 'node:path';
import { BentoError } from '../../store/errors.ts';
import { configPath, parseYaml, readConfigText, updateConfig } from './config-file.ts';
import { parseConfig } from './config-schema.ts';
import type { Config } from './config-types.ts';
import { readPlainYaml } from './plain-yaml.ts';
import { newWorkspaceId } from './store-name.ts';

export interface LoadedConfig {
  /** Absolute path of the workspace. */
  dir: string;
  path: string;
  config: Config;
}

/**
 * Reads and checks `bento.yaml`. Never writes: defaults exist in memory only.
 *
 * @throws BentoError CONFIG_MISSING, CONFIG_INVALID
 */
export async function loadConfig(dir: string): Promise<LoadedConfig> {
  const root = resolve(dir);
  const text = await readConfigText(root);
  try {
    return {
      dir: root,
      path: configPath(root),
      config: parseConfig(readPlainYaml(text) ?? parseYaml(text).toJS(), root),
    };
  } catch (error) {
    if (!(error instanceof BentoError) || error.hint !== undefined) throw error;
    throw new BentoError(error.code, error.message, { hint: `mend ${configPath(root)}`, cause: error });
  }
}

/**
 * The id of a loaded workspace; one is generated and written when the file has none. For commands that write anyway.
 *
 * @throws BentoError CONFIG_INVALID
 */
export async function ensureId(loaded: LoadedConfig): Promise<string> {
  if (loaded.config.id !== undefined) return loaded.config.id;
  const id = newWorkspaceId();
  await updateConfig(loaded.dir, { id });
  loaded.config.id = id;
  return id;
}
