import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { writeFiles } from '../fixtures/command-checks.ts';
import { shell, testInForks, type Place } from './tool-runs.ts';

/** The last thing that is done: when it was seen, everything was. */
const LAST = 'last-of-all';

/** In a saved directory and in new ones, on saved files and on new ones. */
const CHANGES = `
echo new > saved/new
echo more >> saved/old
cat saved/other > saved/copy
mv saved/new saved/renamed
mv saved/renamed saved/sub/moved
mv saved/rename-me saved/renamed-old
mv saved/move-me saved/sub/moved-old
ln saved/other saved/linked
ln -s other saved/symlink
chmod 600 saved/other
touch -d 2001-01-01 saved/other
truncate -s 1 saved/cut-me
rm saved/renamed-old saved/sub/moved saved/symlink
mkdir saved/directory
rmdir saved/directory
mv -f saved/copy saved/other
rm -r saved/doomed
echo saved > saved/.editor.tmp && mv saved/.editor.tmp saved/old
dd if=/dev/zero of=saved/blocks bs=4k count=1 conv=fsync status=none
: > ${LAST}
`;

testInForks('inotifywait sees the same events', ['inotifywait', 'dd', 'truncate'], {
  prepare: ({ dir }) => {
    const names = ['old', 'other', 'rename-me', 'move-me', 'cut-me', 'sub/inside', 'doomed/deep/one'];
    writeFiles(dir, Object.fromEntries(names.map((name) => [`saved/${name}`, `${name}\n`])));
  },
  work: async (place) => {
    await using watcher = new Watcher(place);
    await watcher.ready;
    await shell(place, CHANGES);
    return (await watcher.events).join('\n');
  },
});

class Watcher {
  readonly #child;
  /** It watches. @throws Error when it ends instead */
  readonly ready: Promise<void>;
  /** What it saw up to the last of all; of equal ones that follow one another the kernel may have made one. */
  readonly events: Promise<string[]>;

  constructor({ dir, env }: Place) {
    const format = ['--format', '%w %f %e'];
    // not delete_self: FUSE tells the directory of a removal first, ext4 what was removed
    const kinds = ['modify', 'attrib', 'create', 'delete', 'moved_from', 'moved_to', 'close_write'];
    const args = ['-m', '-r', ...format, ...kinds.flatMap((kind) => ['-e', kind]), '.'];
    this.#child = spawn('inotifywait', args, { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.ready = this.#watches();
    this.events = this.#listen();
  }

  async #watches(): Promise<void> {
    for await (const line of createInterface(this.#child.stderr)) if (line.includes('Watches established')) return;
    throw new Error('inotifywait ended');
  }

  async #listen(): Promise<string[]> {
    const seen: string[] = [];
    for await (const line of createInterface(this.#child.stdout)) {
      if (line !== seen.at(-1)) seen.push(line);
      if (line.includes(`${LAST} CLOSE_WRITE`)) break;
    }
    return seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill();
    await ended;
  }
}
