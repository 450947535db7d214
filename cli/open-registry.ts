import { SourceRegistries } from '../store/transfer/source-registries.ts';
import { EVERY_HOST, isPlainHttp } from '../store/registry/address.ts';
import { RegistryClient, type RegistryClientOptions } from '../store/registry/client.ts';
import { CredentialFiles, type CredentialSource } from '../store/registry/credentials.ts';
import { Remotes } from '../store/transfer/remotes.ts';
import type { Context } from './command.ts';

/** Registries as the user has set them up, and folders and archives of this machine. Close it. */
export function openRegistries(ctx: Pick<Context, 'home' | 'note' | 'signal'>): Remotes {
  return new Remotes(openClient(ctx));
}

/**
 * Registries as the user has set them up: credentials from the files of bento, podman and Docker; without TLS those of
 * `BENTO_INSECURE_REGISTRIES` (hosts with commas between them), and all of them with `BENTO_PLAINHTTP=1`. Close it.
 *
 * @param credentials - instead of those in files
 */
export function openClient(
  ctx: Pick<Context, 'home' | 'note' | 'signal'>,
  credentials: CredentialSource = new CredentialFiles({ home: ctx.home, note: ctx.note }),
): RegistryClient {
  return new RegistryClient(optionsFor(ctx, credentials));
}

/** The same, for blobs of which it was noted where they come from. Close it. */
export function openSources(ctx: Pick<Context, 'home' | 'note' | 'signal'>): SourceRegistries {
  return new SourceRegistries(optionsFor(ctx, new CredentialFiles({ home: ctx.home, note: ctx.note })));
}

/** Whether the user has a registry asked without TLS. */
export function asksWithoutTls(registry: string): boolean {
  return isPlainHttp(registry, insecureHosts(process.env));
}

function optionsFor(
  { note, signal }: Pick<Context, 'note' | 'signal'>,
  credentials: CredentialSource,
): RegistryClientOptions {
  return {
    credentials,
    insecure: insecureHosts(process.env),
    onRetry: (line) => note(`note: ${line}`),
    signal,
  };
}

function insecureHosts(env: NodeJS.ProcessEnv): string[] {
  const named = (env['BENTO_INSECURE_REGISTRIES'] ?? '').split(',').map((host) => host.trim());
  return [...named.filter((host) => host !== ''), ...(env['BENTO_PLAINHTTP'] === '1' ? [EVERY_HOST] : [])];
}
