import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { RegistryClient } from '../../../store/registry/client.ts';
import type { Credentials } from '../../../store/registry/credentials.ts';
import type { TimeLimits } from '../../../store/registry/limits.ts';
import type { Repository } from '../../../store/registry/repository.ts';

/** A server that answers as the test says, and keeps what it was asked. */
interface OddServer {
  host: string;
  asked: { method: string; url: string; headers: IncomingMessage['headers'] }[];
}

type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => void;

async function serve(t: ExecutionContext, answer: Answer): Promise<OddServer> {
  const asked: OddServer['asked'] = [];
  const server: Server = createServer((request, response) => {
    asked.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers });
    answer(request, response, asked.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

function open(
  t: ExecutionContext,
  host: string,
  credentials?: Credentials,
  limits: Partial<TimeLimits> = {},
): { client: RegistryClient; repository: Repository; notes: string[] } {
  const notes: string[] = [];
  const client = new RegistryClient({
    credentials: { find: async () => await Promise.resolve(credentials) },
    onRetry: (note) => notes.push(note),
    limits: { pauseMs: 1, outageMs: 0, ...limits },
  });
  t.teardown(async () => await client.close());
  return { client, repository: client.repository({ registry: host, repository: 'me/ws' }), notes };
}

async function codeOf(t: ExecutionContext, promise: Promise<unknown>): Promise<string> {
  return (await t.throwsAsync(promise, { instanceOf: BentoError })).code;
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

const BLOB = randomBytes(100_000);
const DIGEST = digestOf(BLOB);
const JANE = { kind: 'basic', username: 'jane', password: 'secret' } as const;
const MANIFEST = Buffer.from('{"schemaVersion":2}');
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

test('a bearer token is asked for once, with the credentials, and used until the registry refuses it', async (t) => {
  let valid = 'first';
  const { host, asked } = await serve(t, (request, response) => {
    if (request.url?.startsWith('/token') === true) return void response.end(JSON.stringify({ token: valid }));
    if (request.headers.authorization === `Bearer ${valid}`) return void response.end('{"tags":["a"]}');
    const realm = `http://${host}/token`;
    response.setHeader('WWW-Authenticate', `Bearer realm="${realm}",service="s",scope="repository:me/ws:pull"`);
    response.writeHead(401).end();
  });
  const { repository } = open(t, host, JANE);
  t.deepEqual(await repository.tags(), ['a']);
  t.deepEqual(await repository.tags(), ['a']);
  t.is(asked.length, 4);
  t.regex(asked[1]?.url ?? '', /service=s&scope=repository%3Ame%2Fws%3Apull&account=jane$/);
  t.is(asked[1]?.headers.authorization, `Basic ${Buffer.from('jane:secret').toString('base64')}`);
  valid = 'second';
  t.deepEqual(await repository.tags(), ['a']);
  t.is(asked.length, 7);
});

test('a registry that wants other credentials is asked twice at most', async (t) => {
  const { host, asked } = await serve(t, (_request, response) => {
    response.setHeader('WWW-Authenticate', 'Basic realm="x"');
    response.writeHead(401).end();
  });
  const { repository } = open(t, host, JANE);
  t.is(await codeOf(t, repository.tags()), 'REMOTE_DENIED');
  t.is(asked.length, 2);
});

test('429 and 503 are tried again, a connection that ends too', async (t) => {
  const { host, asked } = await serve(t, (request, response, count) => {
    if (count === 1) return void response.writeHead(429, { 'Retry-After': '0' }).end();
    if (count === 2) return void response.writeHead(503).end();
    if (count === 3) return void request.socket.destroy();
    response.end('{"tags":["a"]}');
  });
  const { repository, notes } = open(t, host);
  t.deepEqual(await repository.tags(), ['a']);
  t.is(asked.length, 4);
  t.is(notes.length, 3);
});

test('who never answers well is given up, and who never answers at all', async (t) => {
  const { host, asked } = await serve(t, (request, response) => {
    if (request.url?.includes('tags') === true) response.writeHead(500).end();
  });
  const { repository } = open(t, host, undefined, { headersMs: 50, tryCountMax: 3 });
  t.is(await codeOf(t, repository.tags()), 'REMOTE_UNREACHABLE');
  t.is(asked.length, 3);
  t.is(await codeOf(t, repository.getManifest('x')), 'REMOTE_UNREACHABLE');
});

test('redirects in a circle end', async (t) => {
  const { host } = await serve(t, (request, response) => {
    response.writeHead(307, { location: request.url ?? '' }).end();
  });
  t.is(await codeOf(t, open(t, host).repository.getManifest('x')), 'REMOTE_INVALID');
});

test('a redirect to a file is not followed', async (t) => {
  const { host } = await serve(t, (_request, response) => {
    response.writeHead(307, { location: 'file:///etc/passwd' }).end();
  });
  t.is(await codeOf(t, open(t, host).repository.getManifest('x')), 'REMOTE_INVALID');
});

test('Authorization is not sent where a redirect leads; that place is kept, and asked for again when it expires', async (t) => {
  let isExpired = false;
  const storage = await serve(t, (request, response) => {
    if (isExpired && request.url === '/signed-1') return void response.writeHead(403).end();
    response.writeHead(206, { 'Content-Range': `bytes 10-19/${BLOB.length}` }).end(BLOB.subarray(10, 20));
  });
  let redirectCount = 0;
  const registry = await serve(t, (request, response) => {
    if (request.headers.authorization === undefined)
      return void response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
    response.writeHead(307, { location: `http://${storage.host}/signed-${++redirectCount}` }).end();
  });
  const { repository } = open(t, registry.host, JANE);
  const range = { offset: 10, length: 10, sizeBytes: BLOB.length };
  t.deepEqual(await repository.readRange(DIGEST, range), BLOB.subarray(10, 20));
  t.deepEqual(await repository.readRange(DIGEST, range), BLOB.subarray(10, 20));
  t.is(redirectCount, 1);
  isExpired = true;
  t.deepEqual(await repository.readRange(DIGEST, range), BLOB.subarray(10, 20));
  t.is(redirectCount, 2);
  t.true(storage.asked.every(({ headers }) => headers.authorization === undefined));
  t.true(storage.asked.every(({ headers }) => headers.range === 'bytes=10-19'));
});

test('a manifest has the bytes that its digest says, and an end', async (t) => {
  const { host } = await serve(t, (request, response) => {
    response.setHeader('Content-Type', MANIFEST_TYPE);
    if (request.url?.endsWith('/endless') !== true) return void response.end(MANIFEST);
    const more = (): void => {
      if (response.destroyed) return;
      response.write(BLOB);
      setImmediate(more);
    };
    more();
  });
  const { repository } = open(t, host);
  t.is(await codeOf(t, repository.getManifest(DIGEST)), 'REMOTE_INVALID');
  t.is(await codeOf(t, repository.getManifest('endless')), 'REMOTE_INVALID');
  const found = await repository.getManifest('x');
  t.deepEqual(found?.descriptor, { mediaType: MANIFEST_TYPE, digest: digestOf(MANIFEST), size: MANIFEST.length });
});

for (const [name, status, headers] of [
  ['another range', 206, { 'Content-Range': 'bytes 0-9/100000' }],
  ['a range of another size', 206, { 'Content-Range': 'bytes 10-19/100001' }],
  ['no Content-Range', 206, {}],
  ['416', 416, {}],
] as const) {
  test(`readRange() refuses ${name}`, async (t) => {
    const { host } = await serve(t, (_request, response) => {
      response.writeHead(status, headers).end(BLOB.subarray(10, 20));
    });
    const range = { offset: 10, length: 10, sizeBytes: BLOB.length };
    t.is(await codeOf(t, open(t, host).repository.readRange(DIGEST, range)), 'REMOTE_INVALID');
  });
}

test('readRange() says when a registry ignores ranges', async (t) => {
  const { host } = await serve(t, (_request, response) => void response.end(BLOB));
  const range = { offset: 10, length: 10, sizeBytes: BLOB.length };
  t.is(await open(t, host).repository.readRange(DIGEST, range), 'ignored');
});

test('streamBlob() goes on where a connection broke', async (t) => {
  const { host, asked } = await serve(t, (request, response) => {
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const headers = { 'Content-Length': BLOB.length - from };
    const range = { 'Content-Range': `bytes ${from}-${BLOB.length - 1}/${BLOB.length}` };
    response.writeHead(from > 0 ? 206 : 200, { ...headers, ...(from > 0 && range) });
    if (from >= 90_000) return void response.end(BLOB.subarray(from));
    response.write(BLOB.subarray(from, from + 10_000), () => setTimeout(() => response.destroy(), 10));
  });
  const { repository } = open(t, host, undefined, { tryCountMax: 3 });
  const bytes = await collect(repository.streamBlob({ digest: DIGEST, sizeBytes: BLOB.length }));
  t.is(digestOf(bytes), DIGEST);
  t.is(asked.length, 10);
});

test('a registry that answered and then cannot be reached is waited for, one that never did is not', async (t) => {
  const server = createServer(
    (_request, response) => void response.end(JSON.stringify({ name: 'me/ws', tags: ['a'] })),
  );
  const listen = async (port: number): Promise<number> => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const port = await listen(0);
  t.teardown(() => server.close());
  const { repository, client, notes } = open(t, `127.0.0.1:${port}`, undefined, { tryCountMax: 2, outageMs: 60_000 });
  t.deepEqual(await repository.tags(), ['a']);
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
  const tags = repository.tags();
  while (notes.length < 5) await sleep(1);
  await listen(port);
  t.deepEqual(await tags, ['a']);
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
  const stranger = new RegistryClient({
    credentials: { find: async () => await Promise.resolve(undefined) },
    limits: { pauseMs: 1, tryCountMax: 2, outageMs: 60_000 },
  });
  t.teardown(async () => await stranger.close());
  const never = stranger.repository({ registry: `127.0.0.1:${port}`, repository: 'me/ws' });
  t.is(await codeOf(t, never.tags()), 'REMOTE_UNREACHABLE');
  await client.close();
});

test('streamBlob() refuses wrong bytes, more bytes and fewer', async (t) => {
  const { host } = await serve(t, (request, response) => {
    if (request.url?.includes(DIGEST) !== true) return void response.end(BLOB);
    response.write(BLOB); // chunked: nothing says how many come
    response.end('x');
  });
  const { repository } = open(t, host);
  const other = digestOf('other');
  for (const [digest, sizeBytes] of [
    [other, BLOB.length],
    [other, BLOB.length + 1],
    [DIGEST, BLOB.length],
  ] as const)
    t.is(await codeOf(t, collect(repository.streamBlob({ digest, sizeBytes }))), 'REMOTE_INVALID');
});

test('tags() follows pages on the same host, and nowhere else', async (t) => {
  const { host } = await serve(t, (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://h');
    const isOther = pathname.includes('elsewhere');
    if (isOther) response.setHeader('Link', '<http://localhost:1/v2/x>; rel="next"');
    else if (!searchParams.has('last')) response.setHeader('Link', `<${pathname}?last=a>; rel="next"`);
    response.end(JSON.stringify({ tags: [searchParams.has('last') ? 'b' : 'a'] }));
  });
  const { client, repository } = open(t, host);
  t.deepEqual(await repository.tags(), ['a', 'b']);
  t.is(await codeOf(t, client.repository({ registry: host, repository: 'elsewhere' }).tags()), 'REMOTE_INVALID');
});

test('uploadBlob() goes on in pieces where the connection broke', async (t) => {
  let held = Buffer.alloc(0);
  const methods: string[] = [];
  const { host } = await serve(t, (request, response) => {
    methods.push(request.method ?? '');
    const location = { Location: '/v2/me/ws/blobs/uploads/1', Range: `0-${Math.max(0, held.length - 1)}` };
    if (request.method === 'HEAD') return void response.writeHead(404).end();
    if (request.method === 'POST') return void response.writeHead(202, location).end();
    if (request.method === 'GET') return void response.writeHead(204, location).end();
    const isFirst = request.method === 'PUT' && held.length === 0;
    request.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      if (isFirst && held.length >= 30_000) request.socket.destroy();
    });
    request.on('end', () => {
      const range = `0-${held.length - 1}`;
      response.writeHead(request.method === 'PUT' ? 201 : 202, { ...location, Range: range }).end();
    });
    request.on('error', () => undefined);
  });
  async function* source(offset: number): AsyncGenerator<Buffer> {
    for (let at = offset; at < BLOB.length; at += 10_000) yield await Promise.resolve(BLOB.subarray(at, at + 10_000));
  }
  const { repository } = open(t, host);
  t.is(await repository.uploadBlob({ digest: DIGEST, sizeBytes: BLOB.length }, source), 'sent');
  t.is(createHash('sha256').update(held).digest('hex'), DIGEST.slice(7));
  t.deepEqual(methods, ['HEAD', 'POST', 'PUT', 'GET', 'PATCH', 'PUT']);
});

test('referrers() reads the fallback tag where the registry has no such list, and filters it', async (t) => {
  const referrer = { mediaType: MANIFEST_TYPE, digest: digestOf('r'), size: 1, artifactType: 'a/b' };
  const index = { schemaVersion: 2, manifests: [referrer, { ...referrer, artifactType: 'c/d', size: 2 }] };
  const { host } = await serve(t, (request, response) => {
    if (request.url?.endsWith(`/manifests/${DIGEST.replace(':', '-')}`) !== true)
      return void response.writeHead(404).end();
    response.setHeader('Content-Type', 'application/vnd.oci.image.index.v1+json').end(JSON.stringify(index));
  });
  const { repository } = open(t, host);
  t.deepEqual(
    (await repository.referrers(DIGEST)).map(({ size }) => size),
    [1, 2],
  );
  t.deepEqual(
    (await repository.referrers(DIGEST, 'a/b')).map(({ size }) => size),
    [1],
  );
});

test('referrers() asks a registry without the API for it once, and takes a page for people for no list', async (t) => {
  for (const answer of ['404', '405', 'html']) {
    const { host, asked } = await serve(t, (request, response) => {
      if (request.url?.includes('/referrers/') !== true) return void response.writeHead(404).end();
      if (answer === 'html') return void response.setHeader('Content-Type', 'text/html').end('<html>');
      response.writeHead(Number(answer)).end();
    });
    const { repository } = open(t, host);
    for (const name of ['a', 'b']) t.deepEqual(await repository.referrers(digestOf(name)), []);
    t.deepEqual(
      asked.map(({ url }) => url.replace(/^.*\/me\/ws\//, '').split('/')[0]),
      ['referrers', 'manifests', 'manifests'],
      answer,
    );
  }
});

test('deleteManifest() deletes by the digest, and tells of one that is not there', async (t) => {
  const { host, asked } = await serve(t, (_request, response, count) => {
    response.writeHead([202, 404, 405][count - 1] ?? 500).end();
  });
  const { repository } = open(t, host);
  t.true(await repository.deleteManifest(DIGEST));
  t.false(await repository.deleteManifest(DIGEST));
  t.is(await codeOf(t, repository.deleteManifest(DIGEST)), 'REMOTE_REFUSED');
  t.deepEqual(asked[0]?.method, 'DELETE');
});
