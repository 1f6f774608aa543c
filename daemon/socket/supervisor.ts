import { PawlError, shown } from "@pawl/protocol/errors";
import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import { elapsed, monotonicMicroseconds } from "../clock.js";
import type { Kernel } from "./kernel.js";

/** The first descriptor that is passed (SD_LISTEN_FDS_START, sd_listen_fds(3)). */
const FIRST_PASSED_FD = 3;
/** The name that sockets have in `LISTEN_FDNAMES` which serve only reads (`FileDescriptorName=`). */
const READ_ONLY_NAME = "read-only";
/** Names of the main socket: ours, the one that systemd gives for want of a name, and that for none at all. */
const MAIN_NAME = /^pawl$|\.socket$|^unknown$/;

/** The things passed to this process by its supervisor. A process that was started by hand has none of them. */
export interface Passed {
  readonly sockets: readonly PassedSocket[];
  /** Where to tell how it goes: a path, or with a leading `@` an abstract name. */
  readonly notifySocket: string | undefined;
  /** A sign of life is expected at least this often. */
  readonly watchdogMs: number | undefined;
}

export interface PassedSocket {
  readonly fd: number;
  readonly name: string;
  readonly readOnly: boolean;
}

/**
 * Takes what systemd passes out of the environment, so that no program started later takes it for its own:
 * sd_listen_fds_with_names(3), sd_notify(3), sd_watchdog_enabled(3). Refuses sockets with a name that says
 * nothing to us, since one that is meant for reading only must not serve writes because of a typing error.
 */
export function takePassed(env: NodeJS.ProcessEnv, pid: number): Passed {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC } = env;
  for (const name of [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
  ]) {
    delete env[name];
  }
  const count = LISTEN_PID === String(pid) ? wholeNumber(LISTEN_FDS) : 0;
  const names = LISTEN_FDNAMES?.split(":") ?? [];
  const watchdogMs = (WATCHDOG_PID ?? String(pid)) === String(pid) ? wholeNumber(WATCHDOG_USEC) / 1000 : 0;
  return {
    sockets: Array.from({ length: count }, (_, index) =>
      passedSocket(FIRST_PASSED_FD + index, names[index] ?? "unknown"),
    ),
    notifySocket: NOTIFY_SOCKET || undefined,
    watchdogMs: watchdogMs > 0 ? watchdogMs : undefined,
  };
}

function passedSocket(fd: number, name: string): PassedSocket {
  const readOnly = name === READ_ONLY_NAME;
  if (readOnly || MAIN_NAME.test(name)) return { fd, name, readOnly };
  throw new PawlError(
    "invalid_params",
    `A socket was passed under the name ${shown(name)}. Name it "pawl", or "${READ_ONLY_NAME}" if it is to serve only reads (FileDescriptorName= in its unit).`,
  );
}

function wholeNumber(text: string | undefined): number {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : 0;
}

/** Of the time in which a sign of life is expected, after how much one is given (sd_watchdog_enabled(3)). */
const WATCHDOG_SHARE = 0.5;
/** Connections come and go faster than anybody reads; the line about them changes no more often. */
const STATUS_MS = 1000;
/** Messages that could not be sent, because the receiver had not read those before, are tried again. */
const RETRY_MS = 50;
/** The time for which a daemon that has stopped waits for a receiver that has not read yet. */
const LAST_TRY_MS = 1000;
const EAGAIN = 11;

/**
 * Tells the supervisor how it goes (sd_notify(3)): nothing has to be started for that, and where nobody wants
 * to know, nothing is done. A receiver that does not read holds nobody up; the messages wait, in order.
 */
export class Notices {
  readonly #kernel: Kernel | undefined;
  readonly #passed: Passed;
  readonly #onTrouble: (message: string, details: object) => void;
  /** Messages that the receiver had no room for. */
  readonly #unsent: string[] = [];
  #retryTimer: NodeJS.Timeout | undefined;
  #watchdogTimer: NodeJS.Timeout | undefined;
  #statusTimer: NodeJS.Timeout | undefined;
  #status = "";
  #stopping = false;
  #troubled = false;

