-- Everything that is pawl's own begins with pawl_: the file may hold other applications' tables.

-- high_water_mark: the latest time of a committed turn, in milliseconds since the epoch.
-- mode, node_id: what the counters belong to.
CREATE TABLE pawl_meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

-- One row per counter. node_id is 0 in centralized mode; counters of a former node id are kept.
CREATE TABLE pawl_sequence (
  node_id INTEGER NOT NULL,
  type TEXT NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (node_id, type)
) STRICT, WITHOUT ROWID;

-- What was answered to a requestId, so that a retry gets the same answer.
CREATE TABLE pawl_request (
  request_id TEXT NOT NULL PRIMARY KEY,
  request TEXT NOT NULL,
  result TEXT NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX pawl_request_expires_at ON pawl_request (expires_at);
