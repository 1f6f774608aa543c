// Daemons whose wall clock a test sets (libfaketime; only the wall clock is faked).
import { existsSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DaemonProcess, Place } from "./daemon.js";

/** Debian's libfaketime, if it is installed. */
export const library = readdirSync("/usr/lib")
  .map((directory) => join("/usr/lib", directory, "faketime/libfaketimeMT.so.1"))
  .find((path) => existsSync(path));
if (library === undefined) {
  console.warn(
    "The tests of the clock are skipped: libfaketime is not installed (Debian: apt-get install faketime).",
  );
}

/** A place whose daemons have a wall clock that the test sets. */
export class ClockPlace extends Place {
  get #file(): string {
    return join(this.directory, "clock");
  }

  /** Sets the wall clock of the daemon, running or to come, to so much before or after the real one. */
  setClock(offsetMs: number): void {
    const seconds = offsetMs / 1000;
    writeFileSync(`${this.#file}.new`, `${seconds >= 0 ? "+" : ""}${seconds}`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  startWithClock(): Promise<DaemonProcess> {
    return this.start({
      env: {
        LD_PRELOAD: library as string,
        FAKETIME_TIMESTAMP_FILE: this.#file,
        FAKETIME_NO_CACHE: "1",
        FAKETIME_DONT_FAKE_MONOTONIC: "1",
        DONT_FAKE_MONOTONIC: "1",
      },
    });
  }
}
