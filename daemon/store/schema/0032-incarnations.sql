-- incarnation: the one receiver that the command is for; null for whichever takes it.
-- lease_incarnation_id: it is DISPATCHED, to a receiver that named itself.
-- grace_ms: of a delivery that ends with its connection, how long its holder has to come back; null for not at all.
ALTER TABLE pawl_command ADD COLUMN incarnation TEXT;
ALTER TABLE pawl_command ADD COLUMN lease_incarnation_id INTEGER;
ALTER TABLE pawl_command ADD COLUMN grace_ms INTEGER;

-- Commands for one receiver are in lines of their own, so that no other looks at them.
DROP INDEX pawl_command_ready;
DROP INDEX pawl_command_target;
CREATE INDEX pawl_command_ready ON pawl_command (deployment, ready_place)
  WHERE ready_place IS NOT NULL AND incarnation IS NULL;
CREATE INDEX pawl_command_target ON pawl_command (deployment, target, ready_place)
  WHERE ready_place IS NOT NULL AND incarnation IS NULL AND target <> '';
CREATE INDEX pawl_command_meant_ready ON pawl_command (deployment, incarnation, ready_place)
  WHERE ready_place IS NOT NULL AND incarnation IS NOT NULL;
CREATE INDEX pawl_command_meant_target ON pawl_command (deployment, incarnation, target, ready_place)
  WHERE ready_place IS NOT NULL AND incarnation IS NOT NULL AND target <> '';
CREATE INDEX pawl_command_meant ON pawl_command (deployment, incarnation, seq)
  WHERE incarnation IS NOT NULL AND completed_at IS NULL;
CREATE INDEX pawl_command_lease_incarnation ON pawl_command (lease_incarnation_id)
  WHERE lease_incarnation_id IS NOT NULL;

-- Receivers that named themselves. One lives while a connection that named it is open, or a delivery to it lasts.
-- grace_ends_at: after a restart, when its connection is to be there again.
-- ended_at: when it ended, as retention counts.
-- has_commands: 1 while there may be commands for it that are to end with it.
CREATE TABLE pawl_incarnation (
  incarnation_id INTEGER PRIMARY KEY,
  deployment TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  grace_ends_at INTEGER,
  ended_at INTEGER,
  has_commands INTEGER,
  UNIQUE (deployment, incarnation)
) STRICT;

CREATE INDEX pawl_incarnation_grace ON pawl_incarnation (grace_ends_at) WHERE grace_ends_at IS NOT NULL;
CREATE INDEX pawl_incarnation_ended ON pawl_incarnation (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX pawl_incarnation_commands ON pawl_incarnation (incarnation_id) WHERE has_commands = 1;

CREATE TABLE pawl_incarnation_connection (
  connection INTEGER NOT NULL,
  incarnation_id INTEGER NOT NULL,
  PRIMARY KEY (connection, incarnation_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX pawl_incarnation_of_connection ON pawl_incarnation_connection (incarnation_id);

-- latest_created_at: the latest created_at of it and of all commands before it. The wall clock may have been set, so a
-- command can have been created later than those after it.
ALTER TABLE pawl_command ADD COLUMN latest_created_at INTEGER NOT NULL DEFAULT 0;
UPDATE pawl_command SET latest_created_at = latest.at
FROM (SELECT seq AS of_seq, max(created_at) OVER (ORDER BY seq) AS at FROM pawl_command) AS latest
WHERE latest.of_seq = pawl_command.seq;
