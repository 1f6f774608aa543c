-- What a queue is configured to, null where it is not. A queue with settings stays when its last batch goes.
-- max_attempts: of batches that are enqueued without any. retry: {baseMs, factor, maxMs, jitter} as JSON.
ALTER TABLE pawl_queue ADD COLUMN max_attempts INTEGER;
ALTER TABLE pawl_queue ADD COLUMN retry TEXT;

-- retry: its own, as JSON; null where that of its queue counts.
-- lost_before: 1 if a delivery of it ended by expiry or with its connection, since it was new or brought back.
-- content_digest: 'given ' before it means that of what was given; without, that of what was given or filled in.
ALTER TABLE pawl_batch ADD COLUMN retry TEXT;
ALTER TABLE pawl_batch ADD COLUMN lost_before INTEGER;
