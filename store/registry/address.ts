import { BentoError } from '../errors.ts';
import type { RepositoryName } from './repository.ts';

const DOCKER_HUB = ['docker.io', 'index.docker.io', 'registry-1.docker.io'];
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/i;

/** In a list of hosts for plain HTTP: all of them. */
export const EVERY_HOST = '*';

export function isDockerHub(registry: string): boolean {
  return DOCKER_HUB.includes(registry);
}

/** @param host - without a port; IPv6 addresses in brackets */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/** Whether a registry is asked without TLS: those of this machine, and those that somebody named, with or without the port. */
export function isPlainHttp(registry: string, insecure: readonly string[]): boolean {
  const host = registry.replace(/:\d+$/, '');
  return isLoopback(host) || [registry, host, EVERY_HOST].some((name) => insecure.includes(name));
}

/** Where a registry is: `https://host/`, or with plain HTTP. @throws BentoError REF_INVALID */
export function registryUrl(registry: string, insecure: readonly string[]): URL {
  if (isDockerHub(registry)) return new URL('https://registry-1.docker.io/');
  const text = `${isPlainHttp(registry, insecure) ? 'http' : 'https'}://${registry}/`;
  if (/^[^/?#@\s\\]+$/.test(registry) && URL.canParse(text)) return new URL(text);
  throw new BentoError('REF_INVALID', `"${registry}" is not the host of a registry`, {
    hint: 'write it as host or host:port, for example ghcr.io',
  });
}

/** What the registry calls the repository: Docker Hub keeps names without a slash under `library/`. */
export function repositoryPath({ registry, repository }: RepositoryName): string {
  return isDockerHub(registry) && !repository.includes('/') ? `library/${repository}` : repository;
}
