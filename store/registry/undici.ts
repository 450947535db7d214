import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';

import type * as undiciModule from 'undici';
import type { Agent, Dispatcher, Pool } from 'undici';

/** The modules of undici that are used. */
const AGENT = 'undici/lib/dispatcher/agent.js';
const POOL = 'undici/lib/dispatcher/pool.js';
const REQUEST = 'undici/lib/api/api-request.js';

type SendRequest = (
  this: Dispatcher,
  options: Dispatcher.RequestOptions & { origin: string },
) => Promise<Dispatcher.ResponseData>;

const requirePackage = createRequire(import.meta.url);
let isFirst = true;

function load(name: string): unknown {
  // Its parser is WebAssembly, which V8 works on for a third of a second beside us to make it fast: more than we have use for.
  if (isFirst) setFlagsFromString('--liftoff-only');
  isFirst = false;
  return requirePackage(name);
}

/**
 * The parts of undici that a client of a registry needs, each loaded when it is first used: the package's own index loads a
 * hundred files, fetch and mocks among them, and takes twice as long. So its version is pinned.
 */
export const undici = {
  get Agent() {
    return load(AGENT) as typeof Agent;
  },
  get Pool() {
    return load(POOL) as typeof Pool;
  },
  /** It relies on what the index puts together. */
  get ProxyAgent() {
    return (load('undici') as typeof undiciModule).ProxyAgent;
  },
  async request(
    url: URL,
    { dispatcher, ...options }: Omit<Dispatcher.RequestOptions, 'origin' | 'path'> & { dispatcher: Dispatcher },
  ): Promise<Dispatcher.ResponseData> {
    const path = url.pathname + url.search;
    return await (load(REQUEST) as SendRequest).call(dispatcher, { ...options, origin: url.origin, path });
  },
};
