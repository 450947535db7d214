import { createRequire } from 'node:module';
import type { Agent, Dispatcher, Pool, ProxyAgent } from 'undici';

/** The modules of undici that are used. */
const AGENT = 'undici/lib/dispatcher/agent.js';
const POOL = 'undici/lib/dispatcher/pool.js';
const PROXY_AGENT = 'undici/lib/dispatcher/proxy-agent.js';
const REQUEST = 'undici/lib/api/api-request.js';

type SendRequest = (
  this: Dispatcher,
  options: Dispatcher.RequestOptions & { origin: string },
) => Promise<Dispatcher.ResponseData>;

const load = createRequire(import.meta.url) as <Module>(name: string) => Module;

/**
 * The parts of undici that a client of a registry needs, each loaded when it is first used: the package's own index loads a
 * hundred files, fetch and mocks among them, and takes twice as long. So its version is pinned.
 */
export const undici = {
  get Agent() {
    return load<typeof Agent>(AGENT);
  },
  get Pool() {
    return load<typeof Pool>(POOL);
  },
  get ProxyAgent() {
    return load<typeof ProxyAgent>(PROXY_AGENT);
  },
  async request(
    url: URL,
    { dispatcher, ...options }: Omit<Dispatcher.RequestOptions, 'origin' | 'path'> & { dispatcher: Dispatcher },
  ): Promise<Dispatcher.ResponseData> {
    const path = url.pathname + url.search;
    return await load<SendRequest>(REQUEST).call(dispatcher, { ...options, origin: url.origin, path });
  },
};
