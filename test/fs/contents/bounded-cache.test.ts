import test from 'ava';

import { BoundedCache } from '../../../fs/contents/bounded-cache.ts';

test('BoundedCache lets go first what nobody asked for longest, and says so', (t) => {
  const gone: string[] = [];
  const cache = new BoundedCache<number, string>({
    weightMax: 5,
    weigh: (value) => value.length,
    onEvict: (value) => void gone.push(value),
  });
  cache.add(1, 'aa');
  cache.add(2, 'bb');
  t.is(cache.get(1), 'aa');
  t.true(cache.has(2), 'which is no use');
  cache.add(3, 'cc');
  t.deepEqual(gone, ['bb']);
  t.is(cache.get(2), undefined);
  cache.delete(1);
  cache.delete(2);
  t.deepEqual(gone, ['bb', 'aa']);
  cache.add(4, 'ddd');
  cache.clear();
  t.deepEqual(gone, ['bb', 'aa', 'cc', 'ddd'], 'what was deleted weighs nothing');
});

test('BoundedCache keeps the newest value even when it is heavier than all there is room for', (t) => {
  const cache = new BoundedCache<string, Buffer>({ weightMax: 10, weigh: (bytes) => bytes.length });
  cache.add('small', Buffer.alloc(5));
  cache.add('large', Buffer.alloc(50));
  t.is(cache.get('small'), undefined);
  t.is(cache.get('large')?.length, 50);
  cache.add('next', Buffer.alloc(1));
  t.is(cache.get('large'), undefined, 'it goes with the next one');
});
