import { CREATE } from './create.ts';
import { DIRECTORIES } from './directories.ts';
import { LINK } from './link.ts';
import { OPEN } from './open.ts';
import { OWNERS_AND_MODES } from './owners-and-modes.ts';
import { PATH_ERRORS } from './path-errors.ts';
import { PERMISSIONS } from './permissions.ts';
import { RENAME_FLAGS } from './rename-flags.ts';
import { RENAME } from './rename.ts';
import { SPECIAL_FILES } from './special-files.ts';
import { TIMES } from './times.ts';
import { XATTRS } from './xattrs.ts';
import { ACL } from './acl.ts';
import { TRUNCATE } from './truncate.ts';
import { READ_WRITE } from './read-write.ts';
import { APPEND } from './append.ts';
import { ALLOCATE } from './allocate.ts';
import { LOCKS } from './locks.ts';
import { MMAP } from './mmap.ts';
import { OPEN_UNLINKED } from './open-unlinked.ts';
import { TMPFILE } from './tmpfile.ts';
import { READDIR } from './readdir.ts';
import { NAMES_AND_LIMITS } from './names-and-limits.ts';
import { ATTRIBUTES } from './attributes.ts';
import { COPY_ON_WRITE } from './copy-on-write.ts';
import type { Group } from './suite/check.ts';
import { SYMLINKS } from './symlinks.ts';
import { UNLINK } from './unlink.ts';

/** All checks, one group for each kind of operation. */
export const GROUPS: readonly Group[] = [
  PATH_ERRORS,
  OPEN,
  CREATE,
  DIRECTORIES,
  RENAME,
  RENAME_FLAGS,
  LINK,
  UNLINK,
  SYMLINKS,
  SPECIAL_FILES,
  OWNERS_AND_MODES,
  PERMISSIONS,
  TIMES,
  XATTRS,
  ACL,
  TRUNCATE,
  READ_WRITE,
  APPEND,
  ALLOCATE,
  LOCKS,
  MMAP,
  OPEN_UNLINKED,
  TMPFILE,
  READDIR,
  NAMES_AND_LIMITS,
  ATTRIBUTES,
  COPY_ON_WRITE,
];
