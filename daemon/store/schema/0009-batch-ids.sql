-- Batches by their ids. Ids are random: an index of pawl_batch by batch_key had each enqueue write a page somewhere
-- else. So the newest batches are in no index; ids are entered in level 1 many at a time, in their order, and go from
-- level to level in the same way. Each level has room for 16 times as many as the one before, the last one for all.
CREATE TABLE pawl_batch_id (
  level INTEGER NOT NULL,
  batch_key INTEGER NOT NULL,
  enqueue_seq INTEGER NOT NULL,
  PRIMARY KEY (level, batch_key, enqueue_seq)
) STRICT, WITHOUT ROWID;

-- ids: how many a level has. next: from which batch_key on the next go to the level behind it. The row of level 0 is
-- about the batches that are not entered yet: those whose enqueue_seq is greater than next.
CREATE TABLE pawl_batch_level (
  level INTEGER NOT NULL PRIMARY KEY,
  ids INTEGER NOT NULL,
  next INTEGER NOT NULL
) STRICT;

INSERT INTO pawl_batch_id SELECT 4, batch_key, enqueue_seq FROM pawl_batch ORDER BY batch_key;
INSERT INTO pawl_batch_level VALUES
  (0, 0, (SELECT coalesce(max(enqueue_seq), 0) FROM pawl_batch)), (1, 0, 0), (2, 0, 0), (3, 0, 0),
  (4, (SELECT count(*) FROM pawl_batch), 0);
DROP INDEX pawl_batch_key;
