import { once } from 'node:events';
import net from 'node:net';

import test, { type ExecutionContext } from 'ava';

import { digestOf, type Digest } from '../../../store/digest.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { DEBIAN_REGISTRY_USER, startDebianRegistry } from '../../fixtures/registry/debian-registry.ts';
import type { Auth } from '../../fixtures/registry/odd-auth.ts';
import type { Faults } from '../../fixtures/registry/odd-faults.ts';
import { OddRegistry } from '../../fixtures/registry/odd-registry.ts';
import { ShapedProxy } from '../../fixtures/registry/shaped-proxy.ts';

const BLOB = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251));
const DIGEST = digestOf(BLOB);
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

async function odd(
  t: ExecutionContext,
  options: { faults?: Partial<Faults>; auth?: Auth } = {},
): Promise<OddRegistry & { url: string }> {
  const registry = await OddRegistry.start(options);
  t.teardown(async () => {
    await registry.stop();
    if (registry.defects.length > 0) throw new AggregateError(registry.defects, 'the odd registry has defects');
  });
  registry.storage.putBlob('a/b', BLOB);
  return Object.assign(registry, { url: `http://${registry.host}/v2/a/b` });
}

async function bytesOf(answer: Response): Promise<Buffer> {
  return Buffer.from(await answer.arrayBuffer());
}

function rangeOf(url: string, range: string): Promise<Response> {
  return fetch(url, { headers: { range: `bytes=${range}` } });
}

/** What a registry answered: status, and the headers that a client goes by. */
type Step = [what: string, status: number, headers: Record<string, string>];

const TOLD = ['content-range', 'content-type', 'docker-content-digest', 'link', 'range'] as const;

/** The same requests to any registry. */
async function conversation(host: string): Promise<Step[]> {
  const base = `http://${host}`;
  const steps: Step[] = [];
  const ask = async (what: string, path: string, init: RequestInit = {}): Promise<Response> => {
    const answer = await fetch(new URL(path, base), { redirect: 'manual', ...init });
    const isJson = answer.headers.get('content-type')?.startsWith('application/json') ?? false;
    const isError = isJson || answer.status === 416; // how a registry says what is wrong is its own affair
    const told = (isError ? (['content-range', 'link', 'range'] as const) : TOLD).filter((name) =>
      answer.headers.has(name),
    );
    steps.push([what, answer.status, Object.fromEntries(told.map((name) => [name, answer.headers.get(name) ?? '']))]);
    return answer;
  };
  const at = (answer: Response, query = ''): string => {
    const url = new URL(answer.headers.get('location') ?? '', base);
    if (query !== '') url.searchParams.set('digest', query);
    return url.href;
  };
  const octets = { 'content-type': 'application/octet-stream' };
  const rest = { ...octets, 'content-range': `100000-${BLOB.length - 1}` };

  await ask('version', '/v2/');
  await ask('no repository', '/v2/no/where/tags/list');
  await ask('no blob', `/v2/a/b/blobs/${DIGEST}`, { method: 'HEAD' });
  const begun = await ask('begin', '/v2/a/b/blobs/uploads/', { method: 'POST' });
  const patch = {
    method: 'PATCH',
    body: BLOB.subarray(0, 100_000),
    headers: { ...octets, 'content-range': '0-99999' },
  };
  const half = await ask('first chunk', at(begun), patch);
  const status = await ask('status', at(half));
  const full = await ask('second chunk', at(status), { method: 'PATCH', body: BLOB.subarray(100_000), headers: rest });
  await ask('finish', at(full, DIGEST), { method: 'PUT' });
  await ask('upload is over', at(full));
  const second = await ask('begin again', '/v2/a/b/blobs/uploads/', { method: 'POST' });
  await ask('another digest', at(second, digestOf('other')), { method: 'PUT', body: 'some', headers: octets });
  const third = await ask('begin a config', '/v2/a/b/blobs/uploads/', { method: 'POST' });
  await ask('config in one PUT', at(third, digestOf('{}')), { method: 'PUT', body: '{}', headers: octets });
  await ask('mount', `/v2/c/blobs/uploads/?mount=${DIGEST}&from=a/b`, { method: 'POST' });
  await ask('mount of nothing', `/v2/c/blobs/uploads/?mount=${digestOf('nothing')}&from=a/b`, { method: 'POST' });
  await ask('head', `/v2/c/blobs/${DIGEST}`, { method: 'HEAD' });
  await ask('get', `/v2/c/blobs/${DIGEST}`);
  for (const range of ['0-0', '10-19', `${BLOB.length - 5}-`, '-7', `0-${BLOB.length + 100}`, `${BLOB.length}-`])
    await ask(`range ${range}`, `/v2/a/b/blobs/${DIGEST}`, { headers: { range: `bytes=${range}` } });

  const image = manifest(DIGEST);
  const put = { method: 'PUT', body: image, headers: { 'content-type': MANIFEST_TYPE } };
  for (const tag of ['three', 'one', 'two']) await ask(`put ${tag}`, `/v2/a/b/manifests/${tag}`, put);
  await ask('put with another digest', `/v2/a/b/manifests/${digestOf('other')}`, put);
  await ask('put without its blobs', `/v2/c/manifests/x`, { ...put, body: manifest(digestOf('nothing')) });
  await ask('put no JSON', `/v2/a/b/manifests/x`, { ...put, body: '{' });
  for (const reference of ['one', digestOf(image), 'none', digestOf('nothing')])
    for (const method of ['HEAD', 'GET']) {
      const headers = { accept: MANIFEST_TYPE };
      await ask(`${method} ${reference}`, `/v2/a/b/manifests/${reference}`, { method, headers });
    }
  const listed = (await (await ask('tags', '/v2/a/b/tags/list')).json()) as { tags: string[] };
  steps.push([listed.tags.sort().join(), 0, {}]); // distribution 2.8 has neither order nor pages
  await ask('delete a manifest', `/v2/a/b/manifests/${digestOf(image)}`, { method: 'DELETE' });
  await ask('it is gone', `/v2/a/b/manifests/${digestOf(image)}`);
  await ask('delete a blob', `/v2/c/blobs/${DIGEST}`, { method: 'DELETE' });
  await ask('delete it again', `/v2/c/blobs/${DIGEST}`, { method: 'DELETE' });
  return steps;
}

