import { randomBytes } from "node:crypto";
import { accessSync, constants, existsSync, mkdirSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import { Clock, type TimeSource } from "../clock.js";
import { SIGNING_KEY_BYTES, signer } from "../identity/signature.js";
import { FileLock } from "./file-lock.js";
import { latestVersion, migrate, schemaVersion } from "./migrate.js";
import { SqliteStore } from "./sqlite.js";

export interface EngineOptions {
  /** The database file, or ":memory:". Its directory is made if need be. */
  path: string;
  /** What the counters belong to; undefined takes the database as it was made, centralized for a new one. */
  mode?: Mode | undefined;
  /** Opens a database that was made with another mode or node id, and keeps the new one. */
  acceptModeChange?: boolean;
  time?: TimeSource;
  /** Told before each step that brings the tables up to date, with the bytes of the database. */
  onMigrate?: (from: number, to: number, bytes: number) => void;
}

/** An open database with everything that operations on it need. */
export interface Engine {
  readonly store: SqliteStore;
  readonly clock: Clock;
  readonly mode: Mode;
  readonly schemaVersion: number;
  /** Proof that this database granted what a text names. */
  readonly sign: (text: string) => string;
  close(): void;
}

/**
 * Opens and migrates a database as its one writer. Refuses with `invalid_state` when another process writes
 * it (details.pid), when it was made by a newer pawl, or with another mode or node id, and with `unavailable`
 * when the file or its directory cannot be used.
 */
export function openEngine(options: EngineOptions): Engine {
  const { path } = options;
  const toClose: (() => void)[] = [];
  const close = (): void => {
    for (const action of toClose.splice(0).reverse()) action();
  };
  try {
    if (path !== ":memory:") {
      const lock = lockDatabase(path);
      toClose.push(() => lock.release());
    }
    const store = new SqliteStore({ path });
    toClose.push(() => store.close());
    const version = migrate(store.database, (from, to) => options.onMigrate?.(from, to, store.sizes().bytes));
    const mode = settleMode(store.database, options.mode, options.acceptModeChange ?? false);
    const clock = new Clock(Number(readMeta(store.database, "high_water_mark") ?? 0), options.time);
    const sign = signer(settleSigningKey(store.database));
    return { store, clock, mode, schemaVersion: version, sign, close };
  } catch (error) {
    close();
    throw cannotOpen(path, error);
  }
}

/** What the system or SQLite refuses, as a refusal that names the database and what to do; anything else as it is. */
export function cannotOpen(path: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: string };
  if (error instanceof PawlError || typeof code !== "string") return error;
  const text = `The database ${path} cannot be opened: ${message}. ${remedy(path, code)}`;
  return new PawlError("unavailable", text, { reason: code }, { cause: error });
}

function remedy(path: string, code: string): string {
  if (/^(ENOSPC|EDQUOT|SQLITE_FULL|SQLITE_IOERR_SHMSIZE)$/.test(code))
    return "There is no space left on its file system. Make some, or name another state directory.";
  if (/^SQLITE_(NOTADB|CORRUPT)/.test(code))
    return "It is damaged, or none of pawl's. Restore a copy, or move it away and begin anew.";
  const blocked = blockedAt([path, `${path}.lock`, dirname(path)], constants.R_OK | constants.W_OK);
  if (blocked?.code === "EROFS")
    return `${blocked.path} is on a file system that is mounted read-only. Mount it for writing, name another state directory, or only read it with --read-only.`;
  if (blocked !== undefined)
    return `${describeBlock(blocked)} Start pawld as that user, or name another state directory.`;
  return "Make its directory ours to write, or name another.";
}

/** What stands in the way of a path, with its owner. */
interface Block {
  readonly path: string;
  readonly code: string;
  readonly uid: number;
  readonly mode: number;
}

