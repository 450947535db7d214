import { strict as assert } from 'node:assert';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { Digest } from '../../store/digest.ts';
import { blobPath, headOf, readManifest } from '../fixtures/command-checks.ts';
import { Store } from '../../store/store.ts';
import { isRoot, missingFuse } from '../fixtures/machine.ts';
import { compareFacts, withoutDirTimes } from '../fixtures/tree-facts.ts';
import type { Attempt, Outcome, Scenario } from './crash-engine.ts';
import { assertEqual, assertNoneTorn, keptTags, STAGING, type CrashWorld } from './crash-world.ts';

/** Every command that changes something on disk, each with something to do. */
export const SCENARIOS: readonly Scenario[] = [
  { name: 'save', prepare: (world) => saving(world, []) },
  { name: 'save --flat', sameSteps: true, prepare: (world) => saving(world, ['--flat']) },
  { name: 'save of a changed large file', prepare: savingLarge },
  { name: 'tag', prepare: tagging },
  { name: 'attach', prepare: attaching },
  { name: 'attach rm', prepare: detaching },
  { name: 'attach get', prepare: gettingAttached },
  { name: 'open in place', prepare: openingInPlace },
  { name: 'open into a new directory', prepare: openingNew },
  { name: 'gc', prepare: collecting },
  { name: 'gc --whole', prepare: makingWhole },
  { name: 'verify --repair', prepare: repairing },
  { name: 'init', prepare: initialising },
  ...(isRoot() && missingFuse() === undefined
    ? [
        { name: 'fork', prepare: forking },
        { name: 'open in a fork', prepare: switching },
      ]
    : []),
];

function saving(world: CrashWorld, args: readonly string[]): Attempt {
  world.change();
  return savingNow(world, args);
}

function savingNow(world: CrashWorld, args: readonly string[]): Attempt {
  const { workspace } = world.sandbox;
  const facts = world.facts();
  const headBefore = world.head;
  return {
    args: ['save', '--json', ...args],
    mayMove: (tag) => tag === 'latest' || /^cp-\d+$/.test(tag),
    check: async (outcome) => {
      const tags = await world.tags();
      const made = new Set([...tags.values()].filter((digest) => !world.known.has(digest)));
      assert.ok(made.size <= 1, 'one checkpoint at most');
      for (const digest of made) world.known.set(digest, facts);
      if (world.head !== headBefore) assert.ok(made.has(world.head), 'the head moves after the tag');
      if (!outcome.killed) assert.deepEqual([...made], [reportedDigest(outcome)]);
      assertEqual(facts, world.facts(), 'a save changes nothing in the workspace');
    },
    settle: async () => {
      await world.save(args);
      assertEqual(facts, world.facts(workspace), 'a save changes nothing in the workspace');
    },
  };
}

/** Bytes of a large file: the layer becomes a recipe. */
async function savingLarge(world: CrashWorld): Promise<Attempt> {
  if (world.changeLarge()) await world.save(); // made: something to change
  world.changeLarge();
  return savingNow(world, []);
}

function reportedDigest({ stdout }: Outcome): string {
  return (JSON.parse(stdout) as { digest: string }).digest;
}

async function tagging(world: CrashWorld): Promise<Attempt> {
  const digests = [...new Set((await world.tags()).values())];
  const digest = world.random.pick(digests);
  const tag = world.random.pick(['release', 'best', 'new-idea']);
  const before = (await world.tags()).get(tag);
  return {
    args: ['tag', digest, tag],
    mayMove: (name) => name === tag,
    check: async ({ killed }) => {
      const now = (await world.tags()).get(tag);
      assert.ok(now === digest || (killed && now === before), `${tag} is ${String(now)}`);
    },
    settle: async () => {
      (await world.sandbox.bento(['tag', digest, tag])).ok();
      assert.equal((await world.tags()).get(tag), digest);
    },
  };
}

/** A file for the head, which is attached as a whole or not at all. */
function attaching(world: CrashWorld): Attempt {
  const { content, args } = world.attachable();
  const before = world.attached.filter(({ to }) => to === world.head).length;
  return {
    args,
    mayMove: () => false,
    check: async ({ killed }) => {
      const titles = await world.attachedTitles();
      assert.ok(titles.length === before + 1 || (killed && titles.length === before), `attached: ${titles.join(', ')}`);
    },
    settle: async () => {
      (await world.sandbox.bento(args)).ok(); // attached already, or now
      world.attached.push({ content, to: world.head });
      await world.assertAttached();
    },
  };
}

async function detaching(world: CrashWorld): Promise<Attempt> {
  const { sandbox } = world;
  const { content, args } = world.attachable();
  (await sandbox.bento(args)).ok();
  const remove = ['attach', 'rm', 'head', content];
  return {
    args: remove,
    mayMove: () => false,
    settle: async () => {
      if ((await world.attachedTitles()).includes(content)) (await sandbox.bento(remove)).ok();
      await world.assertAttached();
    },
  };
}

