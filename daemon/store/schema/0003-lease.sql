-- Who holds a name now. A row past expires_at is nobody's; it is removed soon after.
-- warn_at: when the holder is to be told that its lease is about to end; null once told, or nobody to tell.
-- connection: the one that is told, and whose end ends a lease of release_on 'disconnect'; 0 for none.
-- Connections are numbered anew in each life of the daemon, which sets this to 0 at its start. A lease of release_on
-- 'disconnect' then has here when it ends by itself, negated, while expires_at is the end of the grace after a restart.
CREATE TABLE pawl_lease (
  name TEXT NOT NULL PRIMARY KEY,
  lease_id TEXT NOT NULL,
  fencing_token INTEGER NOT NULL,
  owner TEXT NOT NULL,
  note TEXT,
  acquired_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  ttl_ms INTEGER NOT NULL,
  warn_at INTEGER,
  release_on TEXT NOT NULL,
  connection INTEGER NOT NULL,
  pid INTEGER,
  uid INTEGER,
  gid INTEGER
) STRICT;

CREATE UNIQUE INDEX pawl_lease_lease_id ON pawl_lease (lease_id);
CREATE INDEX pawl_lease_expires_at ON pawl_lease (expires_at);
CREATE INDEX pawl_lease_warn_at ON pawl_lease (warn_at) WHERE warn_at IS NOT NULL;
CREATE INDEX pawl_lease_connection ON pawl_lease (connection) WHERE release_on = 'disconnect';

-- The highest fencing token ever granted for a name. It outlives the leases, and is never lowered.
CREATE TABLE pawl_lease_token (
  name TEXT NOT NULL PRIMARY KEY,
  highest INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
