/** Files mapped into memory. */
import { asFd, declare, type Outcome } from './libc.ts';

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MS_SYNC = 4;

const mmapCall = declare('mmap', 'long', ['ulong', 'ulong', 'int', 'int', 'int', 'long']);
const munmapCall = declare('munmap', 'int', ['ulong', 'ulong']);
const msyncCall = declare('msync', 'int', ['ulong', 'ulong', 'int']);
const copyOut = declare('memcpy', 'long', ['void*', 'ulong', 'ulong']);
const copyIn = declare('memcpy', 'long', ['ulong', 'void*', 'ulong']);
const preadInto = declare('pread', 'long', ['int', 'ulong', 'ulong', 'long']);
const pwriteFrom = declare('pwrite', 'long', ['int', 'ulong', 'ulong', 'long']);

export interface MapOptions {
  lengthBytes: number;
  protection?: number;
  flags?: number;
  offset?: number;
}

/** Mappings that a check left; a file stays open for as long as it is mapped. */
const mappings = new Set<Mapping>();

/** Looking behind the end of the file kills the process (SIGBUS), so a check keeps inside. */
export class Mapping {
  readonly address: number;
  readonly lengthBytes: number;

  constructor(address: number, lengthBytes: number) {
    this.address = address;
    this.lengthBytes = lengthBytes;
    mappings.add(this);
  }

  read(offset: number, lengthBytes: number): string {
    return this.readBytes(offset, lengthBytes).toString('latin1');
  }

  readBytes(offset: number, lengthBytes: number): Buffer {
    const out = Buffer.alloc(lengthBytes);
    copyOut(out, this.address + offset, lengthBytes);
    return out;
  }

  write(offset: number, data: string | Buffer): void {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
    copyIn(this.address + offset, bytes, bytes.length);
  }

  sync(): Outcome {
    return msyncCall(this.address, this.lengthBytes, MS_SYNC);
  }

  unmap(): Outcome {
    mappings.delete(this);
    return munmapCall(this.address, this.lengthBytes);
  }

  /** pread(2) into the mapping, which is aligned as O_DIRECT wants it. */
  pread(fd: Outcome, lengthBytes: number, offset: number): Outcome {
    return preadInto(asFd(fd), this.address, lengthBytes, offset);
  }

  pwrite(fd: Outcome, lengthBytes: number, offset: number): Outcome {
    return pwriteFrom(asFd(fd), this.address, lengthBytes, offset);
  }
}

/** Maps and unmaps again: 0, or why not. */
export function tryMap(fd: Outcome, options: MapOptions): Outcome {
  const mapping = mapOrErrno(fd, options);
  return typeof mapping === 'string' ? mapping : mapping.unmap();
}

function mapOrErrno(fd: Outcome, options: MapOptions): Mapping | string {
  const { lengthBytes, protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED, offset = 0 } = options;
  const address = mmapCall(0, lengthBytes, protection, flags, asFd(fd), offset);
  return typeof address === 'string' ? address : new Mapping(address, lengthBytes);
}

/** @throws Error when it cannot be mapped: the check then failed as a whole */
export function map(fd: Outcome, options: MapOptions): Mapping {
  const mapping = mapOrErrno(fd, options);
  if (typeof mapping === 'string') throw new Error(`mmap: ${mapping}`);
  return mapping;
}

export function alignedMemory(lengthBytes: number): Mapping {
  return map(-1, { lengthBytes, flags: MAP_PRIVATE | MAP_ANONYMOUS });
}

export function unmapAll(): void {
  for (const mapping of mappings) mapping.unmap();
}
