-- Schedules: batches that are enqueued at times. Exactly one of cron and every_ms is set. All times are those of the wall
-- clock, in milliseconds since the Unix epoch.
-- anchor_at: when it was set last; occurrences of every_ms come at whole multiples of it from there.
-- next_at: when it comes next; null for one that is disabled or at its end.
-- based_at: the time after which next_at was the first one, or after which there was none; null for one that is
-- disabled. A clock that stands before it was set back, and next_at is found anew.
-- last_seq: the batch of the last occurrence that was enqueued.
-- make_up_until: missed occurrences before then are made up for: the first of them has been sought.
-- sought_at, sought: how far back, and over how many occurrences, the first of those that were missed has been sought.
CREATE TABLE pawl_schedule (
  schedule_id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  cron TEXT,
  every_ms INTEGER,
  time_zone TEXT NOT NULL,
  queue TEXT NOT NULL,
  payloads TEXT NOT NULL,
  priority INTEGER NOT NULL,
  key TEXT,
  max_attempts INTEGER,
  overlap TEXT NOT NULL,
  missed TEXT NOT NULL,
  missed_window_ms INTEGER NOT NULL,
  enabled INTEGER NOT NULL,
  end_at INTEGER,
  anchor_at INTEGER NOT NULL,
  next_at INTEGER,
  based_at INTEGER,
  last_at INTEGER,
  last_batch_id TEXT,
  last_seq INTEGER,
  make_up_until INTEGER,
  sought_at INTEGER,
  sought INTEGER
) STRICT;

CREATE INDEX pawl_schedule_next_at ON pawl_schedule (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX pawl_schedule_based_at ON pawl_schedule (based_at) WHERE based_at IS NOT NULL;
