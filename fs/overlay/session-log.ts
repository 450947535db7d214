import { closeSync, fstatSync, ftruncateSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';

/**
 * What a successor has to know when the process that serves a workspace dies, and nothing else tells: which files are open
 * and how, and which request was being carried out. Written before the reply, into memory of the kernel (the page cache of a
 * file in the runtime folder), never synced: a mount does not outlive the machine.
 *
 * One thread serves a workspace, one request after the other, so at most one was carried out and not answered: the last one
 * noted. It comes again with the same number, and then what it did is found done.
 */
export class SessionLog {
  readonly #path: string;
  #fd: number;
  #sizeBytes: number;
  readonly #record = Buffer.alloc(RECORD_BYTES);
  #last: bigint;
  #lastKind: number;
  #lastNode: number;
  readonly #open: Map<number, OpenNode>;

  private constructor(path: string, fd: number, { last, lastKind, lastNode, open }: LogState) {
    this.#path = path;
    this.#fd = fd;
    this.#sizeBytes = fstatSync(fd).size;
    this.#last = last;
    this.#lastKind = lastKind;
    this.#lastNode = lastNode;
    this.#open = open;
  }

  /** @returns the log, and whether there was one: then the kernel knows more than this process */
  static open(path: string): { log: SessionLog; isResumed: boolean } {
    const fd = openSync(path, 'a+', 0o600);
    const state = replay(fd);
    const log = new SessionLog(path, fd, state);
    if (!state.isResumed) log.begin(0n); // from now on, whoever finds it is a successor
    return { log, isResumed: state.isResumed };
  }

  /** To be called when a workspace is mounted anew: what an earlier mount left means nothing. */
  static clear(path: string): void {
    rmSync(path, { force: true });
  }

  /** Files that are open, by their nodes. */
  get openNodes(): ReadonlyMap<number, OpenNode> {
    return this.#open;
  }

  /** Whether this request was under way, or done, when the last process died. @param unique - without the mark of a resent one */
  wasBegun(unique: bigint): boolean {
    return unique === this.#last;
  }

  /** The object that was noted with the last request. */
  get subject(): number {
    return this.#lastNode;
  }

  /** Whether it had come as far as the file being counted as open, or as closed. */
  wasCounted(unique: bigint): boolean {
    return unique === this.#last && this.#lastKind !== KIND.begun;
  }

  /** Notes that a request is now carried out that must not be carried out twice. @param nodeId - what it is about */
  begin(unique: bigint, nodeId = 0): void {
    this.#write(KIND.begun, unique, nodeId, 0);
  }

  /** @param backingId - 0: it is read and written through us */
  opened(unique: bigint, nodeId: number, backingId: number): void {
    countOpen(this.#open, nodeId, backingId, 1);
    this.#write(KIND.opened, unique, nodeId, backingId);
  }

  closed(unique: bigint, nodeId: number): void {
    if (this.#sizeBytes > SIZE_MAX_BYTES) this.#compact(); // first: what is noted last must be this
    countOpen(this.#open, nodeId, 0, -1);
    this.#write(KIND.closed, unique, nodeId, 0);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #write(kind: number, unique: bigint, nodeId: number, backingId: number): void {
    this.#last = unique;
    this.#lastKind = kind;
    this.#lastNode = nodeId;
    encodeRecord(this.#record, { kind, unique, nodeId, backingId });
    writeSync(this.#fd, this.#record, 0, RECORD_BYTES, null);
    this.#sizeBytes += RECORD_BYTES;
  }

  /** What is over is left out: most of it. */
  #compact(): void {
    const temporary = `${this.#path}.new`;
    rmSync(temporary, { force: true });
    const fd = openSync(temporary, 'a+', 0o600);
    const log = new SessionLog(temporary, fd, { last: 0n, lastKind: 0, lastNode: 0, open: new Map() });
    for (const [nodeId, { count, backingId }] of this.#open)
      for (let i = 0; i < count; i += 1) log.opened(0n, nodeId, backingId);
    log.begin(this.#last);
    renameSync(temporary, this.#path);
    closeSync(this.#fd);
    this.#fd = fd;
    this.#sizeBytes = log.#sizeBytes;
  }
}

export interface OpenNode {
  count: number;
  /** 0: it is read and written through us. */
  backingId: number;
}

interface LogState {
  last: bigint;
  lastKind: number;
  lastNode: number;
  open: Map<number, OpenNode>;
}

// kind u32, backing id u32, unique u64, node f64, zero u64.
const RECORD_BYTES = 32;
const BACKING_AT = 4;
const UNIQUE_AT = 8;
const NODE_AT = 16;
const KIND = { begun: 1, opened: 2, closed: 3 } as const;
const SIZE_MAX_BYTES = 8 << 20;

interface LogRecord {
  kind: number;
  unique: bigint;
  nodeId: number;
  backingId: number;
}

function encodeRecord(out: Buffer, { kind, unique, nodeId, backingId }: LogRecord): void {
  out.writeUInt32LE(kind, 0);
  out.writeUInt32LE(backingId, BACKING_AT);
  out.writeBigUInt64LE(unique, UNIQUE_AT);
  out.writeDoubleLE(nodeId, NODE_AT);
}

function replay(fd: number): LogState & { isResumed: boolean } {
  const state = { last: 0n, lastKind: 0, lastNode: 0, open: new Map<number, OpenNode>() };
  const { size } = fstatSync(fd);
  const bytes = Buffer.alloc(size);
  const read = size === 0 ? 0 : readSync(fd, bytes, 0, size, 0);
  ftruncateSync(fd, read - (read % RECORD_BYTES)); // what is cut off; records follow
  for (let at = 0; at + RECORD_BYTES <= read; at += RECORD_BYTES) {
    state.last = bytes.readBigUInt64LE(at + UNIQUE_AT);
    const kind = bytes.readUInt32LE(at);
    state.lastKind = kind;
    state.lastNode = bytes.readDoubleLE(at + NODE_AT);
    const delta = kind === KIND.opened ? 1 : kind === KIND.closed ? -1 : 0;
    if (delta !== 0)
      countOpen(state.open, bytes.readDoubleLE(at + NODE_AT), bytes.readUInt32LE(at + BACKING_AT), delta);
  }
  return { ...state, isResumed: read > 0 };
}

function countOpen(open: Map<number, OpenNode>, nodeId: number, backingId: number, delta: 1 | -1): void {
  const known = open.get(nodeId);
  const count = (known?.count ?? 0) + delta;
  if (count <= 0) open.delete(nodeId);
  else open.set(nodeId, { count, backingId: known?.backingId ?? backingId });
}
