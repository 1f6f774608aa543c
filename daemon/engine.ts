import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import { Clock, type TimeSource } from "./clock.js";
import { FileLock } from "./file-lock.js";
import { migrate } from "./store/migrate.js";
import { SqliteStore } from "./store/sqlite.js";

export interface EngineOptions {
  /** The database file, or ":memory:". Its directory is made if need be. */
  path: string;
  /** What the counters belong to; undefined takes the database as it was made, centralized for a new one. */
  mode?: Mode | undefined;
  /** Opens a database that was made with another mode or node id, and keeps the new one. */
  acceptModeChange?: boolean;
  time?: TimeSource;
}

/** An open database with everything that operations on it need. */
export interface Engine {
  readonly store: SqliteStore;
  readonly clock: Clock;
  readonly mode: Mode;
  readonly schemaVersion: number;
  close(): void;
}

/**
 * Opens and migrates a database as its one writer. Refuses with `invalid_state` when another process writes
 * it (details.pid), when it was made by a newer pawl, or with another mode or node id.
 */
export function openEngine(options: EngineOptions): Engine {
  const lock = options.path === ":memory:" ? undefined : lockDatabase(options.path);
  try {
    const store = new SqliteStore({ path: options.path });
    const version = migrate(store.database);
    const mode = settleMode(store.database, options.mode, options.acceptModeChange ?? false);
    const clock = new Clock(Number(readMeta(store.database, "high_water_mark") ?? 0), options.time);
    const close = (): void => {
      store.close();
      lock?.release();
    };
    return { store, clock, mode, schemaVersion: version, close };
  } catch (error) {
    lock?.release();
    throw error;
  }
}

function lockDatabase(path: string): FileLock {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const lock = FileLock.take(`${path}.lock`);
  if (lock instanceof FileLock) return lock;
  const holder = lock.heldBy === null ? "Another process" : `The process with pid ${lock.heldBy}`;
  throw new PawlError(
    "invalid_state",
    `${holder} writes the database ${path}, which takes one writer at a time. Stop it, or use another state directory.`,
    { pid: lock.heldBy },
  );
}

/** The mode belongs to the database (spec: sequence.md), because changing it would change what ids mean. */
function settleMode(database: Database.Database, wanted: Mode | undefined, accept: boolean): Mode {
  const stored = readMeta(database, "mode");
  const current = stored === undefined ? undefined : (JSON.parse(stored) as Mode);
  const mode = wanted ?? current ?? { kind: "centralized" };
  if (current !== undefined && describe(current) !== describe(mode) && !accept) {
    throw new PawlError(
      "invalid_state",
      `The database was made in ${describe(current)} mode and is opened in ${describe(mode)} mode. Start it as before, or accept the change with --accept-mode-change; the former counters are kept and not reused.`,
      { from: current, to: mode },
    );
  }
  database
    .prepare(
      "INSERT INTO pawl_meta (key, value) VALUES ('mode', :mode) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .run({ mode: JSON.stringify(mode) });
  return mode;
}

function describe(mode: Mode): string {
  return mode.kind === "centralized" ? "centralized" : `distributed (node id ${mode.nodeId})`;
}

function readMeta(database: Database.Database, key: string): string | undefined {
  const row = database.prepare("SELECT value FROM pawl_meta WHERE key = :key").get({ key }) as
    | { value: string }
    | undefined;
  return row?.value;
}
