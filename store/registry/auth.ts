import { BentoError } from '../errors.ts';
import { isObject } from '../manifest.ts';
import { failure, readBody } from './answers.ts';
import { parseChallenges, type Challenge } from './challenge.ts';
import type { Credentials } from './credentials.ts';
import { redirectTarget, type Exchange, type HttpRequest } from './exchange.ts';
import { TOKEN_COUNT_MAX, TOKEN_REPLY_BYTES_MAX } from './limits.ts';

const TOKEN_LIFE_SEC_DEFAULT = 60;
const TOKEN_LIFE_SEC_MAX = 3600;
/** A token that is about to end is not used any more. */
const TOKEN_MARGIN_MS = 5_000;

interface Token {
  header: string;
  /** `performance.now()` milliseconds. */
  untilMs: number;
}

export interface AuthorizerOptions {
  exchange: Exchange;
  /** Of the registry; tokens of a registry with TLS come from places with TLS only. */
  origin: URL;
  /** As people write the registry, for messages. */
  registry: string;
  credentials: () => Promise<Credentials | undefined>;
}

/**
 * Proves to one registry who asks, the way its 401 wants it: basic, or a bearer token that it names a place for.
 *
 * @see https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/
 */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  #credentials: Promise<Credentials | undefined> | undefined;
  #challenge: Challenge | undefined;
  /** Wanted scopes to those the registry asked for with them. */
  readonly #scopes = new Map<string, string[]>();
  /** By realm, service and scopes; a promise, so that many who ask at once ask once. */
  readonly #tokens = new Map<string, Promise<Token>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** Whether the registry said that it wants to know who asks. */
  get wasChallenged(): boolean {
    return this.#challenge !== undefined;
  }

  /** The `Authorization` to begin with; undefined while the registry has not said what it wants. */
  async known(scopes: readonly string[], signal: AbortSignal): Promise<string | undefined> {
    if (this.#challenge === undefined) return undefined;
    return await this.#answer(this.#challenge, scopes, signal);
  }

  /**
   * The `Authorization` after a 401.
   *
   * @param header - `WWW-Authenticate`
   * @param refused - what the registry did not want
   * @returns undefined when nothing better is to be had
   */
  async renew(
    header: string | string[] | undefined,
    refused: string | undefined,
    scopes: readonly string[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const challenges = parseChallenges(header);
    const challenge = ['bearer', 'basic'].map((name) => challenges.find(({ scheme }) => scheme === name)).find(Boolean);
    if (challenge === undefined) return undefined;
    this.#challenge = challenge;
    const asked = challenge.parameters.get('scope')?.split(' ').filter(Boolean) ?? [];
    if (this.#scopes.size > TOKEN_COUNT_MAX) this.#scopes.clear();
    this.#scopes.set(scopes.join(' '), [...new Set([...scopes, ...asked])].sort());
    const key = this.#keyOf(challenge, scopes);
    if (refused !== undefined && (await this.#tokens.get(key)?.catch(() => undefined))?.header === refused)
      this.#tokens.delete(key);
    const answer = await this.#answer(challenge, scopes, signal);
    return answer === refused ? undefined : answer;
  }

  async #answer(challenge: Challenge, scopes: readonly string[], signal: AbortSignal): Promise<string | undefined> {
    if (challenge.scheme === 'basic') return basicHeader(await this.#credentialsOnce());
    const key = this.#keyOf(challenge, scopes);
    const cached = await this.#tokens.get(key)?.catch(() => undefined); // whoever asked may have been ended
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.header;
    if (this.#tokens.size > TOKEN_COUNT_MAX) this.#tokens.clear();
    const asking = this.#askToken(challenge, scopes, signal);
    this.#tokens.set(key, asking);
    try {
      return (await asking).header;
    } catch (error) {
      if (this.#tokens.get(key) === asking) this.#tokens.delete(key);
      throw error;
    }
  }

  #keyOf({ parameters }: Challenge, scopes: readonly string[]): string {
    return JSON.stringify([parameters.get('realm'), parameters.get('service'), this.#allScopes(scopes)]);
  }

  #allScopes(scopes: readonly string[]): readonly string[] {
    return this.#scopes.get(scopes.join(' ')) ?? scopes;
  }

  async #credentialsOnce(): Promise<Credentials | undefined> {
    return await (this.#credentials ??= this.#options.credentials());
  }

  async #askToken(challenge: Challenge, scopes: readonly string[], signal: AbortSignal): Promise<Token> {
    const { exchange, registry } = this.#options;
    const what = `asking for a token of ${registry}`;
    const request = tokenRequest(this.#realm(challenge), {
      service: challenge.parameters.get('service'),
      scopes: this.#allScopes(scopes),
      credentials: await this.#credentialsOnce(),
    });
    const askedMs = performance.now();
    const answer = await exchange.send({ ...request, signal });
    if (answer.status !== 200) {
      const error = await failure(answer, what);
      const isDenied = error instanceof BentoError && [400, 401, 403].includes(answer.status);
      throw isDenied ? this.#denied(error) : error;
    }
    return parseToken(await readBody(answer, TOKEN_REPLY_BYTES_MAX, `a token of ${registry}`), askedMs, registry);
  }

  #realm({ parameters }: Challenge): URL {
    const { origin, registry } = this.#options;
    const realm = parameters.get('realm');
    if (realm !== undefined && URL.canParse(realm)) return redirectTarget(origin, realm);
    throw new BentoError('REMOTE_INVALID', `${registry} names no place for tokens`, {
      hint: 'ask whoever runs the registry',
    });
  }

  #denied(cause: BentoError): BentoError {
    const { registry } = this.#options;
    return new BentoError('REMOTE_DENIED', cause.message, { hint: `bento login ${registry}`, cause });
  }
}

interface TokenWish {
  service: string | undefined;
  scopes: readonly string[];
  credentials: Credentials | undefined;
}

function tokenRequest(realm: URL, { service, scopes, credentials }: TokenWish): Omit<HttpRequest, 'signal'> {
  const url = new URL(realm);
  if (credentials?.kind === 'token') {
    const form = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: credentials.identityToken });
    form.set('client_id', 'bento');
    if (service !== undefined) form.set('service', service);
    if (scopes.length > 0) form.set('scope', scopes.join(' '));
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url, headers, body: Buffer.from(form.toString()) };
  }
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  if (credentials !== undefined) url.searchParams.set('account', credentials.username);
  return { method: 'GET', url, authorization: basicHeader(credentials) };
}

function basicHeader(credentials: Credentials | undefined): string | undefined {
  if (credentials?.kind !== 'basic') return undefined;
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}

function parseToken(bytes: Buffer, askedMs: number, registry: string): Token {
  const json = jsonOf(bytes);
  const token = json['token'] ?? json['access_token'];
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    throw new BentoError('REMOTE_INVALID', `${registry} gives no token`, { hint: 'ask whoever runs the registry' });
  }
  const told = json['expires_in'];
  const lifeSec = typeof told === 'number' && told > 0 ? Math.min(told, TOKEN_LIFE_SEC_MAX) : TOKEN_LIFE_SEC_DEFAULT;
  return { header: `Bearer ${token}`, untilMs: askedMs + lifeSec * 1000 - TOKEN_MARGIN_MS };
}

function jsonOf(bytes: Buffer): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(bytes.toString('utf8'));
    return isObject(json) ? json : {};
  } catch {
    return {};
  }
}
