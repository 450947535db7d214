import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

import { CLI_PATH, newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

/** A registry that lets in jane with the password `secret`. */
async function serveRegistry(t: ExecutionContext): Promise<string> {
  const expected = `Basic ${Buffer.from('jane:secret').toString('base64')}`;
  const server = createServer((request, response) => {
    const isIn = request.headers.authorization === expected;
    response.writeHead(isIn ? 200 : 401, isIn ? {} : { 'WWW-Authenticate': 'Basic realm="x"' }).end();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The program beside the server of this process, which a synchronous run would block. */
async function run(
  box: Sandbox,
  args: string[],
  input = '',
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [CLI_PATH, ...args], { env: { ...box.env }, cwd: box.workspace });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  child.stdin.end(input);
  const [code] = (await once(child, 'close')) as [number];
  return { code, ...output };
}

test('login keeps what the registry takes, and logout forgets it', async (t) => {
  const box = newSandbox(t);
  const host = await serveRegistry(t);
  const login = ['login', host, '-u', 'jane', '--password-stdin'];
  const path = join(box.env['XDG_CONFIG_HOME'] ?? join(box.home, '.config'), 'bento', 'auth.json');

  const refused = await run(box, login, 'wrong\n');
  t.is(refused.code, 51, refused.stderr);
  t.notRegex(refused.stderr, /wrong/);
  t.false(existsSync(path));

  const taken = await run(box, [...login, '--json'], 'secret\n');
  t.is(taken.code, 0, taken.stderr);
  t.deepEqual(JSON.parse(taken.stdout), { registry: host, username: 'jane', checked: true, path });
  t.is(statSync(path).mode & 0o777, 0o600);
  t.true(readFileSync(path, 'utf8').includes(Buffer.from('jane:secret').toString('base64')));

  t.is((await run(box, ['logout', host])).stdout, `Logged out of ${host}\n`);
  t.false(readFileSync(path, 'utf8').includes(host));
  t.is((await run(box, ['logout', host])).stdout, `Not logged in to ${host}\n`);
});

test('login asks only at a terminal, and for a host only', async (t) => {
  const box = newSandbox(t);
  const noTerminal = await run(box, ['login', '127.0.0.1:1', '-u', 'jane']);
  t.is(noTerminal.code, 2);
  t.regex(noTerminal.stderr, /there is no terminal to ask at/);
  t.is((await run(box, ['login', 'https://h.io/x'])).code, 11);
});
