import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import test, { type ExecutionContext } from 'ava';
import {
  blobPath,
  digestOfRef,
  headOf,
  readManifest,
  saveSmallWorkspace,
  watchTree,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeOriginalStore } from '../fixtures/original-format.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface Damage {
  kind: string;
  what: string;
  where: string;
  digest: string | null;
  affects: string[];
  files: string[];
  repaired: boolean;
}

interface Result {
  checkpointCount: number;
  blobCount: number;
  sizeBytes: number;
  damages: Damage[];
}

/** cp-1, and cp-2 with a delta on its project layer. */
async function saveTwo(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFiles(sandbox.workspace, { 'src/main.js': 'second\n' });
  (await sandbox.bento(['save'])).ok();
  return sandbox;
}

async function verify(sandbox: Sandbox, ...args: string[]): Promise<Result & { code: number }> {
  const result = await sandbox.bento(['verify', '--json', ...args]);
  return { ...result.json<Result>(), code: result.code };
}

function flipByte(file: string, at = Math.floor(readFileSync(file).length / 2)): void {
  const bytes = readFileSync(file);
  bytes[at] = (bytes[at] ?? 0) ^ 0x40;
  chmodSync(file, 0o644);
  writeFileSync(file, bytes);
}

async function layerOf(sandbox: Sandbox, ref: string, at: number): Promise<string> {
  return readManifest(sandbox, await digestOfRef(sandbox, ref)).layers.at(at)?.digest ?? '';
}

function indexOf(sandbox: Sandbox): string {
  return path.join(sandbox.storePath, 'cache', 'index.db');
}

function changeIndex(sandbox: Sandbox, ...statements: string[]): void {
  const db = new Database(indexOf(sandbox));
  try {
    for (const statement of statements) db.exec(statement);
  } finally {
    db.close();
  }
}

test.serial('verify of a whole store says what it checked, exits with 0 and changes nothing', async (t) => {
  const sandbox = await saveTwo(t);
  const changed = watchTree(sandbox.storePath);
  const result = (await sandbox.bento(['verify'])).ok();
  t.regex(result.stdout, /^Verified 2 checkpoint\(s\), \d+ blob\(s\), \d+\.\dKB: no damage found\.\n$/);
  t.is(result.stderr, '');
  t.deepEqual(
    changed().filter((name) => !/^(\.|cache|cache\/index\.db-.*|\.blob-.*)$/.test(name)),
    [],
  );
  const one = await verify(sandbox, 'cp-1');
  t.is(one.checkpointCount, 1);
  t.is(one.blobCount, 5, 'manifest, config and three layers');
  t.is((await verify(sandbox, '--quick')).code, 0);
});

test.serial(
  'verify finds a flipped byte in a layer, and names the file and the checkpoints that need it',
  async (t) => {
    const sandbox = await saveTwo(t);
    const digest = await layerOf(sandbox, 'cp-2', -1); // only cp-2 has the delta
    const shared = await layerOf(sandbox, 'cp-1', 0);
    flipByte(blobPath(sandbox, digest), 200);
    const { code, damages } = await verify(sandbox);
    t.is(code, 12);
    t.is(damages.length, 1);
    t.like(damages[0], { kind: 'layer', digest, affects: ['cp-2'], where: 'layer project', repaired: false });
    t.is((await verify(sandbox, 'cp-1')).code, 0);
    flipByte(blobPath(sandbox, shared), 200);
    const both = (await verify(sandbox)).damages.find((damage) => damage.digest === shared);
    t.deepEqual(both?.affects, ['cp-1', 'cp-2']);
    const text = (await sandbox.bento(['verify'])).stdout;
    t.regex(text, /^layer deps \(sha256:[0-9a-f]{12}\.\.\.\): is not what its digest says.*; affects cp-1, cp-2$/m);
    t.regex(text, /: 2 damage\(s\) found\.\n$/);
    t.is((await verify(sandbox, '--quick')).code, 0, 'all is there and as long as it should be');
  },
);

