-- Reservations of paths below a root, by patterns.
-- highest: the highest fencing token ever granted for the root. It outlives the reservations, and is never lowered.
CREATE TABLE pawl_path_root (
  root_id INTEGER PRIMARY KEY,
  root TEXT NOT NULL UNIQUE,
  highest INTEGER NOT NULL
) STRICT;

-- mode: 'write' or 'read'. acquired_ttl_ms: what a renewal without a ttl takes. grace_ends_at: while its holder may come
-- back, after its connection or the daemon has ended; null otherwise. grace_ms: how long after its connection; null for
-- not at all. connection: the one that is told of the end, and whose end ends a reservation of release_on 'disconnect';
-- 0 for none. parts: how often a part of it was given back, which those who wait for that are told apart by.
-- A row past its end is nobody's; it is removed soon after.
CREATE TABLE pawl_path_reservation (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  reservation_id TEXT NOT NULL,
  root_id INTEGER NOT NULL,
  fencing_token INTEGER NOT NULL,
  mode TEXT NOT NULL,
  owner TEXT NOT NULL,
  note TEXT,
  acquired_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  grace_ends_at INTEGER,
  acquired_ttl_ms INTEGER NOT NULL,
  release_on TEXT NOT NULL,
  grace_ms INTEGER,
  connection INTEGER NOT NULL,
  pid INTEGER,
  uid INTEGER,
  gid INTEGER,
  parts INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX pawl_path_reservation_id ON pawl_path_reservation (reservation_id);
CREATE INDEX pawl_path_reservation_root ON pawl_path_reservation (root_id);
CREATE INDEX pawl_path_reservation_owner ON pawl_path_reservation (owner);
CREATE INDEX pawl_path_reservation_expires_at ON pawl_path_reservation (expires_at);
CREATE INDEX pawl_path_reservation_grace ON pawl_path_reservation (grace_ends_at) WHERE grace_ends_at IS NOT NULL;
CREATE INDEX pawl_path_reservation_connection ON pawl_path_reservation (connection)
  WHERE release_on = 'disconnect';

-- beginning: the text that each path begins with that fits, by which patterns are found that could meet another one.
CREATE TABLE pawl_path_pattern (
  number INTEGER NOT NULL,
  position INTEGER NOT NULL,
  root_id INTEGER NOT NULL,
  beginning TEXT NOT NULL,
  pattern TEXT NOT NULL,
  PRIMARY KEY (number, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX pawl_path_pattern_beginning ON pawl_path_pattern (root_id, beginning, number, position);
