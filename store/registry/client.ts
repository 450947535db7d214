import { isDockerHub, registryUrl, repositoryPath } from './address.ts';
import { expectStatus } from './answers.ts';
import { Authorizer } from './auth.ts';
import type { CredentialSource } from './credentials.ts';
import { Exchange } from './exchange.ts';
import { Host } from './host.ts';
import { HttpRepository } from './http-repository.ts';
import { TIME_LIMITS, type TimeLimits } from './limits.ts';
import type { Registries, Repository, RepositoryName } from './repository.ts';

export interface RegistryClientOptions {
  credentials: CredentialSource;
  /** Registries that are asked without TLS, `host` or `host:port`; `*` is all of them. Those of this machine always are. */
  insecure?: readonly string[];
  /** Told why something is tried again, in one line. */
  onRetry?: (note: string) => void;
  /** Other limits than `TIME_LIMITS`, for tests. */
  limits?: Partial<TimeLimits>;
  /** Ends everything, with its reason. */
  signal?: AbortSignal;
}

/** Registries over HTTP. Connections are shared by all its repositories, tokens by all that have the same name. */
export class RegistryClient implements Registries {
  readonly #options: RegistryClientOptions;
  readonly #limits: TimeLimits;
  readonly #exchange: Exchange;
  readonly #end = new AbortController();
  readonly #hosts = new Map<string, Host>();

  constructor(options: RegistryClientOptions) {
    this.#options = options;
    this.#limits = { ...TIME_LIMITS, ...options.limits };
    this.#exchange = new Exchange(this.#limits);
  }

  /** @throws BentoError REF_INVALID when the registry is no host */
  repository(name: RepositoryName): Repository {
    return new HttpRepository(name, repositoryPath(name), this.#host(name));
  }

  /**
   * Asks a registry whether it takes the credentials.
   *
   * @returns whether it wanted any at all
   * @throws BentoError REMOTE_DENIED, REMOTE_UNREACHABLE, REMOTE_INVALID, REMOTE_NOT_FOUND when it is no registry
   */
  async ping(registry: string): Promise<{ wantsCredentials: boolean }> {
    const host = this.#host({ registry, repository: '' });
    const what = `asking the registry ${registry}`;
    const request = { method: 'GET', url: new URL('/v2/', host.origin), scopes: [] } as const;
    await host.ask(request, { what }, async (answer) => await expectStatus(answer, [200], what));
    return { wantsCredentials: host.hasAnswered401 };
  }

  async close(): Promise<void> {
    this.#end.abort(new DOMException('the client of registries was closed', 'AbortError'));
    await this.#exchange.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #host(name: RepositoryName): Host {
    const key = `${name.registry}/${name.repository}`;
    const known = this.#hosts.get(key);
    if (known !== undefined) return known;
    const host = this.#newHost(name);
    this.#hosts.set(key, host);
    return host;
  }

  #newHost({ registry, repository }: RepositoryName): Host {
    const { credentials, insecure = [], onRetry, signal } = this.#options;
    const origin = registryUrl(registry, insecure);
    const exchange = this.#exchange;
    const authorizer = new Authorizer({
      exchange,
      origin,
      registry: isDockerHub(registry) ? 'docker.io' : registry,
      credentials: async () => await credentials.find(registry, repository),
    });
    const ends = [this.#end.signal, ...(signal === undefined ? [] : [signal])];
    return new Host({ exchange, authorizer, origin, limits: this.#limits, onRetry, ends });
  }
}
