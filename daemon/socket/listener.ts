import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { FileLock } from "../store/file-lock.js";
import type { Kernel } from "./kernel.js";

/** Clients that connect within one moment queue in the kernel; it caps this at net.core.somaxconn. */
const BACKLOG = 4096;

/** Where a listener of our own listens. */
export interface SocketPlace {
  readonly path: string;
  /** The option that the path comes from, for who has to choose another. */
  readonly option: SocketOption;
  /** The mode of the socket's file, which decides who may connect. */
  readonly mode: number;
  /** The name of its group, or undefined for the process's own. */
  readonly group: string | undefined;
}

/** Our files in the file system. */
interface Held {
  readonly place: SocketPlace;
  lock: FileLock;
  lockFile: string;
  socketFile: string;
}

/** How it stands with the file of a socket: ours, put back, or why it cannot be put back. */
export type Standing = "ours" | "put back" | "another answers" | "no socket";

/**
 * Listens on a socket file. Whoever holds the lock beside it may put a socket there and take it away, so a daemon
 * never unlinks another's. The socket is bound at its final path, since the kernel's list of sockets
 * (/proc/net/unix), by which cleaners of directories know those in use, shows for ever the path at which it was
 * bound. Nobody can connect before `show`, so several sockets are served all or none.
 *
 * `bound`: nobody can connect. `open`: accepts. `paused`: the kernel queues who connects. `closed`: nobody can connect.
 */
export class Listener {
  readonly path: string;
  readonly #kernel: Kernel | undefined;
  readonly #onConnection: (socket: Socket) => void;
  readonly #onTrouble: () => void;
  /** Undefined when the socket was passed to us. */
  readonly #held: Held | undefined;
  #state: "bound" | "open" | "paused" | "closed" = "bound";
  #server: Server | undefined;
  /**
   * The socket itself; the server listens on a duplicate of it. So nothing has to be made to pause, when there may be
   * no descriptor left. Undefined where the kernel's calls cannot be had.
   */
  #descriptor: number | undefined;

  private constructor(
    path: string,
    { kernel, onConnection, onTrouble }: ListenerOptions,
    own: { descriptor: number | undefined; held?: Held },
  ) {
    this.path = path;
    this.#kernel = kernel;
    this.#onConnection = onConnection;
    this.#onTrouble = onTrouble;
    this.#descriptor = own.descriptor;
    this.#held = own.held;
  }

