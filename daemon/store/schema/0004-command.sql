-- Who commands are sent to. declared: 1 once deployment.set has named it; others go with their last command.
CREATE TABLE pawl_deployment (
  deployment TEXT NOT NULL PRIMARY KEY,
  model TEXT NOT NULL,
  project_id TEXT,
  declared INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per command, without its params and its answer. seq grows like command_id does.
-- project_id, model: what the deployment had when the command was created.
-- uploaded: 1 if the params are in pawl_command_chunk, 0 if in pawl_command_params or none were given.
-- content: digest of what an idempotency_key stands for.
-- Each of the next is set only while it is a reason to find the row, so that its index holds nothing else:
--   ready_at: it may be leased, and since when.
--   delayed_until: it is PENDING, and not before then.
--   due_at: it is not final, and becomes EXPIRED then.
--   lease_expires_at: it is DISPATCHED, and its delivery ends unanswered then.
--   lease_connection: it is DISPATCHED, and its delivery ends with that connection. Of an earlier life of the daemon:
--   when its lease ends by itself, negated, while lease_expires_at is the end of the grace that there is after a
--   restart. DISPATCHED without lease_expires_at is a push.
CREATE TABLE pawl_command (
  seq INTEGER NOT NULL PRIMARY KEY,
  command_id TEXT NOT NULL,
  deployment TEXT NOT NULL,
  command TEXT NOT NULL,
  project_id TEXT,
  model TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  deadline INTEGER,
  created_at INTEGER NOT NULL,
  dispatched_at INTEGER,
  completed_at INTEGER,
  request_bytes INTEGER NOT NULL,
  response_bytes INTEGER,
  error_code TEXT,
  error_message TEXT,
  uploaded INTEGER NOT NULL,
  idempotency_key TEXT,
  content TEXT,
  lease_owner TEXT,
  lease_pid INTEGER,
  ready_at INTEGER,
  delayed_until INTEGER,
  due_at INTEGER,
  lease_expires_at INTEGER,
  lease_connection INTEGER
) STRICT;

CREATE UNIQUE INDEX pawl_command_id ON pawl_command (command_id);
CREATE UNIQUE INDEX pawl_command_key ON pawl_command (deployment, command, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

CREATE INDEX pawl_command_ready ON pawl_command (deployment, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX pawl_command_delayed ON pawl_command (delayed_until) WHERE delayed_until IS NOT NULL;
CREATE INDEX pawl_command_due ON pawl_command (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pawl_command_lease_end ON pawl_command (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX pawl_command_connection ON pawl_command (lease_connection) WHERE lease_connection IS NOT NULL;
CREATE INDEX pawl_command_completed ON pawl_command (completed_at) WHERE completed_at IS NOT NULL;

-- For lists and counts. Entries of one key are in the order of seq.
CREATE INDEX pawl_command_deployment ON pawl_command (deployment, state);
CREATE INDEX pawl_command_state ON pawl_command (state);
CREATE INDEX pawl_command_project ON pawl_command (project_id, state) WHERE project_id IS NOT NULL;

-- The JSON text of the params; no row for params that were not given.
CREATE TABLE pawl_command_params (
  seq INTEGER NOT NULL PRIMARY KEY,
  params TEXT NOT NULL
) STRICT;

-- The JSON text of the whole answer.
CREATE TABLE pawl_command_response (
  seq INTEGER NOT NULL PRIMARY KEY,
  response TEXT NOT NULL
) STRICT;

-- An upload that has not ended. syntax: how far the text is checked, as JsonSyntax keeps it.
CREATE TABLE pawl_command_upload (
  seq INTEGER NOT NULL PRIMARY KEY,
  received_bytes INTEGER NOT NULL,
  syntax BLOB NOT NULL
) STRICT;

-- Params that were uploaded, in pieces that follow one another. at: where in the text a piece begins.
CREATE TABLE pawl_command_chunk (
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (seq, at)
) STRICT;
