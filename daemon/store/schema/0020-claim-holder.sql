-- holder_connection: on the first batch of a claim, the connection that claimed or renewed it last, which is told what
-- becomes of it; null after a restart, until it is renewed.
ALTER TABLE pawl_batch ADD COLUMN holder_connection INTEGER;
