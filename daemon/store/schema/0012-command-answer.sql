-- Answers that come in pieces, by the delivery that they answer. The text is that of the whole answer.
-- syntax: how far the text is checked, as JsonSyntax keeps it. members: the outermost ones, as TopMembers keeps them.
-- is_complete: 1 for the answer that ended the command. A short one is in pawl_command_response then, as any other.
CREATE TABLE pawl_command_answer (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  received_bytes INTEGER NOT NULL,
  syntax BLOB NOT NULL,
  members TEXT NOT NULL,
  is_complete INTEGER NOT NULL,
  PRIMARY KEY (seq, attempt)
) STRICT;

-- The pieces, which follow one another. at: where in the text a piece begins.
CREATE TABLE pawl_command_answer_chunk (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  at INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (seq, attempt, at)
) STRICT;
