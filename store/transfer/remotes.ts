import type { RegistryClient } from '../registry/client.ts';
import { pathOfName } from '../registry/local-ref.ts';
import type { Registries, Repository, RepositoryName } from '../registry/repository.ts';
import { LayoutRepository } from './layout-repository.ts';

/** All places that checkpoints are pushed to and read from: registries, and folders and archives of this machine. */
export class Remotes implements Registries {
  readonly #client: RegistryClient;
  readonly #local = new Map<string, LayoutRepository>();

  /** @param client - closed with it */
  constructor(client: RegistryClient) {
    this.#client = client;
  }

  repository(name: RepositoryName): Repository {
    const path = pathOfName(name);
    if (path === undefined) return this.#client.repository(name);
    const known = this.#local.get(path) ?? new LayoutRepository(path);
    this.#local.set(path, known);
    return known;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#local.values()].map(async (one) => await one.close()));
    await this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
