import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  type Stats,
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { FileLock } from "./file-lock.js";
import { lockHolder } from "./kernel-locks.js";
import { networkFileSystem } from "./network-file-system.js";
import { replaceFile } from "./new-file.js";

/** The call that takes an exclusive lock on an open file without waiting (flock(2)); returns 0, or the errno. */
export type Flock = (fd: number) => number;

/** Bits of a mode by which others than the owner may write. */
const OTHERS_WRITE_MODE = 0o022;
/** ... or do anything. */
const OTHERS_MODE = 0o077;
const OWN_MODE = 0o600;
const EWOULDBLOCK = 11;
/** Where the holder of the lock writes down where it listens. */
const HOLDER_FILE = "pawl.holder";

/**
 * Refuses with `forbidden` what may lead to files of others, or others to ours: a directory that is another user's or
 * that others may write to, and links in it; and what is no file in the place of one. `readOnly` has another user's
 * directory pass, for who only reads.
 *
 * @param path of the database.
 */
export function checkStateDirectory(path: string, { readOnly }: { readOnly: boolean }): void {
  const directory = dirname(path);
  const uid = process.geteuid?.() ?? 0;
  if (!readOnly) {
    // systemd has a link in the directory's place where a service has a user of its own for the time it runs.
    const link = lstatSync(directory);
    if (link.isSymbolicLink() && link.uid !== uid && link.uid !== 0) {
      throw forbidden(
        `The state directory ${directory} is a link that the user with uid ${link.uid} has made.`,
      );
    }
    const { uid: owner, mode } = statSync(directory);
    if (owner !== uid) {
      throw forbidden(
        `The state directory ${directory} belongs to the user with uid ${owner}, and we are uid ${uid}. Start pawld as that user, or name another --state-dir.`,
      );
    }
    if ((mode & OTHERS_WRITE_MODE) !== 0) {
      throw forbidden(
        `The state directory ${directory} has mode ${octal(mode)}: others may replace what is in it. Take that away (chmod go-w), or name another --state-dir.`,
      );
    }
  }
  const own = [...OWN_SUFFIXES.map((suffix) => `${basename(path)}${suffix}`), ...OWN_FILES];
  for (const name of own) checkFile(join(directory, name), name === basename(path));
  for (const suffix of OWN_SUFFIXES) checkIsFile(`${path}${suffix}`);
}

/**
 * Takes the files of a database from all but their owner: SQLite makes its log with the mode of the database. They come
 * with a wider one where an operator has put a copy in its place. Refuses with `forbidden` files of another user.
 *
 * @returns the database's mode, if it was wider.
 */
export function closeToOthers(path: string): string | undefined {
  const uid = process.geteuid?.() ?? 0;
  let wider: string | undefined;
  for (const suffix of DATABASE_SUFFIXES) {
    const file = `${path}${suffix}`;
    const found = lstatSync(file, { throwIfNoEntry: false });
    if (found === undefined || !found.isFile()) continue;
    if (found.uid !== uid) {
      throw forbidden(
        `${file} belongs to the user with uid ${found.uid}, and we are uid ${uid}. Give it to us (chown ${uid}), or start pawld as that user.`,
      );
    }
    if ((found.mode & OTHERS_MODE) === 0) continue;
    chmodSync(file, OWN_MODE);
    if (suffix === "") wider = octal(found.mode);
  }
  return wider;
}

/** Refuses with `unavailable` a directory whose locks and shared memory do not hold between machines. */
export function checkFileSystem(path: string): void {
  const directory = dirname(path);
  const name = networkFileSystem(directory);
  if (name === undefined) return;
  throw new PawlError(
    "unavailable",
    `The state directory ${directory} is on a network file system (${name}), where the locks and the write-ahead log of a database do not hold. Name a --state-dir on a disk of this machine, or take the risk with --accept-network-filesystem.`,
    { reason: "network_filesystem" },
  );
}

/** The files that SQLite has of a database, and those beside them. */
const DATABASE_SUFFIXES = ["", "-wal", "-shm", "-journal"];
const OWN_SUFFIXES = [...DATABASE_SUFFIXES, ".lock"];
const OWN_FILES = ["identity.key", "pawl.witness", HOLDER_FILE];

function checkFile(path: string, isDatabase: boolean): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isSymbolicLink()) {
    throw forbidden(
      `${path} is a link, and no link is followed. Move what it leads to into its place, or remove it.`,
    );
  }
  if (isDatabase && found !== undefined && isNamedElsewhere(found)) {
    // By each name it would have another write-ahead log.
    throw forbidden(`${path} has ${found.nlink} names (hard links). Copy it, or remove the others.`);
  }
}

/** Refuses what SQLite could not open, or would wait for, and would say nothing of. */
function checkIsFile(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.isFile()) return;
  throw forbidden(
    `${path} is ${kindOf(found)}, where pawld keeps a file. Move it away, or name another --state-dir.`,
  );
}

