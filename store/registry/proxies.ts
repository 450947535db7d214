import type { Agent, Dispatcher } from 'undici';

import { BentoError } from '../errors.ts';
import { isLoopback } from './address.ts';
import { undici } from './undici.ts';

/** A proxy that the environment names. */
export interface Proxy {
  /** With the credentials. */
  url: URL;
  /** Without them, for messages. */
  shown: string;
  /** The variable that names it. */
  variable: string;
}

/** How a server is reached: straight on, or through a proxy. */
export interface Way {
  dispatcher: Dispatcher;
  proxy: Proxy | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const PROTOCOLS = ['http:', 'https:', 'socks5:', 'socks:'];

/**
 * The proxy for a URL: `http_proxy` or `https_proxy`, which the lower case goes before the upper, unless `no_proxy` lists
 * the host. This machine itself is never asked through a proxy: to a proxy its names mean the proxy.
 *
 * @throws BentoError CONFIG_INVALID when the variable holds no proxy
 */
export function proxyFor(url: URL, env: Environment): Proxy | undefined {
  const hasTls = url.protocol === 'https:';
  const found = [...(hasTls ? ['https_proxy', 'HTTPS_PROXY'] : []), 'http_proxy', 'HTTP_PROXY'].find(
    (name) => env[name],
  );
  if (found === undefined || isLoopback(url.hostname) || isListed(url, env['no_proxy'] ?? env['NO_PROXY'] ?? ''))
    return undefined;
  return parseProxy(found, env[found] ?? '');
}

/** `host`, `.host`, `*.host` or `host:port`, each with everything below the host; `*` is all. Commas or spaces between. */
function isListed({ protocol, hostname, port }: URL, list: string): boolean {
  const ownPort = port === '' ? (protocol === 'https:' ? '443' : '80') : port;
  return list
    .toLowerCase()
    .split(/[,\s]+/)
    .some((entry) => {
      if (entry === '*') return true;
      const [, name = '', onlyPort = ownPort] = /^(?:\*?\.)?(\[.*\]|[^:]+)(?::(\d+))?$/.exec(entry) ?? [];
      return name !== '' && onlyPort === ownPort && (hostname === name || hostname.endsWith(`.${name}`));
    });
}

/** `proxy:3128` is `http://proxy:3128`, as for other programs. */
function parseProxy(variable: string, text: string): Proxy {
  const written = text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(written) ? new URL(written) : undefined;
  // What it holds is not shown: it may be a password.
  if (url === undefined || url.hostname === '' || !PROTOCOLS.includes(url.protocol))
    throw new BentoError('CONFIG_INVALID', `${variable} is not the address of a proxy`, {
      hint: 'write it as http://host:port',
    });
  return { url, shown: `${url.protocol}//${url.host}`, variable };
}

/** Connections, those through each proxy apart. */
export class Ways {
  readonly #options: Agent.Options;
  readonly #env: Environment;
  readonly #agents = new Map<string, Dispatcher>();

  constructor(options: Agent.Options, env: Environment) {
    this.#options = options;
    this.#env = env;
  }

  /** @throws BentoError CONFIG_INVALID when the environment names a proxy that is none */
  to(url: URL): Way {
    const proxy = proxyFor(url, this.#env);
    const key = proxy?.url.href ?? '';
    const dispatcher = this.#agents.get(key) ?? this.#newAgent(proxy);
    this.#agents.set(key, dispatcher);
    return { dispatcher, proxy };
  }

  /** Ends all connections. */
  async destroy(): Promise<void> {
    await Promise.all([...this.#agents.values()].map(async (agent) => await agent.destroy()));
  }

  #newAgent(proxy: Proxy | undefined): Dispatcher {
    const options = this.#options;
    if (proxy === undefined) return new undici.Agent(options);
    const { username, password } = proxy.url;
    const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString(
      'base64',
    );
    return new undici.ProxyAgent({
      ...options,
      uri: proxy.shown,
      ...(username !== '' && { token: `Basic ${credentials}` }),
      proxyTunnel: false, // many proxies take CONNECT for TLS only
      factory: (origin, poolOptions) => new undici.Pool(origin, Object.assign({}, options, poolOptions)),
    });
  }
}