  constructor(
    kernel: Kernel | undefined,
    passed: Passed,
    onTrouble: (message: string, details: object) => void,
  ) {
    this.#kernel = kernel;
    this.#passed = passed;
    this.#onTrouble = onTrouble;
    if (passed.notifySocket !== undefined && kernel === undefined) {
      onTrouble("the supervisor waits to be told that we are ready, and cannot be told", {});
    }
  }

  /** Start-up or a reload is over: requests are served. From the first time on, signs of life are given. */
  ready(status: string): void {
    this.#status = status;
    this.#send(["READY=1", `STATUS=${status}`]);
    const { watchdogMs } = this.#passed;
    if (watchdogMs === undefined || this.#watchdogTimer !== undefined) return;
    this.#sendIfRoom(["WATCHDOG=1"]);
    // A timer of the event loop shows that the loop turns, which is all that a daemon of one thread has to show.
    // `setInterval` takes longer times for none at all, and would give signs of life without a pause.
    const everyMs = Math.min(watchdogMs * WATCHDOG_SHARE, MAX_TIMER_MS);
    this.#watchdogTimer = setInterval(() => this.#sendIfRoom(["WATCHDOG=1"]), everyMs);
    this.#watchdogTimer.unref();
  }

  /** Tells what is being done, in a line. */
  status(text: string): void {
    if (text !== this.#status && !this.#stopping && this.#sendIfRoom([`STATUS=${text}`])) this.#status = text;
  }

  /** The same for what changes all the time: told at most once in `STATUS_MS`, as it is then. */
  statusSoon(text: () => string): void {
    if (this.#passed.notifySocket === undefined || this.#statusTimer !== undefined || this.#stopping) return;
    this.#statusTimer = setTimeout(() => {
      this.#statusTimer = undefined;
      this.status(text());
    }, STATUS_MS);
    this.#statusTimer.unref();
  }

  /** Tells that the work of this moment takes up to so long from now, and is no reason to give up on us. */
  extend(byMs: number, status: string): void {
    this.#status = status;
    this.#send([`EXTEND_TIMEOUT_USEC=${Math.ceil(byMs * 1000)}`, `STATUS=${status}`]);
  }

  /** The configuration is being read again; `ready` says that this is over (Type=notify-reload). */
  reloading(): void {
    this.#send(["RELOADING=1", `MONOTONIC_USEC=${monotonicMicroseconds()}`]);
  }

  /** The end has begun, and nothing is told after it. */
  stopping(status: string): void {
    clearInterval(this.#watchdogTimer);
    clearTimeout(this.#statusTimer);
    this.#stopping = true;
    this.#status = status;
    this.#send(["STOPPING=1", `STATUS=${status}`]);
  }

  /** Resolves once all is sent, or when a receiver that does not read has had its time. */
  async sent(): Promise<void> {
    const end = elapsed() + LAST_TRY_MS;
    while (this.#unsent.length > 0 && elapsed() < end) {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** For what is said again: while a receiver does not read, it must not pile up. */
  #sendIfRoom(lines: readonly string[]): boolean {
    if (this.#unsent.length > 0) return false;
    this.#send(lines);
    return true;
  }

  #send(lines: readonly string[]): void {
    if (this.#passed.notifySocket === undefined || this.#kernel === undefined) return;
    // A line ends where the next assignment begins, so none may hold an end of line itself.
    this.#unsent.push(lines.map((line) => `${line.replaceAll(/\s*\n\s*/g, " ")}\n`).join(""));
    this.#flush(this.#kernel, this.#passed.notifySocket);
  }

  #flush(kernel: Kernel, address: string): void {
    clearTimeout(this.#retryTimer);
    for (let message = this.#unsent[0]; message !== undefined; message = this.#unsent[0]) {
      const errno = kernel.sendDatagram(address, message);
      if (errno === EAGAIN) {
        this.#retryTimer = setTimeout(() => this.#flush(kernel, address), RETRY_MS);
        this.#retryTimer.unref();
        return;
      }
      this.#unsent.shift();
      if (errno !== 0 && !this.#troubled) {
        this.#troubled = true;
        this.#onTrouble("the supervisor cannot be told how it goes", { socket: address, errno });
      }
    }
  }
}