test.serial('verify names the files that a damaged layer still shows to be hit', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const noise = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i * 31 + (i >> 3)) % 251));
  writeFiles(sandbox.workspace, { 'src/big.bin': noise });
  (await sandbox.bento(['save'])).ok();
  const digest = await layerOf(sandbox, 'cp-2', -1);
  const { size = 0 } = readManifest(sandbox, await digestOfRef(sandbox, 'cp-2')).layers.at(-1) ?? {};
  flipByte(blobPath(sandbox, digest), Math.floor(size / 2));
  const [damage] = (await verify(sandbox)).damages;
  t.like(damage, { kind: 'layer', digest, files: ['src/big.bin'] });
});

for (const [kind, pick] of [
  ['manifest', (_: Sandbox, digest: string) => digest],
  ['config', (sandbox: Sandbox, digest: string) => readManifest(sandbox, digest).config.digest],
  ['layer', (sandbox: Sandbox, digest: string) => readManifest(sandbox, digest).layers.at(-1)?.digest ?? ''],
] as const) {
  test.serial(`verify finds a ${kind} that is missing, cut off or changed, and names the checkpoint`, async (t) => {
    const sandbox = await saveTwo(t);
    const digest = pick(sandbox, await digestOfRef(sandbox, 'cp-2'));
    const file = blobPath(sandbox, digest);
    const whole = readFileSync(file);
    const found = async (...args: string[]): Promise<string[]> => {
      const { code, damages } = await verify(sandbox, ...args);
      t.is(code, 12);
      const [damage] = damages.filter((one) => one.digest === digest);
      t.true(damage !== undefined, JSON.stringify(damages));
      t.true(damage?.affects.includes('cp-2') === true || damage?.where === 'cp-2', JSON.stringify(damage));
      t.deepEqual(
        [...new Set(damages.flatMap(({ affects }) => affects))].filter((label) => label === 'cp-1'),
        [],
      );
      return damages.map(({ what }) => what);
    };
    flipByte(file, 10);
    await found();
    chmodSync(file, 0o644);
    writeFileSync(file, whole);
    truncateSync(file, 40);
    await found();
    if (kind === 'config' || kind === 'layer') await found('--quick');
    rmSync(file);
    t.regex((await found()).join('\n'), /missing/);
    await found('--quick');
    t.is((await verify(sandbox, '--repair')).code, 12, 'there is no other copy');
    writeFileSync(file, whole);
    t.is((await verify(sandbox)).code, 0);
  });
}

test.serial(
  'verify --repair finds a lost blob under another name, and in a workspace with blobs of its own',
  async (t) => {
    const sandbox = await saveTwo(t);
    const manifest = await digestOfRef(sandbox, 'cp-1');
    const digests = [
      manifest,
      await layerOf(sandbox, 'cp-2', -1),
      readManifest(sandbox, manifest).config.digest,
    ] as const;
    renameSync(blobPath(sandbox, digests[0]), path.join(path.dirname(blobPath(sandbox, digests[0])), 'found.000'));
    const own = path.join(sandbox.storePath, 'of-its-own', 'blobs', 'sha256');
    mkdirSync(own, { recursive: true });
    renameSync(blobPath(sandbox, digests[1]), path.join(own, digests[1].slice('sha256:'.length)));
    writeFileSync(path.join(own, digests[2].slice('sha256:'.length)), readFileSync(blobPath(sandbox, digests[2])));
    flipByte(blobPath(sandbox, digests[2]));
    t.is((await verify(sandbox)).code, 12);
    const { damages } = await verify(sandbox, '--repair');
    for (const digest of digests) t.true(damages.find((damage) => damage.digest === digest)?.repaired, digest);
    t.true(damages.find(({ where }) => where.endsWith('found.000'))?.repaired);
    t.deepEqual((await verify(sandbox)).damages, []);
    (await sandbox.bento(['open', '--copy', 'cp-1', '../opened'])).ok();
  },
);

