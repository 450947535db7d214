import { LARGE_BYTES_MIN } from './rows.ts';

/** Counted up with every change of the schema; a file of another version is made anew. */
export const SCHEMA_VERSION = 5;

/**
 * Numbers are handed out by `numbers` and never used twice: to layers, and to the directories of merged trees. An entry's
 * id is `number * 2^32 + position`, the position counting from 1 in the order of the layer's table of contents, so that
 * a layer's rows lie together and an id means the same whenever the same layer is indexed under the same number.
 * Position 1 is always the root. Names are byte strings: one code point (U+0000 to U+00FF) a byte.
 */
export const SCHEMA = `
CREATE TABLE numbers (next INTEGER NOT NULL);
INSERT INTO numbers VALUES (1);

CREATE TABLE layers (
  number      INTEGER PRIMARY KEY,
  digest      TEXT NOT NULL UNIQUE,
  kind        TEXT NOT NULL,            -- 'estargz', 'tar' or 'tar+gzip': where the bytes of its chunks lie
  entry_count INTEGER NOT NULL,
  content_bytes INTEGER NOT NULL,
  lower_links INTEGER NOT NULL,         -- 1 when a hard link names a file that is not in the layer itself
  has_xattrs  INTEGER NOT NULL,         -- 1 when something it shows has extended attributes
  has_owners  INTEGER NOT NULL,         -- 1 when something it shows belongs to another than the owner of the workspace
  claimed_toc TEXT                      -- digest of the table of contents that a manifest says it has: the layer itself was not here
);

CREATE TABLE trees (                    -- the layers of a checkpoint; each names its directories within the merged tree
  number      INTEGER PRIMARY KEY,
  manifest    TEXT NOT NULL,
  depth       INTEGER NOT NULL,         -- 0 is the lowest layer
  layer       TEXT NOT NULL,            -- its digest
  UNIQUE (manifest, depth)
);

CREATE TABLE entries (
  id          INTEGER PRIMARY KEY,
  parent      INTEGER NOT NULL,         -- id of the directory; 0 for the root
  name        TEXT NOT NULL,
  type        INTEGER NOT NULL,         -- ENTRY_TYPES
  flags       INTEGER NOT NULL,         -- 1 implicit (made up for a missing parent), 2 opaque
  mode        INTEGER NOT NULL,
  uid         INTEGER NOT NULL,
  gid         INTEGER NOT NULL,
  mtime_sec   INTEGER NOT NULL,
  mtime_nsec  INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  nlink       INTEGER NOT NULL,         -- names in this layer; a directory: 2, and 1 for each directory in it
  target      INTEGER,                  -- hardlink: id of the entry it names
  link        TEXT,                     -- symlink target; hardlink into a lower layer: its path
  rdev_major  INTEGER,
  rdev_minor  INTEGER,
  xattrs      TEXT,                     -- JSON: name -> base64
  digest      BLOB,                     -- SHA-256 of the content
  blob_offset INTEGER,                  -- the only chunk of a file that has one; larger files are in chunks
  blob_bytes  INTEGER,
  inner_offset INTEGER
);
CREATE INDEX entry_names ON entries (parent, name);
CREATE INDEX entry_targets ON entries (target) WHERE target IS NOT NULL;
CREATE INDEX entry_large ON entries (id) WHERE size >= ${LARGE_BYTES_MIN};

CREATE TABLE chunks (
  entry       INTEGER NOT NULL,
  file_offset INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  digest      BLOB NOT NULL,
  blob_offset INTEGER NOT NULL,
  blob_bytes  INTEGER NOT NULL,
  inner_offset INTEGER NOT NULL,
  PRIMARY KEY (entry, file_offset)
) WITHOUT ROWID;

CREATE TABLE stat_cache (               -- what a file was when its content was last hashed
  workspace   TEXT NOT NULL,            -- absolute path of the directory
  path        TEXT NOT NULL,
  dev         INTEGER NOT NULL,
  ino         INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  mtime_sec   INTEGER NOT NULL,
  mtime_nsec  INTEGER NOT NULL,
  ctime_sec   INTEGER NOT NULL,
  ctime_nsec  INTEGER NOT NULL,
  digest      BLOB NOT NULL,
  PRIMARY KEY (workspace, path)
) WITHOUT ROWID;
`;
