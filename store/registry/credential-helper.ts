import { execFile } from 'node:child_process';

import { isObject } from '../manifest.ts';
import type { Credentials } from './credentials.ts';

const HELPER_MS_MAX = 30_000;
const HELPER_BYTES_MAX = 1 << 20;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const NOT_FOUND = /credentials not found/i;

export interface HelperAnswer {
  credentials: Credentials | undefined;
  /** Why it could not be asked. */
  trouble: string | undefined;
}

/**
 * Runs `docker-credential-<name> get`: the server goes to its stdin, JSON comes from its stdout.
 *
 * @see https://github.com/docker/docker-credential-helpers, "Development"
 */
export async function askHelper(name: string, server: string, env: NodeJS.ProcessEnv): Promise<HelperAnswer> {
  if (!NAME.test(name)) return trouble(`"${name.slice(0, 100)}" is not the name of a credential helper`);
  const program = `docker-credential-${name}`;
  return await new Promise((done) => {
    const limits = { timeout: HELPER_MS_MAX, killSignal: 'SIGKILL', maxBuffer: HELPER_BYTES_MAX } as const;
    const child = execFile(program, ['get'], { env, ...limits }, (error, stdout) => {
      if (error === null) return done(parseAnswer(program, stdout));
      if (NOT_FOUND.test(stdout)) return done({ credentials: undefined, trouble: undefined });
      const why =
        error.killed === true ? 'gave no answer in time' : error.code === 'ENOENT' ? 'is not installed' : 'failed';
      done(trouble(`${program}, which should know the password of ${server}, ${why}`));
    });
    child.stdin?.on('error', () => undefined); // it need not read
    child.stdin?.end(`${server}\n`);
  });
}

function parseAnswer(program: string, stdout: string): HelperAnswer {
  try {
    const json: unknown = JSON.parse(stdout);
    const { Username: username, Secret: secret } = isObject(json) ? json : {};
    if (typeof username !== 'string' || typeof secret !== 'string') return trouble(`${program} gives no credentials`);
    if (secret === '') return { credentials: undefined, trouble: undefined };
    const credentials: Credentials =
      username === '<token>' ? { kind: 'token', identityToken: secret } : { kind: 'basic', username, password: secret };
    return { credentials, trouble: undefined };
  } catch {
    return trouble(`${program} gives no JSON`);
  }
}

function trouble(text: string): HelperAnswer {
  return { credentials: undefined, trouble: text };
}
