import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';

import { whatIsMissing, type Missing } from '../fixtures/machine.ts';
import type { Sandbox } from '../fixtures/sandbox.ts';

/** What a disk can be brought back to. */
export type Snapshot = string;

/** A place for a store of which there can be snapshots while it is written. */
export interface PowerDisk {
  /** Where the store goes. */
  readonly dir: string;
  /** What is on the disk now, as after a power cut at some moment of this call. */
  snapshot: () => Snapshot;
  /** Puts a snapshot in the place of what is there, which nobody may use any more. */
  bringBack: (snapshot: Snapshot) => void;
}

export interface DiskKind {
  name: string;
  /** A snapshot is of one single moment, so that what several files say together holds too. */
  isOneMoment: boolean;
  missing: () => Missing;
  make: (sandbox: Sandbox) => PowerDisk;
}

const OUTER_BYTES = 3 * 2 ** 30;
const INNER_BYTES = 2 ** 30;

/**
 * An ext4 in a file of an XFS: a clone of that file is what the disk holds at one moment. What programs wrote and nobody
 * synced is not in it, as the kernel has it in memory.
 */
export const IMAGE_DISK: DiskKind = {
  name: 'image of a disk',
  isOneMoment: true,
  missing: () => whatIsMissing({ root: true, tools: ['mkfs.xfs', 'mkfs.ext4', 'mount', 'truncate', 'cp'] }) ?? noLoop(),
  make: (sandbox) => new ImageDisk(sandbox),
};

/** A folder that is copied file by file, while others write to it. */
export const COPIED_FOLDER: DiskKind = {
  name: 'copy of the files',
  isOneMoment: false,
  missing: () => whatIsMissing({ root: true, tools: ['cp'] }),
  make: (sandbox) => new CopiedFolder(sandbox),
};

class ImageDisk implements PowerDisk {
  readonly dir: string;
  readonly #outer: string;
  #count = 0;

  constructor(sandbox: Sandbox) {
    this.dir = sandbox.makeFolder('disk');
    this.#outer = sandbox.makeFolder('outer');
    const image = sandbox.path('outer.img');
    run('truncate', '-s', String(OUTER_BYTES), image);
    run('mkfs.xfs', '-q', '-m', 'reflink=1', image);
    run('mount', '-o', 'loop', image, this.#outer);
    run('truncate', '-s', String(INNER_BYTES), this.#image('disk'));
    run('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=1,lazy_journal_init=1', this.#image('disk'));
    run('mount', '-o', 'loop', this.#image('disk'), this.dir);
  }

  #image(name: string): string {
    return path.join(this.#outer, `${name}.img`);
  }

  snapshot(): Snapshot {
    const snapshot = this.#image(`snapshot-${this.#count++}`);
    run('cp', '--reflink=always', this.#image('disk'), snapshot);
    return snapshot;
  }

  bringBack(snapshot: Snapshot): void {
    run('umount', this.dir);
    run('mount', '-o', 'loop', snapshot, this.dir); // which replays ext4's journal
  }
}

class CopiedFolder implements PowerDisk {
  readonly dir: string;
  readonly #sandbox: Sandbox;
  #count = 0;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
    this.dir = sandbox.makeFolder('disk');
  }

  snapshot(): Snapshot {
    const snapshot = this.#sandbox.path(`snapshot-${this.#count++}`);
    // what comes and goes meanwhile is nobody's claim, but makes cp complain
    run('sh', '-c', `cp -a '${this.dir}' '${snapshot}' 2> /dev/null || true`);
    // the index is many pages of one file, of different moments now; it may be deleted at any time
    rmSync(path.join(snapshot, 'store', 'cache'), { recursive: true, force: true });
    return snapshot;
  }

  bringBack(snapshot: Snapshot): void {
    rmSync(this.dir, { recursive: true });
    run('cp', '-a', snapshot, this.dir);
  }
}

function noLoop(): Missing {
  try {
    run('losetup', '--find');
    return undefined;
  } catch {
    return 'there are no loop devices';
  }
}

function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: 'pipe' });
}
