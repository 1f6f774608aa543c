-- provider: the specification of the provider outside that keeps the lease; null for this database.
-- The end of such a lease follows a clock that no restart and no change of the time of day touches: that of this
-- boot of the machine. ends_uptime_ms is expires_at by it; a row of another boot has ended.
ALTER TABLE pawl_lease ADD COLUMN provider TEXT;
ALTER TABLE pawl_lease ADD COLUMN boot TEXT;
ALTER TABLE pawl_lease ADD COLUMN ends_uptime_ms INTEGER;

CREATE INDEX pawl_lease_provider ON pawl_lease (provider) WHERE provider IS NOT NULL;

-- What a provider outside may still have granted although nobody here holds it: asked for with no answer yet, or
-- ended here before the provider was told. It is given back, also after a restart, until it has ended by itself.
-- fencing_token: null while it is not known.
CREATE TABLE pawl_lease_owed (
  lease_id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  provider TEXT NOT NULL,
  fencing_token INTEGER,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX pawl_lease_owed_name ON pawl_lease_owed (name);