function manifest(layer: Digest, more: object = {}): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf('{}'), size: 2 },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: layer, size: BLOB.length }],
    ...more,
  });
}

testNeeding({ tools: ['docker-registry'] })(
  'the odd registry answers as Debian’s does while it has no faults',
  async (t) => {
    await using debian = await startDebianRegistry();
    const registry = await OddRegistry.start();
    t.teardown(() => registry.stop());
    t.deepEqual(await conversation(registry.host), await conversation(debian.host));
    t.deepEqual(registry.defects, []);
  },
);

testNeeding({ tools: ['docker-registry'] })(
  'Debian’s registry lets in who has the password, and is gone when stopped',
  async (t) => {
    const registry = await startDebianRegistry({ auth: true });
    const { user, password } = DEBIAN_REGISTRY_USER;
    const ask = (secret?: string): Promise<number> => {
      const authorization = `Basic ${Buffer.from(`${user}:${secret ?? ''}`).toString('base64')}`;
      return fetch(`http://${registry.host}/v2/`, secret === undefined ? {} : { headers: { authorization } }).then(
        ({ status }) => status,
      );
    };
    t.deepEqual([await ask(), await ask('wrong'), await ask(password)], [401, 401, 200]);
    await registry.stop();
    await registry.stop();
    await t.throwsAsync(ask());
  },
);

