-- Processes that are ended when they lose what they hold, before it is granted to others.
-- grant_id: the lease_id or the reservation_id; noun says which. connection: the one that has to have closed, too; 0 for
-- one of an earlier life of the daemon. pid, start_time (in ticks since the boot), pidfd_inode: which process it is, in
-- that boot of the machine, pid_namespace and database_file, outside of which the pid may be another's.
-- lost_at: when it was lost, in elapsed milliseconds; null while it is held. is_taken: 1 once this life of the daemon is
-- about to end the process.
CREATE TABLE pawl_on_loss (
  grant_id TEXT PRIMARY KEY,
  noun TEXT NOT NULL,
  signal TEXT NOT NULL,
  grace_ms INTEGER NOT NULL,
  connection INTEGER NOT NULL,
  pid INTEGER NOT NULL,
  start_time INTEGER NOT NULL,
  pidfd_inode TEXT NOT NULL,
  boot TEXT NOT NULL,
  pid_namespace TEXT NOT NULL,
  database_file TEXT NOT NULL,
  lost_at INTEGER,
  is_taken INTEGER NOT NULL
) STRICT;
CREATE INDEX pawl_on_loss_lost ON pawl_on_loss (is_taken, lost_at) WHERE lost_at IS NOT NULL;

-- on_loss: 1 if its process is ended when it is lost; it is not granted to others before that. lost_at: since when it is
-- nobody's, and its process is being ended; its expires_at never comes then.
ALTER TABLE pawl_lease ADD COLUMN on_loss INTEGER;
ALTER TABLE pawl_lease ADD COLUMN lost_at INTEGER;
ALTER TABLE pawl_path_reservation ADD COLUMN on_loss INTEGER;
ALTER TABLE pawl_path_reservation ADD COLUMN lost_at INTEGER;
