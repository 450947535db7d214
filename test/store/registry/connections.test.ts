import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { RegistryClient } from '../../../store/registry/client.ts';
import { CONNECTION_COUNT_MAX } from '../../../store/registry/limits.ts';
import { HttpProxy } from '../../fixtures/registry/http-proxy.ts';

const BLOB_COUNT = 50;

interface Counted {
  host: string;
  /** The most that there ever were at the same time. */
  connectionCountMax: () => number;
}

/** A server of blobs that have their number in them. It answers when as many wait as there may be connections. */
async function serveBlobs(t: ExecutionContext): Promise<Counted> {
  let connectionCount = 0;
  let connectionCountMax = 0;
  let askedCount = 0;
  let waiting: (() => void)[] = [];
  const answer = (url: string, response: ServerResponse): void => {
    const digest = url.split('/').at(-1) ?? '';
    const bytes = BLOBS.get(digest) ?? Buffer.alloc(0);
    response.writeHead(206, { 'Content-Range': `bytes 0-${bytes.length - 1}/${bytes.length}` }).end(bytes);
  };
  const server = createServer((request, response) => {
    askedCount += 1;
    waiting.push(() => answer(request.url ?? '', response));
    if (waiting.length < CONNECTION_COUNT_MAX && askedCount < BLOB_COUNT) return;
    const ready = waiting;
    waiting = [];
    // One more connection, if the client would open it, has the time to come.
    void turn().then(async () => {
      for (let i = 0; i < 20; i += 1) await turn();
      for (const give of ready) give();
    });
  });
  server.on('connection', (socket) => {
    connectionCountMax = Math.max(connectionCountMax, ++connectionCount);
    socket.on('close', () => connectionCount--);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    connectionCountMax: () => connectionCountMax,
  };
}

const BLOBS = new Map(
  Array.from({ length: BLOB_COUNT }, (_, number) => {
    const bytes = Buffer.from(`blob ${number}`);
    return [digestOf(bytes), bytes];
  }),
) as Map<string, Buffer>;

/** Reads all blobs at once. */
async function readAll(t: ExecutionContext, registry: string): Promise<void> {
  const credentials = { find: async () => await Promise.resolve(undefined) };
  await using client = new RegistryClient({ credentials, insecure: [registry] });
  const repository = client.repository({ registry, repository: 'me/ws' });
  const read = await Promise.all(
    [...BLOBS].map(async ([digest, { length }]) => {
      return await repository.readRange(digest as `sha256:${string}`, { offset: 0, length, sizeBytes: length });
    }),
  );
  t.deepEqual(read, [...BLOBS.values()]);
}

test.serial('there are no more connections to one host than the limit, whatever is asked at once', async (t) => {
  const { host, connectionCountMax } = await serveBlobs(t);
  await readAll(t, host);
  t.is(connectionCountMax(), CONNECTION_COUNT_MAX);
});

test.serial('the limit holds through a proxy, too', async (t) => {
  const { host, connectionCountMax } = await serveBlobs(t);
  await using proxy = await HttpProxy.start({ 'registry.test': host });
  process.env['http_proxy'] = `http://${proxy.host}`;
  t.teardown(() => delete process.env['http_proxy']);
  await readAll(t, 'registry.test');
  t.is(proxy.requests.length, BLOB_COUNT);
  t.is(connectionCountMax(), CONNECTION_COUNT_MAX);
});
