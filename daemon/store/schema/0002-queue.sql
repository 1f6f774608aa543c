-- A queue exists by being used: its row comes with its first batch and goes with its last.
-- fencing_token: of its last claim. A new row begins at queue_fencing_floor in pawl_meta, which is as high as
-- that of any queue that has gone, so that the tokens of a name never come down.
-- The counts are those of its batches by state; they are kept because counting would read every batch.
CREATE TABLE pawl_queue (
  queue_id INTEGER NOT NULL PRIMARY KEY,
  queue TEXT NOT NULL UNIQUE,
  fencing_token INTEGER NOT NULL,
  ready INTEGER NOT NULL,
  scheduled INTEGER NOT NULL,
  claimed INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  dead INTEGER NOT NULL,
  cancelled INTEGER NOT NULL
) STRICT;

-- A batch and its place in its queue.
-- batch_key: the first 48 bits of batch_id, so that the index of all batches by their ids stays small.
-- payloads: the JSON text of the array; null if it is long and therefore in pawl_batch_payloads, so that a
-- change of state does not write it again.
-- payload_bytes: of that text in either place.
-- merge_key: null for never, empty for payload_default, else the group.
-- claim_seq, fencing_token: the last claim, by the enqueue_seq of its first batch, as long as it may still be
-- completed: also after it expired, until another claim takes the batch or the holder gives it back.
-- claim_size to expires_at: on the first batch of a claim only. expires_at: null unless the claim is held.
-- connection: the one whose end ends the claim; null for none. Of an earlier life of the daemon: when the lease ends
-- by itself, negated, while expires_at is the end of the grace that there is after a restart.
-- finished_at: when it was completed or cancelled; from then on it is kept for the time of retention.
CREATE TABLE pawl_batch (
  enqueue_seq INTEGER PRIMARY KEY AUTOINCREMENT,
  queue_id INTEGER NOT NULL,
  state TEXT NOT NULL,
  available_at INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  delivery_policy TEXT NOT NULL,
  slot_policy TEXT NOT NULL,
  merge_key TEXT,
  claim_seq INTEGER,
  fencing_token INTEGER,
  claim_size INTEGER,
  owner TEXT,
  pid INTEGER,
  lease_ms INTEGER,
  connection INTEGER,
  expires_at INTEGER,
  finished_at INTEGER,
  last_error TEXT,
  batch_key INTEGER NOT NULL,
  batch_id TEXT NOT NULL,
  source_key TEXT,
  content_digest TEXT,
  enqueued_at INTEGER NOT NULL,
  payload_bytes INTEGER NOT NULL,
  payloads TEXT
) STRICT;

-- Its rows come in enqueue_seq order for each queue and state.
CREATE INDEX pawl_batch_state ON pawl_batch (queue_id, state);
CREATE INDEX pawl_batch_key ON pawl_batch (batch_key);
CREATE UNIQUE INDEX pawl_batch_source ON pawl_batch (queue_id, source_key) WHERE source_key IS NOT NULL;
CREATE INDEX pawl_batch_scheduled ON pawl_batch (available_at) WHERE state = 'scheduled';
CREATE INDEX pawl_batch_expires ON pawl_batch (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX pawl_batch_connection ON pawl_batch (connection) WHERE connection IS NOT NULL;
CREATE INDEX pawl_batch_finished ON pawl_batch (finished_at) WHERE finished_at IS NOT NULL;
-- The batches of a claim beside its first.
CREATE INDEX pawl_batch_claim ON pawl_batch (claim_seq) WHERE claim_seq <> enqueue_seq;

CREATE TABLE pawl_batch_payloads (
  enqueue_seq INTEGER NOT NULL PRIMARY KEY,
  payloads TEXT NOT NULL
) STRICT;
