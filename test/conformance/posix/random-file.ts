import { Random } from '../../fixtures/random.ts';
import {
  close,
  copyFileRange,
  fallocate,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fsync,
  ftruncate,
  lseek,
  O_APPEND,
  O_CREAT,
  O_RDWR,
  open,
  preadBytes,
  pwrite,
  SEEK_END,
  truncate,
  write,
} from './calls/files.ts';
import type { Outcome } from './calls/libc.ts';
import { map } from './calls/memory.ts';

const WEIGHTS = {
  read: 20,
  write: 20,
  append: 6,
  truncate: 8,
  mapRead: 8,
  mapWrite: 8,
  punch: 5,
  zero: 3,
  allocate: 3,
  copy: 6,
  sync: 2,
  reopen: 4,
  whole: 1,
} as const;
type Operation = keyof typeof WEIGHTS;

export interface FileRun {
  seed: number;
  steps: number;
  /** The file stays below. */
  bytesMax: number;
}

/**
 * Reads, writes, maps, cuts and punches one file at random through two descriptors, and a buffer in memory alike, as fsx
 * does. What a file system refuses (copy_file_range between two of them) must leave the file as it was.
 */
class RandomFile {
  readonly #path: string;
  readonly #random: Random;
  readonly #bytesMax: number;
  #model: Buffer;
  #fds: Outcome[];

  constructor(path: string, contents: Buffer, run: FileRun) {
    this.#path = path;
    this.#random = new Random(run.seed);
    this.#bytesMax = run.bytesMax;
    this.#model = Buffer.from(contents);
    this.#fds = [open(path, O_RDWR | O_CREAT), open(path, O_RDWR | O_CREAT)];
  }

