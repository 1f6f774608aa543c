-- Claims of all queues whose names begin with something, as of `build/*`.
-- prefix: with its slash, as some claim has asked for it. listed_to: while the queues that were there are being listed:
-- the last that is; null once all are.
CREATE TABLE pawl_queue_prefix (
  prefix TEXT NOT NULL PRIMARY KEY,
  listed_to TEXT
) STRICT, WITHOUT ROWID;

-- The first candidate of each queue that is listed and not closed, under each prefix of its name that is asked for, in
-- the order in which batches are claimed.
-- at_checkpoint: 1 if it may be claimed at an active turn checkpoint.
CREATE TABLE pawl_queue_offer (
  prefix TEXT NOT NULL,
  at_checkpoint INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  enqueue_seq INTEGER NOT NULL,
  queue_id INTEGER NOT NULL,
  PRIMARY KEY (prefix, at_checkpoint, lane, enqueue_seq, queue_id)
) STRICT, WITHOUT ROWID;

-- prefixes: those that the queue is listed under, as JSON; null for none. offer_lane, offer_seq, offer_checkpoint: what
-- it is listed with; null for nothing.
ALTER TABLE pawl_queue ADD COLUMN prefixes TEXT;
ALTER TABLE pawl_queue ADD COLUMN offer_lane INTEGER;
ALTER TABLE pawl_queue ADD COLUMN offer_seq INTEGER;
ALTER TABLE pawl_queue ADD COLUMN offer_checkpoint INTEGER;
