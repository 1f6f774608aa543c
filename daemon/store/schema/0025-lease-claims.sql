-- has_claims: 1 once a claim of a queue was made that lives as long as the lease.
ALTER TABLE pawl_lease ADD COLUMN has_claims INTEGER;
