import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { readBentoignore, writeBentoignore } from '../../../fs/workspace/bentoignore.ts';
import { createConfig, renderNewConfig, updateConfig } from '../../../fs/workspace/config-file.ts';
import { ensureId, loadConfig } from '../../../fs/workspace/config.ts';
import { formatDuration, parseDuration } from '../../../fs/workspace/duration.ts';
import { defaultStoreRoot, newWorkspaceId } from '../../../fs/workspace/store-name.ts';
import { isStoreName } from '../../../store/store.ts';

const NEW_CONFIG = `id: ws-0123456789abcdef
task: 'fix: the login'
store: /data/store
retention:
    keep_last: 10
    keep_tagged: true
    tiers:
        - max_age: 1h0m0s
        - max_age: 24h0m0s
          resolution: 1h0m0s
        - max_age: 168h0m0s
          resolution: 24h0m0s
watch:
    debounce: 10
    message: auto-save
`;

function emptyDir(): string {
  return mkdtempSync(join(tmpdir(), 'bento-config-'));
}

function dirWith(text: string): string {
  const dir = emptyDir();
  writeFileSync(join(dir, 'bento.yaml'), text);
  return dir;
}

function textIn(dir: string): string {
  return readFileSync(join(dir, 'bento.yaml'), 'utf8');
}

async function load(text: string) {
  return (await loadConfig(dirWith(text))).config;
}

test('renderNewConfig() writes the keys in the order and with the indentation of the original', (t) => {
  const config = { id: 'ws-0123456789abcdef', task: 'fix: the login', store: '/data/store' };
  t.is(renderNewConfig(config), NEW_CONFIG);
  t.false(renderNewConfig({ ...config, task: '' }).includes('task'));
});

test('renderNewConfig() is what loadConfig() reads', async (t) => {
  const config = await load(renderNewConfig({ id: 'ws-1', task: 'true', store: '/data/store' }));
  t.is(config.task, 'true');
  t.is(config.store, '/data/store');
  t.true(config.retention.keepTagged);
});

test('createConfig() refuses a directory that has one, and one that does not exist', async (t) => {
  const dir = dirWith('id: mine\n');
  await t.throwsAsync(createConfig(dir, NEW_CONFIG), { message: `bento.yaml already exists in ${dir}` });
  t.is(textIn(dir), 'id: mine\n');
  await t.throwsAsync(createConfig(join(dir, 'gone'), NEW_CONFIG), { code: 'TARGET_INVALID' });
});

test('loadConfig() fills defaults in memory and leaves the file alone (bug U8)', async (t) => {
  const text = '# mine\nstore: ~/stores/a\n';
  const dir = dirWith(text);
  const { config } = await loadConfig(dir);
  t.is(config.store, join(homedir(), 'stores/a'));
  t.is(config.id, undefined);
  t.deepEqual(config.watch, { debounceSec: 10, message: 'auto-save', skipSecretScan: false });
  t.is(config.retention.keepLast, 10);
  t.is(config.retention.tiers.length, 3);
  t.is(config.hooks.timeoutSec, 300);
  t.is(textIn(dir), text);
});

test('loadConfig() takes an empty file', async (t) => {
  t.is((await load('')).store, defaultStoreRoot());
  t.is((await load('# nothing yet\n')).layers, undefined);
});

test('loadConfig() expands variables in store, resolves it in the workspace, and refuses an unset one', async (t) => {
  process.env['BENTO_TEST_ROOT'] = '/somewhere';
  t.is((await load('store: ${BENTO_TEST_ROOT}/a\n')).store, '/somewhere/a');
  t.is((await load('store: $BENTO_TEST_ROOT/a\n')).store, '/somewhere/a');
  const dir = dirWith('store: ../elsewhere\n');
  t.is((await loadConfig(dir)).config.store, join(dir, '../elsewhere'));
  await t.throwsAsync(load('store: $BENTO_TEST_UNSET/a\n'), { message: /\$BENTO_TEST_UNSET, which is not set/ });
});

test('loadConfig() reads scalars as they are written', async (t) => {
  const config = await load('id: 0123\ntask: 2024-01-01\nsecrets: {mode: off}\nenv: {V: 1.10, B: True, E: }\n');
  t.is(config.id, '0123');
  t.is(config.task, '2024-01-01');
  t.is(config.secretsMode, 'off');
  t.deepEqual([...config.env.values()], [{ value: '1.10' }, { value: 'True' }, { value: '' }]);
});

