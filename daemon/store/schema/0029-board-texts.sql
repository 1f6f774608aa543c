-- texts: up to which item the words of names, descriptions and notes are in pawl_text_index; null until somebody searches
-- for the first time, so that a board that nobody searches costs nothing for it. `~` is behind every item.
ALTER TABLE pawl_board ADD COLUMN texts TEXT;

-- What a row of the index is about: an item, by its name and description, or one of its notes. n, idx: as in pawl_note,
-- both 0 for an item.
CREATE TABLE pawl_text (
  doc INTEGER NOT NULL PRIMARY KEY,
  story_id TEXT NOT NULL,
  n INTEGER NOT NULL,
  idx INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX pawl_text_place ON pawl_text (story_id, n, idx);

-- The words alone; rowid is the doc. The texts are where they were.
CREATE VIRTUAL TABLE pawl_text_index
  USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2');
