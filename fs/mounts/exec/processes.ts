import { readFileSync } from 'node:fs';

import { bootId } from '../namespaces.ts';
import type { MountRecord, ProcessName } from '../mount-table.ts';

/** What a process goes by; undefined when it has ended. */
export function nameProcess(pid: number): ProcessName | undefined {
  const startTicks = Number(statFields(pid)?.[STARTTIME]);
  return Number.isSafeInteger(startTicks) ? { pid, startTicks } : undefined;
}

export function isRunning({ pid, startTicks }: ProcessName): boolean {
  const fields = statFields(pid);
  return Number(fields?.[STARTTIME]) === startTicks && !['Z', 'X'].includes(fields?.[STATE] ?? '');
}

/** Whether somebody still works in a throw-away fork; undefined for a record of anything else. */
export function isBusy({ exec, bootId: boot }: MountRecord): boolean | undefined {
  if (exec === undefined) return undefined;
  return (boot === undefined || boot === bootId()) && exec.some(isRunning);
}

/** Whether a signal that a terminal makes (Ctrl-C) has reached every process of our job: we are in its foreground. */
export function isInForeground(): boolean {
  const fields = statFields(process.pid);
  return fields !== undefined && fields[TPGID] === fields[PGRP];
}

// Places in /proc/<pid>/stat after the program's name, which may hold anything. @see proc_pid_stat(5)
const STATE = 0;
const PGRP = 2;
const TPGID = 5;
const STARTTIME = 19;

function statFields(pid: number): string[] | undefined {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return line.slice(line.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}
