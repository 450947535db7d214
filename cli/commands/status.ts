import { resolveExtensions } from '../../extensions/resolve.ts';
import type { Config } from '../../fs/workspace/config-types.ts';
import { loadConfig } from '../../fs/workspace/config.ts';
import type { Workspace } from '../../fs/workspace/workspace.ts';
import type { ChangeCounts } from '../../fs/workspace/status.ts';
import { toText } from '../../store/byte-string.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Registries } from '../../store/registry/repository.ts';
import type { Head, SyncState } from '../../store/transfer/compare.ts';
import { defineCommand, type Context } from '../command.ts';
import { loadWorkspace } from '../open-store.ts';
import { renderSync } from '../render-sync.ts';
import { noteSkipped } from '../skipped.ts';
import { oneLine } from '../terminal.ts';

interface Status {
  workspace: string;
  task: string | null;
  extensions: readonly string[];
  /** The checkpoint a fork was made from, as the user named it. */
  forkOf: string | null;
  /** `sequence` and what follows are null when the checkpoint cannot be loaded. */
  head: { digest: string; sequence: number | null; created: string | null; message: string } | null;
  localCount: number;
  remote: string | null;
  /** How the head stands against the remote; null without a remote, and without a head that can be loaded. */
  sync: SyncState | null;
  /** Null when there is no checkpoint to compare with. */
  changes: ChangeCounts | null;
  clean: boolean;
  skipped: readonly { path: string; reason: string }[];
}

export const status = defineCommand({
  name: 'status',
  summary: 'Show where this workspace stands and what has changed',
  usage: 'bento status [--exit-code]',
  details: 'Files that have not changed since the last look are not read, and ignored directories are not entered.',
  args: { min: 0, max: 0 },
  options: { exitCode: { type: 'boolean', help: 'exit with 1 when something is not saved' } },

  async run(ctx): Promise<Status> {
    const { dir, config } = await loadConfig(ctx.dir);
    if (config.head === undefined) return { ...describe(ctx, dir, config), ...NOTHING_SAVED };
    const workspace = await loadWorkspace(ctx.dir, ctx);
    const { readStatus } = await import('../../fs/workspace/status.ts');
    const { head, changes, skipped, damage } = await readStatus(workspace);
    const shown = skipped.map(({ path, reason }) => ({ path: toText(path), reason }));
    noteSkipped(shown, ctx);
    if (damage !== undefined) ctx.note(`note: ${damage.message}`);
    const sync = head === undefined ? null : await syncOf(ctx, workspace, head);
    const digests = [...(await workspace.layout.tags()).values()].map(({ digest }) => digest);
    return {
      ...describe(ctx, dir, config),
      forkOf: workspace.fork?.ref ?? null,
      head: {
        digest: config.head,
        sequence: head?.sequence ?? null,
        created: head?.created ?? null,
        message: head?.message ?? '',
      },
      localCount: new Set(digests).size,
      sync,
      changes: changes ?? null,
      clean: changes !== undefined && total(changes) === 0,
      skipped: shown,
    };
  },

  render(data) {
    const { workspace, task, extensions, forkOf, head, localCount, remote } = data;
    const top = [
      `Workspace: ${oneLine(workspace)}`,
      ...(task === null ? [] : [`Task:      ${oneLine(task)}`]),
      ...(extensions.length === 0 ? [] : [`Extensions: ${extensions.join(', ')}`]),
      ...(forkOf === null ? [] : [`Fork of:   ${oneLine(forkOf)}`]),
      '',
    ];
    if (head === null) {
      return [...top, 'Head:      (none — run `bento save` to create first checkpoint)'].join('\n');
    }
    return [
      ...top,
      `Head:      ${renderHead(head)}`,
      ...(head.message === '' ? [] : [`Message:   ${oneLine(head.message)}`]),
      ...(localCount === 0 ? [] : [`Local:     ${localCount} checkpoint(s)`]),
      '',
      `Remote:    ${remote === null ? '(none)' : oneLine(remote)}`,
      ...renderRemote(data),
      '',
      ...renderChanges(data),
    ].join('\n');
  },

  exitCode: ({ clean }, { options }) => (options.exitCode && !clean ? 1 : 0),
});

const NOTHING_SAVED = { forkOf: null, head: null, localCount: 0, sync: null, changes: null, clean: false, skipped: [] };

function describe(
  { home }: Pick<Context, 'home'>,
  dir: string,
  config: Config,
): Pick<Status, 'workspace' | 'task' | 'extensions' | 'remote'> {
  return {
    workspace: dir,
    task: config.task ?? null,
    extensions: resolveExtensions(dir, home, config.extensions).names,
    remote: config.remote ?? null,
  };
}

/** For all there is to ask the remote. */
const SYNC_TIMEOUT_MS = 5_000;

async function syncOf(ctx: Context, { config, dir, layout, source }: Workspace, head: Head): Promise<SyncState | null> {
  if (!config.remote) return null;
  const { parseRemoteRef } = await import('../../store/registry/remote-ref.ts');
  const { compareWithRemote } = await import('../../store/transfer/compare.ts');
  const { openRegistries } = await import('../open-registry.ts');
  let registries: Registries | undefined;
  try {
    const name = parseRemoteRef(config.remote, dir);
    registries = openRegistries(ctx);
    const pool = source.store.blobs;
    return await compareWithRemote({ pool, layout }, registries.repository(name), {
      head,
      timeoutMs: SYNC_TIMEOUT_MS,
    });
  } catch (error) {
    if (error instanceof BentoError) return { kind: 'unreachable', message: error.message };
    throw error;
  } finally {
    await registries?.close();
  }
}

function renderRemote({ sync }: Status): string[] {
  if (sync === null) return [];
  const { text, advice } = renderSync(sync);
  return [`  Sync:    ${text}`, ...(advice === undefined ? [] : [`           ${advice}`])];
}

function renderHead({ digest, sequence, created }: NonNullable<Status['head']>): string {
  if (sequence === null) return `${shortDigest(digest)} (unable to load)`;
  return `cp-${sequence} (saved ${ago(created ?? '', Date.now())})`;
}

function renderChanges({ changes }: Status): string[] {
  if (changes === null) return ['Changes:   unable to load last checkpoint'];
  const count = total(changes);
  if (count === 0) return ['Changes:   clean'];
  const parts = (['added', 'removed', 'modified'] as const).flatMap((kind) =>
    changes[kind] === 0 ? [] : [`${changes[kind]} ${kind}`],
  );
  return [
    `Changes:   ${count} file${count === 1 ? '' : 's'} changed (${parts.join(', ')}) since last save`,
    '           run `bento diff` for details',
  ];
}

function total({ added, removed, modified }: ChangeCounts): number {
  return added + removed + modified;
}

const UNITS = [
  { name: 'day', ms: 86_400_000 },
  { name: 'hour', ms: 3_600_000 },
  { name: 'minute', ms: 60_000 },
];

/**
 * `just now`, `1 minute ago`, `5 hours ago`, `3 days ago`.
 *
 * @param created - RFC 3339; one that is no time, or lies ahead, was just now
 */
export function ago(created: string, nowMs: number): string {
  const passedMs = nowMs - Date.parse(created);
  const unit = UNITS.find(({ ms }) => passedMs >= ms);
  if (unit === undefined) return 'just now';
  const count = Math.floor(passedMs / unit.ms);
  return `${count} ${unit.name}${count === 1 ? '' : 's'} ago`;
}
