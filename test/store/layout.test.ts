import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../store/digest.ts';
import { Layout } from '../../store/layout.ts';
import { KEYS, MEDIA_TYPES } from '../../store/manifest.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const CHILD = fileURLToPath(new URL('./tag-child.js', import.meta.url));
const ONE = { digest: digestOf('one'), size: 1 };
const TWO = { digest: digestOf('two'), size: 2 };

function newLayout(t: ExecutionContext): Layout {
  return new Layout(newFolder(t), 'ws');
}

/** Each line of index.json as `<name of the manifest>` or `<name>:<tag>`. */
async function listed(layout: Layout): Promise<string[]> {
  const names = new Map([ONE, TWO].map(({ digest, size }) => [digest as string, String(size)]));
  return (await layout.manifests()).map((d) => {
    const tag = d.annotations?.[KEYS.refName];
    return `${names.get(d.digest) ?? d.digest}${tag === undefined ? '' : `:${tag}`}`;
  });
}

function writeIndex(layout: Layout, text: string): void {
  mkdirSync(layout.dir, { recursive: true });
  writeFileSync(join(layout.dir, 'index.json'), text);
}

test('a layout that was never written has no manifests, and asking makes nothing', async (t) => {
  const layout = newLayout(t);
  t.deepEqual(await layout.manifests(), []);
  t.is((await layout.tags()).size, 0);
  t.is(await layout.nextSequence(), 1);
  t.false(existsSync(layout.dir));
});

test('setTags() writes an OCI image layout', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['cp-1', 'latest'], ONE);
  t.is(readFileSync(join(layout.dir, 'oci-layout'), 'utf8'), '{"imageLayoutVersion":"1.0.0"}');
  t.is(readlinkSync(join(layout.dir, 'blobs')), '../blobs');
  const entry = { mediaType: MEDIA_TYPES.manifest, digest: ONE.digest, size: 1 };
  t.deepEqual(JSON.parse(readFileSync(join(layout.dir, 'index.json'), 'utf8')), {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.index,
    manifests: [
      { ...entry, annotations: { 'org.opencontainers.image.ref.name': 'cp-1' } },
      { ...entry, annotations: { 'org.opencontainers.image.ref.name': 'latest' } },
    ],
  });
  t.deepEqual(readdirSync(layout.dir).sort(), ['.index-lock', 'blobs', 'index.json', 'ingest', 'oci-layout']);
});

test('ensure() may come twice and keeps what is there', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['a'], ONE);
  await layout.ensure();
  t.deepEqual(await listed(layout), ['1:a']);
});

test('ensure() finishes what a killed process began: a link to the blobs but no oci-layout', async (t) => {
  const layout = newLayout(t);
  mkdirSync(layout.dir, { recursive: true });
  symlinkSync('../blobs', join(layout.dir, 'blobs'));
  await layout.ensure();
  t.true(existsSync(join(layout.dir, 'oci-layout')));
});

test('lockForSaving() clears away what a killed save left, and nothing else', async (t) => {
  const layout = new Layout(newFolder(t), 'ws-test');
  await layout.ensure();
  for (const name of ['.tmp-1-abc', 'somebody-elses']) writeFileSync(join(layout.ingestDir, name), 'half a layer');
  using _lock = await layout.lockForSaving();
  t.deepEqual(readdirSync(layout.ingestDir), ['somebody-elses']);
});

test('setTags() moves a tag; the manifest that lost it stays listed once, untagged', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['a', 'b'], ONE);
  await layout.setTags(['a', 'b'], TWO);
  t.deepEqual(await listed(layout), ['1', '2:a', '2:b']);
  await layout.setTags(['a'], TWO);
  t.deepEqual((await listed(layout)).sort(), ['1', '2:a', '2:b']);
});

test('setTags() does not list a manifest untagged that keeps another tag', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['cp-1', 'latest'], ONE);
  await layout.setTags(['cp-2', 'latest'], TWO);
  t.deepEqual((await listed(layout)).sort(), ['1:cp-1', '2:cp-2', '2:latest']);
});