test('loadConfig() reads layers, env references, hooks and recipients', async (t) => {
  const key = `bento-pk-${Buffer.alloc(32, 7).toString('base64url')}`;
  const config = await load(`layers:
- {name: deps, patterns: [a/**], skip_secret_scan: true}
- {name: live, patterns: [b/**], watch: off}
- {name: project}
env: {TOKEN: {source: env, var: GH_TOKEN, other: x}}
hooks: {pre_save: make, mine: x, timeout: 5}
recipients: [{name: bob, key: ${key}}]
retention: {keep_last: 0, tiers: [{max_age: 1h30m}]}
`);
  t.deepEqual(config.layers, [
    { name: 'deps', patterns: ['a/**'], catchAll: false, watch: 'periodic', skipSecretScan: true },
    { name: 'live', patterns: ['b/**'], catchAll: false, watch: 'off', skipSecretScan: false },
    { name: 'project', patterns: [], catchAll: true, watch: 'realtime', skipSecretScan: false },
  ]);
  t.deepEqual(config.env.get('TOKEN'), { source: 'env', var: 'GH_TOKEN' });
  t.deepEqual([...config.hooks.commands], [['pre_save', 'make'], ['mine', 'x']]); // prettier-ignore
  t.is(config.hooks.timeoutSec, 5);
  t.deepEqual(config.recipients, [{ name: 'bob', key }]);
  t.deepEqual(config.retention, { keepLast: 0, keepTagged: false, tiers: [{ maxAgeMs: 5_400_000, resolutionMs: 0 }] });
});

const INVALID: [yaml: string, message: string][] = [
  ['layers: [{patterns: [a]}]', 'bento.yaml: layer 0 has an empty name'],
  ['layers: [{name: a, patterns: [b]}, {name: a, patterns: [c]}]', 'bento.yaml: duplicate layer name "a" — each layer must have a unique name'],
  ['layers: [{name: a, catch_all: true}, {name: project}]', 'bento.yaml: layer "project": only one catch_all layer is allowed'],
  ['layers: [{name: a, patterns: []}]', 'bento.yaml: layer "a" has no patterns and is not a catch_all — it will always be empty; add patterns or set catch_all: true'],
  ['layers: [{name: a, patterns: [b], watch: never}]', 'bento.yaml: layer "a" has invalid watch value "never" — must be "realtime", "periodic", or "off"'],
  ['env: {A: {var: x}}', "parsing bento.yaml: env entry has mapping form but no 'source' field"],
  ['env: {A: [x]}', 'parsing bento.yaml: env entry must be a string or a mapping, got sequence'],
  ['secrets: {mode: maybe}', 'bento.yaml: secrets.mode "maybe" is invalid — must be "scrub", "block", or "off"'],
  ['recipients: [{key: x}]', 'bento.yaml: recipients[0] has an empty name'],
  ['recipients: [{name: a}]', 'bento.yaml: recipients[0] ("a") has an empty key'],
  ['recipients: [{name: a, key: pk}]', 'bento.yaml: recipients[0] ("a") key must start with "bento-pk-"'],
  ['recipients: [{name: a, key: "bento-pk-A+"}]', 'bento.yaml: recipients[0] ("a") invalid base64url in key: illegal base64 data at input byte 1'],
  ['recipients: [{name: a, key: bento-pk-AAAA}]', 'bento.yaml: recipients[0] ("a") decoded key must be exactly 32 bytes, got 3'],
  ['watch: {debounce: -1}', 'bento.yaml: watch.debounce must be >= 1 second (got -1)'],
  ['watch: {debounce: soon}', 'parsing bento.yaml: watch.debounce must be a whole number, got "soon"'],
  ['retention: {keep_last: -2}', 'bento.yaml: retention.keep_last must be >= 0 (got -2)'],
  ['retention: {keep_tagged: perhaps}', 'parsing bento.yaml: retention.keep_tagged must be true or false, got "perhaps"'],
  ['retention: {tiers: [{max_age: x}]}', 'bento.yaml: retention.tiers[0]: max_age must be a positive duration (e.g. "1h", "24h")'],
  ['retention: {tiers: [{max_age: 1h, resolution: -1h}]}', 'bento.yaml: retention.tiers[0]: resolution must be >= 0'],
  ['retention: {tiers: [{max_age: 1h, resolution: 60m}]}', 'bento.yaml: retention.tiers[0]: resolution (1h0m0s) must be smaller than max_age (1h0m0s)'],
  ['retention: {tiers: [{max_age: 2h}, {max_age: 1h}]}', 'bento.yaml: retention.tiers[1]: max_age (1h0m0s) must be larger than previous tier (2h0m0s)'],
  ['hooks: {timeout: -5}', 'bento.yaml: hooks.timeout must be >= 0 (got -5)'],
  ['id: blobs', 'bento.yaml: id "blobs" cannot name a folder of the store; use letters, digits, ".", "_" and "-"'],
  ['id: ../up', 'bento.yaml: id "../up" cannot name a folder of the store; use letters, digits, ".", "_" and "-"'],
  ['task: [a]', 'parsing bento.yaml: task must be a single value'],
  ['- a', 'parsing bento.yaml: the file must be a mapping'],
  ['task: a\ntask: b', 'parsing bento.yaml: 2:1: Map keys must be unique'],
]; // prettier-ignore

