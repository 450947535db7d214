import { readFileSync } from 'node:fs';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { assertFails, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { HttpProxy } from '../fixtures/registry/http-proxy.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { makeCertificate, TlsFront } from '../fixtures/registry/tls-front.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ tools: ['openssl'] });

const REMOTE = 'registry.test/me/ws';

/** A registry with TLS that lets in jane, its object storage, and a machine that pushed a checkpoint to it. */
interface TlsWorld {
  registry: OddRegistry;
  here: Sandbox;
  /** Leads to `registry.test` and `storage.test`, and trusts their certificate. */
  env: Record<string, string>;
}

async function startWorld(t: ExecutionContext): Promise<TlsWorld> {
  const registry = await OddRegistry.start({ auth: { scheme: 'basic', user: 'jane', password: 'secret' } });
  const here = newSandbox(t);
  const certificate = makeCertificate(here.root, ['registry.test', 'storage.test']);
  const [front, storage] = [
    await TlsFront.start(registry.host, certificate),
    await TlsFront.start(registry.storageHost, certificate),
  ];
  // Registries of this machine are asked without TLS, so it has a name that only the proxy knows.
  const proxy = await HttpProxy.start({ 'registry.test:443': front.host, 'storage.test:443': storage.host });
  t.teardown(async () => {
    for (const server of [proxy, front, storage, registry]) await server[Symbol.asyncDispose]();
  });
  const env = { HTTPS_PROXY: `http://${proxy.host}`, NODE_EXTRA_CA_CERTS: certificate.certFile };
  await saveSmallWorkspace(here);
  await login(here, env);
  (await here.bento(['push', REMOTE], { env })).ok();
  return { registry, here, env };
}

async function login(machine: Sandbox, env: Record<string, string>): Promise<void> {
  const args = ['login', 'registry.test', '-u', 'jane', '--password-stdin'];
  (await machine.bento(args, { env, input: 'secret\n' })).ok();
}

test('a redirect from https to http is refused, and nothing is asked there', async (t) => {
  const { registry, env } = await startWorld(t);
  registry.faults.redirect = 'storage';
  const there = newSandbox(t);
  await login(there, env);
  registry.log.clear();
  const target = there.path('opened');
  const result = await there.bento(['open', `${REMOTE}:cp-1`, target, '--copy'], { env, cwd: there.home });
  assertFails(t, result, { code: 'REMOTE_INVALID', says: /registry\.test redirects from https: to http:/ });
  t.true(registry.log.count({ server: 'registry', path: /blobs/ }) > 0);
  t.is(registry.log.count({ server: 'storage' }), 0);
});

test('a redirect from https to https is followed, and Authorization stays with the registry', async (t) => {
  const { registry, here, env } = await startWorld(t);
  Object.assign(registry.faults, { redirect: 'storage', storageOrigin: 'https://storage.test' });
  const there = newSandbox(t);
  await login(there, env);
  registry.log.clear();
  const target = there.path('opened');
  (await there.bento(['open', `${REMOTE}:cp-1`, target, '--copy'], { env, cwd: there.home })).ok();
  t.deepEqual(readFileSync(path.join(target, 'src/main.js')), readFileSync(path.join(here.workspace, 'src/main.js')));
  const [asked, stored] = [registry.log.matching({ server: 'registry' }), registry.log.matching({ server: 'storage' })];
  t.true(stored.length > 0);
  t.true(stored.every(({ isAuthorized }) => !isAuthorized));
  t.true(asked.some(({ isAuthorized }) => isAuthorized));
  t.deepEqual(registry.defects, []);
});

test('a certificate that nobody vouches for is refused at once, with what to do', async (t) => {
  const { registry, here, env } = await startWorld(t);
  registry.log.clear();
  const result = await here.bento(['push', REMOTE], { env: { HTTPS_PROXY: env['HTTPS_PROXY'] } });
  assertFails(t, result, {
    code: 'REMOTE_UNREACHABLE',
    says: /no connection with registry\.test through the proxy .*certificate/,
    hint: /NODE_EXTRA_CA_CERTS/,
  });
  t.is(registry.log.count(), 0);
});
