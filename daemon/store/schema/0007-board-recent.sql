-- recent: the numbers of the last changes about an item that are not in pawl_touch yet, as JSON. An item's row is
-- written by each change about it; a row of pawl_touch would be one more page, elsewhere, each time. So they go there
-- many at a time.
ALTER TABLE pawl_item ADD COLUMN recent TEXT NOT NULL DEFAULT '[]';
