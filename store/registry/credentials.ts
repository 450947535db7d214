import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

import { isDockerHub } from './address.ts';
import { readAuthFile, type AuthFile } from './auth-file.ts';
import { askHelper } from './credential-helper.ts';

/** Who somebody is at a registry. */
export type Credentials =
  | { kind: 'basic'; username: string; password: string }
  /** An identity token, which is exchanged for others. */
  | { kind: 'token'; identityToken: string };

export interface CredentialSource {
  /** @returns undefined where nothing is known: the registry is then asked without */
  find(registry: string, repository: string): Promise<Credentials | undefined>;
}

/** Under what Docker keeps the credentials of its own registry. */
export const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';

export interface CredentialFilesOptions {
  env?: NodeJS.ProcessEnv;
  home?: string;
  /** Told what could not be asked. */
  note?: (line: string) => void;
}

/** `$XDG_CONFIG_HOME/bento/auth.json`, else `~/.config/bento/auth.json`: what `bento login` writes. */
export function ownAuthPath(env: NodeJS.ProcessEnv = process.env, home = homedir()): string {
  const configHome = env['XDG_CONFIG_HOME'];
  return join(
    configHome !== undefined && isAbsolute(configHome) ? configHome : join(home, '.config'),
    'bento',
    'auth.json',
  );
}

/** Every file that may have credentials, the first that does counts: bento's own, podman's, Docker's. */
export function authPaths(env: NodeJS.ProcessEnv = process.env, home = homedir()): string[] {
  const given = env['REGISTRY_AUTH_FILE'];
  const runtime = env['XDG_RUNTIME_DIR'];
  const configHome = env['XDG_CONFIG_HOME'];
  const docker = env['DOCKER_CONFIG'];
  return [
    ownAuthPath(env, home),
    ...(given === undefined || given === '' ? [] : [given]),
    ...(runtime === undefined || runtime === '' ? [] : [join(runtime, 'containers', 'auth.json')]),
    ...(configHome !== undefined && isAbsolute(configHome) ? [join(configHome, 'containers', 'auth.json')] : []),
    join(home, '.config', 'containers', 'auth.json'),
    join(docker === undefined || docker === '' ? join(home, '.docker') : docker, 'config.json'),
  ];
}

/**
 * Credentials from the files and helpers of bento, podman and Docker.
 *
 * @see containers-auth.json(5), and https://docs.docker.com/reference/cli/docker/login/
 */
export class CredentialFiles implements CredentialSource {
  readonly #paths: string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly #note: (line: string) => void;

  constructor({ env = process.env, home = homedir(), note = () => undefined }: CredentialFilesOptions = {}) {
    this.#paths = authPaths(env, home);
    this.#env = env;
    this.#note = note;
  }

  /** @throws BentoError CONFIG_INVALID when one of the files cannot be understood */
  async find(registry: string, repository: string): Promise<Credentials | undefined> {
    for (const path of this.#paths) {
      const file = await readAuthFile(path);
      const found = file === undefined ? undefined : await this.#findIn(file, registry, repository);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  async #findIn(file: AuthFile, registry: string, repository: string): Promise<Credentials | undefined> {
    const server = isDockerHub(registry) ? DOCKER_HUB_KEY : registry;
    const keys = keysOf(registry, repository);
    const own = keys.map((key) => file.helpers.get(key)).find((name) => name !== undefined);
    if (own !== undefined) return await this.#ask(own, server);
    const stored = keys.map((key) => file.auths.get(key)).find((one) => one !== undefined);
    if (stored !== undefined) return stored;
    return file.store === undefined ? undefined : await this.#ask(file.store, server);
  }

  /** A helper that does not work must not be the end of it: many registries can be read by anybody. */
  async #ask(name: string, server: string): Promise<Credentials | undefined> {
    const answer = await askHelper(name, server, this.#env);
    if (answer.trouble !== undefined) this.#note(`note: ${answer.trouble}`);
    return answer.credentials;
  }
}

/** `host/me/ws`, `host/me`, `host`: the narrower first, as podman has it. Docker Hub has other names, too. */
function keysOf(registry: string, repository: string): string[] {
  const parts = repository === '' ? [] : repository.split('/');
  const narrow = parts.map((_, at) => `${registry}/${parts.slice(0, parts.length - at).join('/')}`);
  return [
    ...narrow,
    registry,
    ...(isDockerHub(registry) ? ['index.docker.io', 'docker.io', 'registry-1.docker.io'] : []),
  ];
}
