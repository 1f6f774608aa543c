-- Changes that compaction has taken away, and what is kept in their place.

-- cut_seq, cut_id: the last change of this branch that is in pawl_cut; 0 and null if none is.
ALTER TABLE pawl_branch ADD COLUMN cut_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_branch ADD COLUMN cut_id TEXT;

-- A row for changes of a branch that followed each other, and were taken away: seq is the place of the last.
-- changes: 44 bytes for each, its SHA-256, its wall clock (8 bytes) and its counter (4), big-endian.
CREATE TABLE pawl_cut (
  branch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  changes BLOB NOT NULL,
  PRIMARY KEY (branch, seq)
) STRICT;

-- removed: how many rows of pawl_change were taken away.
ALTER TABLE pawl_board ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;

-- What a peer has last said that it has, as it signed it. at: when it said so, by its own clock.
CREATE TABLE pawl_peer_statement (
  author TEXT NOT NULL PRIMARY KEY,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,
  signature TEXT NOT NULL
) STRICT, WITHOUT ROWID;