test.serial('verify finds a manifest whose config says other diff ids', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  const { digests } = await makeOriginalStore(sandbox.storePath, {
    id: workspaceId(sandbox),
    checkpoints: [{ message: 'one', layers: { project: { file: { content: 'content' } } } }],
  });
  t.is((await verify(sandbox)).code, 0);
  const { createHash } = await import('node:crypto');
  const put = (json: unknown): { digest: string; size: number } => {
    const bytes = Buffer.from(JSON.stringify(json));
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    writeFileSync(blobPath(sandbox, digest), bytes);
    return { digest, size: bytes.length };
  };
  const manifest = readManifest(sandbox, digests[0] ?? '');
  const config = JSON.parse(readFileSync(blobPath(sandbox, manifest.config.digest), 'utf8')) as {
    rootfs: { diff_ids: string[] };
  };
  config.rootfs.diff_ids[2] = `sha256:${'0'.repeat(64)}`;
  const wrong = put({ ...manifest, config: { ...manifest.config, ...put(config) } });
  const { damages } = await verify(sandbox, wrong.digest);
  t.deepEqual(
    damages.map(({ kind, where }) => [kind, where]),
    [['diff-id', 'layer project']],
  );
});

test.serial('verify finds wrong rows in the index; --repair writes them anew under their numbers', async (t) => {
  const sandbox = await saveTwo(t);
  const ids = (): unknown => {
    const db = new Database(indexOf(sandbox), { readonly: true });
    try {
      return db.prepare('SELECT id, name, size FROM entries ORDER BY id').all();
    } finally {
      db.close();
    }
  };
  const before = ids();
  for (const statement of [
    "UPDATE entries SET size = size + 1 WHERE name = 'other.js'",
    "UPDATE entries SET digest = zeroblob(32) WHERE name = 'other.js'",
    "UPDATE entries SET mode = 511 WHERE name = 'CLAUDE.md'",
    "DELETE FROM entries WHERE name = 'CLAUDE.md'",
    "UPDATE entries SET blob_offset = blob_offset + 1 WHERE name = 'other.js'",
    "UPDATE entries SET blob_bytes = blob_bytes - 1 WHERE name = 'other.js'",
    'UPDATE layers SET entry_count = entry_count + 1',
    'UPDATE trees SET layer = (SELECT digest FROM layers WHERE digest != trees.layer) WHERE depth = 1',
  ]) {
    changeIndex(sandbox, statement);
    const found = await verify(sandbox);
    t.is(found.code, 12, statement);
    t.deepEqual([...new Set(found.damages.map(({ kind }) => kind))], ['index'], statement);
    t.true(
      found.damages.every(({ affects }) => affects.length > 0),
      statement,
    );
    const repaired = await verify(sandbox, '--repair');
    t.is(repaired.code, 0, statement);
    t.true(repaired.damages.length > 0 && repaired.damages.every((damage) => damage.repaired), statement);
    t.deepEqual((await verify(sandbox)).damages, [], statement);
    t.deepEqual(ids(), before, statement);
  }
});

test.serial('verify --repair rebuilds an index that SQLite calls damaged', async (t) => {
  const sandbox = await saveTwo(t);
  changeIndex(sandbox, 'PRAGMA wal_checkpoint(TRUNCATE)');
  const bytes = readFileSync(indexOf(sandbox));
  bytes.fill(0xff, 4096 * 3, 4096 * 6);
  writeFileSync(indexOf(sandbox), bytes);
  const { code, damages } = await verify(sandbox);
  t.is(code, 12);
  t.true(damages.some(({ kind, where }) => kind === 'index' && where === indexOf(sandbox)));
  t.is((await verify(sandbox, '--repair')).code, 0);
  t.is((await verify(sandbox)).code, 0);
  const db = new Database(indexOf(sandbox), { readonly: true });
  t.true((db.prepare('SELECT count(*) AS n FROM layers').get() as { n: number }).n >= 4, 'it is filled');
  db.close();
});

