-- Batches in an order of their own: priorities, keys, limits, waiting for others. A batch that uses none of this has null
-- in each of the columns here, and costs what it did.

-- priority: higher first. key: what it is about, null for nothing.
-- in_line: 1 for a ready batch with a key that is no candidate: others of its key come first, or the key has no room. Of
-- each key one batch at most, the next one, is not in line, so that a claim never looks at those behind a full key.
-- ttl_ms: how long it may be available before its first claim; null from then on. ttl_ends_at: when that is over; null
-- while it is not available yet.
-- key_elsewhere: 1 if its source_key finds another batch, or none: a follower, a batch of before, one that is forgotten.
-- has_more: 1 if pawl_batch_more has a row of it. has_terms: 1 on the first batch of a claim that pawl_claim_terms has.
ALTER TABLE pawl_batch ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_batch ADD COLUMN key TEXT;
ALTER TABLE pawl_batch ADD COLUMN in_line INTEGER;
ALTER TABLE pawl_batch ADD COLUMN ttl_ms INTEGER;
ALTER TABLE pawl_batch ADD COLUMN ttl_ends_at INTEGER;
ALTER TABLE pawl_batch ADD COLUMN key_elsewhere INTEGER;
ALTER TABLE pawl_batch ADD COLUMN has_more INTEGER;
ALTER TABLE pawl_batch ADD COLUMN has_terms INTEGER;

-- lane: in which order a queue has its batches: candidates from -100 on, the highest priority first, then the ready
-- ones that are in line, then the other states. Within a lane they come in enqueue_seq order.
ALTER TABLE pawl_batch ADD COLUMN lane INTEGER GENERATED ALWAYS AS (CASE state
  WHEN 'ready' THEN CASE WHEN in_line IS NULL THEN -priority ELSE 300 - priority END
  WHEN 'scheduled' THEN 1001
  WHEN 'claimed' THEN 1002
  WHEN 'dead' THEN 1003
  WHEN 'blocked' THEN 1004
  WHEN 'completed' THEN 1005
  WHEN 'cancelled' THEN 1006
  WHEN 'expired' THEN 1007
  END) VIRTUAL;
DROP INDEX pawl_batch_state;
CREATE INDEX pawl_batch_lane ON pawl_batch (queue_id, lane);
CREATE INDEX pawl_batch_keyed ON pawl_batch (queue_id, key, lane) WHERE key IS NOT NULL;
CREATE INDEX pawl_batch_ttl ON pawl_batch (ttl_ends_at) WHERE ttl_ends_at IS NOT NULL;
DROP INDEX pawl_batch_source;
CREATE UNIQUE INDEX pawl_batch_source ON pawl_batch (queue_id, source_key)
  WHERE source_key IS NOT NULL AND key_elsewhere IS NULL;

-- What few batches have; a batch without any of it has no row.
-- trace, progress, checkpoint, result: JSON. after_ids: the batches that it waits for as it names them, as JSON;
-- after_when: success, failure or finished; after_left: how many of them are not final, while it is blocked.
-- awaited: how many batches name it in pawl_batch_after. cancel_cause: enqueue_seq of the batch for whose end it was
-- cancelled. forgets_key: 1 if its source_key is forgotten when it is final. replace_until: until when its delay may
-- begin anew, in elapsed time. follower_seq: the batch that waits for its end under the same source_key; follows_seq:
-- the batch whose end it waits for so. delay_ms: how long the delay is that begins when it is unblocked.
-- cancelling: 1 while the holder of its claim is told to stop it; cancel_reason: why.
CREATE TABLE pawl_batch_more (
  enqueue_seq INTEGER NOT NULL PRIMARY KEY,
  trace TEXT,
  progress TEXT,
  checkpoint TEXT,
  result TEXT,
  after_ids TEXT,
  after_when TEXT,
  after_left INTEGER,
  awaited INTEGER,
  cancel_cause INTEGER,
  cancelling INTEGER,
  cancel_reason TEXT,
  forgets_key INTEGER,
  replace_until INTEGER,
  follower_seq INTEGER,
  follows_seq INTEGER,
  delay_ms INTEGER
) STRICT;

-- Which batches wait for which: a pair for each that is named.
CREATE TABLE pawl_batch_after (
  enqueue_seq INTEGER NOT NULL,
  after_seq INTEGER NOT NULL,
  PRIMARY KEY (after_seq, enqueue_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX pawl_batch_after_batch ON pawl_batch_after (enqueue_seq);

-- What few claims have, by the first of their batches.
-- lease_name, lease_token: of the lease that it lives as long as; its expires_at is null then.
-- notify: 1 if its holder is told of its loss, on the connection notify_connection, which claimed or renewed it last.
-- cancel_at: in elapsed time, when the grace ends that it was given to stop.
CREATE TABLE pawl_claim_terms (
  enqueue_seq INTEGER NOT NULL PRIMARY KEY,
  fencing_token INTEGER NOT NULL,
  lease_name TEXT,
  lease_token INTEGER,
  notify INTEGER,
  notify_connection INTEGER,
  cancel_at INTEGER
) STRICT;
CREATE INDEX pawl_claim_lease ON pawl_claim_terms (lease_name, lease_token) WHERE lease_name IS NOT NULL;
CREATE INDEX pawl_claim_cancel ON pawl_claim_terms (cancel_at) WHERE cancel_at IS NOT NULL;

-- blocked, expired: batches of these states. claims: how many claims are held.
-- settings: what it is configured to, as JSON; null for nothing. rate_full_at: when its bucket is full again, in elapsed
-- milliseconds; null for full.
-- opens_at, opens_at_wall: when something may be claimed that may not now, since it is paused, throttled or over its
-- rate: in elapsed time, and by the wall clock.
-- lay_after: while the lines of its keys are laid anew, after a change of its settings: the last key that was.
ALTER TABLE pawl_queue ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_queue ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_queue ADD COLUMN claims INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_queue ADD COLUMN settings TEXT;
ALTER TABLE pawl_queue ADD COLUMN rate_full_at REAL;
ALTER TABLE pawl_queue ADD COLUMN opens_at INTEGER;
ALTER TABLE pawl_queue ADD COLUMN opens_at_wall INTEGER;
ALTER TABLE pawl_queue ADD COLUMN lay_after TEXT;
UPDATE pawl_queue SET settings = '{"maxAttempts":' || coalesce(max_attempts || '', 'null') || ',"retry":'
  || coalesce(retry, 'null') || '}' WHERE max_attempts IS NOT NULL OR retry IS NOT NULL;
ALTER TABLE pawl_queue DROP COLUMN max_attempts;
ALTER TABLE pawl_queue DROP COLUMN retry;
UPDATE pawl_queue SET claims = (SELECT count(*) FROM pawl_batch b
  WHERE b.queue_id = pawl_queue.queue_id AND b.lane = 1002 AND b.claim_seq = b.enqueue_seq);
CREATE INDEX pawl_queue_opens ON pawl_queue (opens_at) WHERE opens_at IS NOT NULL;
CREATE INDEX pawl_queue_opens_wall ON pawl_queue (opens_at_wall) WHERE opens_at_wall IS NOT NULL;
CREATE INDEX pawl_queue_lay ON pawl_queue (lay_after) WHERE lay_after IS NOT NULL;
