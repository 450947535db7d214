import { existsSync } from 'node:fs';

import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import type { DaemonHealth } from './daemon/control.ts';
import { findDaemon } from './daemon/daemon-client.ts';
import { isBusy } from './exec/processes.ts';
import type { MountStatus } from './mount-table.ts';
import { bootId } from './namespaces.ts';
import { probe, type Answer } from './probe.ts';

/**
 * - `mounted`, or `copy` where nothing could be mounted
 * - `not mounted`: after a reboot or `unmount`
 * - `elsewhere`: perhaps mounted, in another mount namespace
 * - `broken`: mounted, but its daemon was killed and nobody will answer
 * - `not answering`: mounted, and whoever serves it has not answered for two seconds
 * - `running`: a throw-away fork in which `bento exec` runs its command; `left over`: one whose `exec` was killed
 * - `unfinished`: a copy that is being written, or whose writing was interrupted
 */
export type MountState =
  | 'mounted'
  | 'copy'
  | 'not mounted'
  | 'elsewhere'
  | 'broken'
  | 'not answering'
  | 'running'
  | 'left over'
  | 'unfinished';

export interface MountView {
  state: MountState;
  /** What else there is to know, in a few words. */
  remark?: string;
}

/** How each mount is doing. Never hangs, whatever became of those that serve them. */
export async function statesOf(records: readonly MountStatus[]): Promise<MountView[]> {
  const asked = records.filter(({ engine, mounted }) => mounted && engine !== 'copy').map(({ target }) => target);
  const answers = await probe(asked);
  return records.map((record) => viewOf(record, answers.get(record.target)));
}

const STATE_OF_ANSWER = { answers: 'mounted', gone: 'broken', silent: 'not answering' } as const;

function viewOf(record: MountStatus, answer: Answer | undefined): MountView {
  if (answer !== undefined && answer !== 'answers') return { state: STATE_OF_ANSWER[answer] };
  const isInUse = isBusy(record);
  if (isInUse !== undefined && !record.elsewhere) return { state: isInUse ? 'running' : 'left over' };
  if (answer !== undefined) return { state: STATE_OF_ANSWER[answer] };
  if (record.elsewhere) return { state: 'elsewhere', remark: 'in another mount namespace' };
  if (!record.mounted) return { state: 'not mounted', ...whyNot(record) };
  return { state: record.kind === 'mount' && record.copied === undefined ? 'unfinished' : 'copy' };
}

function whyNot({ target, bootId: boot, engine }: MountStatus): Pick<MountView, 'remark'> {
  if (engine === 'copy') return { remark: 'the directory is gone' };
  const reasons = [
    ...(boot !== undefined && boot !== bootId() ? ['since a reboot'] : []),
    ...(existsSync(target) ? [] : ['the directory is gone']),
  ];
  return reasons.length === 0 ? {} : { remark: reasons.join(', ') };
}

/** How long the daemon may take to say how it is. It serves nothing itself, so it answers at once if at all. */
const HELLO_TIMEOUT_MS = 2_000;

/** How a store's daemon is doing: `none` of this user's runs, or one is there that says nothing. */
export async function daemonHealth(store: Store): Promise<DaemonHealth | 'none' | 'silent'> {
  let timer: NodeJS.Timeout | undefined;
  try {
    using daemon = await findDaemon(store);
    if (daemon === undefined) return 'none';
    timer = setTimeout(() => daemon.close(), HELLO_TIMEOUT_MS);
    return (await daemon.ask({ op: 'hello' })).health;
  } catch (error) {
    if (error instanceof BentoError && error.code === 'PERMISSION_DENIED') return 'none'; // another user's
    if (error instanceof BentoError && error.code !== 'DAEMON_FAILED') throw error;
    return 'silent'; // also when so many wait already that it cannot be connected to
  } finally {
    clearTimeout(timer);
  }
}