test('redirects lead to the object storage, whose URLs expire and want no Authorization', async (t) => {
  const registry = await odd(t, { faults: { redirect: 'storage' } });
  const answer = await fetch(`${registry.url}/blobs/${DIGEST}`, { redirect: 'manual' });
  const url = answer.headers.get('location') ?? '';
  t.is(answer.status, 307);
  t.is(new URL(url).host, registry.storageHost);
  t.deepEqual(await bytesOf(await rangeOf(url, '5-9')), BLOB.subarray(5, 10));
  t.is((await fetch(url, { headers: { authorization: 'Basic eDp5' } })).status, 400);
  registry.expireUrls();
  t.is((await fetch(url)).status, 403);
  registry.faults.urlLifeMs = 0;
  t.is((await fetch(`${registry.url}/blobs/${DIGEST}`)).status, 403);
  registry.faults.redirect = 'loop';
  await t.throwsAsync(fetch(`${registry.url}/blobs/${DIGEST}`));
  t.true(registry.log.count({ server: 'storage', path: /^\/loop\// }) > 10);
});

test('ranges can be ignored, shifted and mislabelled', async (t) => {
  const registry = await odd(t, { faults: { ranges: 'ignored' } });
  const ask = async (): Promise<[number, string | null, Buffer]> => {
    const answer = await rangeOf(`${registry.url}/blobs/${DIGEST}`, '100-199');
    return [answer.status, answer.headers.get('content-range'), await bytesOf(answer)];
  };
  t.deepEqual(await ask(), [200, null, BLOB]);
  registry.faults.ranges = 'shifted';
  t.deepEqual(await ask(), [206, 'bytes 101-200/300000', BLOB.subarray(101, 201)]);
  registry.faults.ranges = 'mislabelled';
  t.deepEqual(await ask(), [206, 'bytes 101-200/300000', BLOB.subarray(100, 200)]);
});

test('bodies can be wrong, short, endless and cut', async (t) => {
  const registry = await odd(t, { faults: { wrongBytes: { blob: 0, at: 7 } } });
  const url = `${registry.url}/blobs/${DIGEST}`;
  const wrong = await bytesOf(await fetch(url));
  t.deepEqual(
    [...wrong.entries()].filter(([i, byte]) => byte !== BLOB[i]).map(([i]) => i),
    [7],
  );
  registry.faults.wrongBytes = { blob: DIGEST };
  t.true((await bytesOf(await fetch(url))).every((byte, i) => byte !== BLOB[i]));
  registry.faults.wrongBytes = { blob: 1 };
  t.deepEqual(await bytesOf(await fetch(url)), BLOB);
  registry.faults.bodies = 'short';
  t.deepEqual(await bytesOf(await fetch(url)), BLOB.subarray(0, 150_000));
  registry.faults.bodies = 'endless';
  let readBytes = 0;
  const { body } = await fetch(url);
  for await (const chunk of body ?? []) if ((readBytes += (chunk as Uint8Array).length) > 3 * BLOB.length) break;
  t.true(readBytes > 3 * BLOB.length);
  registry.faults.bodies = 'whole';
  registry.log.clear();
  registry.faults.cutDownload = { afterBytes: 1000, times: 1 };
  const got = await received(url);
  t.deepEqual(got, { bytes: BLOB.subarray(0, 1000), isWhole: false });
  t.is(registry.log.sentBytes({ method: 'GET', path: /blobs/ }), 1000);
  t.deepEqual(await received(url), { bytes: BLOB, isWhole: true });
});

/** What comes before the body ends or breaks. */
async function received(url: string): Promise<{ bytes: Buffer; isWhole: boolean }> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of (await fetch(url)).body ?? []) chunks.push(chunk as Uint8Array);
    return { bytes: Buffer.concat(chunks), isWhole: true };
  } catch {
    return { bytes: Buffer.concat(chunks), isWhole: false };
  }
}

test('an upload that is cut goes on where it broke', async (t) => {
  const registry = await odd(t, { faults: { cutUpload: { afterBytes: 5000, times: 1 }, absoluteLocations: true } });
  const begun = await fetch(`http://${registry.host}/v2/x/blobs/uploads/`, { method: 'POST' });
  const url = begun.headers.get('location') ?? '';
  t.is(new URL(url).host, registry.host);
  await t.throwsAsync(fetch(url, { method: 'PATCH', body: BLOB }));
  t.is(registry.log.receivedBytes({ method: 'PATCH' }), 5000);
  const status = await fetch(url);
  t.is(status.headers.get('range'), '0-4999');
  const finish = `${status.headers.get('location') ?? ''}&digest=${DIGEST}`;
  t.is(
    (await fetch(finish.replace(/_state=\d+&/, ''), { method: 'PUT' })).status,
    400,
    'without the query of Location',
  );
  t.is((await fetch(finish, { method: 'PUT', body: BLOB.subarray(5000) })).status, 201);
  t.deepEqual(registry.storage.blob('x', DIGEST), BLOB);
  const single = `http://${registry.host}/v2/y/blobs/uploads/?digest=${DIGEST}`;
  t.is((await fetch(single, { method: 'POST', body: BLOB })).status, 201);
  registry.faults.singlePost = false;
  t.is((await fetch(single, { method: 'POST', body: BLOB })).status, 202);
  t.is(registry.storage.uploadCount, 1);
  registry.storage.forgetUploads();
  t.is(registry.storage.uploadCount, 0);
});

