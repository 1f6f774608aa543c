-- target: a resource within the deployment; '' for none. Keys are unique for each.
-- has_more: 1 if there is a row in pawl_command_more.
ALTER TABLE pawl_command ADD COLUMN target TEXT NOT NULL DEFAULT '';
ALTER TABLE pawl_command ADD COLUMN has_more INTEGER;

DROP INDEX pawl_command_key;
CREATE UNIQUE INDEX pawl_command_key ON pawl_command (deployment, target, command, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX pawl_command_target ON pawl_command (deployment, target, ready_place)
  WHERE ready_place IS NOT NULL AND target <> '';

-- What few commands have. trace, progress: JSON. checkpoint: JSON text, as it came from the last delivery that left one.
CREATE TABLE pawl_command_more (
  seq INTEGER NOT NULL PRIMARY KEY,
  trace TEXT,
  progress TEXT,
  checkpoint TEXT
) STRICT;
