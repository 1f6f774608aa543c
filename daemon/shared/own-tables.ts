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
CREATE TABLE pawl_shared_scope (
  scope text COLLATE "C" PRIMARY KEY,
  now_ms bigint NOT NULL
);`,
  },
];
