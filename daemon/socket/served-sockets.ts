import { lstatSync, mkdirSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { sharedTemporaryDirectory } from "@pawl/protocol/paths";
import type { Logger } from "pino";
import { elapsed } from "../clock.js";
import { descriptorLimits } from "./descriptors.js";
import { descriptorOf, type Kernel } from "./kernel.js";
import { Listener, type SocketOption, type Standing } from "./listener.js";
import type { PassedSocket } from "./supervisor.js";

/** How often it is looked whether the files of the sockets are still there. */
const LOOK_MS = 2000;
/** How often it is logged at most that descriptors have run out. */
const PAUSE_LINE_MS = 60_000;

/** Where to listen, as configured. */
export interface SocketSettings {
  readonly socket: string;
  readonly socketMode: number;
  readonly socketGroup: string | undefined;
  readonly readOnlySocket: string | undefined;
  readonly readOnlySocketMode: number;
  /** True if every socket serves only reads. */
  readonly readOnly: boolean;
}

interface Served {
  readonly listener: Listener;
  readonly readOnly: boolean;
  standing: Standing;
}

/** The sockets that the daemon listens on: those of its configuration, or those that the supervisor passed instead. */
export class ServedSockets {
  readonly #settings: SocketSettings;
  readonly #kernel: Kernel | undefined;
  readonly #onConnection: (socket: Socket, readOnly: boolean) => void;
  readonly #log: Logger;
  readonly #served: Served[] = [];
  readonly #descriptors = descriptorLimits();
  #paused = false;
  #pauseLoggedAt = Number.NEGATIVE_INFINITY;
  /** How often nobody more was accepted for want of descriptors. */
  acceptPauses = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: {
    settings: SocketSettings;
    kernel: Kernel | undefined;
    log: Logger;
    onConnection: (socket: Socket, readOnly: boolean) => void;
  }) {
    this.#settings = options.settings;
    this.#kernel = options.kernel;
    this.#log = options.log;
    this.#onConnection = options.onConnection;
  }

  /**
   * Binds what is to be bound and looks at what was passed, so that whatever is in the way of a start is found before
   * anybody can connect. Refuses like `Listener.open`, and with `invalid_params` a descriptor that is no such socket.
   *
   * @returns how to let others connect.
   */
  async bind(passed: readonly PassedSocket[]): Promise<() => Promise<void>> {
    const { socket, socketMode, readOnlySocket, readOnlySocketMode, readOnly } = this.#settings;
    const adopted = passed.map((each) => ({ ...each, path: this.#pathOf(each) }));
    const isPassed = (forReads: boolean): boolean => passed.some((each) => each.readOnly === forReads);
    if (!isPassed(false)) await this.#listen("--socket", socket, socketMode, readOnly);
    if (readOnlySocket !== undefined && !isPassed(true)) {
      await this.#listen("--read-only-socket", readOnlySocket, readOnlySocketMode, true);
    }
    return async () => {
      for (const each of adopted) this.#adopt(each);
      // systemd passes them in any order; whoever looks for one to talk to finds the main one first.
      this.#served.sort((a, b) => Number(a.readOnly) - Number(b.readOnly));
      for (const { listener } of this.#served) await listener.show();
      this.#lookAgain();
    };
  }

  get paths(): { path: string; readOnly: boolean }[] {
    return this.#served.map(({ listener: { path }, readOnly }) => ({ path, readOnly }));
  }

  /**
   * Where the daemon listens, for people: `socket` takes writes, or is every socket of a daemon that only reads;
   * `readOnlySocket` takes only reads. Several paths have commas between them.
   */
  get addresses(): { socket: string; readOnlySocket?: string } {
    const joined = (forReads: boolean): string =>
      this.paths
        .filter(({ readOnly }) => (readOnly && !this.#settings.readOnly) === forReads)
        .map(({ path }) => path)
        .join(", ");
    const readOnlySocket = joined(true);
    return { socket: joined(false), ...(readOnlySocket === "" ? {} : { readOnlySocket }) };
  }

  /** Accepts those who wait for a descriptor, when one may be free again. */
  acceptAgain(): void {
    if (!this.#paused) return;
    this.#paused = false;
    for (const { listener } of this.#served) {
      if (!listener.resume(this.#descriptors.connectionsBelow)) this.#paused = true;
    }
  }

  /** Takes no more connections; the open ones stay. */
  stopAccepting(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const { listener } of this.#served) listener.stopAccepting();
  }

  /** Removes the socket files that are ours, and lets another daemon have their paths. */
  remove(): void {
    for (const { listener } of this.#served) listener.remove();
  }

  async #listen(option: SocketOption, path: string, mode: number, readOnly: boolean): Promise<void> {
    checkTemporaryDirectory(path);
    const group = this.#settings.socketGroup;
    const listener = await Listener.open({ path, option, mode, group }, this.#listenerOptions(readOnly));
    this.#served.push({ listener, readOnly, standing: "ours" });
  }

  #adopt({ fd, path, ...passed }: PassedSocket & { path: string }): void {
    const readOnly = passed.readOnly || this.#settings.readOnly;
    const listener = Listener.adopt(fd, path, this.#listenerOptions(readOnly));
    this.#served.push({ listener, readOnly, standing: "ours" });
  }

  #listenerOptions(readOnly: boolean): Parameters<typeof Listener.adopt>[2] {
    const onConnection = (socket: Socket): void => {
      const descriptor = descriptorOf(socket);
      this.#onConnection(socket, readOnly);
      if (descriptor !== undefined && descriptor >= this.#descriptors.connectionsBelow)
        this.#pauseAccepting();
    };
    return { kernel: this.#kernel, onConnection, onTrouble: () => this.#pauseAccepting() };
  }

  /** The process can open few more files: who connects waits in the kernel's queue until somebody closes. */
  #pauseAccepting(): void {
    for (const { listener } of this.#served) listener.pause();
    this.#paused = true;
    this.acceptPauses += 1;
    if (elapsed() - this.#pauseLoggedAt < PAUSE_LINE_MS) return;
    this.#pauseLoggedAt = elapsed();
    this.#log.warn(
      { limit: this.#descriptors.limit },
      "few descriptors are left, so new connections wait until others close (LimitNOFILE=, ulimit -n)",
    );
  }

  #lookAgain(): void {
    this.#timer = setTimeout(() => {
      this.acceptAgain();
      // What else the daemon opens may have taken them since the last one was accepted.
      const { connectionsBelow } = this.#descriptors;
      if (!this.#paused && this.#served.some(({ listener }) => listener.isOutOf(connectionsBelow)))
        this.#pauseAccepting();
      void Promise.all(this.#served.map((each) => this.#putBack(each))).then(() => {
        if (this.#timer !== undefined) this.#lookAgain();
      });
    }, LOOK_MS);
    this.#timer.unref();
  }

  /** Puts the file of a socket back that somebody has removed, and says what is in the way of that, once. */
  async #putBack(served: Served): Promise<void> {
    const { path } = served.listener;
    let standing: Standing;
    try {
      checkTemporaryDirectory(path);
      standing = await served.listener.putBack();
    } catch (error) {
      if (served.standing !== "no socket") this.#log.error({ socket: path, err: error }, CANNOT_PUT_BACK);
      served.standing = "no socket";
      return;
    }
    if (standing === "put back")
      this.#log.warn({ socket: path }, "the socket's file was gone, and is put back");
    else if (standing !== served.standing && standing !== "ours") {
      this.#log.error({ socket: path, reason: standing }, CANNOT_PUT_BACK);
    }
    served.standing = standing === "put back" ? "ours" : standing;
  }

  #pathOf({ fd, name }: PassedSocket): string {
    const path = this.#kernel === undefined ? this.#settings.socket : this.#kernel.takeListening(fd);
    if (path !== undefined) return path;
    throw new PawlError(
      "invalid_params",
      `What was passed as ${JSON.stringify(name)} (descriptor ${fd}) is no listening stream socket of the Unix family. Pass one: ListenStream= with a path.`,
    );
  }
}

const CANNOT_PUT_BACK = "the socket's file is gone, and cannot be put back";

/**
 * The temporary directory is everybody's: a directory there with our name may have been made by somebody
 * else, who could then read what we serve.
 */
function checkTemporaryDirectory(socket: string): void {
  const uid = process.getuid?.() ?? 0;
  const around = { env: {}, uid, temporaryDirectory: tmpdir(), isOurs: () => false, homeDirectory: () => "" };
  const shared = resolve(sharedTemporaryDirectory(around));
  if (dirname(socket) !== shared) return;
  mkdirSync(shared, { recursive: true, mode: 0o700 });
  const found = lstatSync(shared);
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new PawlError(
      "forbidden",
      `${shared} is not a directory of ours alone (owner ${found.uid}, mode ${(found.mode & 0o777).toString(8)}). Remove it, or set XDG_RUNTIME_DIR or --socket.`,
    );
  }
}
