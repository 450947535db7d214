import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

import { verifyStore } from '../../fs/maintenance/verify.ts';
import { treeSource, type TreeSource } from '../../fs/tree/index-checkpoint.ts';
import { ContentReader } from '../../fs/contents/content-reader.ts';
import { isConfigTemporary } from '../../fs/workspace/config-file.ts';
import { removeHeadRecord } from '../../fs/workspace/heads.ts';
import { openInto } from '../../fs/workspace/open.ts';
import { openCheckpoint } from '../../fs/workspace/workspace.ts';
import { IndexDatabase } from '../../index/database.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { attachmentsOf, findAttachments } from '../../store/find-attachments.ts';
import { Store } from '../../store/store.ts';
import type { Layout } from '../../store/layout.ts';
import { headOf, readManifest, temporaryFiles, workspaceId } from '../fixtures/command-checks.ts';
import { changeDirectory } from '../fixtures/random-directory.ts';
import type { Random } from '../fixtures/random.ts';
import { Sandbox } from '../fixtures/sandbox.ts';
import { compareFacts, factsOfCheckpoint, factsOnDisk, type TreeFacts } from '../fixtures/tree-facts.ts';

/** What bento itself writes into a workspace. */
export const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
export const STAGING = '.bento-restore';
/** How many checkpoints a world keeps, so that it does not grow with the number of runs. */
const KEEP_LAST = 3;

/**
 * A store and a workspace to kill commands in, and what must be true of them: which checkpoints there are, and what was in
 * the directory when each was saved. Every method that begins with `assert` throws an AssertionError.
 */
export class CrashWorld {
  readonly sandbox: Sandbox;
  readonly random: Random;
  /** What each checkpoint has to hold. */
  readonly known = new Map<Digest, TreeFacts>();
  /** What is attached, by its content, which is its title too. */
  readonly attached: { content: string; to: Digest }[] = [];
  #changeCount = 0;

  private constructor(random: Random) {
    this.sandbox = new Sandbox();
    this.random = random;
  }

  /** A workspace with two checkpoints. */
  static async create(random: Random): Promise<CrashWorld> {
    const world = new CrashWorld(random);
    try {
      (await world.sandbox.bento(['init'])).ok();
      writeFileSync(path.join(world.sandbox.workspace, '.bentoignore'), '');
      for (const count of [30, 10]) {
        world.change(count);
        await world.save();
      }
      return world;
    } catch (error) {
      await world.dispose();
      throw error;
    }
  }

  get layout(): Layout {
    return new Store(this.sandbox.storePath).layout(workspaceId(this.sandbox));
  }

  /** Where the workspace is. */
  get head(): Digest {
    return headOf(this.sandbox.workspace) as Digest;
  }

  async tags(): Promise<Map<string, Digest>> {
    return new Map([...(await this.layout.tags())].map(([tag, { digest }]) => [tag, digest]));
  }

  /** Changes the workspace as a program might; something is different afterwards in any case. */
  change(count = 6): void {
    const { workspace } = this.sandbox;
    changeDirectory(workspace, this.random, count);
    rmSync(path.join(workspace, 'a.txt'), { recursive: true, force: true });
    writeFileSync(path.join(workspace, 'a.txt'), `change ${this.#changeCount++}`);
  }

  /**
   * Changes some bytes of a file of 2 MiB, which is made if need be: the next save keeps the rest where it is.
   *
   * @returns whether it was made
   */
  changeLarge(): boolean {
    const large = path.join(this.sandbox.workspace, 'large.bin');
    const isNew = !existsSync(large);
    if (isNew) writeFileSync(large, randomBytes(2 << 20));
    const fd = openSync(large, 'r+');
    writeSync(fd, `change ${this.#changeCount++}`, this.random.below(2_000_000));
    closeSync(fd);
    return isNew;
  }

  /** Writes to some files of the workspace, each of which its head has: work that is not saved, and no new paths. */
  edit(): void {
    const { workspace } = this.sandbox;
    const files = [...(this.known.get(this.head) ?? [])]
      .filter(([, line]) => line.startsWith('file'))
      .map(([name]) => name);
    for (const name of ['a.txt', this.random.pick(files), this.random.pick(files)]) {
      writeFileSync(Buffer.from(`${workspace}/${name}`, 'latin1'), `edit ${this.#changeCount++}`);
    }
  }

  /** What is in a directory, but for what bento itself writes there. */
  facts(dir = this.sandbox.workspace): TreeFacts {
    return new Map([...factsOnDisk(dir, OWN_FILES)].filter(([name]) => !isConfigTemporary(name)));
  }

