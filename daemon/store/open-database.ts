import { randomBytes } from "node:crypto";
import { constants, existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Mode, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_ID_DIGITS } from "@pawl/protocol/limits";
import type Database from "better-sqlite3";
import { Clock, type TimeSource } from "../clock.js";
import { SIGNING_KEY_BYTES, signWith } from "../identity/signature.js";
import { type BackupWatch, backUp } from "./backup.js";
import { adviceForReadOnly, blockedAt, cannotOpen, describeBlock } from "./cannot-open.js";
import { connect, connectToRead } from "./connection.js";
import { classify } from "./failure.js";
import { type Copied, copiedFrom, fileIdOf, type Home, homeOf } from "./home.js";
import { readTime } from "./kept-time.js";
import { databaseLockHolder, logReader } from "./kernel-locks.js";
import { latestVersion, migrate, schemaVersion } from "./migrate.js";
import { ReopeningStore } from "./reopening-store.js";
import {
  countersOf,
  goOnFromBounds,
  lostFile,
  newerThan,
  olderThan,
  refuseCopy,
  type State,
} from "./restored-copy.js";
import { spaceFailure } from "./space.js";
import { SqliteStore } from "./sqlite.js";
import {
  checkFileSystem,
  checkStateDirectory,
  closeToOthers,
  type Flock,
  makeStateDirectory,
  WriterLock,
} from "./state-directory.js";
import type { Store } from "./store.js";
import { readWitness, type Testimony, Witness } from "./witness.js";

const WITNESS_FILE = "pawl.witness";
/** Signed, this is the name of a database that no other has. */
const NAMING_TEXT = "database";

export interface DatabaseOptions {
  /** The database file, or ":memory:". Its directory is made if need be. */
  path: string;
  /** The mode of the counters; undefined takes the database as it was made, centralized for a new one. */
  mode?: Mode | undefined;
  /** Digits that the numbers in ids have at least, from now on; undefined takes what the database has, 3 at first. */
  idDigits?: number | undefined;
  /** Opens a database that was made with another mode or node id, and keeps the new one. */
  acceptModeChange?: boolean;
  time?: TimeSource;
  /**
   * Given where the database has a directory of its own: nobody else may change what is in it, it is locked, and has a
   * witness. `acceptRestore` goes on from the bounds of that where the database is an older copy.
   */
  ownDirectory?: {
    flock: Flock | undefined;
    acceptRestore: boolean;
    /** Opens it also on a network file system. */
    acceptNetwork: boolean;
    /** Told what an operator should know of the witness, and of a copy. */
    onWitness: (message: string, details: object) => void;
    /** Told of a database that its mode had open to others, which it is no longer; the mode in octal. */
    onWiderMode: (path: string, mode: string) => void;
  };
  /** Told before each step that brings the tables up to date, with the bytes of the database. */
  onMigrate?: (from: number, to: number, bytes: number) => void;
}

type OwnDirectory = NonNullable<DatabaseOptions["ownDirectory"]>;

/** An open database: everything that operations on it need, and what is done with the file as a whole. */
export interface OpenDatabase {
  readonly store: Store;
  readonly clock: Clock;
  readonly mode: Mode;
  /** Digits that the numbers in ids have at least. */
  readonly idDigits: number;
  readonly schemaVersion: number;
  /** Undefined where the database has no directory of its own. */
  readonly witness: Witness | undefined;
  /** Signs the text that names a grant: only this database can have granted it. */
  readonly sign: (text: string) => string;
  /** Which file the database is: a copy of it, also under the same name, is another. */
  readonly fileId: string;
  /** Of the file, and of its write-ahead log. */
  sizes(): { bytes: number; walBytes: number };
  /** The pid of another process that keeps this one from writing; null where the kernel does not tell. */
  lockHolder(): number | null;
  /** The pid of another process that keeps the write-ahead log from being moved; null likewise. */
  logReader(): number | null;
  /** Moves all of the write-ahead log into the database and cuts it, if nobody reads what is in it. Never throws. */
  cutLog(): void;
  /** Throws when others have moved, removed or replaced a file of the database (a failure of kind `broken`). */
  checkFiles(): void;
  /**
   * The first thing of a life that writes: moves what the life before has left in the write-ahead log into the
   * database, which takes long after a crash under load.
   */
  begin(): void;
  /** The last thing of a life that writes: everything moves into the database file. */
  end(): void;
  /** Refuses like `backUp`. */
  backUp(path: string, watch: BackupWatch): Promise<Result<"daemon.backup">>;
  /** Has whoever is refused because this process writes the database be told where it listens. */
  announce(sockets: readonly string[]): void;
  close(): void;
}

