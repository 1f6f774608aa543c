-- A batch that was cancelled or had expired, and was purged then, was counted out twice among those that wait.
UPDATE pawl_batch_more SET awaited =
  (SELECT count(*) FROM pawl_batch_after a JOIN pawl_batch b ON b.enqueue_seq = a.enqueue_seq
   WHERE a.after_seq = pawl_batch_more.enqueue_seq AND b.state NOT IN ('completed', 'cancelled', 'expired'))
WHERE awaited IS NOT NULL;

-- A follower that waits for nothing any more, neither for others nor for the end of the one before it, was left blocked:
-- its time has come.
UPDATE pawl_queue SET
  scheduled = scheduled + (SELECT count(*) FROM pawl_batch b JOIN pawl_batch_more m ON m.enqueue_seq = b.enqueue_seq
    WHERE b.queue_id = pawl_queue.queue_id AND b.state = 'blocked' AND m.after_left IS NULL AND m.follows_seq IS NULL),
  blocked = blocked - (SELECT count(*) FROM pawl_batch b JOIN pawl_batch_more m ON m.enqueue_seq = b.enqueue_seq
    WHERE b.queue_id = pawl_queue.queue_id AND b.state = 'blocked' AND m.after_left IS NULL AND m.follows_seq IS NULL)
WHERE blocked > 0;
UPDATE pawl_batch SET state = 'scheduled', available_at_wall = NULL
WHERE state = 'blocked' AND enqueue_seq IN
  (SELECT enqueue_seq FROM pawl_batch_more WHERE after_left IS NULL AND follows_seq IS NULL);
