import { statSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { PARTIAL_BYTES_MIN } from '../../../fs/overlay/partial-file.ts';
import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { decodeOrigin } from '../../../fs/overlay/marks.ts';
import { OpenFiles } from '../../../fs/overlay/open-files.ts';
import { emptyMap } from '../../../fs/overlay/partial-file.ts';
import { SETATTR } from '../../../fs/protocol/setattr.ts';
import {
  allocate,
  closeFile,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  openFile,
} from '../../../store/file-calls.ts';
import { change, CowFolder, markAt, nodeAt } from '../../fixtures/cow-trees.ts';
import { lowerDir, lowerFile } from '../../fixtures/memory-lower.ts';
import { Random } from '../../fixtures/random.ts';

const GRANULE_BYTES = 65_536;
/** Ten whole granules and a piece. */
const SIZE_BYTES = 10 * GRANULE_BYTES + 777;
const O_RDWR = 2;

/** Bytes that are different everywhere, and never zero. */
function contentOf(sizeBytes: number): Buffer {
  const content = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 1) content[at] = 1 + ((at ^ (at >>> 8) ^ (at >>> 16)) & 0x7f);
  return content;
}

/** A large file of a checkpoint, and what it must look like after the same changes. */
class Sample {
  readonly folder: CowFolder;
  tree: CowTree;
  model: Buffer;

  constructor(t: ExecutionContext, sizeBytes = SIZE_BYTES) {
    this.model = contentOf(sizeBytes);
    this.folder = new CowFolder(t, lowerDir({ large: lowerFile(contentOf(sizeBytes)) }));
    this.tree = this.folder.open();
  }

  get files(): OpenFiles {
    return new OpenFiles(this.tree, undefined);
  }

  get path(): string {
    return `${this.folder.upper}/large`;
  }

  write(offset: number, bytes: Buffer): void {
    this.files.write(nodeAt(this.tree, 'large'), bytes, { offset, killsSetuid: false });
    const size = Math.max(this.model.length, offset + bytes.length);
    this.model = Buffer.concat([this.model, Buffer.alloc(size - this.model.length)]);
    bytes.copy(this.model, offset);
  }

  resize(sizeBytes: number): void {
    change(this.tree, 'large', { valid: SETATTR.SIZE, sizeBytes });
    const kept = this.model.subarray(0, sizeBytes);
    this.model = Buffer.concat([kept, Buffer.alloc(sizeBytes - kept.length)]);
  }

  read(offset: number, sizeBytes: number): Buffer {
    const out = Buffer.alloc(sizeBytes, 0xee);
    const count = this.files.read(nodeAt(this.tree, 'large'), offset, out);
    return out.subarray(0, Number(count));
  }

