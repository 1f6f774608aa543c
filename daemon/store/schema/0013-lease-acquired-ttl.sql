-- acquired_ttl_ms: the ttl that a lease was acquired with, which a renewal without one takes; ttl_ms is that of the last
-- renewal. Null for leases of before, whose ttl_ms counts.
ALTER TABLE pawl_lease ADD COLUMN acquired_ttl_ms INTEGER;