test('setTags() tags an untagged manifest again, and then lists it by its tag alone', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['a'], ONE);
  await layout.setTags(['a'], TWO);
  await layout.setTags(['old'], ONE);
  t.deepEqual((await listed(layout)).sort(), ['1:old', '2:a']);
});

test('setTags() adds a tag beside those a manifest has', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['a'], ONE);
  await layout.setTags(['b'], ONE);
  t.deepEqual((await listed(layout)).sort(), ['1:a', '1:b']);
});

test('setTags() with one tag twice lists it once', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['latest', 'latest'], ONE);
  t.deepEqual(await listed(layout), ['1:latest']);
});

test('tags() come in ascending byte order', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['b', 'a', '_', 'Z', 'cp-10', 'cp-9'], ONE);
  t.deepEqual([...(await layout.tags()).keys()], ['Z', '_', 'a', 'b', 'cp-10', 'cp-9']);
});

test('nextSequence() counts by number and ignores names that only look like one', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['cp-9', 'cp-10', 'cp-0099', 'cp-0', 'cp-', 'cp-12x', 'xcp-50', 'CP-60', 'cp--7'], ONE);
  await layout.setTags(['cp-99999999999999999999'], TWO);
  t.is(await layout.nextSequence(), 11);
});

for (const [what, text] of [
  ['empty', ''],
  ['cut off', '{"schemaVersion":2,"manifests":[{"mediaTy'],
  ['a list', '[]'],
  ['null', 'null'],
  ['without manifests', '{"schemaVersion":2}'],
  ['with manifests that are no list', '{"schemaVersion":2,"manifests":{}}'],
  ['with a manifest that is no descriptor', '{"schemaVersion":2,"manifests":[7]}'],
  ['with a digest that leaves the pool', '{"manifests":[{"mediaType":"x","size":1,"digest":"sha256:../../../etc"}]}'],
] as const) {
  test(`an index.json that is ${what} is FORMAT_INVALID, and setTags() leaves it alone`, async (t) => {
    const layout = newLayout(t);
    writeIndex(layout, text);
    const expected = { code: 'FORMAT_INVALID', message: /index\.json/ };
    await t.throwsAsync(layout.manifests(), expected);
    await t.throwsAsync(layout.nextSequence(), expected);
    await t.throwsAsync(layout.setTags(['a'], ONE), expected);
    t.is(readFileSync(join(layout.dir, 'index.json'), 'utf8'), text);
  });
}

test('setTags() from several processes at once loses nothing', async (t) => {
  const layout = newLayout(t);
  const names = ['a', 'b', 'c', 'd'];
  const run = promisify(execFile);
  await Promise.all(
    names.map((name) =>
      run(process.execPath, [CHILD, join(layout.dir, '..'), layout.id, name, '10'], { timeout: 60_000 }),
    ),
  );
  const tags = await layout.tags();
  const expected = names.flatMap((name) => Array.from({ length: 10 }, (_, i) => `${name}-${i}`));
  t.deepEqual([...tags.keys()].sort(), [...expected, 'latest'].sort());
  for (const tag of expected) t.is(tags.get(tag)?.digest, digestOf(tag), tag);
  t.is((await layout.manifests()).length, 41);
  t.deepEqual(readdirSync(layout.dir).sort(), ['.index-lock', 'blobs', 'index.json', 'ingest', 'oci-layout']);
});

test('removeEntries() takes entries off the list, tagged or not, and says how many', async (t) => {
  const layout = newLayout(t);
  await layout.setTags(['cp-1', 'latest'], ONE);
  await layout.setTags(['latest'], TWO);
  t.is(await layout.removeEntries(({ digest }) => digest === ONE.digest), 1);
  t.deepEqual(await listed(layout), ['2:latest']);
  t.is(await layout.removeEntries(() => false), 0);
});

test('removeEntries() leaves a damaged index.json alone', async (t) => {
  const layout = newLayout(t);
  writeIndex(layout, '{"manifests": [');
  await t.throwsAsync(
    layout.removeEntries(() => true),
    { code: 'FORMAT_INVALID' },
  );
  t.is(readFileSync(join(layout.dir, 'index.json'), 'utf8'), '{"manifests": [');
});
