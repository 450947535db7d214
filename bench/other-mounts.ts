import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';

import { findTool } from '../test/fixtures/machine.ts';
import { mountedAt } from '../fs/mounts/mountinfo.ts';
import { run } from './measure.ts';

/** A directory that another program shows by FUSE. */
export interface OtherMount extends Disposable {
  name: string;
  /** Where the tree is. */
  dir: string;
}

export interface OtherMounts {
  mounts: OtherMount[];
  /** What is not among them, and why. */
  missing: string[];
}

const READY_TIMEOUT_MS = 60_000;

/**
 * The same tree through other programs, for comparison: fuse-overlayfs over the tree itself, and a `restic mount` of a
 * repository that holds it.
 *
 * @param scratch - an existing directory for mount points, repository and cache
 */
export function otherMounts(tree: string, scratch: string): OtherMounts {
  const mounts: OtherMount[] = [];
  const missing: string[] = [];
  for (const [tool, mount] of Object.entries({ 'fuse-overlayfs': mountOverlay, restic: mountRestic })) {
    if (findTool(tool) === undefined) missing.push(`${tool} is not installed`);
    else mounts.push(mount(tree, scratch));
  }
  return { mounts, missing };
}

function mountOverlay(tree: string, scratch: string): OtherMount {
  const dir = path.join(scratch, 'fuse-overlayfs');
  mkdirSync(dir);
  run('fuse-overlayfs', ['-o', `lowerdir=${tree}`, dir]);
  return { name: 'fuse-overlayfs', dir, [Symbol.dispose]: () => detach(dir) };
}

function mountRestic(tree: string, scratch: string): OtherMount {
  const mountPoint = path.join(scratch, 'restic');
  mkdirSync(mountPoint);
  const env = {
    HOME: scratch,
    PATH: process.env['PATH'] ?? '',
    RESTIC_PASSWORD: 'bench',
    RESTIC_REPOSITORY: path.join(scratch, 'restic-repository'),
    RESTIC_CACHE_DIR: path.join(scratch, 'restic-cache'),
  };
  run('restic', ['init', '-q'], { env });
  run('restic', ['backup', '-q', '.'], { env, cwd: tree });
  const server = spawn('restic', ['mount', '-q', mountPoint], { env, stdio: 'ignore' });
  const dir = path.join(mountPoint, 'snapshots', 'latest');
  const end = (): void => {
    detach(mountPoint);
    server.kill('SIGKILL');
  };
  try {
    waitUntilMounted(mountPoint, server);
  } catch (error) {
    end();
    throw error;
  }
  return { name: 'restic mount', dir, [Symbol.dispose]: end };
}

function waitUntilMounted(mountPoint: string, server: ChildProcess): void {
  const endMs = Date.now() + READY_TIMEOUT_MS;
  const latest = path.join(mountPoint, 'snapshots', 'latest');
  while (mountedAt(mountPoint) === undefined || !existsSync(latest)) {
    if (server.pid === undefined || Date.now() > endMs) throw new Error(`${mountPoint} was not mounted in time`);
    spawnSync('sleep', ['0.1']);
  }
}

function detach(dir: string): void {
  if (spawnSync('umount', ['-l', dir]).status !== 0) spawnSync('fusermount3', ['-u', '-z', dir]);
}