/** The first of these paths, or of the directories above them, that we may not use so (access(2)). */
function blockedAt(paths: readonly string[], wanted: number): Block | undefined {
  for (const path of paths) {
    // Above what is not there, or cannot be looked at, is what keeps us from it.
    let at = path;
    let found = statOf(at);
    while (found === undefined && dirname(at) !== at) {
      at = dirname(at);
      found = statOf(at);
    }
    if (found === undefined) continue;
    try {
      accessSync(at, found.isDirectory() ? wanted | constants.X_OK : wanted);
    } catch (error) {
      const { uid, mode } = found;
      return { path: at, code: (error as NodeJS.ErrnoException).code ?? "", uid, mode: mode & 0o777 };
    }
  }
  return undefined;
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function describeBlock({ path, uid, mode }: Block): string {
  return `${path} belongs to the user with uid ${uid} and has mode ${mode.toString(8).padStart(4, "0")}; we are uid ${process.getuid?.()}.`;
}

/**
 * Opens a database only to read it, beside the process that writes it and others that read. Refuses with
 * `forbidden` when we may not read it, with `not_found` when there is none, and with `invalid_state` when its tables
 * are not those of this program or when it was made in another mode than the one that is asked for.
 */
export function openReader(options: Pick<EngineOptions, "path" | "mode" | "time">): Engine {
  const { path } = options;
  const blocked = blockedAt([path], constants.R_OK);
  if (blocked !== undefined) {
    throw new PawlError(
      "forbidden",
      `The database ${path} may not be read by us: ${describeBlock(blocked)} Read it as that user, or through a --read-only-socket of the daemon that writes it.`,
      { uid: blocked.uid },
    );
  }
  if (!existsSync(path)) {
    throw new PawlError(
      "not_found",
      `There is no database ${path} to be read. Start the daemon that writes it first, or name its --state-dir.`,
      { what: "database" },
    );
  }
  const store = openStoreToRead(path);
  try {
    const version = schemaVersion(store.database);
    const known = latestVersion();
    if (version !== known) {
      throw new PawlError(
        "invalid_state",
        `The database ${path} has schema version ${version}, and this pawl reads ${known}. Run the same pawl for reading as for writing; the daemon that writes migrates at its start.`,
        { from: version, to: known },
      );
    }
    const mode = JSON.parse(readMeta(store.database, "mode") ?? '{"kind":"centralized"}') as Mode;
    if (options.mode !== undefined && describe(options.mode) !== describe(mode)) {
      throw new PawlError(
        "invalid_state",
        `The database is in ${describe(mode)} mode, not ${describe(options.mode)}. Leave the mode out: a daemon that only reads takes it as it is.`,
        { from: mode, to: options.mode },
      );
    }
    const clock = new Clock(Number(readMeta(store.database, "high_water_mark") ?? 0), options.time);
    return { store, clock, mode, schemaVersion: version, sign: signsNothing, close: () => store.close() };
  } catch (error) {
    store.close();
    throw error;
  }
}

function openStoreToRead(path: string): SqliteStore {
  try {
    return new SqliteStore({ path, readOnly: true });
  } catch (error) {
    const { message } = error as Error;
    // What the processes that have it open share is in files beside it, which who comes first has to make.
    throw new PawlError(
      "unavailable",
      `The database ${path} cannot be read: ${message}. While no daemon writes it, its directory has to be ours to write too: start that daemon first.`,
      {},
      { cause: error },
    );
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

/** Made once for a database, so that what was granted before a restart is known after it. */
function settleSigningKey(database: Database.Database): Buffer {
  const stored = readMeta(database, "signing_key");
  if (stored !== undefined) return Buffer.from(stored, "base64");
  const key = randomBytes(SIGNING_KEY_BYTES);
  database
    .prepare("INSERT INTO pawl_meta (key, value) VALUES ('signing_key', :key)")
    .run({ key: key.toString("base64") });
  return key;
}

function signsNothing(): never {
  throw new Error("what only reads grants nothing");
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
