-- Work that is taken from the board. Each change keeps what is needed to find the items that are ready.

-- waits: how many of the items that it depends on are not there, or in no done stage.
-- held: 1 while the lease item/<story_id> is held. ready: 1 if it can be claimed.
ALTER TABLE pawl_item ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_item ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pawl_item ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;

-- A row for each element of dependsOn. done: 1 if the item that is depended on counts as done in `waits`.
CREATE TABLE pawl_item_dependency (
  depends_on TEXT NOT NULL,
  done INTEGER NOT NULL,
  story_id TEXT NOT NULL,
  PRIMARY KEY (depends_on, done, story_id)
) STRICT, WITHOUT ROWID;

-- Items that have become done, or are so no more, and not all of those that depend on them are told yet. The empty
-- story_id stands for the stages in pawl_board_rules.laying.
CREATE TABLE pawl_item_turned (
  story_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What pipeline.configure has set on this node, at most one row; null for what is as it is by default. stages,
-- transitions: JSON. laying: the stages whose items are still to be looked at after a change of the stages, and behind
-- which rank and story_id of the first of them, as JSON.
CREATE TABLE pawl_board_rules (
  id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  stages TEXT,
  transitions TEXT,
  max_retries INTEGER,
  laying TEXT
) STRICT;

-- Items that are claimed. fencing_token: of the lease item/<story_id> that the claim is. former_stage: where the item
-- was. stage_n, agent_n: the numbers of the changes by which the claim last set the two; null if it did not.
CREATE TABLE pawl_item_claim (
  story_id TEXT NOT NULL PRIMARY KEY,
  fencing_token INTEGER NOT NULL,
  agent TEXT NOT NULL,
  former_stage TEXT NOT NULL,
  stage_n INTEGER,
  agent_n INTEGER
) STRICT, WITHOUT ROWID;

-- `dependsOn/` has ten characters.
INSERT INTO pawl_item_dependency (depends_on, done, story_id)
  SELECT substr(c.field, 11), CASE WHEN EXISTS
    (SELECT 1 FROM pawl_item o WHERE o.story_id = substr(c.field, 11) AND o.stage = '5_done') THEN 1 ELSE 0 END,
    c.story_id
  FROM pawl_cell c WHERE c.field LIKE 'dependsOn/%' AND c.value = 'true';

UPDATE pawl_item SET waits = w.waits
FROM (SELECT story_id, count(*) AS waits FROM pawl_item_dependency WHERE done = 0 GROUP BY story_id) AS w
WHERE w.story_id = pawl_item.story_id;

UPDATE pawl_item SET held = 1 WHERE 'item/' || story_id IN (SELECT name FROM pawl_lease);

UPDATE pawl_item SET ready = 1 WHERE stage = '1_backlog' AND blocked = 0 AND waits = 0 AND held = 0;

CREATE INDEX pawl_item_ready ON pawl_item (stage, priority, rank, story_id) WHERE ready = 1;

-- The labels of items that are ready, in the order of pawl_item_ready.
CREATE TABLE pawl_item_ready_label (
  label TEXT NOT NULL,
  stage TEXT NOT NULL,
  priority INTEGER NOT NULL,
  rank TEXT NOT NULL,
  story_id TEXT NOT NULL,
  PRIMARY KEY (label, stage, priority, rank, story_id)
) STRICT, WITHOUT ROWID;