/**
 * Opens and migrates a database as its one writer. Refuses with `invalid_state` when another process writes
 * it (details.pid), when it was made by a newer pawl, or with another mode or node id, with `forbidden` when others may
 * replace it, and with `unavailable` when the file or its directory cannot be used.
 */
export function openDatabase(options: DatabaseOptions): OpenDatabase {
  const { path } = options;
  const toClose: (() => void)[] = [];
  const close = (): void => {
    for (const action of toClose.splice(0).reverse()) action();
  };
  try {
    let lock: WriterLock | undefined;
    const { ownDirectory } = options;
    if (path !== ":memory:") {
      makeStateDirectory(path);
      if (ownDirectory !== undefined) checkStateDirectory(path, { readOnly: false });
      if (ownDirectory?.acceptNetwork === false) checkFileSystem(path);
      const taken = WriterLock.take(path, ownDirectory?.flock);
      toClose.push(() => taken.release());
      lock = taken;
      const mode = ownDirectory && closeToOthers(path);
      if (mode !== undefined) ownDirectory?.onWiderMode(path, mode);
    }
    const seen = ownDirectory && lookAtWitness(path, ownDirectory);
    const opened = ownDirectory === undefined ? connect(path) : connectEvenWithoutSpace(path);
    const reopening = opened instanceof ReopeningStore ? opened : undefined;
    const database = opened instanceof ReopeningStore ? opened.database : opened;
    toClose.push(() => database.close());
    const copyOf = ownDirectory && compare(database, seen, ownDirectory);
    const schemaVersion = migrate(database, (from, to) =>
      options.onMigrate?.(from, to, sizes(database).bytes),
    );
    const mode = agreeOnMode(database, options.mode, options.acceptModeChange ?? false);
    const idDigits = idDigitsOf(database, options.idDigits);
    const clock = new Clock(readTime(readMeta(database, "clock")), options.time);
    if (copyOf !== undefined) goOnFromBounds(database, copyOf);
    const sign = signWith(signingKeyOf(database));
    const store = reopening ?? new SqliteStore(database);
    toClose.pop();
    toClose.push(() => store.close());
    const wallMs = (): number => clock.read().wallMs;
    const witness =
      ownDirectory && new Witness(witnessOf(path), sign(NAMING_TEXT), countersOf(database), wallMs);
    if (witness !== undefined) toClose.push(() => witness.close());
    const announce = (sockets: readonly string[]): void => lock?.announce(sockets);
    const moved = ownDirectory && lookAtHome(database, ownDirectory, wallMs());
    const begin = (): void => {
      try {
        reopening?.reopen();
        store.waitForNobody();
        store.moveLog();
        moved?.(store.database);
        // Behind that, so that what lacks the log lacks this too.
        witness?.begin(countStart(store.database, copyOf));
      } catch (error) {
        throw spaceFailure(error, path);
      }
    };
    const end = (): void => {
      try {
        witness?.stop();
      } finally {
        store.end();
      }
    };
    return {
      ...parts(database, store),
      begin,
      end,
      clock,
      mode,
      idDigits,
      schemaVersion,
      sign,
      witness,
      announce,
      close,
    };
  } catch (error) {
    const explained = spaceFailure(error, path);
    close();
    throw cannotOpen(path, explained);
  }
}

/** Connects to a database also where there is no space for what SQLite makes beside it: then it can only be read. */
function connectEvenWithoutSpace(path: string): Database.Database | ReopeningStore {
  try {
    return connect(path);
  } catch (error) {
    if (classify(error) !== "full") throw error;
    return new ReopeningStore(path);
  }
}

/** The parts of an open database that are the same for one that is written and one that is only read. */
function parts(
  database: Database.Database,
  store: SqliteStore | ReopeningStore,
): Pick<
  OpenDatabase,
  "store" | "fileId" | "sizes" | "lockHolder" | "logReader" | "cutLog" | "checkFiles" | "backUp"