  /** Saves the workspace, or finds that it is saved. Afterwards its head is known. */
  async save(args: readonly string[] = []): Promise<void> {
    const facts = this.facts();
    (await this.sandbox.bento(['save', ...args])).ok();
    this.known.set(this.head, facts);
    await this.assertHolds(this.head);
  }

  /** A new file, and the command that attaches it to the head. */
  attachable(): { content: string; args: string[] } {
    const content = `attached ${this.#changeCount++}`;
    const file = path.join(this.sandbox.makeFolder('attached'), content);
    writeFileSync(file, content);
    return { content, args: ['attach', 'head', file, '--type', 'text/plain'] };
  }

  /** Of what is attached to the head. */
  async attachedTitles(): Promise<string[]> {
    const { attachments } = await attachmentsOf(new Store(this.sandbox.storePath), this.head);
    return attachments.map(({ files }) => files[0]?.title ?? '').sort();
  }

  /** The head has what was attached to it, each file whole, and nothing else. */
  async assertAttached(): Promise<void> {
    const store = new Store(this.sandbox.storePath);
    const expected = this.attached.filter(({ to }) => to === this.head).map(({ content }) => content);
    assert.deepEqual(await this.attachedTitles(), expected.sort());
    for (const { files } of (await attachmentsOf(store, this.head)).attachments)
      for (const { title, digest } of files) assert.equal((await store.blobs.read({ digest }, 1000)).toString(), title);
  }

  /** `bento verify` finds nothing. */
  async assertVerified(): Promise<void> {
    const result = await this.sandbox.bento(['verify', '--json']);
    assert.deepEqual(result.json<{ damages: unknown[] }>().damages, [], 'verify finds damage');
    result.ok();
  }

  /** The same without a process of its own, which is quicker. */
  async assertWhole(): Promise<void> {
    const { storePath, workspace } = this.sandbox;
    const options = { dir: workspace, workspaceId: workspaceId(this.sandbox), isQuick: false, isRepair: false };
    assert.deepEqual((await verifyStore(new Store(storePath), options)).damages, [], 'verify finds damage');
  }