/** What is written is there as a whole or not at all. */
async function gettingAttached(world: CrashWorld): Promise<Attempt> {
  const { sandbox } = world;
  const { content, args } = world.attachable();
  (await sandbox.bento(args)).ok();
  world.attached.push({ content, to: world.head });
  const dir = sandbox.makeFolder('got');
  const target = path.join(dir, 'file');
  return {
    args: ['attach', 'get', 'head', content, '-o', target],
    mayMove: () => false,
    check: ({ killed }) => {
      assert.ok(existsSync(target) || killed);
      if (existsSync(target)) assert.equal(readFileSync(target, 'utf8'), content);
    },
    settle: () => {
      rmSync(dir, { recursive: true });
      return Promise.resolve();
    },
  };
}

async function openingInPlace(world: CrashWorld): Promise<Attempt> {
  const { sandbox, random } = world;
  if (random.chance(0.5)) world.edit();
  const unsaved = world.facts();
  const headBefore = world.head;
  const others = [...new Set((await world.tags()).values())].filter((digest) => digest !== headBefore);
  const wanted = random.pick(others.length > 0 ? others : [headBefore]);
  const facts = world.known.get(wanted) ?? new Map<string, string>();
  const args = ['open', wanted, ...(random.chance(0.5) ? [] : ['--no-backup'])];
  const learnBackup = async (): Promise<void> => {
    for (const digest of (await world.tags()).values()) if (!world.known.has(digest)) world.known.set(digest, unsaved);
  };
  return {
    args,
    mayMove: (tag) => tag.startsWith('pre-open-'),
    check: async ({ killed }) => {
      await learnBackup();
      assertNoneTorn(world.facts(), [unsaved, facts]);
      if (!killed) assertEqual(facts, world.facts(), 'opened');
    },
    settle: async () => {
      (await sandbox.bento([random.pick(['status', 'diff'])])).ok();
      assert.equal(existsSync(path.join(sandbox.workspace, STAGING)), false, 'the next command clears up');
      const isNew = compareFacts(facts, world.facts()).length === 0;
      if (!isNew) assertEqual(unsaved, world.facts(), 'neither old nor new');
      const isOld = compareFacts(unsaved, world.facts()).length === 0; // both, when two checkpoints hold the same
      assert.ok((isNew && world.head === wanted) || (isOld && world.head === headBefore), `the head is ${world.head}`);
      (await sandbox.bento(args)).ok();
      await learnBackup();
      assertEqual(facts, world.facts(), 'opened again');
    },
  };
}

async function openingNew(world: CrashWorld): Promise<Attempt> {
  const digest = world.random.pick([...(await world.tags()).values()]);
  const facts = world.known.get(digest) ?? new Map<string, string>();
  const dir = world.sandbox.path('new');
  const args = ['open', '--copy', digest, dir];
  return {
    args,
    mayMove: () => false,
    check: ({ killed }) => {
      const isWorkspace = existsSync(path.join(dir, 'bento.yaml'));
      assert.ok(isWorkspace || killed);
      if (isWorkspace && !existsSync(path.join(dir, STAGING))) assertEqual(facts, world.facts(dir), 'opened');
    },
    settle: async () => {
      // When all was in its place but the answer, it is a workspace like any other, and is opened in place.
      (await world.sandbox.bento(args)).ok();
      if (existsSync(path.join(dir, STAGING))) (await world.sandbox.bento(['status', '--dir', dir])).ok();
      assertEqual(facts, world.facts(dir), 'opened again');
      assert.equal(headOf(dir), digest);
      await world.forget(dir);
    },
  };
}

/** Undo slots that were used up, and half-written files of killed saves: there is something to collect besides tags. */
async function collecting(world: CrashWorld): Promise<Attempt> {
  const { sandbox } = world;
  world.change();
  await world.save(['--flat']);
  await world.assertCollects(1);
  (await sandbox.bento(world.attachable().args)).ok();
  // From here on the same goes each time: base and delta of one title, and what is attached to the first.
  for (const args of [[], ['--flat']]) {
    writeFileSync(path.join(sandbox.workspace, 'a.txt'), `to be collected ${world.random.below(1e6)}`);
    await world.save(args);
  }
  for (const place of [path.join('blobs', 'sha256'), path.join(world.layout.id, 'ingest')]) {
    writeFileSync(path.join(sandbox.storePath, place, `.tmp-1-${world.random.below(1e6)}`), 'cut off');
  }
  const before = await world.tags();
  const kept = keptTags(before, world.head, 1);
  return {
    args: ['gc', '--keep-last', '1'],
    mayMove: (tag) => !kept.has(tag),
    check: async ({ killed }) => {
      const after = await world.tags();
      for (const [tag, digest] of after) assert.equal(digest, before.get(tag), `gc moved ${tag}`);
      if (!killed) assert.deepEqual([...after.keys()].sort(), [...kept.keys()].sort());
    },
    settle: async () => await world.assertCollects(1),
  };
}

