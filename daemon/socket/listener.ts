import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, renameSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { FileLock } from "../store/file-lock.js";

/** Clients that connect within one moment queue in the kernel; it caps this at net.core.somaxconn. */
const BACKLOG = 4096;

/**
 * Listens on a socket file. Whoever holds the lock beside it may put a socket there and take it away, so a
 * daemon never unlinks another's: the new one is bound under a temporary name, with its final permissions,
 * and renamed over whatever stale socket a killed daemon left. There is no moment without a socket file, and
 * nobody can connect before the renaming, so several sockets are served all or none.
 */
export class Listener {
  readonly path: string;
  readonly #server: Server;
  /** What is ours in the file system; nothing is when the socket was passed to us. */
  readonly #place: { lock: FileLock; temporary: string; inode: number } | undefined;

  private constructor(path: string, server: Server, own: { lock: FileLock; temporary: string } | undefined) {
    this.path = path;
    this.#server = server;
    this.#place = own === undefined ? undefined : { ...own, inode: lstatSync(own.temporary).ino };
  }

  /**
   * Takes the place and binds the socket, which is there for others from `show` on.
   *
   * @param option where the path comes from, for who has to choose another.
   * @param mode file mode of the socket, which decides who may connect.
   * @param group name of its group, or undefined for the process's own.
   */
  static async open(options: {
    path: string;
    option: SocketOption;
    mode: number;
    group: string | undefined;
    onConnection: (socket: Socket) => void;
  }): Promise<Listener> {
    const { path, option, mode, group } = options;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const lock = FileLock.take(`${path}.lock`);
    if (!(lock instanceof FileLock)) {
      const others = option === "--socket" ? "--socket or --instance" : option;
      throw new PawlError(
        "invalid_state",
        `Another daemon (${lock.heldBy === null ? "pid unknown" : `pid ${lock.heldBy}`}) serves ${path}. Stop it, or choose another ${others}.`,
        { pid: lock.heldBy },
      );
    }
    try {
      await checkPlace(path, option);
      const server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, options.onConnection);
      const temporary = join(dirname(path), temporaryName(basename(path)));
      await bind(server, temporary, mode);
      if (group !== undefined) {
        // The group is changed before the mode lets it in.
        chmodSync(temporary, 0o600);
        chownSync(temporary, -1, groupId(group));
        chmodSync(temporary, mode);
      }
      return new Listener(path, server, { lock, temporary });
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /**
   * Serves a socket that listens already and that somebody else keeps: who connects after we have ended waits in
   * it for the process that comes after us.
   *
   * @param path where it listens, for people.
   */
  static async adopt(options: {
    fd: number;
    path: string;
    onConnection: (socket: Socket) => void;
  }): Promise<Listener> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, options.onConnection);
    await listening(server, () => server.listen({ fd: options.fd, backlog: BACKLOG }));
    return new Listener(options.path, server, undefined);
  }

  /** Lets others connect. */
  show(): void {
    if (this.#place !== undefined) renameSync(this.#place.temporary, this.path);
  }

  /** Takes no more connections; those that are open stay. */
  stopAccepting(): void {
    this.#server.close();
  }

  /** Removes the socket file if it is still ours, and lets another daemon have the place. */
  remove(): void {
    if (this.#place === undefined) return;
    const { lock, temporary, inode } = this.#place;
    for (const path of [temporary, this.path]) {
      if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path);
    }
    lock.release();
  }
}

/** The options that say where to listen. */
export type SocketOption = "--socket" | "--read-only-socket";

/** Refuses a place where something answers, or where something lies that is no socket. */
async function checkPlace(path: string, option: SocketOption): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new PawlError(
      "invalid_state",
      `${path} is there and is not a socket. Move it away, or choose another ${option}.`,
    );
  }
  const answers = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (answers) {
    throw new PawlError(
      "invalid_state",
      `Another program answers on ${path}. Stop it, or choose another ${option}.`,
    );
  }
}

/**
 * Binding creates the file, so the umask in force at that moment decides its mode: there is no moment at
 * which others could connect. `listen` binds a Unix socket before it returns.
 */
async function bind(server: Server, path: string, mode: number): Promise<void> {
  await listening(server, () => {
    const previous = process.umask(0o777 & ~mode);
    try {
      server.listen({ path, backlog: BACKLOG });
    } finally {
      process.umask(previous);
    }
  });
}

async function listening(server: Server, listen: () => void): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve);
    server.once("error", reject);
  });
  listen();
  await done;
}

/** A hidden name no longer than the final one, so that a path the kernel takes stays one it takes. */
function temporaryName(name: string): string {
  return `.${randomBytes(name.length).toString("hex")}`.slice(0, Math.max(name.length, 2));
}

function groupId(name: string): number {
  if (/^[0-9]+$/.test(name)) return Number(name);
  const line = readFileSync("/etc/group", "utf8")
    .split("\n")
    .find((each) => each.startsWith(`${name}:`));
  if (line === undefined) {
    throw new PawlError(
      "invalid_params",
      `There is no group ${JSON.stringify(name)} on this machine (--socket-group).`,
    );
  }
  return Number(line.split(":")[2]);
}
