import { shortDigest } from '../store/digest.ts';
import type { SyncState } from '../store/transfer/compare.ts';
import { oneLine } from './terminal.ts';

/** What `bento status` says about a remote: the state, and what to do about it where there is something. */
export function renderSync(sync: SyncState): { text: string; advice: string | undefined } {
  switch (sync.kind) {
    case 'both-empty':
      return { text: 'both empty', advice: undefined };
    case 'up-to-date':
      return { text: `up to date (cp-${sync.sequence})`, advice: undefined };
    case 'ahead': {
      const there = sync.remote === undefined ? 'remote has none' : `remote has cp-${sync.remote}`;
      const text = `${checkpoints(sync.count)} ahead (head is cp-${sync.head}, ${there})`;
      return { text, advice: 'run `bento push` to sync' };
    }
    case 'behind': {
      const text = `${checkpoints(sync.count)} behind (remote has cp-${sync.remote}, head is cp-${sync.head})`;
      const open = '`bento open latest`';
      return { text, advice: sync.isFetched ? `run ${open} to restore` : `run \`bento pull\` to sync, then ${open}` };
    }
    case 'diverged': {
      const { head, remote, here, there } = sync;
      const text =
        head === remote
          ? `cp-${head} is ${shortDigest(here)} here and ${shortDigest(there)} there`
          : `head is cp-${head} ${shortDigest(here)}, remote has cp-${remote} ${shortDigest(there)}`;
      return { text: `diverged (${text})`, advice: 'run `bento pull` to have both' };
    }
    case 'unreachable':
      return { text: `unable to reach remote (${oneLine(sync.message)})`, advice: undefined };
  }
}

function checkpoints(count: number): string {
  return `${count} checkpoint${count === 1 ? '' : 's'}`;
}
