// A lease provider that daemons share, with faults as a test asks for them (test/workers/faulty-provider.js).
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type AtEnd, type DaemonProcess, Place, privateDirectory } from "./daemon.js";

const FAULTY = join(import.meta.dirname, "workers/faulty-provider.js");

export class Faulty {
  readonly directory: string;
  readonly specification: string;
  readonly atEnd: AtEnd;

  /** `force`: it can end leases by force. `forgetful`: it does not tell tokens that nobody holds. */
  constructor(atEnd: AtEnd, { force = true, forgetful = false, more = "" } = {}) {
    this.atEnd = atEnd;
    this.directory = join(privateDirectory(atEnd), "leases");
    const words = [force && "force=1", forgetful && "forgetful=1", more].filter(Boolean);
    this.specification = [`custom:${FAULTY},directory=${this.directory}`, ...words].join(",");
  }

  get args(): string[] {
    return ["--lease-provider", `out/*=${this.specification}`];
  }
  set fault(fault: string | undefined) {
    const file = `${this.directory}.control`;
    writeFileSync(`${file}.new`, fault ?? "");
    renameSync(`${file}.new`, file);
  }
  /** The calls so far, and what was done to them. */
  get calls(): string[] {
    const file = `${this.directory}.calls`;
    return existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];
  }
  /** Has it lose all that it knows. */
  wipe(): void {
    rmSync(this.directory, { recursive: true });
    mkdirSync(this.directory);
  }
  place(): Place {
    return new Place(undefined, this.atEnd);
  }
  start(...args: string[]): Promise<DaemonProcess> {
    return this.place().start({ args: [...this.args, ...args] });
  }
}
