-- The connection that took or renewed a delivery last, also one that does not end with it; null for one of before.
ALTER TABLE pawl_command ADD COLUMN holder_connection INTEGER;
