import { existsSync, readFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import {
  blobPath,
  digestOfRef,
  readManifest,
  saveSmallWorkspace,
  temporaryFiles,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';
import { Store } from '../../store/store.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

/** Two checkpoints, one of them with a file attached. */
async function makeWorkspace(t: ExecutionContext): Promise<Sandbox> {
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  writeFiles(here.workspace, { 'src/main.js': 'changed\n' });
  (await here.bento(['save'])).ok();
  writeFiles(here.home, { 'results.json': '{}' });
  (await here.bento(['attach', 'cp-2', here.path('home/results.json'), '--type', 'test-results'])).ok();
  return here;
}

/** A machine that takes a workspace over from elsewhere. */
interface Taking {
  there: Sandbox;
  args: readonly string[];
}

/** The names of the steps that a command passes. */
async function stepsOf({ there, args }: Taking): Promise<string[]> {
  const log = there.path('faults');
  (await there.bento(args, { env: { BENTO_FAULT: `log:${log}` } })).ok();
  return readFileSync(log, 'utf8').split('\n').filter(Boolean);
}

/** No tag names what is not there, with all that it needs. */
async function assertNothingMissing(t: ExecutionContext, there: Sandbox, id: string): Promise<string[]> {
  const tags = existsSync(there.storePath)
    ? await new Store(there.storePath).layout(id).tags()
    : new Map<string, { digest: string }>();
  for (const [tag, { digest }] of tags) {
    t.true(existsSync(blobPath(there, digest)), tag);
    const { config, layers } = readManifest(there, digest);
    for (const blob of [config, ...layers]) t.true(existsSync(blobPath(there, blob.digest)), `${tag}: ${blob.digest}`);
  }
  if (existsSync(there.storePath)) (await there.bento(['verify'])).ok();
  return [...tags.keys()];
}

/** Each step the first time and the last time that it comes: nothing is there yet, and all but the end. */
function firstAndLast(steps: readonly string[]): string[] {
  return [...new Set(steps)].flatMap((step) => {
    const count = steps.filter((name) => name === step).length;
    return count === 1 ? [`${step}:1`] : [`${step}:1`, `${step}:${count}`];
  });
}

/** Kills a command at its steps, every time on a new machine, and runs it once more. */
async function assertPutRight(t: ExecutionContext, here: Sandbox, take: () => Promise<Taking>): Promise<void> {
  const id = workspaceId(here);
  const steps = await stepsOf(await take());
  t.true(steps.length > 5);
  const faults = firstAndLast(steps);
  for (const fault of faults) {
    const { there, args } = await take();
    await t.throwsAsync(there.bento(args, { env: { BENTO_FAULT: fault } }), { message: /SIGKILL/ }, fault);
    await assertNothingMissing(t, there, id);
    (await there.bento(args)).ok();
    const tags = await assertNothingMissing(t, there, id);
    t.true(['cp-1', 'cp-2'].every((tag) => tags.includes(tag)));
    t.is(await digestOfRef(there, `${id}:cp-2`), await digestOfRef(here, 'cp-2'));
    const attached = (await there.bento(['inspect', '--referrers', `${id}:cp-2`])).ok().stdout;
    t.regex(attached, /results\.json/);
    (await there.bento(['open', '--copy', `${id}:cp-2`, there.path('opened')], { cwd: there.home })).ok();
    t.deepEqual(compareByWalk(here.workspace, there.path('opened'), { ignore: OWN_FILES }), []);
    const isWorkspace = existsSync(there.path('ws/bento.yaml'));
    (await there.bento(['gc'], { cwd: isWorkspace ? there.workspace : there.path('opened') })).ok();
    t.deepEqual(temporaryFiles(there.storePath), []);
    await there.dispose();
  }
  t.log(`killed at ${faults.join(', ')}, of ${steps.length} steps`);
}

test.serial(
  'a pull that is killed at one of its steps leaves no tag without what it needs, and the next one puts it right',
  async (t) => {
    await using registry = await OddRegistry.start();
    const here = await makeWorkspace(t);
    const remote = `${registry.host}/me/ws`;
    (await here.bento(['push', remote])).ok();
    await assertPutRight(t, here, async () => {
      const there = newSandbox(t);
      (await there.bento(['init', '--id', workspaceId(here)])).ok();
      return { there, args: ['pull', remote] };
    });
    t.deepEqual(registry.defects, []);
  },
);

for (const kind of ['folder', 'archive'] as const) {
  test.serial(
    `an import of an image as ${kind} that is killed at one of its steps leaves no tag without what it needs`,
    async (t) => {
      const here = await makeWorkspace(t);
      const image = here.path(kind === 'folder' ? 'image' : 'image.tar');
      (await here.bento(['export', '--all', image, '--attachments'])).ok();
      await assertPutRight(t, here, async () => {
        return await Promise.resolve({ there: newSandbox(t), args: ['import', image] });
      });
    },
  );
}
