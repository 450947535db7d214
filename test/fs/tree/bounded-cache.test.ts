import test from 'ava';

import { BoundedCache } from '../../../fs/tree/bounded-cache.ts';

test('BoundedCache lets the oldest go first and says so', (t) => {
  const gone: string[] = [];
  const cache = new BoundedCache<number, string>({
    weightMax: 5,
    weigh: (value) => value.length,
    onEvict: (value) => void gone.push(value),
  });
  cache.add(1, 'aa');
  cache.add(2, 'bb');
  cache.add(3, 'cc');
  t.deepEqual(gone, ['aa']);
  t.is(cache.get(1), undefined);
  t.is(cache.get(2), 'bb');
  cache.clear();
  t.deepEqual(gone, ['aa', 'bb', 'cc']);
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
