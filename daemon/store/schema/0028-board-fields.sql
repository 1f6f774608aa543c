-- labels: what the cells of its labels say, as JSON. fields: the names of the fields of the user's own that are not null,
-- as JSON; their values are in pawl_cell. notes: how many there are in pawl_note; -1 means that the item is to be made
-- anew from its changes at the next start. priority: what the field of that name says, 0 to 4; anything else is 5.
ALTER TABLE pawl_item ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE pawl_item ADD COLUMN fields TEXT NOT NULL DEFAULT '[]';
ALTER TABLE pawl_item ADD COLUMN notes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_item ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
CREATE INDEX pawl_item_stale ON pawl_item (story_id) WHERE notes < 0;

-- The notes of an item at its generation, in the order of their times. n, idx: the change that has its text, and which
-- note of that it is.
CREATE TABLE pawl_note (
  story_id TEXT NOT NULL,
  wall INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  n INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  PRIMARY KEY (story_id, wall, counter, n, idx)
) STRICT, WITHOUT ROWID;

-- Until now these were fields of unknown names, kept and passed on.
UPDATE pawl_item SET notes = -1 WHERE EXISTS
  (SELECT 1 FROM pawl_cell c WHERE c.story_id = pawl_item.story_id
   AND (c.field > 'f/' AND c.field < 'f0' OR c.field > 'l/' AND c.field < 'l0' OR c.field > 'n/' AND c.field < 'n0'));
