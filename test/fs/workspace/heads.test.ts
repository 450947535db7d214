import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import {
  directoryKey,
  giveUpHead,
  readHeadRecords,
  recordHead,
  removeHeadRecord,
  undoTag,
} from '../../../fs/workspace/heads.ts';

import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { digestOf } from '../../../store/digest.ts';
import { Layout } from '../../../store/layout.ts';
import { newFolder, newWorkspace } from '../../fixtures/workspaces.ts';

const HEAD = digestOf('head');

test('recordHead() keeps one record for each directory, and readHeadRecords() finds them', async (t) => {
  const layout = new Layout(newFolder(t), 'ws');
  t.deepEqual(await readHeadRecords(layout), []);
  await recordHead(layout, '/a', HEAD);
  await recordHead(layout, '/b', HEAD);
  await recordHead(layout, '/a', undefined);
  const records = await readHeadRecords(layout);
  t.deepEqual(
    records.sort((a, b) => a.dir.localeCompare(b.dir)),
    [{ dir: '/a' }, { dir: '/b', head: HEAD }],
  );
  await removeHeadRecord(layout, '/a');
  await removeHeadRecord(layout, '/never there');
  t.deepEqual(await readHeadRecords(layout), [{ dir: '/b', head: HEAD }]);
  t.deepEqual(readdirSync(join(layout.dir, 'heads')), [
    `${createHash('sha256').update('/b').digest('hex').slice(0, 8)}.json`,
  ]);
});

test('directoryKey() is what the undo tag of the directory ends with', (t) => {
  t.is(undoTag('/some/where'), `pre-open-${directoryKey('/some/where')}`);
});

test('giveUpHead() leaves nothing, and makes nothing for a directory that was never noted', async (t) => {
  const layout = new Layout(newFolder(t), 'ws');
  await giveUpHead(layout, '/a');
  t.false(existsSync(layout.dir));
  await layout.ensure();
  await recordHead(layout, '/a', HEAD);
  await giveUpHead(layout, '/a');
  t.deepEqual(readdirSync(join(layout.dir, 'heads')), []);
});

test('giveUpHead() of a directory with an undo slot leaves a record, so that gc takes the slot', async (t) => {
  const layout = new Layout(newFolder(t), 'ws');
  await layout.ensure();
  await recordHead(layout, '/a', HEAD);
  await layout.setTags([undoTag('/a')], { digest: HEAD, size: 1 });
  await giveUpHead(layout, '/a');
  t.deepEqual(await readHeadRecords(layout), [{ dir: '/a', missingSince: '1970-01-01T00:00:00.000Z' }]);
});

test('readHeadRecords() names a record that is damaged', async (t) => {
  const layout = new Layout(newFolder(t), 'ws');
  mkdirSync(join(layout.dir, 'heads'), { recursive: true });
  const file = join(layout.dir, 'heads', '01234567.json');
  for (const text of ['{', '{}', '{"dir":1}', '{"dir":"/a","head":"x"}']) {
    writeFileSync(file, text);
    const error = await t.throwsAsync(readHeadRecords(layout), { code: 'FORMAT_INVALID' });
    t.true(error.message.includes(file), text);
  }
});

test('saveWorkspace() notes the head before bento.yaml has it', async (t) => {
  const workspace = await newWorkspace(t);
  writeFileSync(join(workspace.dir, 'file'), 'content');
  const { digest } = await saveWorkspace(workspace);
  t.deepEqual(await readHeadRecords(workspace.layout), [{ dir: workspace.dir, head: digest }]);
});