test('tags and referrers come in pages; without referrers there is 404', async (t) => {
  const registry = await odd(t, { faults: { pageSize: 2 } });
  registry.storage.putBlob('a/b', Buffer.from('{}'));
  const subject = { mediaType: MANIFEST_TYPE, digest: digestOf('subject'), size: 7 };
  const put = (tag: string, artifactType: string): Promise<Response> =>
    fetch(`${registry.url}/manifests/${tag}`, {
      method: 'PUT',
      body: manifest(DIGEST, { subject, artifactType, annotations: { tag } }),
      headers: { 'content-type': MANIFEST_TYPE },
    });
  for (const tag of ['d', 'a', 'c', 'e']) t.is((await put(tag, 'kind/x')).headers.get('oci-subject'), subject.digest);
  t.is((await put('b', 'kind/y')).status, 201);
  const pages = async (path: string): Promise<unknown[]> => {
    const found: unknown[] = [];
    for (let next: string | undefined = path; next !== undefined;) {
      const answer = await fetch(new URL(next, registry.url));
      const page = (await answer.json()) as { tags?: string[]; manifests?: { annotations: { tag: string } }[] };
      found.push(page.tags ?? page.manifests?.map(({ annotations }) => annotations.tag));
      next = /^<(.+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1];
    }
    return found;
  };
  t.deepEqual(await pages('/v2/a/b/tags/list'), [['a', 'b'], ['c', 'd'], ['e']]);
  const referrers = `/v2/a/b/referrers/${subject.digest}`;
  t.deepEqual(await pages(referrers), [['d', 'a'], ['c', 'e'], ['b']]);
  t.deepEqual(await pages(`${referrers}?artifactType=kind/y`), [['b']]);
  t.deepEqual(await pages(`/v2/a/b/referrers/${digestOf('other')}`), [[]]);
  registry.faults.referrers = false;
  t.is((await fetch(new URL(referrers, registry.url))).status, 404);
  t.is((await put('f', 'kind/x')).headers.get('oci-subject'), null);
});

test('bursts and the rate limit answer as told, and end', async (t) => {
  const registry = await odd(t, { faults: { burst: { status: 503, times: 2, retryAfterSec: 3, method: 'HEAD' } } });
  const ask = (method: string): Promise<Response> => fetch(`${registry.url}/blobs/${DIGEST}`, { method });
  const refused = await ask('HEAD');
  t.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '3']);
  t.deepEqual([(await ask('GET')).status, (await ask('HEAD')).status, (await ask('HEAD')).status], [200, 503, 200]);
  registry.faults.requestsPerSec = 0;
  const limited = await ask('HEAD');
  t.deepEqual([limited.status, limited.headers.get('retry-after')], [429, '1']);
  registry.faults.requestsPerSec = 2;
  const many = await Promise.all(Array.from({ length: 20 }, () => ask('HEAD').then(({ status }) => status)));
  t.true(many.includes(200) && many.includes(429));
  t.is(registry.log.count({ status: 429 }), many.filter((status) => status === 429).length + 1);
});

