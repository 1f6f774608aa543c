// A real PostgreSQL on a Unix socket in a directory of its own, for the time of a test.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { AtEnd } from "./daemon.js";

/** Where Debian has each version's programs, most of which are in no PATH. */
const VERSIONS = "/usr/lib/postgresql";
const programs = existsSync(VERSIONS)
  ? readdirSync(VERSIONS)
      .sort((a, b) => Number(b) - Number(a))
      .map((version) => join(VERSIONS, version, "bin"))
      .find((directory) => existsSync(join(directory, "initdb")))
  : undefined;
export const HAS_POSTGRESQL = programs !== undefined;
if (!HAS_POSTGRESQL)
  process.stderr.write("PostgreSQL is not installed (Debian: postgresql); its tests are skipped\n");

/** PostgreSQL does not run as root: it then runs as the user that its package has made. */
const idOf = (option: string): number =>
  Number(spawnSync("id", [option, "postgres"], { encoding: "utf8" }).stdout);
const user = process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : undefined;

const MAX_STARTS = 50;
/** Each daemon has eight, and every rule is tested over one server by several files at a time. */
const MAX_CONNECTIONS = 400;
/** What a server says once it answers. */
const READY = "database system is ready to accept connections";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A directory that the server may write to; not below one that only root may enter. */
function newDirectory(parent: string): string {
  const directory = mkdtempSync(join(parent, "pawl-postgresql-"));
  if (user !== undefined) chownSync(directory, user.uid, user.gid);
  return directory;
}

/** What initdb makes, to be copied: it is made once in a run, since it takes ten times as much as a copy of it. */
function template(): string {
  const parent = process.env.PAWL_POSTGRESQL_TEMPLATE as string;
  const made = join(parent, "data");
  if (existsSync(made)) return made;
  const directory = newDirectory(parent);
  const data = join(directory, "data");
  const initdb = [
    "--pgdata",
    data,
    "--username=pawl",
    "--auth=trust",
    "--no-sync",
    "--encoding=UTF8",
    "--no-locale",
  ];
  const { status, stderr } = spawnSync(join(programs as string, "initdb"), initdb, {
    ...user,
    cwd: "/",
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`initdb: ${stderr}`);
  try {
    renameSync(data, made);
  } catch (error) {
    // Another process of this run was first.
    if (!existsSync(made)) throw error;
  }
  return made;
}

export class PostgreSql {
  readonly #directory: string;
  /** On loopback; undefined for a server that listens on its Unix socket alone. */
  readonly port: number | undefined;
  #server: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  private constructor(directory: string, port: number | undefined) {
    this.#directory = directory;
    this.port = port;
  }

  /** Its place for `pawld --shared`; a schema of its own for each test. */
  url(schema = "pawl", port = this.port): string {
    if (port !== undefined) return `postgresql://pawl@127.0.0.1:${port}/postgres?schema=${schema}`;
    return `postgresql://pawl@localhost/postgres?host=${encodeURIComponent(this.#directory)}&schema=${schema}`;
  }

  /** @param options `tcp` has it listen on loopback, too. */
  static async start(atEnd: AtEnd, { tcp = false } = {}): Promise<PostgreSql> {
    const directory = newDirectory(tmpdir());
    atEnd(() => rmSync(directory, { recursive: true, force: true }));
    const copied = spawnSync("cp", ["-a", template(), join(directory, "data")], { encoding: "utf8" });
    if (copied.status !== 0) throw new Error(`cp: ${copied.stderr}`);

    const postgres = new PostgreSql(directory, tcp ? await freePort() : undefined);
    atEnd(() => postgres.end("SIGQUIT"));
    await postgres.run();
    return postgres;
  }

  /** Has the server tell the time by a clock that a test sets; sessions that there are already do not. */
  takeClock(): void {
    const { status, output } = this.psql(
      `SET allow_system_table_mods = on;
      ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO clock_as_it_is;
      CREATE TABLE public.clock_step (by interval NOT NULL);
      INSERT INTO public.clock_step VALUES ('0');
      CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT pg_catalog.clock_as_it_is() + (SELECT by FROM public.clock_step)';`,
      "-v",
      "ON_ERROR_STOP=1",
    );
    if (status !== 0) throw new Error(output);
  }

  /** Sets that clock to so much before or after the real one. */
  setClock(offsetMs: number): void {
    this.psql(`UPDATE public.clock_step SET by = ${offsetMs} * interval '1 ms'`);
  }

  /** Starts the server, after a kill too, and resolves once it answers. */
  async run(): Promise<void> {
    const directory = this.#directory;
    const listens =
      this.port === undefined
        ? ["-c", "listen_addresses="]
        : ["-c", "listen_addresses=127.0.0.1", "-p", `${this.port}`];
    // A test that is killed takes the server with it.
    const server = spawn(
      "setpriv",
      [
        ...(user === undefined ? [] : [`--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"]),
        "--pdeathsig=QUIT",
        join(programs as string, "postgres"),
        ...["-D", join(directory, "data"), "-k", directory, ...listens, "-c", "fsync=off"],
        ...["-c", `max_connections=${MAX_CONNECTIONS}`],
        // A checkpoint removes the files of tables that were emptied: within minutes there are tens of thousands.
        ...["-c", "checkpoint_timeout=30s"],
      ],
      { cwd: "/", stdio: ["ignore", "ignore", "pipe"] },
    );
    this.#server = server;
    this.#ended = new Promise((resolve) => server.once("exit", () => resolve()));
    let said = "";
    await new Promise<void>((resolve, reject) => {
      server.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        if (said.includes(READY)) resolve();
      });
      server.once("close", () => reject(new Error(`postgres: ${said}`)));
    });
  }

  /** Starts the server again, however it ended: what it left behind ends by itself, and is in the way until then. */
  async runAgain(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.run();
      } catch (error) {
        if (tries === MAX_STARTS) throw error;
        await sleep(100);
      }
    }
  }

  /** Ends the server: SIGQUIT is a crash of it, from which it recovers at its next start. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.#server?.kill(signal);
    await this.#ended;
  }

  /** Stops the server and all its sessions, as a machine that hangs does, until `goOn`. */
  stall(): void {
    this.#signalAll("SIGSTOP");
  }

  /** Has a stalled server go on. */
  goOn(): void {
    this.#signalAll("SIGCONT");
  }

  #signalAll(signal: NodeJS.Signals): void {
    const pid = this.#server?.pid as number;
    const children = spawnSync("pgrep", ["-P", `${pid}`], { encoding: "utf8" })
      .stdout.trim()
      .split("\n");
    for (const each of [pid, ...children.map(Number)]) {
      try {
        process.kill(each, signal);
      } catch (error) {
        // A session may have ended since.
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
  }

  /** Runs a script; `\echo` marks places in what it prints, errors among it. It stops at an error if told so. */
  psql(script: string, ...options: string[]): { status: number | null; output: string } {
    const psql = [
      ...[
        "-h",
        this.#directory,
        ...(this.port === undefined ? [] : ["-p", `${this.port}`]),
        "-U",
        "pawl",
        "-d",
        "postgres",
        "-X",
        "-q",
        "-At",
      ],
      ...options,
    ];
    const { status, stdout, stderr } = spawnSync(
      "sh",
      ["-c", 'exec "$0" "$@" 2>&1', join(programs as string, "psql"), ...psql],
      // All rows of a test that makes ten thousand are more than a megabyte, behind which it would be cut off.
      { input: script, encoding: "utf8", maxBuffer: Number.POSITIVE_INFINITY },
    );
    return { status, output: stdout + stderr };
  }
}