for (const [yaml, message] of INVALID) {
  test(`loadConfig() refuses ${JSON.stringify(yaml)}`, async (t) => {
    await t.throwsAsync(load(yaml), { message, code: 'CONFIG_INVALID' });
  });
}

test('loadConfig() names the directory without a bento.yaml', async (t) => {
  const dir = emptyDir();
  const error = await t.throwsAsync(loadConfig(dir), {
    code: 'CONFIG_MISSING',
    message: `no bento.yaml found in ${dir}`,
  });
  t.like(error, { hint: 'run `bento init` first' });
});

test('loadConfig() says line and column of a YAML mistake in one line', async (t) => {
  await t.throwsAsync(load('id: a\ntask: b: c\n'), { message: /^parsing bento\.yaml: 2:\d+: [^\n]+$/ });
});

test('loadConfig() survives hostile files: alias bombs, deep nesting, size, a FIFO', async (t) => {
  const levels = Array.from({ length: 12 }, (_, i) => `a${i}: &a${i} [${i === 0 ? 'x' : `*a${i - 1},`.repeat(9)}]`);
  await t.throwsAsync(load(levels.join('\n')), { code: 'CONFIG_INVALID', message: /alias/i });
  await t.throwsAsync(load('['.repeat(500_000)), { code: 'CONFIG_INVALID' });
  await t.throwsAsync(load('#'.repeat(1024 * 1024 + 1)), { code: 'CONFIG_INVALID', message: /larger than/ });
  const dir = emptyDir();
  execFileSync('mkfifo', [join(dir, 'bento.yaml')]);
  await t.throwsAsync(loadConfig(dir), { code: 'CONFIG_INVALID', message: /not a regular file/ });
  t.is((await load('__proto__: {id: x}\nconstructor: y\n')).id, undefined);
});

test('updateConfig() keeps comments, unknown keys, order and layout (bug U8)', async (t) => {
  const before = `# top
id: 0123 # the id
mine:
  - a
  # inside
  - version: 1.10
store: ~/x
watch:
  debounce: 3

# end
`;
  const dir = dirWith(before);
  await updateConfig(dir, { head: 'sha256:abc', remote: 'ghcr.io/me/ws' });
  const after = before
    .replace('# the id\n', '# the id\nhead: sha256:abc\n')
    .replace('watch:', 'remote: ghcr.io/me/ws\nwatch:');
  t.deepEqual(textIn(dir).split('\n').sort(), after.split('\n').sort());
  t.true(textIn(dir).indexOf('store: ~/x') < textIn(dir).indexOf('remote:'));
  await updateConfig(dir, { head: undefined, remote: '' });
  t.is(textIn(dir), before);
});

test('updateConfig() changes a key below another and removes the empty rest', async (t) => {
  const dir = dirWith('id: a\nenv:\n    A: 1\n');
  await updateConfig(dir, { 'env.B': 'yes', 'secrets.mode': 'block', 'env.C.D': 'true' });
  t.is(textIn(dir), 'id: a\nenv:\n    A: 1\n    B: yes\n    C.D: "true"\nsecrets:\n    mode: block\n');
  await updateConfig(dir, { 'env.A': '', 'env.B': '', 'env.C.D': '', 'secrets.mode': undefined });
  t.is(textIn(dir), 'id: a\n');
});

test('updateConfig() writes no empty list and nothing that could not be loaded again (bug U2)', async (t) => {
  const dir = dirWith('id: a\n');
  await updateConfig(dir, { recipients: [], ignore: [], layers: undefined });
  t.is(textIn(dir), 'id: a\n');
  await t.throwsAsync(updateConfig(dir, { layers: [{ name: 'x', patterns: [] }] }), { code: 'CONFIG_INVALID' });
  t.is(textIn(dir), 'id: a\n');
});