> {
  return {
    store,
    fileId: database.memory ? "" : fileIdOf(database.name),
    sizes: () => sizes(database),
    lockHolder: () => (database.memory ? null : databaseLockHolder(database.name)),
    logReader: () => (database.memory ? null : logReader(database.name)),
    cutLog: () => store.cutLog(),
    checkFiles: () => store.checkFiles(),
    backUp: (path, watch) => backUp(store.database, path, watch),
  };
}

function sizes({ name, memory }: Database.Database): { bytes: number; walBytes: number } {
  if (memory) return { bytes: 0, walBytes: 0 };
  return {
    bytes: statSync(name).size,
    walBytes: statSync(`${name}-wal`, { throwIfNoEntry: false })?.size ?? 0,
  };
}

/**
 * Opens a database only to read it, beside the process that writes it and others that read. Refuses with
 * `forbidden` when we may not read it, with `not_found` when there is none, and with `invalid_state` when its tables
 * are not those of this program or when it was made in another mode than the one that is asked for.
 */
export function openDatabaseToRead(
  options: Pick<DatabaseOptions, "path" | "mode" | "idDigits" | "time">,
): OpenDatabase {
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
  checkStateDirectory(path, { readOnly: true });
  const database = connectOrRefuse(path);
  try {
    const version = schemaVersion(database);
    const known = latestVersion();
    if (version !== known) {
      throw new PawlError(
        "invalid_state",
        `The database ${path} has schema version ${version}, and this pawl reads ${known}. Run the same pawl for reading as for writing; the daemon that writes migrates at its start.`,
        { from: version, to: known },
      );
    }
    const mode = JSON.parse(readMeta(database, "mode") ?? '{"kind":"centralized"}') as Mode;
    if (options.mode !== undefined && describe(options.mode) !== describe(mode)) {
      throw new PawlError(
        "invalid_state",
        `The database is in ${describe(mode)} mode, not ${describe(options.mode)}. Leave the mode out: a daemon that only reads takes it as it is.`,
        { from: mode, to: options.mode },
      );
    }
    const clock = new Clock(readTime(readMeta(database, "clock")), options.time);
    const store = new SqliteStore(database);
    store.waitForNobody();
    const close = (): void => store.close();
    const nothing = (): void => {};
    const sign = signsNothing;
    const witness = undefined;
    const idDigits = storedIdDigits(database);
    if (options.idDigits !== undefined && options.idDigits !== idDigits) {
      throw new PawlError(
        "invalid_state",
        `The ids of the database have ${idDigits} digits, not ${options.idDigits}. Leave --id-digits out: a daemon that only reads takes them as they are.`,
        { from: idDigits, to: options.idDigits },
      );
    }
    return {
      ...parts(database, store),
      begin: nothing,
      end: nothing,
      clock,
      mode,
      idDigits,
      schemaVersion: version,
      sign,
      witness,
      announce: nothing,
      close,
    };
  } catch (error) {
    database.close();
    throw error;
  }
}

function connectOrRefuse(path: string): Database.Database {
  try {
    return connectToRead(path);
  } catch (error) {
    const { message } = error as Error;
    // What the processes that have it open share is in files beside it, which who comes first has to make.
    throw new PawlError(
      "unavailable",
      `The database ${path} cannot be read: ${message}. ${adviceForReadOnly(path) ?? "While no daemon writes it, its directory has to be ours to write too: start that daemon first."}`,
      {},
      { cause: error },
    );
  }
}

function witnessOf(path: string): string {
  return join(dirname(path), WITNESS_FILE);
}

/**
 * Undefined for a database that is to be made. Refuses with `invalid_state` where the database that was seen is gone.
 */
function lookAtWitness(
  path: string,
  { acceptRestore }: OwnDirectory,
): Testimony | "unreadable" | "missing" | undefined {
  const witness = readWitness(witnessOf(path));
  if (witness === undefined) return existsSync(path) ? "missing" : undefined;
  const lost = lostFile(path);
  if (lost !== undefined && witness !== "unreadable" && !acceptRestore) {
    throw refuseCopy(path, lost, witness, undefined);
  }
  return witness;
}

