import { lstatSync, mkdirSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { sharedTemporaryDirectory } from "@pawl/protocol/paths";
import type { Kernel } from "./kernel.js";
import { Listener, type SocketOption } from "./listener.js";
import type { PassedSocket } from "./supervisor.js";

/** Where to listen, as configured. */
export interface SocketSettings {
  readonly socket: string;
  readonly socketMode: number;
  readonly socketGroup: string | undefined;
  readonly readOnlySocket: string | undefined;
  readonly readOnlySocketMode: number;
  /** Whether every socket serves only reads. */
  readonly readOnly: boolean;
}

interface Served {
  readonly listener: Listener;
  readonly readOnly: boolean;
}

/** The sockets that the daemon listens on: those of its configuration, or those that the supervisor passed instead. */
export class ServedSockets {
  readonly #settings: SocketSettings;
  readonly #kernel: Kernel | undefined;
  readonly #onConnection: (socket: Socket, readOnly: boolean) => void;
  readonly #served: Served[] = [];

  constructor(
    settings: SocketSettings,
    kernel: Kernel | undefined,
    onConnection: (socket: Socket, readOnly: boolean) => void,
  ) {
    this.#settings = settings;
    this.#kernel = kernel;
    this.#onConnection = onConnection;
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
      for (const each of adopted) await this.#adopt(each);
      // systemd passes them in any order; whoever looks for one to talk to finds the main one first.
      this.#served.sort((a, b) => Number(a.readOnly) - Number(b.readOnly));
      for (const { listener } of this.#served) listener.show();
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

  /** Takes no more connections; the open ones stay. */
  stopAccepting(): void {
    for (const { listener } of this.#served) listener.stopAccepting();
  }

  /** Removes the socket files that are ours, and lets another daemon have their paths. */
  remove(): void {
    for (const { listener } of this.#served) listener.remove();
  }

  async #listen(option: SocketOption, path: string, mode: number, readOnly: boolean): Promise<void> {
    checkTemporaryDirectory(path);
    const listener = await Listener.open({
      path,
      option,
      mode,
      group: this.#settings.socketGroup,
      onConnection: (socket) => this.#onConnection(socket, readOnly),
    });
    this.#served.push({ listener, readOnly });
  }

  async #adopt({ fd, path, ...passed }: PassedSocket & { path: string }): Promise<void> {
    const readOnly = passed.readOnly || this.#settings.readOnly;
    const listener = await Listener.adopt({
      fd,
      path,
      onConnection: (socket) => this.#onConnection(socket, readOnly),
    });
    this.#served.push({ listener, readOnly });
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

/**
 * The temporary directory is everybody's: a directory there with our name may have been made by somebody
 * else, who could then read what we serve.
 */
function checkTemporaryDirectory(socket: string): void {
  const uid = process.getuid?.() ?? 0;
  const around = { env: {}, uid, temporaryDirectory: tmpdir(), homeDirectory: () => "" };
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
