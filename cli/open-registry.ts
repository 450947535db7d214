import { EVERY_HOST } from '../store/registry/address.ts';
import { RegistryClient } from '../store/registry/client.ts';
import { CredentialFiles, type CredentialSource } from '../store/registry/credentials.ts';
import type { Context } from './command.ts';

/**
 * Registries as the user has set them up: credentials from the files of bento, podman and Docker; without TLS those of
 * `BENTO_INSECURE_REGISTRIES` (hosts with commas between them), and all of them with `BENTO_PLAINHTTP=1`. Close it.
 *
 * @param credentials - instead of those in files
 */
export function openRegistries(
  ctx: Pick<Context, 'home' | 'note' | 'signal'>,
  credentials: CredentialSource = new CredentialFiles({ home: ctx.home, note: ctx.note }),
): RegistryClient {
  return new RegistryClient({
    credentials,
    insecure: insecureHosts(process.env),
    onRetry: (line) => ctx.note(`note: ${line}`),
    signal: ctx.signal,
  });
}

function insecureHosts(env: NodeJS.ProcessEnv): string[] {
  const named = (env['BENTO_INSECURE_REGISTRIES'] ?? '').split(',').map((host) => host.trim());
  return [...named.filter((host) => host !== ''), ...(env['BENTO_PLAINHTTP'] === '1' ? [EVERY_HOST] : [])];
}
