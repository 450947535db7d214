import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ByteString } from '../../store/byte-string.ts';
import { writeFiles } from '../fixtures/command-checks.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import { makeNpmProject, NPM_CI, npmCache } from '../fixtures/npm-project.ts';

/** A program that changes files, in a folder of its own. Two of the same folder work in it at the same time. */
export interface WritingCommand {
  name: string;
  folder: string;
  program: string;
  args: readonly string[];
}

/** What is done at the same time, and what is then left that depends on who was first. */
export interface Workload {
  commands: readonly WritingCommand[];
  /** Commands that look at what is left: they succeed, and print what they print on the disk. */
  checks: readonly WritingCommand[];
  ignore: readonly ByteString[];
  /** Fills what is saved, and what commands read from elsewhere. */
  prepare: (saved: string, outside: string) => void;
  /** Lines of shell that are run elsewhere afterwards. */
  finish: string;
}

export interface WorkloadSize {
  untarFiles: number;
  /** Of each plain writer. */
  rounds: number;
  sqliteRows: number;
}

const WRITER = fileURLToPath(new URL('writer.js', import.meta.url));
const SQLITE_CLIENT = fileURLToPath(new URL('../tools/sqlite-client.js', import.meta.url));
const REPOSITORY_FILES = 600;
const WRITER_ROLES = ['append', 'rename', 'create', 'unlinked', 'overwrite'];
/** Held by one process at a time, of two. */
const LOCK_ROLES = ['lock-create', 'lock-mkdir', 'lock-link'];

/** `tar`, `git`, SQLite and plain writers. @param outside - where the archive and the repository are that they read */
export function filesWorkload(outside: string, { untarFiles, rounds, sqliteRows }: WorkloadSize): Workload {
  const node = (folder: string, script: string, ...args: (string | number)[]): WritingCommand => ({
    name: [folder, ...args].join(' '),
    folder,
    program: process.execPath,
    args: [script, ...args.map(String)],
  });
  const shell = (name: string, folder: string, script: string): WritingCommand => ({
    name,
    folder,
    program: 'sh',
    args: ['-euc', script],
  });
  const writers = WRITER_ROLES.map((role, at) => node(role, WRITER, role, rounds, at));
  const lockers = LOCK_ROLES.flatMap((role) => [1, 2].map((seed) => node(role, WRITER, role, rounds >> 1, seed)));
  const clients = [1, 2].map((id) => node('sqlite', SQLITE_CLIENT, 'write', 'data.db', `writer-${id}`, sqliteRows));
  return {
    commands: [
      shell('tar x', 'untar', `tar -xf '${outside}/many.tar'`),
      shell('git', 'git', gitScript(outside)),
      ...clients,
      ...writers,
      ...lockers,
    ],
    checks: [
      shell(
        'git fsck',
        'git/clone',
        'git fsck --full --strict --no-dangling && git status --porcelain && git log --format=%H',
      ),
      node('sqlite', SQLITE_CLIENT, 'check', 'data.db'),
    ],
    ignore: ['git/clone/.git/index', 'sqlite'],
    finish: PACK_AND_COMMIT,
    prepare: (saved) => {
      makeManyFiles(path.join(outside, 'many'), { fileCount: untarFiles });
      makeManyFiles(path.join(outside, 'repository'), { fileCount: REPOSITORY_FILES, seed: 2 });
      writeFiles(saved, Object.fromEntries(WRITER_ROLES.map((role) => [`${role}/saved`, `${role}\n`.repeat(9000)])));
      writeFiles(saved, Object.fromEntries(LOCK_ROLES.map((role) => [`${role}/saved`, '0'])));
      for (const folder of ['untar', 'git', 'sqlite']) mkdirSync(path.join(saved, folder));
    },
  };
}

/** Packs the one, and makes a repository of the other. */
const PACK_AND_COMMIT = `
tar -cf many.tar -C many .
cd repository
git init -q
git add -A
git commit -q -m all
`;

function gitScript(outside: string): string {
  return `
git clone -q '${outside}/repository' clone
cd clone
git checkout -q -b other
for file in node_modules/package-000*/*.js; do echo '// other' >> "$file"; done
git mv main.js index.js
git commit -q -a -m other
git checkout -q -
git checkout -q other
git gc -q --prune=now
`;
}

export const GIT_ENV = {
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'b',
  GIT_AUTHOR_EMAIL: 'b@b',
  GIT_COMMITTER_NAME: 'b',
  GIT_COMMITTER_EMAIL: 'b@b',
  GIT_AUTHOR_DATE: '1700000000 +0000',
  GIT_COMMITTER_DATE: '1700000000 +0000',
  GIT_CONFIG_COUNT: '2',
  GIT_CONFIG_KEY_0: 'pack.threads',
  GIT_CONFIG_VALUE_0: '1',
  GIT_CONFIG_KEY_1: 'safe.directory',
  GIT_CONFIG_VALUE_1: '*',
};

/** `npm ci` of packages with machine code. */
export function npmWorkload(): Workload {
  const npm = { program: 'npm', args: [...NPM_CI, '--cache', npmCache()], folder: 'npm', name: 'npm ci' };
  const run = { program: process.execPath, args: ['main.js'], folder: 'npm', name: 'the project' };
  return {
    commands: [npm],
    checks: [run],
    ignore: [],
    finish: 'true',
    prepare: (saved) => makeNpmProject(path.join(saved, 'npm')),
  };
}
