import { join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import type { Config } from "./config/config.js";
import { Daemon } from "./daemon.js";
import type { Log } from "./log/log.js";
import { type NodeIdentity, openNodeIdentity } from "./node-identity.js";
import { loadProviders } from "./remote/load.js";
import { Access } from "./socket/access.js";
import type { Kernel } from "./socket/kernel.js";
import { Notices, type Passed } from "./socket/supervisor.js";
import { cannotOpen } from "./store/cannot-open.js";
import { type OpenDatabase, openDatabase, openDatabaseToRead } from "./store/open-database.js";

/** The time that a step of a migration is given: at worst it writes all of the database anew, on a slow disk. */
const MIGRATION_STEP_MS = 60_000;
const MIGRATED_BYTES_PER_MS = 1000;
const DATABASE_FILE = "pawl.db";

/**
 * Opens the database and listens. Refuses with a `PawlError` that says what is in the way.
 *
 * @param passed what the supervisor passed; a socket of it takes the place of the one that the configuration names.
 * @param loaded the kernel's calls, or why they cannot be had.
 */
export async function startDaemon(
  config: Config,
  lines: Log,
  passed: Passed,
  loaded: Kernel | string,
): Promise<Daemon> {
  // Files are 0600 and directories 0700 from the first instant, not after a chmod.
  process.umask(0o077);
  const { logger: log } = lines;
  const access = new Access(loaded, config);
  const kernel = typeof loaded === "string" ? undefined : loaded;
  if (kernel === undefined) log.warn({ reason: loaded }, "running without knowing who connects");
  const notices = new Notices(kernel, passed, (message, details) => log.warn(details, message));
  notices.status("Opening the database");
  try {
    return await startWith({ config, log, lines, passed, kernel, access, notices });
  } catch (error) {
    notices.status(`Could not start: ${(error as Error).message}`);
    throw error;
  }
}

async function startWith(options: {
  config: Config;
  log: Logger;
  lines: Log;
  passed: Passed;
  kernel: Kernel | undefined;
  access: Access;
  notices: Notices;
}): Promise<Daemon> {
  const { config, log, passed } = options;
  // A provider that cannot be loaded is found before the database is touched.
  const providers = await loadProviders(config.leaseRules);
  const shared = config.sharedRules.length === 0 ? undefined : await loadShared(config);
  const databasePath = join(config.stateDir, DATABASE_FILE);
  const database = open(databasePath, options);
  let daemon: Daemon | undefined;
  try {
    const node = identify(database, config, log);
    const identity = node?.identity ?? null;
    daemon = new Daemon({ ...options, databasePath, database, identity, providers, shared });
    await daemon.connect();
    await daemon.listen(passed.sockets);
    if (node?.renamed !== undefined) log.info(node.renamed, "the board goes on under a new incarnation");
  } catch (error) {
    daemon?.stopListening();
    database.close();
    // The first writes are made here.
    throw isSqlite(error) ? cannotOpen(databasePath, error) : error;
  }
  daemon.serve();
  return daemon;
}

/** Nothing of PostgreSQL is loaded where no names are kept there. */
async function loadShared({ readOnly }: Config): Promise<typeof import("./shared/places.js")> {
  if (readOnly) {
    throw new PawlError(
      "invalid_params",
      "--shared belongs to a daemon that writes; with --read-only the database of this node alone is served. Leave one of them out.",
    );
  }
  return await import("./shared/places.js");
}

function open(
  path: string,
  {
    config,
    kernel,
    log,
    notices,
  }: { config: Config; kernel: Kernel | undefined; log: Logger; notices: Notices },
): OpenDatabase {
  const { mode, idDigits, acceptModeChange, acceptRestore, readOnly } = config;
  if (readOnly) return openDatabaseToRead({ path, mode, idDigits });
  return openDatabase({
    path,
    mode,
    idDigits,
    acceptModeChange,
    ownDirectory: {
      flock: kernel?.flock,
      acceptRestore,
      acceptNetwork: config.acceptNetworkFilesystem,
      // Logged after what is in the way of a start.
      onWitness: (message, details) => setImmediate(() => log.warn(details, message)),
      onWiderMode: (file, mode) =>
        setImmediate(() =>
          log.warn({ file, mode }, "the database was open to other users, and has mode 0600 now"),
        ),
    },
    onMigrate: (from, to, bytes) =>
      notices.extend(
        MIGRATION_STEP_MS + bytes / MIGRATED_BYTES_PER_MS,
        `Migrating the database: version ${from} of ${to}, ${Math.ceil(bytes / 1e6)} MB`,
      ),
  });
}

function identify(database: OpenDatabase, config: Config, log: Logger): NodeIdentity | undefined {
  if (config.readOnly) return undefined;
  return openNodeIdentity(
    database,
    { ...config, acceptChange: config.acceptIdentityChange },
    // At the start it is logged after what is in the way of one.
    (author) => setImmediate(() => log.info({ author }, "made the identity key of this node")),
  );
}

function isSqlite(error: unknown): boolean {
  return `${(error as { code?: unknown }).code}`.startsWith("SQLITE_");
}
