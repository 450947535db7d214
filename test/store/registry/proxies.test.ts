import test from 'ava';

import { BentoError } from '../../../store/errors.ts';
import { proxyFor, type Environment } from '../../../store/registry/proxies.ts';

/** What a message would call the proxy for a URL. */
function shown(url: string, env: Environment): string | undefined {
  return proxyFor(new URL(url), env)?.shown;
}

test('http and https have a proxy each; the lower case goes before the upper, and https takes the one for http', (t) => {
  const env = { HTTP_PROXY: 'http://h:1', HTTPS_PROXY: 'http://s:2' };
  t.is(shown('http://a.test/', env), 'http://h:1');
  t.is(shown('https://a.test/', env), 'http://s:2');
  t.is(shown('https://a.test/', { ...env, https_proxy: 'http://lower:3' }), 'http://lower:3');
  t.is(shown('http://a.test/', { ...env, http_proxy: 'http://lower:3' }), 'http://lower:3');
  t.is(shown('https://a.test/', { HTTP_PROXY: 'http://h:1' }), 'http://h:1');
  t.is(shown('http://a.test/', { HTTPS_PROXY: 'http://s:2' }), undefined);
  t.is(shown('http://a.test/', { http_proxy: '', HTTP_PROXY: 'h:1' }), 'http://h:1');
  t.is(shown('http://a.test/', {}), undefined);
});

test('this machine is never asked through a proxy', (t) => {
  const env = { http_proxy: 'http://h:1' };
  for (const host of ['localhost', 'LOCALHOST:5000', '127.0.0.1', '127.9.9.9:5000', '[::1]:5000'])
    t.is(shown(`http://${host}/`, env), undefined, host);
  for (const host of ['localhost.test', '128.0.0.1', '[::2]']) t.is(shown(`http://${host}/`, env), 'http://h:1', host);
});

const LISTS: readonly [list: string, url: string, isListed: boolean][] = [
  ['a.test', 'https://a.test/', true],
  ['a.test', 'https://sub.a.test/', true],
  ['a.test', 'https://bad-a.test/', false],
  ['A.Test', 'https://a.test/', true],
  ['.a.test', 'https://sub.a.test/', true],
  ['*.a.test', 'https://sub.a.test/', true],
  ['b.test, a.test', 'https://a.test/', true],
  ['b.test a.test', 'https://a.test/', true],
  ['a.test:443', 'https://a.test/', true],
  ['a.test:5000', 'https://a.test/', false],
  ['a.test:5000', 'https://a.test:5000/', true],
  ['10.0.0.1', 'https://10.0.0.1:5000/', true],
  ['[fd00::1]', 'https://[fd00::1]:5000/', true],
  ['[fd00::1]:5000', 'https://[fd00::1]:5000/', true],
  ['*', 'https://a.test/', true],
  ['b.test,*', 'https://a.test/', true],
  ['', 'https://a.test/', false],
  [' , .', 'https://a.test/', false],
];
for (const [list, url, isListed] of LISTS) {
  test(`no_proxy "${list}" ${isListed ? 'lists' : 'does not list'} ${url}`, (t) => {
    const env = { https_proxy: 'http://h:1' };
    for (const name of ['no_proxy', 'NO_PROXY'])
      t.is(shown(url, { ...env, [name]: list }), isListed ? undefined : 'http://h:1');
  });
}

test('a proxy is shown without its credentials, and what is none is not shown at all', (t) => {
  t.is(shown('https://a.test/', { https_proxy: 'http://jane:secret@h:1/' }), 'http://h:1');
  t.is(shown('https://a.test/', { https_proxy: 'h:1' }), 'http://h:1');
  for (const text of ['http://jane:secret@', 'ftp://secret:1', 'secret:port', 'http://']) {
    const error = t.throws(() => shown('https://a.test/', { HTTPS_PROXY: text }), { instanceOf: BentoError }, text);
    t.like(error, { code: 'CONFIG_INVALID', message: 'HTTPS_PROXY is not the address of a proxy' });
  }
});