test('tokens have a scope and an end, and are given for the password only', async (t) => {
  const who = { user: 'me', password: 'a:b' };
  const registry = await odd(t, { auth: { scheme: 'bearer', ...who } });
  const basic = (password: string): string => `Basic ${Buffer.from(`me:${password}`).toString('base64')}`;
  const ask = (token?: string, method = 'GET'): Promise<Response> =>
    fetch(method === 'GET' ? `${registry.url}/blobs/${DIGEST}` : `${registry.url}/blobs/uploads/`, {
      method,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    });
  const challenge = async (answer: Promise<Response>): Promise<URL> => {
    const { status, headers } = await answer;
    t.is(status, 401);
    const fields = Object.fromEntries(
      [...(headers.get('www-authenticate') ?? '').matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
    ) as Record<string, string>;
    return new URL(`${fields.realm ?? ''}?service=${fields.service ?? ''}&scope=${fields.scope ?? ''}`);
  };
  const token = async (url: URL, authorization?: string): Promise<string | number> => {
    const answer = await fetch(url, authorization === undefined ? {} : { headers: { authorization } });
    return answer.ok ? ((await answer.json()) as { token: string }).token : answer.status;
  };
  const pull = await challenge(ask());
  t.is(pull.host, registry.tokenHost);
  t.is(pull.searchParams.get('scope'), 'repository:a/b:pull');
  t.deepEqual([await token(pull), await token(pull, basic('wrong'))], [401, 401]);
  const forPull = String(await token(pull, basic('a:b')));
  t.is((await ask(forPull)).status, 200);
  const push = await challenge(ask(forPull, 'POST'));
  t.is((await ask(String(await token(push, basic('a:b'))), 'POST')).status, 202);
  registry.expireTokens();
  t.is((await ask(forPull)).status, 401);
  registry.auth = { scheme: 'bearer', ...who, tokenLifeMs: 0 };
  t.is((await ask(String(await token(pull, basic('a:b'))))).status, 401);
  registry.auth = { scheme: 'bearer', ...who, grants: ['pull'], anonymousPull: true };
  t.is((await ask(String(await token(pull)))).status, 200);
  t.is((await ask(String(await token(push, basic('a:b'))), 'POST')).status, 401);
  registry.auth = { scheme: 'basic', ...who };
  t.is((await fetch(registry.url, { headers: { authorization: basic('a:b') } })).status, 404);
  t.is((await fetch(registry.url, { headers: { authorization: basic('wrong') } })).status, 401);
});

test('the proxy carries bytes, counts them, and keeps to its bandwidth and delay', async (t) => {
  const registry = await odd(t);
  await using proxy = await ShapedProxy.start(registry.host, { delayMs: 40, downBytesPerSec: 1_000_000 });
  const started = performance.now();
  t.deepEqual(await bytesOf(await fetch(`http://${proxy.host}/v2/a/b/blobs/${DIGEST}`)), BLOB);
  // a line may be slower than it was told on a busy machine, never faster: handshake, there and back, and the bytes
  const leastMs = 4 * 40 + ((BLOB.length - 16_384) / 1_000_000) * 1000;
  t.true(performance.now() - started >= leastMs - 5);
  t.true(proxy.downBytes > BLOB.length && proxy.downBytes < BLOB.length + 2000);
  t.true(proxy.upBytes > 50 && proxy.upBytes < 2000);
  t.is(proxy.connectionCount, 1);
});

test('the proxy is cut, refuses or hangs, stalls, and heals', async (t) => {
  const echo = net.createServer((socket) => socket.pipe(socket).on('error', () => undefined)).listen(0, '127.0.0.1');
  t.teardown(() => echo.close());
  await once(echo, 'listening');
  await using proxy = await ShapedProxy.start(`127.0.0.1:${(echo.address() as net.AddressInfo).port}`);
  const connect = (): net.Socket => net.connect(Number(proxy.host.split(':')[1]), '127.0.0.1');
  const failure = (socket: net.Socket): Promise<string | undefined> =>
    once(socket, 'error').then(([error]) => (error as NodeJS.ErrnoException).code);
  const echoed = async (socket: net.Socket): Promise<string> => {
    socket.write('hello');
    return String((await once(socket, 'data'))[0]);
  };
  const first = connect();
  t.is(await echoed(first), 'hello');
  const broken = failure(first);
  await proxy.cut('refuse');
  t.is(await broken, 'ECONNRESET');
  t.is(await failure(connect()), 'ECONNREFUSED');
  await proxy.heal();
  const second = connect();
  t.is(await echoed(second), 'hello');

  const reset = failure(second);
  await proxy.cut('hang');
  t.is(await reset, 'ECONNRESET');
  const bytes = proxy.downBytes;
  const hanging = connect();
  await once(hanging, 'connect');
  const later = echoed(hanging);
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.is(proxy.downBytes, bytes);
  await proxy.heal();
  t.is(await later, 'hello');
  hanging.end();
  await once(hanging, 'close'); // half-closed on both sides, one after the other
});
