import { partHere, type PartHere } from '../../fs/contents/part-here.ts';
import { removeAbandoned } from '../../fs/mounts/exec/throw-away.ts';
import { pruneMounts } from '../../fs/mounts/mount.ts';
import { restoreMounts, type RestoreOptions } from '../../fs/mounts/restore-mounts.ts';
import { daemonHealth, statesOf, type MountState } from '../../fs/mounts/mount-states.ts';
import { MountTable, type MountStatus } from '../../fs/mounts/mount-table.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { defineCommand, type Context } from '../command.ts';
import { findMount } from '../find-mount.ts';
import { parseEngine } from '../make-forks.ts';
import { findConfig, storeOf } from '../open-store.ts';
import { formatSize, oneLine } from '../terminal.ts';

export const mounts = defineCommand({
  name: 'mounts',
  summary: 'List what is mounted and forked',
  usage: 'bento mounts [--restore [<dir>...] [--engine overlay|cow]] [--prune]',
  details:
    'All mounts and forks of the store, and how each is: mounted, a plain copy, not mounted (after a reboot or `unmount`),\n' +
    'broken (its daemon was killed), or not answering; `running` and `left over` are forks of `bento exec`.',
  args: { min: 0, max: 1000 },
  options: {
    restore: { type: 'boolean', help: 'mount again what is not mounted or broken: all, or these directories' },
    engine: { type: 'string', value: 'overlay|cow', help: 'with --restore: forks get this engine, whatever they had' },
    prune: { type: 'boolean', help: 'forget mounts that are not mounted, and what a killed `exec` left; forks stay' },
  },

  async run(ctx) {
    const { restore, prune } = ctx.options;
    const engine = parseEngine(ctx.options.engine, ['overlay', 'cow']);
    if (!restore && (ctx.args.length > 0 || engine !== undefined))
      throw new BentoError('USAGE', 'directories and --engine go with --restore', { hint: `Usage: ${mounts.usage}` });
    const { store, targets } = await findTargets(ctx);
    const failures = restore ? await restoreAll(store, { only: targets, engine }, ctx) : new Map<string, string>();
    const gone = prune ? [...(await removeAbandoned(store)), ...(await pruneMounts(store))] : [];
    for (const { target } of gone) ctx.note(`forgot ${target}`);
    const records = await new MountTable(store).list();
    const states = await statesOf(records);
    await tellAboutDaemon(store, ctx);
    const parts = await Promise.all(records.map(async (record) => await partOf(store, record)));
    return records.map((record, at) =>
      describe(record, { ...states[at], part: parts[at], restoreFailed: failures.get(record.target) }),
    );
  },

  render(records) {
    if (records.length === 0) return 'Nothing is mounted.';
    const rows = records.map(({ kind, ref, manifest, engine, state, user, since, target, ...about }) => {
      const { message, remark, part } = about;
      const fetched = part && `${formatSize(part.presentBytes)} of ${formatSize(part.sizeBytes)} fetched`;
      const remarks = [message, remark, fetched].flatMap((text) => (text ? [`(${text})`] : []));
      const digest = manifest === undefined ? '-' : shortDigest(manifest);
      return [kind, ref, digest, engine, state, user, since.slice(0, 19), [target, ...remarks].join('  ')].map(oneLine);
    });
    const table = align([['KIND', 'CHECKPOINT', 'DIGEST', 'ENGINE', 'STATE', 'USER', 'SINCE', 'WHERE'], ...rows]);
    return [...table, ...nextSteps(records.map(({ state }) => state))].join('\n');
  },

  exitCode: (records) => (records.some(({ restoreFailed }) => restoreFailed !== undefined) ? 1 : 0),
});

/** The store, and where in it; undefined: everywhere. @throws BentoError NOT_MOUNTED for what is not on record */
async function findTargets({ args, dir }: Context): Promise<{ store: Store; targets: string[] | undefined }> {
  const found = await Promise.all(args.map(async (written) => await findMount(written, dir)));
  const store = found[0]?.store ?? storeOf(await findConfig(dir));
  const other = found.find((one) => one.store.root !== store.root);
  if (other !== undefined) throw new BentoError('USAGE', `${other.record.target} belongs to another store`);
  return { store, targets: args.length === 0 ? undefined : found.map(({ record }) => record.target) };
}

/** @returns by directory, why it could not be brought back */
async function restoreAll(
  store: Store,
  options: RestoreOptions,
  ctx: Pick<Context, 'note'>,
): Promise<Map<string, string>> {
  const failed = await restoreMounts(store, options);
  for (const { target, error } of failed) {
    const hint = error instanceof BentoError && error.hint !== undefined ? ` (${error.hint})` : '';
    ctx.note(`note: ${target} is not brought back: ${error.message}${hint}`);
  }
  return new Map(failed.map(({ target, error }) => [target, error.message]));
}

interface MountDetails {
  state?: MountState;
  remark?: string;
  part: PartHere | undefined;
  restoreFailed: string | undefined;
}

/** What is here of a checkpoint that is partly in a registry; of one that cannot be read, nothing is said here. */
async function partOf(store: Store, { manifest }: MountStatus): Promise<PartHere | undefined> {
  try {
    return manifest && (await partHere(store, manifest));
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}

function describe(record: MountStatus, { restoreFailed, part, ...view }: MountDetails) {
  return {
    ...record,
    ...(record.manifest && { digest: record.manifest }),
    since: record.created,
    state: 'not mounted' as MountState,
    ...view,
    ...(part && { part }),
    ...(restoreFailed !== undefined && { restoreFailed }),
  };
}

/** One line when the daemon is not well; nothing when it is, or when none is needed. */
async function tellAboutDaemon(store: Store, ctx: Pick<Context, 'note'>): Promise<void> {
  const health = await daemonHealth(store);
  if (health === 'none') return;
  if (health === 'silent') {
    ctx.note('note: the mount daemon does not answer; kill its process, then run `bento mounts --restore`');
    return;
  }
  if (health.state === 'serving') return;
  const { state, restartCount, lastDeath } = health;
  const often = `its server died ${restartCount} time${restartCount === 1 ? '' : 's'}`;
  ctx.note(`note: the mount daemon is ${state}: ${often}${lastDeath === undefined ? '' : `, last: ${lastDeath}`}`);
}

/** The last column is not filled up. */
function align(rows: readonly string[][]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows.map((row) => row.map((cell, i) => (i < row.length - 1 ? cell.padEnd(widths[i] ?? 0) : cell)).join('  '));
}

function nextSteps(states: readonly MountState[]): string[] {
  const steps: [readonly MountState[], string][] = [
    [
      ['not mounted', 'broken'],
      '`bento mounts --restore` brings back what is not mounted or broken; `bento unmount <dir>` forgets a mount, `bento close <dir>` ends a fork.',
    ],
    [['not answering'], '`bento unmount --force <dir>` lets go of what does not answer.'],
    [['left over'], '`bento mounts --prune` clears away what a killed `bento exec` left.'],
    [['unfinished'], '`bento unmount --force <dir>` removes a copy whose writing was interrupted.'],
  ];
  const fitting = steps.filter(([about]) => about.some((state) => states.includes(state))).map(([, text]) => text);
  return fitting.length === 0 ? [] : ['', ...fitting];
}
