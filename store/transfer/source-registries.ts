import type { LazySource } from '../lazy/lazy-record.ts';
import { RegistryClient, type RegistryClientOptions } from '../registry/client.ts';
import type { Repository } from '../registry/repository.ts';
import { Remotes } from './remotes.ts';

/** Repositories as their sources say, with TLS or without; connections are shared. Close it. */
export class SourceRegistries {
  readonly #options: RegistryClientOptions;
  readonly #clients = new Map<string, Remotes>();

  constructor(options: RegistryClientOptions) {
    this.#options = options;
  }

  repository({ registry, repository, plainHttp }: LazySource): Repository {
    return this.#client(registry, plainHttp).repository({ registry, repository });
  }

  async close(): Promise<void> {
    for (const client of this.#clients.values()) await client.close();
    this.#clients.clear();
  }

  #client(registry: string, plainHttp: boolean): Remotes {
    const key = plainHttp ? registry : '';
    const known = this.#clients.get(key);
    if (known !== undefined) return known;
    const insecure = [...(this.#options.insecure ?? []), ...(plainHttp ? [registry] : [])];
    const client = new Remotes(new RegistryClient({ ...this.#options, insecure }));
    this.#clients.set(key, client);
    return client;
  }
}
