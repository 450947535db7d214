import { readFileSync } from 'node:fs';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { HttpProxy } from '../fixtures/registry/http-proxy.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { makeCertificate, TlsFront } from '../fixtures/registry/tls-front.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ tools: ['openssl'] });

/** Pushes from one machine, opens on another, and compares. */
async function assertGoesThere(t: ExecutionContext, remote: string, env: Record<string, string>): Promise<void> {
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  (await here.bento(['push', remote], { env })).ok();
  const there = newSandbox(t);
  const target = there.path('opened');
  (await there.bento(['open', `${remote}:cp-1`, target, '--copy'], { env, cwd: there.home })).ok();
  t.deepEqual(readFileSync(path.join(target, 'src/main.js')), readFileSync(path.join(here.workspace, 'src/main.js')));
}

async function pushed(t: ExecutionContext): Promise<Sandbox> {
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  return here;
}

for (const variable of ['http_proxy', 'HTTP_PROXY']) {
  test(`with ${variable} a registry without TLS is asked through the proxy, with whole URLs`, async (t) => {
    await using registry = await OddRegistry.start();
    await using proxy = await HttpProxy.start({ 'registry.test:5000': registry.host });
    const env = { [variable]: `http://${proxy.host}`, BENTO_INSECURE_REGISTRIES: 'registry.test:5000' };
    await assertGoesThere(t, 'registry.test:5000/me/ws', env);
    t.is(proxy.requests.length, registry.log.count(), 'every request');
    t.true(proxy.requests.every(({ method, target }) => method !== 'CONNECT' && target === 'registry.test:5000'));
    t.deepEqual(registry.defects, []);
  });
}

for (const variable of ['https_proxy', 'HTTPS_PROXY']) {
  test(`with ${variable} a registry with TLS is asked through a tunnel, and never learns the proxy’s password`, async (t) => {
    await using registry = await OddRegistry.start();
    const certificate = makeCertificate(newSandbox(t).root, ['registry.test']);
    await using front = await TlsFront.start(registry.host, certificate);
    await using proxy = await HttpProxy.start({ 'registry.test:443': front.host }, 'jane:se/cret');
    const env = {
      [variable]: `http://jane:se%2Fcret@${proxy.host}`,
      HTTP_PROXY: 'http://127.0.0.1:1',
      NODE_EXTRA_CA_CERTS: certificate.certFile,
    };
    await assertGoesThere(t, 'registry.test/me/ws', env);
    t.true(proxy.requests.length > 0);
    const credentials = `Basic ${Buffer.from('jane:se/cret').toString('base64')}`;
    for (const request of proxy.requests)
      t.deepEqual(request, { method: 'CONNECT', target: 'registry.test:443', credentials });
    t.true(registry.log.count() > 0);
    t.true(registry.log.matching().every(({ headers }) => headers['proxy-authorization'] === undefined));
  });
}

test('a proxy without TLS to go on gets its credentials, too', async (t) => {
  await using registry = await OddRegistry.start();
  await using proxy = await HttpProxy.start({ 'registry.test:5000': registry.host }, 'jane:secret');
  const env = { http_proxy: `http://jane:secret@${proxy.host}`, BENTO_INSECURE_REGISTRIES: 'registry.test:5000' };
  await assertGoesThere(t, 'registry.test:5000/me/ws', env);
  t.true(proxy.requests.length > 0);
});

test('a registry of this machine is asked without the proxy, and so is what a redirect there leads to', async (t) => {
  await using registry = await OddRegistry.start({ faults: { redirect: 'storage' } });
  await using proxy = await HttpProxy.start({});
  await assertGoesThere(t, `${registry.host}/me/ws`, { HTTP_PROXY: `http://${proxy.host}` });
  t.deepEqual(proxy.requests, []);
  t.true(registry.log.count({ server: 'storage' }) > 0);
});

test('what no_proxy lists is asked without the proxy', async (t) => {
  await using proxy = await HttpProxy.start({});
  const here = await pushed(t);
  const env = { http_proxy: `http://${proxy.host}`, BENTO_PLAINHTTP: '1', no_proxy: 'nowhere.invalid' };
  const direct = await here.bento(['push', 'registry.nowhere.invalid/me/ws'], { env });
  t.is(direct.code, 50, direct.toString());
  t.regex(direct.stderr, /no connection with registry\.nowhere\.invalid: /);
  t.deepEqual(proxy.requests, []);
});

for (const [what, url] of [
  ['http', 'registry.test:80'],
  ['https', 'registry.test'],
] as const) {
  test(`a dead proxy for ${what} is named in one clear error, without its password`, async (t) => {
    const gone = await HttpProxy.start({});
    const { host } = gone;
    await gone[Symbol.asyncDispose]();
    const here = await pushed(t);
    const env = { HTTPS_PROXY: `http://jane:secret@${host}`, HTTP_PROXY: `http://jane:secret@${host}` };
    const insecure = what === 'http' ? { BENTO_PLAINHTTP: '1' } : {};
    const failed = await here.bento(['push', `${url}/me/ws`], { env: { ...env, ...insecure } });
    t.is(failed.code, 50, failed.toString());
    const errors = failed.stderr.split('\n').filter((line) => !line.startsWith('note: '));
    t.is(errors.length, 3, failed.stderr);
    t.regex(
      errors[0] ?? '',
      new RegExp(`^Error: .*no connection with registry\\.test through the proxy http://${host}: `),
    );
    t.regex(errors[1] ?? '', new RegExp(`check the proxy that ${what.toUpperCase()}_PROXY names`));
    t.notRegex(failed.stderr, /secret/);
  });

  test(`a proxy for ${what} that wants other credentials is named at once, and is not the registry`, async (t) => {
    await using proxy = await HttpProxy.start({}, 'jane:secret');
    const here = await pushed(t);
    const env = { https_proxy: `http://jane:wrong@${proxy.host}`, http_proxy: `http://jane:wrong@${proxy.host}` };
    const insecure = what === 'http' ? { BENTO_PLAINHTTP: '1' } : {};
    const failed = await here.bento(['push', `${url}/me/ws`], { env: { ...env, ...insecure } });
    t.is(failed.code, 50, failed.toString());
    t.regex(failed.stderr, new RegExp(`^Error: .* through the proxy http://${proxy.host}: .*407`));
    t.notRegex(failed.stderr, /wrong/);
    t.notRegex(failed.stderr, /trying again/);
  });
}

test('a variable that holds no proxy is named', async (t) => {
  const here = await pushed(t);
  const failed = await here.bento(['push', 'registry.test/me/ws'], { env: { HTTPS_PROXY: 'ftp://secret' } });
  t.is(failed.code, 4, failed.toString());
  t.regex(failed.stderr, /^Error: .*HTTPS_PROXY is not the address of a proxy\n {2}write it as/);
  t.notRegex(failed.stderr, /secret/);
});
