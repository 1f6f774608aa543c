-- A name can have several holders: those that share it, or as many as it has slots. A lease of several names has a row
-- for each, all with one lease_id, which end together. A row past its end is nobody's; it is removed soon after.
-- mode: 'exclusive' or 'shared'. slots: how many of the name's slots it takes; 1 of one that is shared.
-- members: those of the pool that are its own, as JSON; null if it is none. joint: how many names a lease of several
-- has; null for one. grace_ms: how long its holder may take to come back after its connection has closed; null for not
-- at all. task, awaits_children: as they were given; null if they were not.
CREATE TABLE pawl_lease_of_modes (
  name TEXT NOT NULL,
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
  gid INTEGER,
  provider TEXT,
  boot TEXT,
  ends_boottime_ms INTEGER,
  grace_ends_at INTEGER,
  acquired_ttl_ms INTEGER,
  mode TEXT NOT NULL,
  slots INTEGER NOT NULL,
  members TEXT,
  joint INTEGER,
  grace_ms INTEGER,
  task TEXT,
  awaits_children INTEGER,
  PRIMARY KEY (name, fencing_token)
) STRICT;

INSERT INTO pawl_lease_of_modes (name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid, provider, boot, ends_boottime_ms, grace_ends_at, acquired_ttl_ms, mode, slots)
  SELECT name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid, provider, boot, ends_boottime_ms, grace_ends_at, acquired_ttl_ms, 'exclusive', 1
  FROM pawl_lease;
DROP TABLE pawl_lease;
ALTER TABLE pawl_lease_of_modes RENAME TO pawl_lease;

CREATE INDEX pawl_lease_lease_id ON pawl_lease (lease_id);
CREATE INDEX pawl_lease_expires_at ON pawl_lease (expires_at);
CREATE INDEX pawl_lease_warn_at ON pawl_lease (warn_at) WHERE warn_at IS NOT NULL;
CREATE INDEX pawl_lease_connection ON pawl_lease (connection) WHERE release_on = 'disconnect';
CREATE INDEX pawl_lease_provider ON pawl_lease (provider) WHERE provider IS NOT NULL;
CREATE INDEX pawl_lease_grace ON pawl_lease (grace_ends_at) WHERE grace_ends_at IS NOT NULL;

-- capacity: how many slots a name has; null for one. pool: its members, one for each slot, as JSON; null for none. A
-- name that was configured and never held has the token 0.
ALTER TABLE pawl_lease_token ADD COLUMN capacity INTEGER;
ALTER TABLE pawl_lease_token ADD COLUMN pool TEXT;
