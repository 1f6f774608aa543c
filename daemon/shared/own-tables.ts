// Tables that only names in PostgreSQL have.

/** One step from empty tables to those of this program. Steps are made in their order, each once. */
export interface MigrationStep {
  readonly name: string;
  readonly sql: string;
}

/** Made after those of the store, in this order. A step that was ever published is never changed. */
export const OWN_STEPS: readonly MigrationStep[] = [
  {
    name: "shared-0001-place",
    sql: `
CREATE SEQUENCE pawl_shared_daemon_number;
CREATE TABLE pawl_shared_daemon (
  number bigint PRIMARY KEY,
  node text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now()
);
-- Of each session of a daemon the last turn that wrote, and its time: so it is known whether a commit was done that
-- nobody heard of, and no turn's time is before that of another.
CREATE TABLE pawl_shared_turn (
  daemon bigint NOT NULL,
  slot bigint NOT NULL,
  turn bigint NOT NULL,
  now_ms bigint NOT NULL,
  PRIMARY KEY (daemon, slot)
) WITH (fillfactor = 50);
-- Which daemons have calls that wait, and under which keys: these are notified.
CREATE TABLE pawl_shared_waiting (
  key text COLLATE "C" NOT NULL,
  daemon bigint NOT NULL,
  PRIMARY KEY (key, daemon)
);
-- A batch is found by this alone: turns side by side do not see all that were added, and cannot enter their ids.
CREATE INDEX pawl_shared_batch_key ON pawl_batch (batch_key);`,
  },
  {
    name: "shared-0002-lanes",
    // SQLite has the key of the row behind each entry of an index; here a lane would be sorted for each claim.
    sql: `
DROP INDEX pawl_batch_lane;
CREATE INDEX pawl_batch_lane ON pawl_batch (queue_id, lane, enqueue_seq);`,
  },
];
