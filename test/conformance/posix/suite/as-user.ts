/** Runs synchronous calls as somebody else: effective user and group, no further groups unless given. */
export function asUser<T>(id: number, run: () => T, options: { gid?: number; groups?: readonly number[] } = {}): T {
  const groups = process.getgroups?.() ?? [];
  process.setgroups?.([...(options.groups ?? [])]);
  process.setegid?.(options.gid ?? id);
  process.seteuid?.(id);
  try {
    return run();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(groups);
  }
}
