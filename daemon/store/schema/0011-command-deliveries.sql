-- execution_ms: how long one delivery may take, as the command says; null for one that says nothing.
-- execution_ends_at: it is DISPATCHED, and its delivery ends unanswered then, whatever is renewed.
-- late_attempt: it is PENDING, and the answer to its delivery of this number, which ended unanswered, still counts.
-- content: 'given ' before it means that of what was given; without, that of the params alone.
ALTER TABLE pawl_command ADD COLUMN execution_ms INTEGER;
ALTER TABLE pawl_command ADD COLUMN execution_ends_at INTEGER;
ALTER TABLE pawl_command ADD COLUMN late_attempt INTEGER;
CREATE INDEX pawl_command_execution ON pawl_command (execution_ends_at) WHERE execution_ends_at IS NOT NULL;
