-- The members of pools, in parts: what is free is found by reading the first of them, and a token that goes up writes
-- none of them anew. A pool of before is one part, until it is leased from.
CREATE TABLE pawl_lease_pool (
  name TEXT NOT NULL,
  part INTEGER NOT NULL,
  -- Some of its members, one for each slot, as JSON.
  members TEXT NOT NULL,
  PRIMARY KEY (name, part)
) STRICT, WITHOUT ROWID;

INSERT INTO pawl_lease_pool (name, part, members)
  SELECT name, 0, pool FROM pawl_lease_token WHERE pool IS NOT NULL;
-- capacity: null for a name of one slot that is no pool.
UPDATE pawl_lease_token SET capacity = 1 WHERE pool IS NOT NULL AND capacity IS NULL;
ALTER TABLE pawl_lease_token DROP COLUMN pool;