  /** @throws Error that says what differed */
  step(): string {
    const operation = this.#random.weighted(WEIGHTS);
    const [at, lengthBytes] = this.#range();
    this.#do(operation, at, lengthBytes);
    const size = lseek(this.#fd(), 0, SEEK_END);
    if (size !== this.#model.length) throw new Error(`size ${size}, not ${this.#model.length}`);
    return `${operation} ${at}+${lengthBytes}`;
  }

  end(): void {
    this.#whole();
    for (const fd of this.#fds) close(fd);
  }

  #fd(): Outcome {
    return this.#random.pick(this.#fds);
  }

  /** Small and large pieces, often at an edge of pages and chunks. */
  #range(): [number, number] {
    const at = this.#random.below(this.#bytesMax);
    const lengthBytes = 1 + this.#random.below(this.#random.chance(0.2) ? this.#bytesMax : 10_000);
    const start = this.#random.chance(0.3) ? at - (at % 4096) : at;
    return [start, Math.min(lengthBytes, this.#bytesMax - start)];
  }

  #do(operation: Operation, at: number, lengthBytes: number): void {
    switch (operation) {
      case 'read':
        return this.#compare(at, lengthBytes, preadBytes(this.#fd(), lengthBytes, at));
      case 'write':
        return this.#put(at, pieceOf(this.#random, lengthBytes), (bytes) => pwrite(this.#fd(), bytes, at));
      case 'append':
        return this.#append(Math.min(lengthBytes, 20_000));
      case 'truncate':
        expect(this.#random.chance(0.5) ? ftruncate(this.#fd(), at) : truncate(this.#path, at), 0);
        return this.#resize(at);
      case 'mapRead':
        return this.#mapped(at, lengthBytes, (mapping, from, length) =>
          this.#compare(from, length, mapping.readBytes(from, length)),
        );
      case 'mapWrite':
        return this.#mapped(at, lengthBytes, (mapping, from, length) => {
          const bytes = pieceOf(this.#random, length);
          mapping.write(from, bytes);
          bytes.copy(this.#model, from);
        });
      case 'punch':
        return this.#clear(at, lengthBytes, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
      case 'zero':
        this.#clear(at, lengthBytes, FALLOC_FL_ZERO_RANGE);
        return this.#resize(Math.max(this.#model.length, at + lengthBytes));
      case 'allocate':
        expect(fallocate(this.#fd(), 0, at, lengthBytes), 0);
        return this.#resize(Math.max(this.#model.length, at + lengthBytes));
      case 'copy':
        return this.#copy(at, Math.min(lengthBytes, 100_000));
      case 'sync':
        return expect(fsync(this.#fd()), 0);
      case 'reopen':
        expect(close(this.#fds.shift() ?? -1), 0);
        this.#fds.push(open(this.#path, O_RDWR));
        return;
      case 'whole':
        return this.#whole();
    }
  }

  #compare(at: number, lengthBytes: number, found: Buffer | string): void {
    const wanted = this.#model.subarray(at, at + lengthBytes);
    if (typeof found === 'string') throw new Error(`reading gives ${found}`);
    if (found.equals(wanted)) return;
    const first = wanted.findIndex((byte, index) => byte !== found[index]);
    throw new Error(`${found.length} bytes, not ${wanted.length}; other bytes from ${at + first} on`);
  }

  #put(at: number, bytes: Buffer, call: (bytes: Buffer) => Outcome): void {
    expect(call(bytes), bytes.length);
    this.#resize(Math.max(this.#model.length, at + bytes.length));
    bytes.copy(this.#model, at);
  }

  #append(lengthBytes: number): void {
    const room = Math.min(lengthBytes, this.#bytesMax - this.#model.length);
    if (room <= 0) return;
    const fd = open(this.#path, O_RDWR | O_APPEND);
    this.#put(this.#model.length, pieceOf(this.#random, room), (bytes) => write(fd, bytes));
    expect(close(fd), 0);
  }

  #mapped(
    at: number,
    lengthBytes: number,
    use: (mapping: ReturnType<typeof map>, at: number, lengthBytes: number) => void,
  ): void {
    const size = this.#model.length;
    if (at >= size) return;
    const mapping = map(this.#fd(), { lengthBytes: size });
    use(mapping, at, Math.min(lengthBytes, size - at));
    if (this.#random.chance(0.3)) expect(mapping.sync(), 0);
    expect(mapping.unmap(), 0);
  }

  #clear(at: number, lengthBytes: number, mode: number): void {
    expect(fallocate(this.#fd(), mode, at, lengthBytes), 0);
    this.#model.fill(0, Math.min(at, this.#model.length), Math.min(at + lengthBytes, this.#model.length));
  }

  #copy(from: number, lengthBytes: number): void {
    const to = this.#random.below(this.#bytesMax - lengthBytes);
    if (Math.abs(from - to) < lengthBytes || from >= this.#model.length) return;
    const copied = copyFileRange({ fd: this.#fd(), offset: from }, { fd: this.#fd(), offset: to }, lengthBytes);
    if (typeof copied === 'string') return;
    const bytes = Buffer.from(this.#model.subarray(from, from + copied));
    if (copied > 0) this.#put(to, bytes, () => copied);
  }

  #resize(sizeBytes: number): void {
    const resized = Buffer.alloc(sizeBytes);
    this.#model.copy(resized);
    this.#model = resized;
  }

  #whole(): void {
    const fd = open(this.#path, O_RDWR);
    this.#compare(0, this.#bytesMax, preadBytes(fd, this.#bytesMax, 0));
    expect(close(fd), 0);
  }
}

/** Bytes that do not compress, repeated where many are wanted. */
function pieceOf(random: Random, lengthBytes: number): Buffer {
  return Buffer.alloc(lengthBytes, random.bytes(Math.min(lengthBytes, 61)));
}

function expect(found: Outcome, wanted: Outcome): void {
  if (found !== wanted) throw new Error(`the call gave ${found}, not ${wanted}`);
}

/**
 * Runs `steps` operations on a file.
 *
 * @param contents - what it holds now; a file that is not there holds nothing
 * @throws Error that names the step, its operations and the seed
 */
export function exerciseFile(path: string, contents: Buffer, run: FileRun): void {
  const file = new RandomFile(path, contents, run);
  const done: string[] = [];
  try {
    while (done.length < run.steps) done.push(file.step());
    file.end();
  } catch (cause) {
    const last = done.slice(-8).join(', ');
    throw new Error(`${path}, seed ${run.seed}, step ${done.length}, after ${last}: ${String(cause)}`, { cause });
  }
}
