-- Leases that have ended, and under which there are more claims than one step ends.
-- is_released: 1 if the holder gave the lease up: then no attempt is counted.
CREATE TABLE pawl_claim_lease_ended (
  name TEXT NOT NULL,
  fencing_token INTEGER NOT NULL,
  is_released INTEGER NOT NULL,
  PRIMARY KEY (name, fencing_token)
) STRICT, WITHOUT ROWID;

-- has_terms of pawl_batch, on the first batch of a claim: 1 if pawl_claim_terms has a row of it; 2 if it has none, and its
-- holder is told if it is lost; 3 if the lease has ended that it was under, so that it cannot be completed any more.

-- grace_ms: on the first batch of a claim, how long its holder may take to come back after its connection has closed; null
-- for not at all.
ALTER TABLE pawl_batch ADD COLUMN grace_ms INTEGER;
