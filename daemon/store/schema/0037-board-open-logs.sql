-- Cuts that another node gave, until all that it has in their place is known to have come.

-- open_seq, open_end: the place before the first of these cuts in this branch, and the last of what they stand for; null
-- if there are none.
ALTER TABLE pawl_branch ADD COLUMN open_seq INTEGER;
ALTER TABLE pawl_branch ADD COLUMN open_end INTEGER;