  /**
   * Takes the place and binds the socket, which is there for others from `show` on. Refuses with `invalid_state` a
   * place where another daemon is, or where something lies that is no socket.
   */
  static async open(place: SocketPlace, options: ListenerOptions): Promise<Listener> {
    const { path, option } = place;
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
      const descriptor = bind(place, options.kernel);
      const held = { place, lock, lockFile: identityOf(`${path}.lock`), socketFile: identityOf(path) };
      return new Listener(path, options, { descriptor, held });
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
  static adopt(descriptor: number, path: string, options: ListenerOptions): Listener {
    return new Listener(path, options, { descriptor });
  }

  /** Lets others connect. */
  async show(): Promise<void> {
    this.#state = "open";
    await this.#listen();
  }

  /**
   * Accepts nobody until `resume`: who connects waits in the kernel's queue. Does nothing without the kernel's calls.
   */
  pause(): void {
    if (this.#state !== "open" || this.#descriptor === undefined) return;
    this.#server?.close();
    this.#state = "paused";
  }

  /** True if the process has no descriptor below `limit` for one that connects, or for what it does itself. */
  isOutOf(limit: number): boolean {
    if (this.#kernel === undefined || this.#descriptor === undefined) return false;
    return (this.#kernel.freeDescriptor(this.#descriptor) ?? limit) >= limit;
  }

  /**
   * Accepts those who wait, and others. Returns false, and does not, if no descriptor below `limit` is free for them.
   */
  resume(limit: number): boolean {
    if (this.#state !== "paused") return true;
    if (this.isOutOf(limit)) return false;
    this.#state = "open";
    this.#listen().catch(this.#onTrouble);
    return true;
  }

  /** Takes no more connections; those that are open stay. */
  stopAccepting(): void {
    this.#state = "closed";
    this.#close();
  }

  #close(): void {
    this.#server?.close();
    if (this.#descriptor !== undefined) this.#kernel?.close(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** Puts the socket back if its file is gone or replaced by one that nobody answers on, and the lock's file too. */
  async putBack(): Promise<Standing> {
    const held = this.#held;
    if (held === undefined || this.#state !== "open") return "ours";
    if (identityOf(this.path) === held.socketFile) {
      this.#takeLockAgain(held);
      return "ours";
    }
    const found = lstatSync(this.path, { throwIfNoEntry: false });
    if (found !== undefined && !found.isSocket()) return "no socket";
    if (found !== undefined && (await answers(this.path))) return "another answers";
    // It may have been told to stop meanwhile.
    if (this.#state !== "open") return "ours";
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    // A daemon that is about to listen there has the lock, and does not answer yet.
    if (!this.#takeLockAgain(held)) return "another answers";
    this.#close();
    this.#descriptor = bind(held.place, this.#kernel);
    held.socketFile = identityOf(this.path);
    await this.#listen();
    return "put back";
  }

  /** Removes the socket file if it is still ours, and lets another daemon have the place. */
  remove(): void {
    if (this.#held === undefined) return;
    const { lock, socketFile } = this.#held;
    if (socketFile !== NOTHING && identityOf(this.path) === socketFile) unlinkSync(this.path);
    lock.release();
  }

  async #listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, this.#onConnection);
    this.#server = server;
    await this.#listenWith(server);
    server.on("error", this.#onTrouble);
  }

  async #listenWith(server: Server): Promise<void> {
    if (this.#descriptor !== undefined) {
      const fd = this.#kernel === undefined ? this.#descriptor : this.#kernel.duplicate(this.#descriptor);
      if (fd === undefined) throw new Error("no descriptor is left to listen on");
      return await listening(server, () => server.listen({ fd, backlog: BACKLOG }));
    }
    const held = this.#held as Held;
    await listening(server, () =>
      made(held.place, () => server.listen({ path: this.path, backlog: BACKLOG })),
    );
    held.socketFile = identityOf(this.path);
  }

  /** Returns false if another daemon holds the lock of the place by now, in a file that took the place of ours. */
  #takeLockAgain(held: Held): boolean {
    const file = `${this.path}.lock`;
    if (identityOf(file) === held.lockFile) return true;
    const lock = FileLock.take(file);
    if (!(lock instanceof FileLock)) return false;
    held.lock.release();
    held.lock = lock;
    held.lockFile = identityOf(file);
    return true;
  }
}

interface ListenerOptions {
  readonly kernel: Kernel | undefined;
  readonly onConnection: (socket: Socket) => void;
  /** Called when those who connect cannot be accepted, which is for want of descriptors. */
  readonly onTrouble: () => void;
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
  if (await answers(path)) {
    throw new PawlError(
      "invalid_state",
      `Another program answers on ${path}. Stop it, or choose another ${option}.`,
    );
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    // A queue that is full is a sign of life, too.
    probe.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code === "EAGAIN"));
  });
}

/**
 * Binds a socket in place of a stale one, without listening. Without the kernel's calls the place is only made free:
 * Node binds when it listens.
 */
function bind(place: SocketPlace, kernel: Kernel | undefined): number | undefined {
  if (lstatSync(place.path, { throwIfNoEntry: false }) !== undefined) unlinkSync(place.path);
  return kernel === undefined ? undefined : made(place, () => kernel.bind(place.path));
}

/**
 * Binding creates the file, so the umask in force at that moment decides its mode: there is no moment at which others
 * could connect. The group is changed before the mode lets it in.
 */
function made<T>({ path, mode, group }: SocketPlace, create: () => T): T {
  const gid = group === undefined ? undefined : groupId(group);
  const previous = process.umask(0o777 & ~(gid === undefined ? mode : 0o600));
  let result: T;
  try {
    result = create();
  } finally {
    process.umask(previous);
  }
  if (gid === undefined) return result;
  try {
    chownSync(path, -1, gid);
    chmodSync(path, mode);
    return result;
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

const NOTHING = "";

/** Tells a file from one that comes after it and gets its number; `NOTHING` if there is none. */
function identityOf(path: string): string {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return found === undefined ? NOTHING : `${found.dev}:${found.ino}:${found.birthtimeNs}`;
}

async function listening(server: Server, listen: () => void): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve);
    server.once("error", reject);
  });
  listen();
  await done;
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
