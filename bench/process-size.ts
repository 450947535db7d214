import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** What several processes take together. */
export interface ProcessesSize {
  processCount: number;
  /** Memory, with what several share divided among them. */
  pssBytes: number;
  /** Of that, what is no page of a file: the kernel can drop the others at any time. */
  anonymousBytes: number;
  rssBytes: number;
  descriptors: number;
}

/** @see proc_pid_smaps(5), "smaps_rollup" */
export function sizeOfProcesses(pids: readonly number[]): ProcessesSize {
  const size: ProcessesSize = { processCount: 0, pssBytes: 0, anonymousBytes: 0, rssBytes: 0, descriptors: 0 };
  for (const pid of pids) {
    if (!existsSync(`/proc/${pid}/smaps_rollup`)) continue;
    const memory = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
    const kib = (field: string): number => Number(new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(memory)?.[1] ?? 0);
    size.processCount += 1;
    size.pssBytes += kib('Pss') * 1024;
    size.anonymousBytes += kib('Pss_Anon') * 1024;
    size.rssBytes += kib('Rss') * 1024;
    size.descriptors += readdirSync(`/proc/${pid}/fd`).length;
  }
  return size;
}
