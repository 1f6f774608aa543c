-- outcome: how the batch that is waited for has ended, as far as this one was told: 1 completed, 2 otherwise; null while
-- it has not. awaited of pawl_batch_more counts those that wait, or may be tried again, and not those that are completed,
-- cancelled or expired. after_left is null once a batch may have been claimed.
ALTER TABLE pawl_batch_after ADD COLUMN outcome INTEGER;

-- Batches that have ended, or come back, and of which those that wait for them are still to be told; up to told_seq they
-- have been.
CREATE TABLE pawl_batch_turned (
  enqueue_seq INTEGER NOT NULL PRIMARY KEY,
  told_seq INTEGER NOT NULL
) STRICT;