/**
 * Refuses with `invalid_state` a database that is older than its witness has seen it. Returns the witness of one that
 * is to go on all the same.
 */
function compare(
  database: Database.Database,
  witness: ReturnType<typeof lookAtWitness>,
  { acceptRestore, onWitness }: OwnDirectory,
): Testimony | undefined {
  if (witness === undefined) return undefined;
  const path = witnessOf(database.name);
  if (typeof witness === "string") {
    if (schemaVersion(database) > 0)
      onWitness(`the witness of the database is ${witness}; it is made anew`, { path });
    return undefined;
  }
  const state = stateOf(database);
  const why = olderThan(witness, state);
  if (why === undefined) {
    if (newerThan(witness, state))
      onWitness("the witness is older than the database; it is made anew", { path });
    return undefined;
  }
  const keptAt = state.database === undefined ? undefined : readTime(readMeta(database, "clock"))?.wallMs;
  if (!acceptRestore) throw refuseCopy(database.name, why, witness, keptAt);
  onWitness("the database is an older copy of itself; it goes on above all that was given", {
    from: keptAt,
    to: witness.writtenAt,
    why,
  });
  return witness;
}

function stateOf(database: Database.Database): State {
  const counters = countersOf(database);
  if (schemaVersion(database) === 0) return { database: undefined, starts: 0, counters };
  const key = readMeta(database, "signing_key");
  return {
    database: key === undefined ? undefined : signWith(Buffer.from(key, "base64"))(NAMING_TEXT),
    starts: Number(readMeta(database, "starts") ?? 0),
    counters,
  };
}

/** Counts the starts of a database, so that one that lacks the last of them is known for a copy. */
function countStart(database: Database.Database, copyOf: Testimony | undefined): number {
  const starts = Math.max(Number(readMeta(database, "starts") ?? 0), copyOf?.starts ?? 0) + 1;
  writeMeta(database, "starts", String(starts));
  return starts;
}

/**
 * Tells of a database that is a copy, until that was accepted. Returns how to keep in it where it is at home now, and
 * that it is a copy; undefined where it says that already.
 */
function lookAtHome(
  database: Database.Database,
  { onWitness }: OwnDirectory,
  wallMs: number,
): ((database: Database.Database) => void) | undefined {
  const here = homeOf(database.name);
  const text = JSON.stringify(here);
  const stored = readMeta(database, "home");
  const former = stored === undefined ? undefined : (JSON.parse(stored) as Home);
  const found = copiedFrom(former, here, readTime(readMeta(database, "clock"))?.wallMs ?? wallMs);
  const known = readMeta(database, "copied");
  const copied = found ?? (known === undefined ? undefined : (JSON.parse(known) as Copied));
  if (copied !== undefined) {
    onWitness(
      "the database is a copy, and the first may live on: numbers may be given twice. Once that is gone, say so: pawl status --accept-copy",
      copied,
    );
  }
  if (stored === text) return undefined;
  return (open) =>
    open
      .transaction(() => {
        writeMeta(open, "home", text);
        if (found !== undefined) writeMeta(open, "copied", JSON.stringify(found));
      })
      .immediate();
}

function writeMeta(database: Database.Database, key: string, value: string): void {
  database
    .prepare(
      "INSERT INTO pawl_meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .run({ key, value });
}

/** The mode belongs to the database (spec: sequence.md), because changing it would change what ids mean. */
function agreeOnMode(database: Database.Database, wanted: Mode | undefined, accept: boolean): Mode {
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
  const text = JSON.stringify(mode);
  // A start that changes nothing writes nothing, as others may have locked the database.
  if (text !== stored) writeMeta(database, "mode", text);
  return mode;
}

/** The padding of ids belongs to the database, too, so that all who open it give the same ids. */
function idDigitsOf(database: Database.Database, wanted: number | undefined): number {
  const stored = storedIdDigits(database);
  if (wanted === undefined || wanted === stored) return stored;
  writeMeta(database, "id_digits", String(wanted));
  return wanted;
}

function storedIdDigits(database: Database.Database): number {
  return Number(readMeta(database, "id_digits") ?? DEFAULT_ID_DIGITS);
}

/** Made once for a database, so that what was granted before a restart is known after it. */
function signingKeyOf(database: Database.Database): Buffer {
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
