-- Elapsed time and the wall clock. Times are in milliseconds. Where a column is not said to have the wall clock, it has
-- elapsed time, which goes on over restarts and is that of the daemon's clock. Times of before count as elapsed time.

-- A grant that ends with its connection is kept for a grace after a restart of the daemon, in which it may be renewed.
-- grace_ends_at: until when; null for a grant in no grace. The connection is null then (0 of a lease), and expires_at is
-- when the grant ends by itself, as ever. In their place there were the end of the grace in expires_at and the own end,
-- negated, in connection.
ALTER TABLE pawl_batch ADD COLUMN grace_ends_at INTEGER;
UPDATE pawl_batch SET grace_ends_at = expires_at, expires_at = -connection, connection = NULL WHERE connection < 0;
CREATE INDEX pawl_batch_grace ON pawl_batch (grace_ends_at) WHERE grace_ends_at IS NOT NULL;

ALTER TABLE pawl_lease ADD COLUMN grace_ends_at INTEGER;
UPDATE pawl_lease SET grace_ends_at = expires_at, expires_at = -connection, connection = 0 WHERE connection < 0;
CREATE INDEX pawl_lease_grace ON pawl_lease (grace_ends_at) WHERE grace_ends_at IS NOT NULL;

ALTER TABLE pawl_command ADD COLUMN grace_ends_at INTEGER;
UPDATE pawl_command SET grace_ends_at = lease_expires_at, lease_expires_at = -lease_connection, lease_connection = NULL
  WHERE lease_connection < 0;
CREATE INDEX pawl_command_grace ON pawl_command (grace_ends_at) WHERE grace_ends_at IS NOT NULL;

-- available_at_wall: the time that was named, by the wall clock; or the wall clock when a batch was last made available
-- again. While a batch is scheduled, null means that available_at says when it comes. Afterwards null means that it was
-- available when it was enqueued. enqueued_at is the wall clock of that moment.
ALTER TABLE pawl_batch ADD COLUMN available_at_wall INTEGER;
UPDATE pawl_batch SET available_at_wall = available_at WHERE state <> 'scheduled' AND available_at <> enqueued_at;
DROP INDEX pawl_batch_scheduled;
CREATE INDEX pawl_batch_delayed ON pawl_batch (available_at) WHERE state = 'scheduled' AND available_at_wall IS NULL;
CREATE INDEX pawl_batch_scheduled ON pawl_batch (available_at_wall)
  WHERE state = 'scheduled' AND available_at_wall IS NOT NULL;

-- Of a lease, acquired_at is the wall clock of that moment. ends_boottime_ms is by CLOCK_BOOTTIME.
ALTER TABLE pawl_lease RENAME COLUMN ends_uptime_ms TO ends_boottime_ms;

-- ready_place: its place among the commands of its deployment that may be leased; it was the time since when.
-- deadline: the time that was named, by the wall clock. ttl_ends_at: when the time that was given from the creation on
-- is over. due_at: the sooner of that and of the end of an upload. created_at, dispatched_at and completed_at are the
-- wall clock of that moment. ended_at: since when it is final; from then on it is kept for the time of retention.
ALTER TABLE pawl_command RENAME COLUMN ready_at TO ready_place;
ALTER TABLE pawl_command ADD COLUMN ttl_ends_at INTEGER;
UPDATE pawl_command SET ttl_ends_at = deadline, deadline = NULL WHERE deadline IS NOT NULL AND completed_at IS NULL;
CREATE INDEX pawl_command_deadline ON pawl_command (deadline) WHERE deadline IS NOT NULL AND completed_at IS NULL;
ALTER TABLE pawl_command ADD COLUMN ended_at INTEGER;
UPDATE pawl_command SET ended_at = completed_at WHERE completed_at IS NOT NULL;
DROP INDEX pawl_command_completed;
CREATE INDEX pawl_command_ended ON pawl_command (ended_at) WHERE ended_at IS NOT NULL;

-- finished_at of a batch and ended_at of a command are elapsed time as retention counts it, without what a change of
-- the wall clock between two boots of the machine may have added to it.

-- clock: the time as it was last kept, with the clocks of the machine, as JSON. Before there was only its latest time.
INSERT INTO pawl_meta (key, value)
  SELECT 'clock', '{"boot":null,"monotonicMs":0,"boottimeMs":0,"wallMs":' || value || ',"elapsedMs":' || value
    || ',"unretainedMs":0}'
  FROM pawl_meta WHERE key = 'high_water_mark';
DELETE FROM pawl_meta WHERE key = 'high_water_mark';
