import type { ServedDirent, ServedNode, ServedTree } from '../../../fs/serving/served-tree.ts';
import { type ByteString, fromText } from '../../../store/byte-string.ts';
import type { EntryType, Xattrs } from '../../../store/entry.ts';
import { BentoError } from '../../../store/errors.ts';

/** What a file is made of, or a directory, or a link. */
export interface Sample {
  type: EntryType;
  mode?: number;
  mtimeSec?: number;
  mtimeNsec?: number;
  content?: Buffer;
  /** Where it is not that of `content`. */
  sizeBytes?: number;
  link?: ByteString;
  rdev?: { major: number; minor: number };
  xattrs?: Xattrs;
  children?: Map<ByteString, Sample>;
}

/** A served tree held in memory. The same `Sample` under two names is one file with two hard links. */
export class MemoryTree implements ServedTree {
  readonly #samples: Sample[] = [];
  readonly #nodeIds = new Map<Sample, number>();
  readonly #nlinks = new Map<Sample, number>();

  constructor(root: Sample) {
    this.#add(root);
  }

  lookup(parent: number, name: ByteString): ServedNode | undefined {
    const child = this.#sample(parent)?.children?.get(name);
    return child && this.#node(child);
  }

  getattr(nodeId: number): ServedNode | undefined {
    const sample = this.#sample(nodeId);
    return sample && this.#node(sample);
  }

  readdir(nodeId: number): ServedDirent[] | undefined {
    const children = this.#sample(nodeId)?.children;
    return children && [...children].map(([name, child]) => ({ name, node: this.#node(child) }));
  }

  readlink(nodeId: number): Buffer | undefined {
    const link = this.#sample(nodeId)?.link;
    return link === undefined ? undefined : Buffer.from(link, 'latin1');
  }

  read(nodeId: number, offset: number, out: Buffer): number {
    const content = this.#sample(nodeId)?.content;
    if (content === undefined) throw new BentoError('BLOB_MISSING', `node ${nodeId} has no content`);
    return content.copy(out, 0, offset);
  }

  xattrs(nodeId: number): Xattrs | undefined {
    return this.#sample(nodeId)?.xattrs;
  }

  statfs(): { totalBytes: number; fileCount: number } {
    return { totalBytes: 10 * 4096 + 1, fileCount: this.#samples.length };
  }

  #add(sample: Sample): void {
    const nlink = (this.#nlinks.get(sample) ?? 0) + 1;
    this.#nlinks.set(sample, nlink);
    if (nlink > 1) return;
    this.#nodeIds.set(sample, this.#samples.push(sample));
    for (const child of sample.children?.values() ?? []) this.#add(child);
  }

  #sample(nodeId: number): Sample | undefined {
    return this.#samples[nodeId - 1];
  }

  #node(sample: Sample): ServedNode {
    const nodeId = this.#nodeIds.get(sample) ?? 0;
    return {
      nodeId,
      ino: nodeId + 1000,
      nlink: sample.type === 'dir' ? 1 : (this.#nlinks.get(sample) ?? 1),
      type: sample.type,
      mode: sample.mode ?? 0o644,
      uid: 0,
      gid: 0,
      mtimeSec: sample.mtimeSec ?? 1_700_000_000,
      mtimeNsec: sample.mtimeNsec ?? 0,
      sizeBytes: sample.sizeBytes ?? sample.content?.length ?? 0,
      ...(sample.rdev === undefined ? {} : { rdev: sample.rdev }),
    };
  }
}

export const BIG_BYTES = 5 * 1024 * 1024 + 123;
export const MANY_COUNT = 5000;
export const LONGEST_NAME = 'n'.repeat(255);
export const NOT_UTF8 = 'latin-\xe9';

/** The same bytes for everybody who asks: 32-bit counters. */
export function bigContent(): Buffer {
  const content = Buffer.alloc(BIG_BYTES);
  for (let at = 0; at + 4 <= content.length; at += 4) content.writeUInt32LE(at, at);
  return content;
}

/** One of everything that a mount has to show. */
export function sampleTree(): MemoryTree {
  const small: Sample = {
    type: 'file',
    mode: 0o4750,
    mtimeSec: 1_600_000_000,
    mtimeNsec: 123_456_789,
    content: Buffer.from('hello\n'),
    xattrs: new Map([
      ['user.plain', Buffer.from([1, 0, 255])],
      ['user.empty', Buffer.alloc(0)],
      ['user.overlay.opaque', Buffer.from('y')],
      ['trusted.overlay.redirect', Buffer.from('/x')],
    ]),
  };
  const children = new Map<ByteString, Sample>([
    ['small', small],
    ['hard link', small],
    ['big', { type: 'file', content: bigContent() }],
    ['empty', { type: 'file', content: Buffer.alloc(0) }],
    ['old', { type: 'file', content: Buffer.from('x'), mtimeSec: -2, mtimeNsec: 5 }],
    ['broken', { type: 'file', sizeBytes: 10 }],
    ['link', { type: 'symlink', mode: 0o777, link: fromText('small/../ä') }],
    ['fifo', { type: 'fifo' }],
    ['device', { type: 'char', rdev: { major: 300, minor: 70_000 } }],
    ['gone', { type: 'whiteout', mode: 0, rdev: { major: 0, minor: 0 } }],
    [NOT_UTF8, { type: 'file', content: Buffer.from('bytes') }],
    [LONGEST_NAME, { type: 'file', content: Buffer.from('long') }],
    ['many', { type: 'dir', mode: 0o755, children: manyFiles() }],
  ]);
  return new MemoryTree({ type: 'dir', mode: 0o755, children });
}

function manyFiles(): Map<ByteString, Sample> {
  const names = Array.from({ length: MANY_COUNT }, (_, i) => `file-${String(i).padStart(4, '0')}`);
  return new Map(names.map((name) => [name, { type: 'file', content: Buffer.from(name) }]));
}
