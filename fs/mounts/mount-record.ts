import { userInfo } from 'node:os';

import type { Digest } from '../../store/digest.ts';
import { recordId, type CheckpointRecord, type Engine, type MountRecord, type ProcessName } from './mount-table.ts';
import { bootId, mountNamespace } from './namespaces.ts';

/** What is mounted where, before anything has been done about it. */
export interface MountRequest {
  manifest: Digest;
  /** As the user wrote it. */
  ref: string;
  workspaceId: string;
  /** Where; relative paths are resolved. */
  target: string;
  message?: string;
  /** Show the recorded owners. */
  keepOwners?: boolean;
  /** Let other users look. */
  allowOther?: boolean;
  /** Of a throw-away fork: what it is there for. */
  exec?: readonly ProcessName[];
}

/** What only some kinds of mount have. */
interface RecordDetails<Kind> {
  kind: Kind;
  engine: Engine;
  madeTarget?: boolean;
  userxattr?: boolean;
}

interface StoreRequest extends Omit<MountRequest, 'manifest'> {
  manifest?: undefined;
}

export function newRecord(request: MountRequest, details: RecordDetails<'mount' | 'fork'>): CheckpointRecord;
export function newRecord(request: StoreRequest, details: RecordDetails<'mount'>): MountRecord;
export function newRecord(
  { target, manifest, ref, workspaceId, message, keepOwners, allowOther, exec }: MountRequest | StoreRequest,
  { kind, engine, madeTarget = false, userxattr }: RecordDetails<'mount' | 'fork'>,
): MountRecord {
  const common = {
    id: recordId(target),
    engine,
    target,
    ref,
    workspaceId,
    created: new Date().toISOString(),
    user: userName(),
    ...(message && { message }),
    madeTarget,
    ...(keepOwners && { keepOwners }),
    ...(allowOther && { allowOther }),
    ...(userxattr && { userxattr }),
    ...(exec && { exec }),
    ...here(),
  };
  return manifest === undefined ? { ...common, kind: 'mount' } : { ...common, kind, manifest };
}

/** A user without an entry in the list of users goes by the number. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 0);
  }
}

/** When and where something is mounted now. */
export function here(): Pick<MountRecord, 'bootId' | 'namespace'> {
  const [boot, namespace] = [bootId(), mountNamespace()];
  return { ...(boot !== undefined && { bootId: boot }), ...(namespace !== undefined && { namespace }) };
}
