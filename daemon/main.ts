import { fstatSync, writeSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { type Config, readConfig, sharedTablesToCreate, tableToCreate } from "./config/config.js";
import type { Daemon } from "./daemon.js";
import { type Log, openLog } from "./log/log.js";
import { createTable } from "./remote/load.js";
import type { DynamoDbSpecification } from "./remote/specification.js";
import { type Kernel, openKernel } from "./socket/kernel.js";
import { type Passed, takePassed } from "./socket/supervisor.js";
import { startDaemon } from "./start.js";
import { howToBuildSqlite } from "./store/cannot-open.js";

/** Exit codes: 0 stopped in order, 1 ended by a failure, 2 bad usage, 3 could not start. */
const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;
const EXIT_NOT_STARTED = 3;
const STDERR = 2;

/** Runs pawld until it is told to stop. */
export async function main(args: readonly string[]): Promise<void> {
  let config: Config;
  let passed: Passed;
  let hungUp = false;
  let onHangUp = (): void => {
    hungUp = true;
  };
  // Before the configuration is read, so that what it is told to read again is never older than that.
  process.on("SIGHUP", () => onHangUp());
  // A file that may grow no further (RLIMIT_FSIZE) is an error of the write, like a full disk.
  process.on("SIGXFSZ", () => {});
  try {
    const table = tableToCreate(args);
    if (table !== undefined) return await makeTable(table);
    const place = sharedTablesToCreate(args);
    if (place !== undefined) return await makeSharedTables(place.url, place.dryRun);
    const read = readConfig(args, process.env);
    if (typeof read === "string") return void process.stdout.write(read);
    config = read;
    passed = takePassed(process.env, process.pid);
  } catch (error) {
    return complain(error, EXIT_USAGE);
  }

  const kernel = await openKernel();
  const log = await openLog(config.logLevel);
  const exit = (code: number): void => exitAtOnce(code, log, kernel);
  const starting = startDaemon(config, log, passed, kernel);
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stopping) exit(EXIT_FAILURE);
    stopping = true;
    // A daemon that is still starting stops once it has; one that cannot start ends by itself.
    starting.then(
      (daemon) =>
        daemon.stop(signal).then(
          () => log.close().then(() => exit(0)),
          (error) => {
            log.logger.fatal({ err: error }, "stopping failed");
            exit(EXIT_FAILURE);
          },
        ),
      () => {},
    );
  };
  // Before anybody can know that the daemon runs: whoever is told may signal it at once.
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  onHangUp = (): void => {
    // A terminal that is closed takes its daemon with it, as it always did; everybody else means the configuration.
    if (log.onTerminal) return onSignal("SIGHUP");
    starting.then(
      (daemon) => daemon.reload(() => readConfig(args, process.env) as Config),
      () => {},
    );
  };
  if (hungUp) onHangUp();

  let daemon: Daemon;
  try {
    daemon = await starting;
  } catch (error) {
    say(error);
    return exit(EXIT_NOT_STARTED);
  }
  process.on("uncaughtException", (error) => {
    log.logger.fatal({ err: error }, "defect outside any request; ending, so that a restart begins clean");
    exit(EXIT_FAILURE);
  });
  log.logger.info({ ...daemon.addresses, stateDir: config.stateDir }, "listening");
  // `npm start` in a clone is how most people meet pawl first.
  if (process.env.npm_lifecycle_event === "start") greet(daemon.addresses.socket);
  const code = await daemon.ended;
  if (code === 0) await log.close();
  exit(code);
}

/**
 * Ends the process, after what waits for the log as far as it waits for nobody. By exit(3) it would wait for a thread
 * that writes to a log whose reader has stopped, and for whatever libraries have left to be done then: koffi syncs
 * stdout.
 */
function exitAtOnce(code: number, log: Log, kernel: Kernel | string): void {
  log.flush((fd) => (typeof kernel === "string" ? fstatSync(fd).isFile() : kernel.hasRoom(fd)));
  // Node writes a profile at the end that is skipped here, and whoever asks for one runs on a disk that works.
  const isProfiled = process.execArgv.some(
    (flag) => flag.startsWith("--cpu-prof") || flag.startsWith("--heap-prof"),
  );
  if (typeof kernel !== "string" && !isProfiled) kernel.exit(code);
  else if (log.isHeldUp) process.kill(process.pid, "SIGKILL");
  process.exit(code);
}

/** Makes the table of a lease provider, and says as JSON whether it did. */
async function makeTable(specification: DynamoDbSpecification): Promise<void> {
  const { table } = specification;
  await sayAsJson(async () => ({ table, created: await createTable(specification, (ms) => pause(ms)) }));
}

/** Makes the tables of shared names; what speaks to PostgreSQL is loaded for that, and where names are shared. */
async function makeSharedTables(url: string, dryRun: boolean): Promise<void> {
  await sayAsJson(async () => {
    const { createSharedTables } = await import("./shared/create.js");
    return await createSharedTables(url, dryRun);
  });
}

/** Says as JSON what was done instead of running, or what was in the way. */
async function sayAsJson(action: () => Promise<object>): Promise<void> {
  try {
    process.stdout.write(`${JSON.stringify(await action())}\n`);
  } catch (error) {
    if (!(error instanceof PawlError)) throw error;
    const { kind, message, details } = error;
    process.stdout.write(`${JSON.stringify({ error: { kind, message, details } })}\n`);
    process.exitCode = EXIT_FAILURE;
  }
}

function complain(error: unknown, code: number): void {
  say(error);
  process.exit(code);
}

/** Says what is in the way. What the system refused says so itself; the rest is a defect and shows where it is. */
function say(error: unknown): void {
  const { message, stack, code: system } = error as Error & { code?: unknown };
  const text =
    error instanceof PawlError
      ? message
      : (howToBuildSqlite(error) ?? (typeof system === "string" ? `${message}.` : (stack ?? error)));
  try {
    writeSync(STDERR, `pawld: ${text}\n`);
  } catch {
    // Nobody reads it; the exit code says the rest.
  }
}

function greet(socket: string): void {
  process.stdout.write(`
pawld listens on ${socket}

In another terminal, in this directory, type:
  npx pawl next FR        the next number of the sequence FR
  npx pawl status         what the daemon is doing
  npx pawl --help         everything else
Stop the daemon with Ctrl-C.

`);
}
