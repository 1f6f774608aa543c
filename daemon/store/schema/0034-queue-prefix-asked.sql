-- asked_at: when a claim has asked for it, in elapsed time and to the minute; those of before begin as not asked for.
-- unlisted_to: while the queues under a prefix that nobody asks for any more are taken from the list: the last that is.
ALTER TABLE pawl_queue_prefix ADD COLUMN asked_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_queue_prefix ADD COLUMN unlisted_to TEXT;
CREATE INDEX pawl_queue_prefix_asked_at ON pawl_queue_prefix (asked_at);
