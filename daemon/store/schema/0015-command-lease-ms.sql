-- lease_ms: how long the delivery was leased for, which a renewal without a time takes again; null for a push and for
-- deliveries of before.
ALTER TABLE pawl_command ADD COLUMN lease_ms INTEGER;