  /** Granules that the upper file has; undefined when it is whole. */
  granules(): number[] | undefined {
    const map = decodeOrigin(markAt(this.tree, 'large', 'origin') ?? Buffer.alloc(0))?.partial;
    if (map === undefined) return undefined;
    const all = Array.from({ length: map.bits.length * 8 }, (_, i) => i);
    return all.filter((i) => ((map.bits[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0);
  }

  reopen(): void {
    this.tree = this.folder.mountAgain();
  }

  /** That all of it reads as it must, in pieces too, and after a restart. */
  check(t: ExecutionContext, what?: string): void {
    for (let i = 0; i < 2; i += 1) {
      t.is(this.tree.stat(nodeAt(this.tree, 'large')).sizeBytes, this.model.length, what);
      t.true(this.read(0, this.model.length + 100).equals(this.model), what);
      this.reopen();
    }
  }
}

test('emptyMap() has a bit for each granule, and larger granules for a larger file', (t) => {
  t.is(emptyMap(1).bits.length, 1);
  t.is(emptyMap(8 * GRANULE_BYTES).bits.length, 1);
  t.is(emptyMap(8 * GRANULE_BYTES + 1).bits.length, 2);
  t.like(emptyMap(8192 * GRANULE_BYTES), { granuleShift: 16 });
  t.like(emptyMap(8192 * GRANULE_BYTES + 1), { granuleShift: 17 });
  t.true(emptyMap(2 ** 43).bits.length <= 1024);
});

test('a small change of a large file stores the granules that it touches', (t) => {
  const sample = new Sample(t);
  sample.write(3 * GRANULE_BYTES + 5, Buffer.from('change'));
  t.deepEqual(sample.granules(), [3]);
  t.true(statSync(sample.path).blocks * 512 <= 2 * GRANULE_BYTES);
  t.is(statSync(sample.path).size, SIZE_BYTES);
  sample.check(t);
});

test('a file that is not large is copied whole', (t) => {
  const sample = new Sample(t, PARTIAL_BYTES_MIN - 1);
  sample.write(3, Buffer.from('change'));
  t.is(sample.granules(), undefined);
  sample.check(t);
});

test('writes at the edges of granules touch what they have to', (t) => {
  const cases: [offset: number, sizeBytes: number, touched: number[]][] = [
    [0, 1, [0]],
    [GRANULE_BYTES - 1, 1, [0]],
    [GRANULE_BYTES, 1, [1]],
    [GRANULE_BYTES - 1, 2, [0, 1]],
    [GRANULE_BYTES, GRANULE_BYTES, [1]],
    [GRANULE_BYTES + 1, 2 * GRANULE_BYTES, [1, 2, 3]],
    [SIZE_BYTES - 1, 1, [10]],
    [10 * GRANULE_BYTES, 777, [10]],
    [SIZE_BYTES - 2, 5, [10]],
    [SIZE_BYTES, 5, [10]], // its last granule is where the end was
    [SIZE_BYTES + 3 * GRANULE_BYTES, 5, []],
  ];
  for (const [offset, sizeBytes, touched] of cases) {
    const sample = new Sample(t);
    sample.write(offset, Buffer.alloc(sizeBytes, 0xaa));
    t.deepEqual(sample.granules(), touched, `${sizeBytes} bytes at ${offset}`);
    sample.check(t, `${sizeBytes} bytes at ${offset}`);
  }
});

test('a read goes across what was written and what was not', (t) => {
  const sample = new Sample(t);
  sample.write(2 * GRANULE_BYTES, Buffer.alloc(100, 0xaa));
  sample.write(5 * GRANULE_BYTES + 9, Buffer.alloc(GRANULE_BYTES, 0xbb));
  for (const offset of [
    0,
    2 * GRANULE_BYTES - 1,
    2 * GRANULE_BYTES + 50,
    6 * GRANULE_BYTES,
    SIZE_BYTES - 5,
    SIZE_BYTES,
  ])
    for (const sizeBytes of [1, 101, GRANULE_BYTES, 4 * GRANULE_BYTES, SIZE_BYTES])
      t.true(
        sample.read(offset, sizeBytes).equals(sample.model.subarray(offset, offset + sizeBytes)),
        `${sizeBytes} bytes at ${offset}`,
      );
  t.is(sample.read(SIZE_BYTES + 10, 5).length, 0);
});

test('what was cut off reads as zeros when the file grows again', (t) => {
  for (const cut of [4 * GRANULE_BYTES, 4 * GRANULE_BYTES + 10, 5 * GRANULE_BYTES - 1, 1]) {
    const sample = new Sample(t);
    sample.write(4 * GRANULE_BYTES + 3, Buffer.from('change'));
    sample.resize(cut);
    sample.check(t, `cut to ${cut}`);
    sample.resize(SIZE_BYTES);
    sample.check(t, `cut to ${cut}, then extended`);
    sample.write(cut + 5, Buffer.from('after'));
    sample.write(Math.max(0, cut - 2), Buffer.from('at'));
    sample.check(t, `cut to ${cut}, extended, then written to`);
  }
});

test('a file that is cut to nothing has nothing of what is below', (t) => {
  const sample = new Sample(t);
  sample.resize(0);
  t.is(sample.granules(), undefined, 'nothing was copied for that');
  sample.check(t);
  const changed = new Sample(t);
  changed.write(0, Buffer.from('x'));
  changed.resize(0);
  changed.resize(100);
  changed.check(t);
});

test('complete() gets what is missing, and says so on disk', (t) => {
  const sample = new Sample(t);
  sample.write(4 * GRANULE_BYTES + 3, Buffer.from('change'));
  sample.resize(SIZE_BYTES - 100);
  sample.resize(SIZE_BYTES + 100);
  sample.tree.complete(nodeAt(sample.tree, 'large'));
  t.is(sample.granules(), undefined);
  t.is(nodeAt(sample.tree, 'large').partial, undefined);
  sample.check(t);
  t.is(nodeAt(sample.tree, 'large').id, sample.folder.lower.lookup(1, 'large')?.id ?? 0, 'it goes on under its id');
});

test('a bit that is set although its bytes are a hole counts for nothing', (t) => {
  const sample = new Sample(t);
  for (const granule of [2, 4, 10]) sample.write(granule * GRANULE_BYTES + 3, Buffer.from('change'));
  const fd = openFile(sample.path, O_RDWR);
  t.is(allocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 4 * GRANULE_BYTES, GRANULE_BYTES), 0); // as a power cut would
  closeFile(fd);
  contentOf(SIZE_BYTES).copy(sample.model, 4 * GRANULE_BYTES, 4 * GRANULE_BYTES, 5 * GRANULE_BYTES);
  sample.reopen();
  sample.check(t);
  sample.write(4 * GRANULE_BYTES + 9, Buffer.from('again'));
  sample.check(t);
});

test('a hole that is made on purpose does not show what is below', (t) => {
  const sample = new Sample(t);
  sample.write(0, Buffer.from('x'));
  const [offset, lengthBytes] = [3 * GRANULE_BYTES - 9, 2 * GRANULE_BYTES];
  const node = nodeAt(sample.tree, 'large');
  sample.files.allocate(node, { mode: FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, lengthBytes });
  sample.model.fill(0, offset, offset + lengthBytes);
  sample.check(t);
  const zeroed = new Sample(t);
  zeroed.files.allocate(nodeAt(zeroed.tree, 'large'), { mode: FALLOC_ZERO_RANGE, offset, lengthBytes });
  zeroed.model.fill(0, offset, offset + lengthBytes);
  zeroed.check(t);
});

test('room that is kept for a file shows what is below until it is written to', (t) => {
  const sample = new Sample(t);
  sample.write(0, Buffer.from('x'));
  sample.files.allocate(nodeAt(sample.tree, 'large'), { mode: 0, offset: 0, lengthBytes: SIZE_BYTES + 50 });
  sample.model = Buffer.concat([sample.model, Buffer.alloc(50)]);
  sample.check(t);
});

type Step = (sample: Sample, random: Random) => void;

const STEPS: Record<string, Step> = {
  write: (sample, random) =>
    sample.write(
      near(random),
      Buffer.alloc(1 + random.below(random.chance(0.5) ? 20 : 150_000), 128 + random.below(128)),
    ),
  resize: (sample, random) => sample.resize(near(random)),
  complete: (sample) => sample.tree.complete(nodeAt(sample.tree, 'large')),
  reopen: (sample) => sample.reopen(),
};

/** An offset, most often one at which something ends. */
function near(random: Random): number {
  if (random.chance(0.3)) return random.below(SIZE_BYTES + 2 * GRANULE_BYTES);
  return Math.max(0, random.below(13) * GRANULE_BYTES + random.below(5) - 2);
}

for (const seed of [1, 2, 3]) {
  test(`random writes, cuts and restarts leave a file as its model is (seed ${seed})`, (t) => {
    const random = new Random(seed);
    for (let round = 0; round < 8; round += 1) {
      const sample = new Sample(t);
      const done: string[] = [];
      for (let i = 0; i < 25; i += 1) {
        const kind = random.weighted({ write: 10, resize: 5, reopen: 2, complete: 0.3 });
        if (kind === 'complete' && !nodeAt(sample.tree, 'large').inUpper) continue;
        STEPS[kind]?.(sample, random);
        done.push(`${kind} -> ${sample.model.length}`);
        const offset = near(random);
        const piece = sample.read(offset, 100_000);
        if (!piece.equals(sample.model.subarray(offset, offset + 100_000))) return t.fail(done.join('\n'));
      }
      sample.check(t, done.join('\n'));
    }
  });
}
