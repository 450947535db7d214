import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { FIRST_FILES_MAX, firstReadsDir, loadFirstReads, storeFirstReads } from '../../../fs/contents/first-reads.ts';
import { digestOf, hexOf } from '../../../store/digest.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

const LAYER = digestOf('a layer');

test('loadFirstReads() gives back the order that was stored, each position once', (t) => {
  const dir = newFolder(t);
  t.deepEqual(loadFirstReads(dir, LAYER), []);
  storeFirstReads(dir, LAYER, [7, 3, 7, 16_777_215, 2]);
  t.deepEqual(loadFirstReads(dir, LAYER), [7, 3, 16_777_215, 2]);
  storeFirstReads(dir, LAYER, [5]);
  t.deepEqual(loadFirstReads(dir, LAYER), [5]);
  t.deepEqual(loadFirstReads(dir, digestOf('another')), []);
  t.deepEqual(readdirSync(firstReadsDir(dir)), [hexOf(LAYER)]);
});

test('storeFirstReads() keeps the first ones of too many', (t) => {
  const dir = newFolder(t);
  const many = Array.from({ length: FIRST_FILES_MAX + 10 }, (_, i) => i + 2);
  storeFirstReads(dir, LAYER, many);
  t.deepEqual(loadFirstReads(dir, LAYER), many.slice(0, FIRST_FILES_MAX));
});

test('loadFirstReads() takes a damaged file for none', (t) => {
  const dir = newFolder(t);
  storeFirstReads(dir, LAYER, [2, 3]);
  const path = join(firstReadsDir(dir), hexOf(LAYER));
  const whole = readFileSync(path);
  for (let at = 0; at < whole.length; at += 1) {
    const flipped = Buffer.from(whole);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    writeFileSync(path, flipped);
    t.deepEqual(loadFirstReads(dir, LAYER), [], `byte ${at}`);
    writeFileSync(path, whole.subarray(0, at));
    t.deepEqual(loadFirstReads(dir, LAYER), [], `cut at ${at}`);
  }
  writeFileSync(path, Buffer.alloc(1 << 20));
  t.deepEqual(loadFirstReads(dir, LAYER), []);
});