function kindOf(found: Stats): string {
  if (found.isDirectory()) return "a directory";
  if (found.isFIFO()) return "a named pipe";
  if (found.isSocket()) return "a socket";
  if (found.isSymbolicLink()) return "a link that leads to no directory";
  return found.isFile() ? "a file" : "a device";
}

function isNamedElsewhere(file: Stats): boolean {
  return file.isFile() && file.nlink > 1;
}

/**
 * The lock that makes a process the one writer of a database. What is locked is the directory that the database is in,
 * by flock(2), so that no file can be removed to let a second one in; where that cannot be called, a file beside the
 * database. While that file is there its lock is taken too, so that both kinds exclude each other. The kernel releases
 * both when the process dies.
 */
export class WriterLock {
  readonly #directory: string;
  readonly #release: (() => void)[] = [];

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Refuses with `invalid_state` when another process has the lock (details.pid, which may be null). */
  static take(path: string, flock: Flock | undefined): WriterLock {
    const lock = new WriterLock(dirname(path));
    try {
      const isFlocked = flock !== undefined && lock.#lockDirectory(path, flock);
      if (!isFlocked || existsSync(`${path}.lock`)) lock.#lockFile(path);
      // Whoever has flock(2) looks for the file after it has the directory: one of both finds the other.
      const other = isFlocked ? null : lockHolder(lock.#directory, "FLOCK");
      if (other !== null && other !== process.pid) throw heldBy(path, other);
      return lock;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** Writes down where the holder listens, for whoever is refused meanwhile. Without space a refusal only says less. */
  announce(sockets: readonly string[]): void {
    const path = join(this.#directory, HOLDER_FILE);
    const holder: Holder = { pid: process.pid, sockets };
    try {
      replaceFile(path, `${JSON.stringify(holder)}\n`, { durable: false });
      const { ino } = lstatSync(path);
      this.#release.push(() => {
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
      });
    } catch {}
  }

  release(): void {
    for (const action of this.#release.splice(0).reverse()) action();
  }

  /** Returns false where directories cannot be locked, as on some file systems of other machines. */
  #lockDirectory(path: string, flock: Flock): boolean {
    const fd = openSync(this.#directory, constants.O_RDONLY | constants.O_DIRECTORY);
    const errno = flock(fd);
    if (errno === 0) this.#release.push(() => closeSync(fd));
    else closeSync(fd);
    if (errno === EWOULDBLOCK) throw heldBy(path, lockHolder(this.#directory, "FLOCK"));
    return errno === 0;
  }

  #lockFile(path: string): void {
    const lock = FileLock.take(`${path}.lock`);
    if (!(lock instanceof FileLock)) throw heldBy(path, lock.heldBy);
    this.#release.push(() => lock.release());
  }
}

/**
 * Makes the directory of a database if it is not there, for its owner alone. Refuses with `forbidden`, naming it, what
 * stands in its place or in that of a directory above it.
 */
export function makeStateDirectory(path: string): void {
  const directory = dirname(path);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    const obstacle = obstacleIn(directory);
    if (obstacle === undefined) throw error;
    throw forbidden(
      `The state directory ${directory} cannot be made: ${obstacle}. Move it away, or name another state directory.`,
    );
  }
}

/** The lowest thing on the way to a directory that is there, if it leads to no directory. */
function obstacleIn(directory: string): string | undefined {
  for (let at = directory; ; at = dirname(at)) {
    try {
      const found = lstatSync(at, { throwIfNoEntry: false });
      if (found === undefined) continue;
      const isDirectory = statSync(at, { throwIfNoEntry: false })?.isDirectory() ?? false;
      return isDirectory ? undefined : `${at} is ${kindOf(found)}`;
    } catch (error) {
      // Below a file nothing can be looked for.
      if ((error as NodeJS.ErrnoException).code !== "ENOTDIR") return undefined;
    }
  }
}

/** The content of the holder's file, as JSON. */
interface Holder {
  readonly pid: number;
  readonly sockets: readonly string[];
}

function heldBy(path: string, pid: number | null): PawlError {
  const holder = pid === null ? "Another process" : `The process with pid ${pid}`;
  const sockets = socketsOf(path, pid);
  const where = sockets.length === 0 ? "" : ` and listens on ${sockets.join(", ")}`;
  return new PawlError(
    "invalid_state",
    `${holder} writes the database ${path}${where}. A database takes one writer at a time: talk to that one, stop it, or use another state directory.`,
    { pid },
  );
}

/** Where the holder says that it listens; nothing if that was written by one before it. */
function socketsOf(path: string, pid: number | null): readonly string[] {
  try {
    const file = openSync(join(dirname(path), HOLDER_FILE), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const holder = JSON.parse(readFileSync(file, "utf8")) as Holder;
      return pid === null || holder.pid === pid ? holder.sockets.map(String) : [];
    } finally {
      closeSync(file);
    }
  } catch {
    return [];
  }
}

function forbidden(message: string): PawlError {
  return new PawlError("forbidden", message);
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}
