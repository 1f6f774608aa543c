import type { Socket } from "node:net";
import type { HangUps } from "./kernel.js";

/** The time between two tries to write to a peer, where the kernel does not tell that it has closed. */
const PROBE_MS = 1000;

/**
 * Finds out that a peer has closed while its socket is not read, or after the end of what it sends: a peer that has
 * only shut its writing side gets its answers, but one that has closed, or died, must not keep its waits and grants.
 */
export class HangUpWatch {
  readonly #socket: Socket;
  readonly #hangUps: HangUps | undefined;
  readonly #onHangUp: () => void;
  /** True if the watch goes on. */
  readonly #isNeeded: () => boolean;
  #unwatch: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param hangUps without it, a close is found out within a second. */
  constructor(socket: Socket, hangUps: HangUps | undefined, isNeeded: () => boolean, onHangUp: () => void) {
    this.#socket = socket;
    this.#hangUps = hangUps;
    this.#isNeeded = isNeeded;
    this.#onHangUp = onHangUp;
  }

  /** @param tryNow whether it may well have closed already. */
  start({ tryNow }: { tryNow: boolean }): void {
    this.#unwatch ??= this.#hangUps?.watch(this.#socket, this.#onHangUp);
    if (this.#unwatch !== undefined) return;
    if (tryNow) this.#probe();
    else this.#probeLater();
  }

  /** The socket is read again, which shows a close by itself. */
  stop(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
  }

  /** The socket is closed. */
  end(): void {
    this.stop();
    clearTimeout(this.#timer);
  }

  /**
   * Where the kernel cannot be asked: writing, even nothing, fails only to a peer that has closed (unix(7), EPIPE),
   * and that closes the connection.
   */
  #probe(): void {
    if (!this.#isNeeded()) return;
    // Bytes that are still to be written find out by themselves.
    if (this.#socket.writableLength === 0) this.#socket.write("");
    this.#probeLater();
  }

  #probeLater(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#probe();
    }, PROBE_MS);
    this.#timer.unref();
  }
}
