-- Changes of the board are kept for good, in the order in which they came here; everything below but
-- pawl_board and pawl_peer follows from them, and is kept up to date by each change (board/merge.ts).

-- This node; one row. board: null until its first change or its first peer that has one.
-- branch: that of this node's log under its present incarnation, null before its first change under it.
-- wall, counter: the latest time of any change here (board/hlc.ts).
-- file: which file this database was when it was last opened; another one is a copy of it.
CREATE TABLE pawl_board (
  id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  author TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  board TEXT,
  branch INTEGER,
  wall INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  file TEXT NOT NULL
) STRICT;

-- Other nodes. revoked_at: since when their changes are not accepted any more.
CREATE TABLE pawl_peer (
  author TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  trusted_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- A stretch of a log without a fork. A log has one, and one more for each fork: it begins after the change
-- from_seq of the branch parent, or, where parent is null, with the log. head_seq, head_id: its last change,
-- which no other follows.
CREATE TABLE pawl_branch (
  branch INTEGER NOT NULL PRIMARY KEY,
  author TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  parent INTEGER,
  from_seq INTEGER NOT NULL,
  head_seq INTEGER NOT NULL,
  head_id TEXT NOT NULL
) STRICT;

CREATE INDEX pawl_branch_log ON pawl_branch (author, incarnation);

-- change_id: SHA-256 of the body, which is the text that was signed.
CREATE TABLE pawl_change (
  n INTEGER NOT NULL PRIMARY KEY,
  change_id TEXT NOT NULL,
  branch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  wall INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  body TEXT NOT NULL,
  signature TEXT NOT NULL
) STRICT;

-- None by change_id: ids are random, and an index by them would cost each write a page of its own.
CREATE UNIQUE INDEX pawl_change_place ON pawl_change (branch, seq);

-- Which changes were about an item, in the order of their times.
CREATE TABLE pawl_touch (
  story_id TEXT NOT NULL,
  wall INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (story_id, wall, counter, n)
) STRICT, WITHOUT ROWID;

-- Every item ever seen. generation: odd while it is alive. stage: null for what is not shown: deleted, or only
-- later changes have come. wall, counter, author, change_id: the newest change at this generation.
-- set_by: for each field that has a column here and was set at this generation, the number of the change that set
-- it, as JSON. depends_on, as JSON, is what the cells of its elements say.
CREATE TABLE pawl_item (
  story_id TEXT NOT NULL PRIMARY KEY,
  generation INTEGER NOT NULL,
  wall INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  author TEXT NOT NULL,
  change_id TEXT NOT NULL,
  stage TEXT,
  name TEXT,
  agent TEXT,
  blocked INTEGER NOT NULL,
  rank TEXT NOT NULL,
  retry_base INTEGER NOT NULL,
  retry_added INTEGER NOT NULL,
  depends_on TEXT NOT NULL,
  set_by TEXT NOT NULL
) STRICT;

CREATE INDEX pawl_item_place ON pawl_item (stage, rank, story_id) WHERE stage IS NOT NULL;

-- The winning write of every other field of an item at its generation: elements of dependsOn, and fields unknown
-- to this version. n: the change that wrote it.
CREATE TABLE pawl_cell (
  story_id TEXT NOT NULL,
  field TEXT NOT NULL,
  value TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (story_id, field)
) STRICT, WITHOUT ROWID;

-- Additions to a counter that are newer than the cell of the same field.
CREATE TABLE pawl_increment (
  story_id TEXT NOT NULL,
  field TEXT NOT NULL,
  n INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (story_id, field, n)
) STRICT, WITHOUT ROWID;
