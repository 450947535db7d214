import type { Origin } from './judge.ts';

interface Accepted {
  engine: string;
  origins: readonly Origin[];
  reason: string;
  /** `group: claim` each. */
  checks: readonly string[];
}

/**
 * Every difference from ext4 that is known and left as it is, or not yet mended. One that no longer occurs fails the suite.
 */
export const ACCEPTED: readonly Accepted[] = [
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason:
      'a change copies a file of the checkpoint up under one of its names; the other names stay what they were (`index` is off)',
    checks: [
      'open: O_TRUNC through one name empties the other',
      'create: in place of one of two names: a file of its own',
      'rename: one of two names: they stay one file',
      'rename: over one of two names: the other stays',
      'rename: onto another name of the same file does nothing',
      'rename: over another name moves the ctime of the file that lost it',
      'rename flags: EXCHANGE of two names of one file does nothing',
      'link: a third name for a file with two',
      'link: what is written through one name is read through the other',
      'link: through the second name, too',
      'link: a file open before it was written through its other name',
      'link: truncation through one name',
      'link: O_TRUNC through one name',
      'link: chmod() through one name',
      'link: chown() through one name',
      'link: an attribute through one name',
      'link: mtime of one name is that of the other after a write',
      'link: one name goes, the file stays',
      'link: written, then one goes',
      'link: one is moved, and the file is written',
      'link: a removed name moves the ctime of the file',
      'truncate: through one of two names',
      'append: through two names of a file',
      'locks: flock() counts for both names of a file',
      'locks: fcntl() counts for both names of a file',
      'mmap: a mapping through one name is seen through the other',
      'open unlinked: has one link when it had two',
      'copy on write: a hard link breaks only when a name is replaced',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason:
      'the first change in a directory of the checkpoint makes that anew above, and opening a file for writing does so with the file: ctime is that of the copy',
    checks: [
      'create: it moves the times of the directory',
      'create: opening what is there with O_CREAT moves no time',
      'owners and modes: chmod() moves ctime only',
      'owners and modes: chmod() of a directory moves ctime only',
      'owners and modes: chown() moves ctime only',
      'times: moves ctime',
      'times: write() moves mtime and ctime of the file only',
      'times: a write of nothing moves nothing',
      'times: mkdir() leaves the time of what is above its parent',
      'xattrs: setting one moves ctime only',
      'tmpfile: moves no time of the directory',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason: 'a directory that merges two layers shows another number of links once it is copied up',
    checks: [
      'directories: a new directory has two links, and its parent one more',
      'directories: a removed directory takes a link from its parent',
      'directories: a file in it gives a directory no link',
      'rename: a moved directory gives its parent its link',
      'rename flags: EXCHANGE of a file and a directory across directories',
      'open unlinked: a removed directory that is open lists nothing',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint', 'fresh'],
    reason: 'overlayfs keeps the device 0:0 for itself, as whiteout',
    checks: ['special files: a device 0:0'],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason: 'reading leaves the access time of what the checkpoint holds',
    checks: ['times: reading moves atime where it is not newer than mtime'],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason: 'a file of the checkpoint that has no name any more cannot be copied up',
    checks: [
      'owners and modes: fchmod() of a file without a name',
      'xattrs: of an open file without a name',
      'open unlinked: is opened again through /proc',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason:
      'chmod of a removed directory that is open copies it up over one that has its name now, which rm -rf then cannot remove: a bug of overlayfs',
    checks: ['open unlinked: rm -rf removes what is left'],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason: "a mapping made before the file is copied up shows the checkpoint's bytes",
    checks: [
      'mmap: a mapping made of what is open for reading sees what is written later',
      'mmap: a mapping made of a large file open for reading sees what is written later',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason: "the checkpoint's files show no holes (the daemon does not answer LSEEK), and copying up fills them",
    checks: [
      'allocate: SEEK_DATA and SEEK_HOLE of a sparse file',
      'allocate: SEEK_DATA behind the last data gives ENXIO',
      'allocate: a sparse file stays sparse when it is written',
      'allocate: st_blocks: a sparse file has few',
    ],
  },
  {
    engine: 'overlay',
    origins: ['checkpoint'],
    reason:
      'copy_file_range() from the checkpoint to the fork is one between two file systems: EXDEV, and callers copy',
    checks: [
      'times: copy_file_range() moves those of the target',
      'allocate: copy_file_range() of a whole file',
      'allocate: copy_file_range() of a part to another place',
      'allocate: copy_file_range() behind the end: zeros between',
      'allocate: copy_file_range() of more than there is',
      'allocate: copy_file_range() of a large file to a new one',
      'allocate: copy_file_range() into a large file',
      'allocate: copy_file_range() from one name of a file to the other, overlapping, gives EINVAL',
    ],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'the device 0:0 marks what is removed, as in overlays',
    checks: ['special files: a device 0:0'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'the FUSE of the kernel refuses these modes of fallocate()',
    checks: ['allocate: COLLAPSE_RANGE takes blocks out', 'allocate: INSERT_RANGE puts zeros in'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint'],
    reason: 'mounted with noatime',
    checks: ['times: reading moves atime where it is not newer than mtime'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'attributes of overlayfs are how the upper directory says what is removed, opaque or moved',
    checks: [
      "xattrs: overlayfs's own names are names like others",
      "xattrs: overlayfs's own names on a directory hide nothing",
    ],
  },
  {
    engine: 'cow',
    origins: ['checkpoint'],
    reason: 'making the file makes the directory above, whose ctime is that of the copy',
    checks: ['tmpfile: moves no time of the directory'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint'],
    reason:
      "not yet: the checkpoint's files show no holes (the daemon does not answer LSEEK), and copying up fills them",
    checks: [
      'allocate: SEEK_DATA and SEEK_HOLE of a sparse file',
      'allocate: SEEK_DATA behind the last data gives ENXIO',
      'allocate: a sparse file stays sparse when it is written',
      'allocate: st_blocks: a sparse file has few',
    ],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'not yet: sgid without execution',
    checks: ['owners and modes: a write by a stranger to the group takes sgid without execution, too'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'not yet: another errno for a size no file can have',
    checks: ['truncate: to more than a file can have gives EFBIG'],
  },
  {
    engine: 'cow',
    origins: ['checkpoint', 'fresh'],
    reason: 'not yet: fchmod() of a directory that was removed gives ENOENT',
    checks: ['open unlinked: a directory that is made anew is another'],
  },
];