  /** A checkpoint can be read to the last byte and holds what was saved in it. */
  async assertHolds(digest: Digest): Promise<void> {
    await this.#withSource(async (source) => {
      const { tree } = await openCheckpoint(source, digest);
      const reader = new ContentReader(source.store, source.entries);
      try {
        this.assertSame(digest, without(factsOfCheckpoint(tree, reader, this.sandbox.workspace)));
      } finally {
        reader.close();
      }
    });
  }

  /** A checkpoint opens into a new directory, which is then what was saved. */
  async assertOpens(digest: Digest): Promise<void> {
    const dir = this.sandbox.path('opened');
    await this.#withSource(async (source) => {
      await openInto(source, await openCheckpoint(source, digest), dir);
    });
    this.assertSame(digest, this.facts(dir));
    await this.forget(dir);
  }

  /** Every checkpoint that has a tag, or is where the workspace is, holds what was saved; one of them is opened. */
  async assertCheckpoints(): Promise<void> {
    const digests = [...new Set([...(await this.tags()).values(), this.head])];
    for (const digest of digests) await this.assertHolds(digest);
    await this.assertOpens(this.random.pick(digests));
  }

  assertSame(digest: Digest, found: TreeFacts): void {
    const expected = this.known.get(digest);
    assert.ok(expected, `${digest} was never saved`);
    assertEqual(expected, found, digest);
  }

  /** `bento gc` leaves nothing but what is needed: no temporary file, no staging folder, no blob without a checkpoint. */
  async assertCollects(keepLast = KEEP_LAST): Promise<void> {
    const before = await this.tags();
    (await this.sandbox.bento(['gc', '--keep-last', String(keepLast)])).ok();
    const after = await this.tags();
    for (const [tag, digest] of keptTags(before, this.head, keepLast))
      assert.equal(after.get(tag), digest, `gc: ${tag}`);
    const { storePath, workspace } = this.sandbox;
    assert.deepEqual([...temporaryFiles(storePath), ...temporaryFiles(workspace)], [], 'litter after gc');
    assert.equal(existsSync(path.join(workspace, STAGING)), false, 'staging folder after gc');
    const needed = await this.#neededBlobs([...after.values(), this.head, ...(await this.#attachments(after))]);
    const { blobs } = new Store(storePath);
    assert.deepEqual(
      (await blobs.list()).filter((digest) => !needed.has(digest)),
      [],
      'blobs that nothing needs after gc',
    );
    const whole = new Set(readdirSync(blobs.dir));
    assert.deepEqual(
      (await blobs.listThin()).filter((digest) => whole.has(hexOf(digest))),
      [],
      'recipes of blobs that are whole after gc',
    );
    const alive = new Set([...after.values(), this.head]);
    for (const digest of this.known.keys()) if (!alive.has(digest)) this.known.delete(digest);
  }

  /** Manifests of what is attached to what is left. */
  async #attachments(tags: ReadonlyMap<string, Digest>): Promise<Digest[]> {
    const subjects = new Set([...tags.values(), this.head]);
    const { attachments } = await findAttachments(new Store(this.sandbox.storePath));
    return attachments.filter(({ subject }) => subjects.has(subject)).map(({ digest }) => digest);
  }

  async #neededBlobs(manifests: readonly Digest[]): Promise<Set<Digest>> {
    const { blobs } = new Store(this.sandbox.storePath);
    const needed = new Set(
      manifests.flatMap((digest) => {
        const { config, layers } = readManifest(this.sandbox, digest);
        return [digest, config.digest, ...layers.map((layer) => layer.digest)] as Digest[];
      }),
    );
    for (const digest of needed) for (const base of await blobs.basesOf(digest)) needed.add(base);
    return needed;
  }

  /** Removes a directory that was opened or forked for a moment, and that bento noted it. */
  async forget(dir: string): Promise<void> {
    rmSync(dir, { recursive: true, force: true });
    await removeHeadRecord(this.layout, dir);
  }

  async #withSource(run: (source: TreeSource) => Promise<void>): Promise<void> {
    const store = new Store(this.sandbox.storePath);
    const index = await IndexDatabase.open(store.cacheDir);
    try {
      await run(treeSource(store, index));
    } finally {
      index.close();
    }
  }

  async dispose(): Promise<void> {
    await this.sandbox.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/**
 * The tags that `gc --keep-last` must not touch, with the `keep_tagged: true` of a new bento.yaml: those of the newest, of
 * `latest`, of undo slots, of what a person tagged, and of where the workspace is.
 */
export function keptTags(tags: ReadonlyMap<string, Digest>, head: Digest, keepLast: number): Map<string, Digest> {
  const numbered = [...tags.keys()].flatMap((tag) => /^cp-(\d+)$/.exec(tag)?.[1] ?? []).map(Number);
  const ofNumbers = new Set(numbered.map((number) => tags.get(`cp-${number}`)));
  // A backup that a person tagged counts as a checkpoint, too, and may take the place of one with a number.
  const isOther = (tag: string, digest: Digest): boolean => !tag.startsWith('pre-open-') && !ofNumbers.has(digest);
  const others = new Set([...tags].filter(([tag, digest]) => isOther(tag, digest)).map(([, digest]) => digest));
  const newest = numbered
    .sort((a, b) => b - a)
    .slice(0, Math.max(keepLast - others.size, 0))
    .map((number) => `cp-${number}`);
  const isRoot = (tag: string): boolean => newest.includes(tag) || !/^cp-\d+$/.test(tag);
  const kept = new Set([head, ...[...tags].filter(([tag]) => isRoot(tag)).map(([, digest]) => digest)]);
  return new Map([...tags].filter(([, digest]) => kept.has(digest)));
}

/** Every file that is there is one of the given states', whole. Directories may be between the two. */
export function assertNoneTorn(found: TreeFacts, states: readonly TreeFacts[]): void {
  for (const [name, line] of found) {
    if (name === STAGING || name.startsWith(`${STAGING}/`) || line.startsWith('directory')) continue;
    const isWhole = states.some((state) => withoutGroup(state.get(name)) === withoutGroup(line));
    assert.ok(isWhole, `${name} is neither old nor new: ${line}`);
  }
}

/** Which names are one file is settled only when the last of them is in its place. */
function withoutGroup(line: string | undefined): string | undefined {
  return line?.replace(/ = .*/, '');
}

export function assertEqual(expected: TreeFacts, found: TreeFacts, what: string): void {
  assert.deepEqual(compareFacts(expected, found), [], what);
}

function without(facts: TreeFacts): TreeFacts {
  return new Map([...facts].filter(([name]) => !OWN_FILES.includes(name)));
}

/** The names a process with `BENTO_FAULT=log:<file>` wrote down, in order. */
export function readFaultLog(file: string): string[] {
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
}