test.serial('verify finds damaged or missing resume points of a foreign layer; --repair makes them anew', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  await makeOriginalStore(sandbox.storePath, {
    id: workspaceId(sandbox),
    checkpoints: [{ message: 'one', layers: { project: { file: { content: 'content' } } } }],
  });
  (await sandbox.bento(['open', '--copy', 'cp-1', '../opened'])).ok();
  const hex = (await layerOf(sandbox, 'cp-1', -1)).slice('sha256:'.length);
  const points = path.join(sandbox.storePath, 'cache', 'resume', 'sha256', hex);
  for (const damage of [() => flipByte(points), () => rmSync(points)]) {
    damage();
    const found = await verify(sandbox);
    t.deepEqual([found.code, found.damages.map(({ kind }) => kind)], [12, ['cache']]);
    t.is((await verify(sandbox, '--repair')).code, 0);
    t.deepEqual((await verify(sandbox)).damages, []);
    (await sandbox.bento(['open', '--copy', 'cp-1', `../opened-${Math.random()}`])).ok();
  }
});

test.serial('verify finds tags, heads and records that lead nowhere', async (t) => {
  const sandbox = await saveTwo(t);
  const missing = `sha256:${'1'.repeat(64)}`;
  const head = headOf(sandbox.workspace);
  const config = path.join(sandbox.workspace, 'bento.yaml');
  writeFileSync(config, readFileSync(config, 'utf8').replace(head, missing));
  const index = path.join(sandbox.storePath, workspaceId(sandbox), 'index.json');
  const text = readFileSync(index, 'utf8');
  const json = JSON.parse(text) as { manifests: unknown[] };
  const annotations = { 'org.opencontainers.image.ref.name': 'nowhere' };
  json.manifests.push({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    size: 1,
    digest: missing,
    annotations,
  });
  writeFileSync(index, JSON.stringify(json));
  const mount = { kind: 'mount', target: '/nowhere', manifest: missing };
  writeFiles(sandbox.storePath, { 'mounts/0123456789abcdef.json': JSON.stringify(mount) });
  const { code, damages } = await verify(sandbox);
  t.is(code, 12);
  t.deepEqual(
    damages.map(({ kind, where, digest }) => [kind, where, digest]).sort(),
    [
      ['reference', '/nowhere', missing],
      ['reference', 'nowhere', missing],
      ['reference', config, missing],
    ].sort(),
  );
  writeFileSync(index, text.slice(0, -20));
  t.deepEqual(
    (await verify(sandbox)).damages.filter(({ kind }) => kind === 'record').map(({ where }) => where),
    [index],
  );
});

test.serial(
  'verify finds blobs that are not what their names say; --repair removes those that would pass for stored',
  async (t) => {
    const sandbox = await saveTwo(t);
    const dir = path.join(sandbox.storePath, 'blobs', 'sha256');
    writeFiles(dir, { ['2'.repeat(64)]: 'not this', notes: 'no blob' });
    const { code, damages } = await verify(sandbox);
    t.is(code, 12);
    t.deepEqual(damages.map(({ kind, where, affects }) => [kind, path.basename(where), affects]).sort(), [
      ['stray', '2'.repeat(64), []],
      ['stray', 'notes', []],
    ]);
    await verify(sandbox, '--repair');
    t.false(existsSync(path.join(dir, '2'.repeat(64))));
    t.true(existsSync(path.join(dir, 'notes')), 'nobody takes it for a blob');
  },
);

testSerialNeeding({ root: true, fuse: true })('verify --repair of the index leaves a mount readable', async (t) => {
  const sandbox = await saveTwo(t);
  const mounted = sandbox.makeFolder('mounted');
  (await sandbox.bento(['mount', 'cp-2', mounted])).ok();
  t.is(readFileSync(path.join(mounted, 'src/main.js'), 'utf8'), 'second\n');
  changeIndex(sandbox, "UPDATE entries SET size = 1 WHERE name IN ('other.js', 'package.json')");
  t.is((await verify(sandbox, '--repair')).code, 0);
  t.is(readFileSync(path.join(mounted, 'src/main.js'), 'utf8'), 'second\n');
  t.is(readFileSync(path.join(mounted, 'src/other.js'), 'utf8'), 'other\n');
});
