-- node_id: the number or the name of the node whose counter it is, '0' in centralized mode.
-- granted_to: null for a counter that goes on by itself. Else its numbers come from grants: those up to this one may be
--   taken, then those of the next range.
-- granted_later: how many numbers the ranges have that come after granted_to.
CREATE TABLE pawl_sequence_of_node (
  node_id TEXT NOT NULL,
  type TEXT NOT NULL,
  last INTEGER NOT NULL,
  granted_to INTEGER,
  granted_later INTEGER,
  PRIMARY KEY (node_id, type)
) STRICT, WITHOUT ROWID;

INSERT INTO pawl_sequence_of_node (node_id, type, last) SELECT node_id || '', type, last FROM pawl_sequence;
DROP TABLE pawl_sequence;
ALTER TABLE pawl_sequence_of_node RENAME TO pawl_sequence;

-- Ranges of numbers that another node gave, of which none has been taken.
CREATE TABLE pawl_sequence_grant (
  node_id TEXT NOT NULL,
  type TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (node_id, type, first)
) STRICT, WITHOUT ROWID;