/** Checkpoints that are made of recipes: each gets a file of its own. */
async function makingWhole(world: CrashWorld): Promise<Attempt> {
  await savingLarge(world);
  await world.save();
  const { blobs } = new Store(world.sandbox.storePath);
  assert.ok((await blobs.listThin()).length > 0, 'there is something to make whole');
  return {
    args: ['gc', '--whole'],
    mayMove: () => false,
    check: async ({ killed }) => {
      if (!killed) assert.deepEqual(await blobs.listThin(), []);
    },
    settle: async () => {
      (await world.sandbox.bento(['gc', '--whole'])).ok();
      assert.deepEqual(await blobs.listThin(), []);
    },
  };
}

/** A layer in which a byte has changed, of which there is a copy under another name. */
function repairing(world: CrashWorld): Attempt {
  const { sandbox } = world;
  const { layers } = readManifest(sandbox, world.head);
  const layer = world.random.pick(
    layers.map(({ digest }) => blobPath(sandbox, digest)).filter((file) => existsSync(file)),
  );
  const bytes = readFileSync(layer);
  writeFileSync(path.join(path.dirname(layer), 'f'.repeat(64)), bytes);
  chmodSync(layer, 0o644);
  bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 0xff, bytes.length >> 1);
  writeFileSync(layer, bytes);
  return {
    args: ['verify', '--repair'],
    isDamaged: true,
    mayMove: () => false,
    settle: async () => {
      (await sandbox.bento(['verify', '--repair'])).ok();
      await world.assertVerified();
      await world.assertCheckpoints();
    },
  };
}

function initialising(world: CrashWorld): Attempt {
  const dir = world.sandbox.makeFolder('initialised');
  writeFileSync(path.join(dir, 'file'), 'content');
  return {
    args: ['init', '--dir', dir],
    mayMove: () => false,
    settle: async () => {
      const isThere = existsSync(path.join(dir, 'bento.yaml'));
      if (!isThere) (await world.sandbox.bento(['init', '--dir', dir])).ok();
      (await world.sandbox.bento(['list', '--dir', dir])).ok();
      rmSync(dir, { recursive: true });
    },
  };
}

/** In a fork of our own engine, another checkpoint takes the place of the one below. */
async function switching(world: CrashWorld): Promise<Attempt> {
  const { sandbox, random } = world;
  const digests = [...new Set((await world.tags()).values())];
  const [before, wanted] = [random.pick(digests), random.pick(digests)];
  const dir = sandbox.path('switched');
  const factsOf = (digest: Digest): ReadonlyMap<string, string> =>
    withoutDirTimes(world.known.get(digest) ?? new Map<string, string>());
  const now = (): ReadonlyMap<string, string> => withoutDirTimes(world.facts(dir));
  (await sandbox.bento(['fork', before, dir, '--engine', 'cow'])).ok();
  const edited = [...factsOf(before)].find(([, fact]) => fact.startsWith('file'))?.[0];
  if (edited !== undefined && random.chance(0.5)) writeFileSync(path.join(dir, edited), `changed ${random.below(1e6)}`);
  const backup = world.facts(dir);
  const unsaved = withoutDirTimes(backup);
  const learnBackup = async (): Promise<void> => {
    for (const digest of (await world.tags()).values()) if (!world.known.has(digest)) world.known.set(digest, backup);
  };
  return {
    args: ['open', wanted, '--dir', dir],
    mayMove: (tag) => tag.startsWith('pre-open-'),
    check: async ({ killed }) => {
      await learnBackup();
      const isOld = compareFacts(unsaved, now()).length === 0;
      if (!isOld || !killed) assertEqual(factsOf(wanted), now(), 'opened');
    },
    settle: async () => {
      (await sandbox.bento([random.pick(['status', 'diff']), '--dir', dir])).ok();
      const isNew = compareFacts(factsOf(wanted), now()).length === 0;
      if (!isNew) assertEqual(unsaved, now(), 'neither old nor new');
      assert.ok(headOf(dir) === wanted || (headOf(dir) === before && (!isNew || before === wanted)), 'the head');
      (await sandbox.bento(['open', wanted, '--dir', dir])).ok();
      await learnBackup();
      assertEqual(factsOf(wanted), now(), 'opened again');
      (await sandbox.bento(['close', '--discard', dir])).ok();
      await world.forget(dir);
    },
  };
}

async function forking(world: CrashWorld): Promise<Attempt> {
  const { sandbox } = world;
  const digest = world.random.pick([...(await world.tags()).values()]);
  const facts = withoutDirTimes(world.known.get(digest) ?? new Map<string, string>());
  const dir = sandbox.path('fork');
  const isSame = (): void => assertEqual(facts, withoutDirTimes(world.facts(dir)), 'forked');
  const isRecorded = async (): Promise<boolean> =>
    (await sandbox.bento(['mounts', '--json']))
      .ok()
      .json<{ target: string }[]>()
      .some(({ target }) => target === dir);
  return {
    args: ['fork', digest, dir],
    mayMove: () => false,
    check: ({ killed }) => {
      if (!killed) isSame();
    },
    settle: async () => {
      if (await isRecorded()) (await sandbox.bento(['close', '--discard', dir])).ok();
      (await sandbox.bento(['fork', digest, dir])).ok();
      isSame();
      mkdirSync(path.join(dir, 'of the fork'));
      (await sandbox.bento(['close', '--discard', dir])).ok();
      await world.forget(dir);
    },
  };
}