test('updateConfig() writes lists, numbers and booleans that loadConfig() reads', async (t) => {
  const dir = dirWith('');
  await updateConfig(dir, {
    id: 'a',
    layers: [{ name: 'x', patterns: ['x/**'], catch_all: true }],
    'watch.debounce': 4,
  });
  const { config } = await loadConfig(dir);
  t.is(config.layers?.[0]?.catchAll, true);
  t.is(config.watch.debounceSec, 4);
});

test('updateConfig() keeps the mode, follows a symlink and leaves no temporary file', async (t) => {
  const [dir, other] = [emptyDir(), dirWith('id: a\n')];
  const target = join(other, 'bento.yaml');
  chmodSync(target, 0o640);
  symlinkSync(target, join(dir, 'bento.yaml'));
  await updateConfig(dir, { head: 'sha256:abc' });
  t.is(textIn(other), 'id: a\nhead: sha256:abc\n');
  t.is(statSync(target).mode & 0o777, 0o640);
  t.deepEqual([...readdirSync(dir), ...readdirSync(other)], ['bento.yaml', 'bento.yaml']);
});

test('updateConfig() that changes nothing does not touch the file', async (t) => {
  const dir = dirWith('id: a\nhead: b\n');
  const { ino } = statSync(join(dir, 'bento.yaml'));
  await updateConfig(dir, { head: 'b' });
  t.is(statSync(join(dir, 'bento.yaml')).ino, ino);
});

test('ensureId() writes an id once', async (t) => {
  const dir = dirWith('store: ~/x\n');
  const id = await ensureId(await loadConfig(dir));
  t.regex(id, /^ws-[0-9a-f]{16}$/);
  t.is(textIn(dir), `id: ${id}\nstore: ~/x\n`);
  t.is(await ensureId(await loadConfig(dir)), id);
});

test('defaultStoreRoot() follows XDG_DATA_HOME when it is absolute', (t) => {
  t.is(defaultStoreRoot({ XDG_DATA_HOME: '/data' }, 'linux'), '/data/bento/store');
  t.is(defaultStoreRoot({ XDG_DATA_HOME: 'data' }, 'linux'), join(homedir(), '.local/share/bento/store'));
  t.is(defaultStoreRoot({}, 'darwin'), join(homedir(), '.bento/store'));
});

test('isStoreName() takes ids and folder names, and none that could leave the store or collide with it', (t) => {
  for (const name of [newWorkspaceId(), 'my.project_2', 'A', '0', 'x'.repeat(128)]) t.true(isStoreName(name), name);
  for (const name of [
    '',
    '.',
    '..',
    '.x',
    '-x',
    'a/b',
    'a b',
    'é',
    'x\n',
    'x'.repeat(129),
    'blobs',
    'cache',
    'forks',
    'mounts',
  ]) {
    t.false(isStoreName(name), name);
  }
});

test('parseDuration() and formatDuration() speak Go', (t) => {
  t.is(parseDuration('1h0m0s'), 3_600_000);
  t.is(parseDuration('1.5h'), 5_400_000);
  t.is(parseDuration('-2m'), -120_000);
  for (const text of ['', '1', '1d', 'h', '1h x']) t.is(parseDuration(text), undefined, text);
  t.is(formatDuration(168 * 3_600_000), '168h0m0s');
  t.is(formatDuration(90_500), '1m30.5s');
  t.is(formatDuration(0), '0s');
});

test('writeBentoignore() writes the original body and leaves an existing file alone', async (t) => {
  const dir = emptyDir();
  t.true(await writeBentoignore(dir));
  t.deepEqual(await readBentoignore(dir), [
    'bento.yaml',
    '.bentoignore',
    'bin/**',
    '.DS_Store',
    'Thumbs.db',
    '*.swp',
    '*.swo',
    '*~',
  ]);
  const body = readFileSync(join(dir, '.bentoignore'), 'utf8');
  t.true(
    body.startsWith(
      '# Bento ignore patterns\n# Files matching these patterns are excluded from all layers.\n\nbento.yaml\n',
    ),
  );
  t.false(await writeBentoignore(dir));
});

test('readBentoignore() trims lines and skips comments, and takes a missing file for an empty one', async (t) => {
  const dir = emptyDir();
  t.deepEqual(await readBentoignore(dir), []);
  writeFileSync(join(dir, '.bentoignore'), '\ufeff# x\r\n  tmp/  \r\n\n!keep\n  # y\n');
  t.deepEqual(await readBentoignore(dir), ['tmp/', '!keep']);
});
