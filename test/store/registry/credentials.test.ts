import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { isPlainHttp, registryUrl, repositoryPath } from '../../../store/registry/address.ts';
import { changeAuth } from '../../../store/registry/auth-file.ts';
import { parseChallenges } from '../../../store/registry/challenge.ts';
import { CredentialFiles, ownAuthPath } from '../../../store/registry/credentials.ts';
import { parseRetryAfter } from '../../../store/registry/retry.ts';

function newHome(t: ExecutionContext): { home: string; put: (path: string, json: unknown) => void } {
  const home = mkdtempSync(join(tmpdir(), 'bento-'));
  t.teardown(() => rmSync(home, { recursive: true }));
  const put = (path: string, json: unknown): void => {
    mkdirSync(dirname(join(home, path)), { recursive: true });
    writeFileSync(join(home, path), typeof json === 'string' ? json : JSON.stringify(json));
  };
  return { home, put };
}

const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });
const basic = (username: string, password: string) => ({ kind: 'basic', username, password }) as const;

test("bento's own file comes before podman's, and that before Docker's", async (t) => {
  const { home, put } = newHome(t);
  put('.docker/config.json', { auths: { 'https://index.docker.io/v1/': auth('hub:pass'), 'h.io': auth('d:d') } });
  put('.config/containers/auth.json', {
    auths: { 'h.io': auth('p:p'), 'h.io/me/ws': auth('n:a:b'), 'i.io': auth('i:i') },
  });
  const files = new CredentialFiles({ home, env: {} });
  t.deepEqual(await files.find('docker.io', 'me/ws'), basic('hub', 'pass'));
  t.deepEqual(await files.find('h.io', 'me/ws'), basic('n', 'a:b'));
  t.deepEqual(await files.find('h.io', 'me/other'), basic('p', 'p'));
  t.is(await files.find('none.io', 'me/ws'), undefined);
  const path = ownAuthPath({}, home);
  t.false(await changeAuth(path, 'i.io', { username: 'own', password: 'x:y' }));
  t.is(statSync(path).mode & 0o777, 0o600);
  t.deepEqual(await files.find('i.io', 'a'), basic('own', 'x:y'));
  t.true(await changeAuth(path, 'i.io', undefined));
  t.deepEqual(await files.find('i.io', 'a'), basic('i', 'i'));
  put('.config/bento/auth.json', '{');
  await t.throwsAsync(files.find('i.io', 'a'), { message: /auth\.json is not a JSON object/ });
});

test('helpers are asked for what is theirs, and one that is missing is only a note', async (t) => {
  const { home, put } = newHome(t);
  put(
    'bin/docker-credential-ours',
    '#!/bin/sh\nread s\necho "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"for $s\\"}"\n',
  );
  chmodSync(join(home, 'bin/docker-credential-ours'), 0o755);
  put('.docker/config.json', { credHelpers: { 'h.io': 'ours', 'bad.io': '../x' }, credsStore: 'missing' });
  const notes: string[] = [];
  const env = { PATH: `${join(home, 'bin')}:${process.env['PATH'] ?? ''}` };
  const files = new CredentialFiles({ home, env, note: (line) => notes.push(line) });
  t.deepEqual(await files.find('h.io', 'a'), { kind: 'token', identityToken: 'for h.io' });
  t.is(await files.find('bad.io', 'a'), undefined);
  t.is(await files.find('other.io', 'a'), undefined);
  t.is(notes.length, 2);
  t.regex(notes[1] ?? '', /docker-credential-missing.*is not installed/);
});

test('plain HTTP is for this machine and for hosts that were named, by the whole name', (t) => {
  for (const host of ['localhost', 'localhost:5000', '127.1.2.3:1', '[::1]:5000']) t.true(isPlainHttp(host, []), host);
  for (const host of ['localhost.evil.io', '127.0.0.1.evil.io', 'h.io', '[::2]']) t.false(isPlainHttp(host, []), host);
  t.true(isPlainHttp('h.io:5000', ['h.io']));
  t.true(isPlainHttp('h.io:5000', ['h.io:5000']));
  t.false(isPlainHttp('h.io:5001', ['h.io:5000']));
  t.true(isPlainHttp('h.io', ['*']));
  t.is(registryUrl('docker.io', ['*']).href, 'https://registry-1.docker.io/');
  t.is(repositoryPath({ registry: 'docker.io', repository: 'alpine' }), 'library/alpine');
  t.throws(() => registryUrl('user@h.io', []), { message: /not the host/ });
});

test('parseChallenges() reads several, quoted and not', (t) => {
  const found = parseChallenges(
    'Negotiate, Basic realm="a, \\"b\\"", Bearer realm="https://t/x",service=s,scope="a b"',
  );
  t.deepEqual(
    found.map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]),
    [
      ['negotiate', {}],
      ['basic', { realm: 'a, "b"' }],
      ['bearer', { realm: 'https://t/x', service: 's', scope: 'a b' }],
    ],
  );
  t.deepEqual(parseChallenges('=;"'), []);
});

test('parseRetryAfter() reads seconds and dates', (t) => {
  t.is(parseRetryAfter('3'), 3000);
  t.is(parseRetryAfter('Thu, 01 Jan 1970 00:00:10 GMT', 4000), 6000);
  t.is(parseRetryAfter('Thu, 01 Jan 1970 00:00:10 GMT', 40000), 0);
  t.is(parseRetryAfter('soon'), undefined);
});
