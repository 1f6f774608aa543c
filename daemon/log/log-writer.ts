import { write, writeSync } from "node:fs";
import { elapsed } from "../clock.js";

/** Lines that wait for a reader that has stopped; beyond this they are dropped, not kept in memory. */
const MAX_QUEUED_BYTES = 1024 * 1024;
/** The time from a failed write to the next attempt. */
const RETRY_MS = 1000;
/** The same where a pipe that is not to be waited for has no room. */
const NO_ROOM_MS = 50;
/** A write that is under way for longer waits for somebody. */
const SHORT_MS = 20;
/** A pipe or socket that can be written to at all takes so much at once (PIPE_BUF, pipe(7)). */
const PIECE_BYTES = 4096;
const LINE_END = 0x0a;

/**
 * Writes lines to a descriptor without ever waiting for it. Threads of libuv write, so a reader that has stopped
 * holds up one of those and nobody else; O_NONBLOCK would be set for everybody who shares the descriptor. Lines are
 * dropped and counted while nothing can be written, and one line says so once it can be.
 *
 * `idle`: nothing waits. `writing`: a thread writes, or there is no room now. `pausing`: a write has failed, and the
 * next attempt has its time.
 */
export class LogWriter {
  readonly #fd: number;
  readonly #tell: (dropped: number) => void;
  #state: "idle" | "writing" | "pausing" = "idle";
  #scheduled = false;
  #queue: string[] = [];
  #queuedBytes = 0;
  /** The bytes that are being written, and how many of them have been. */
  #chunk = Buffer.alloc(0);
  #written = 0;
  #writingSince = 0;
  /** True from the first line that was dropped until a line that tells of it is on its way. */
  #dropping = false;
  /** Dropped, and not told yet ... */
  #untold = 0;
  /** ... or told by a line that is on its way. */
  #beingTold = 0;
  /** The line that tells of those that were dropped, while `tell` makes it. */
  #telling: string | undefined;
  #onEmpty: (() => void) | undefined;
  /** Lines dropped in this life. */
  dropped = 0;

  /** @param tell calls `write` with the line that says how many were dropped. */
  constructor(fd: number, tell: (dropped: number) => void) {
    this.#fd = fd;
    this.#tell = tell;
  }

  write(line: string): void {
    if (this.#telling !== undefined) {
      this.#telling = line;
      return;
    }
    const bytes = Buffer.byteLength(line);
    if (this.#dropping || this.#queuedBytes + bytes > MAX_QUEUED_BYTES) return this.#drop(1);
    this.#queue.push(line);
    this.#queuedBytes += bytes;
    if (this.#scheduled || this.#state !== "idle") return;
    this.#scheduled = true;
    // All lines of a turn by one write.
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#state === "idle") this.#next();
    });
  }

  /**
   * Whether a write has been under way for so long that it waits for a reader; a process then cannot end by exit(3).
   */
  get isHeldUp(): boolean {
    return this.#state === "writing" && elapsed() - this.#writingSince > SHORT_MS;
  }

  /** Resolves once every line is written or dropped, at the latest after `limitMs`. */
  async close(limitMs: number): Promise<void> {
    if (this.#isEmpty) return;
    const { promise, resolve } = withResolver();
    const timer = setTimeout(resolve, limitMs);
    this.#onEmpty = resolve;
    await promise;
    clearTimeout(timer);
  }

  /**
   * Writes what waits before it returns, as far as that waits for nobody: for a process that ends at once.
   *
   * @param hasRoom whether the descriptor takes `PIECE_BYTES` at once.
   */
  flush(hasRoom: (fd: number) => boolean): void {
    if (this.#state === "pausing" || this.#dropping) return;
    if (this.#state === "writing") {
      // What a thread writes comes first. There is no other way to wait for it here.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SHORT_MS);
    }
    let rest = Buffer.from(this.#queue.splice(0).join(""));
    try {
      while (rest.length > 0 && hasRoom(this.#fd)) {
        rest = rest.subarray(writeSync(this.#fd, rest, 0, Math.min(rest.length, PIECE_BYTES)));
      }
    } catch {
      // A log on a disk that fails must not keep the process from ending.
    }
  }

  get #isEmpty(): boolean {
    return this.#state === "pausing" || (this.#state === "idle" && this.#queue.length === 0);
  }

  #next(): void {
    this.#state = "idle";
    const begun = this.#chunk.subarray(this.#written);
    this.#written = 0;
    this.#beingTold = 0;
    this.#chunk = Buffer.concat([begun, Buffer.from(this.#takeQueued())]);
    if (this.#chunk.length > 0) this.#write();
    else this.#onEmpty?.();
  }

  /** The next lines to be written: those queued before lines were dropped, then the line that tells of those. */
  #takeQueued(): string {
    const queued = this.#queue.splice(0).join("");
    this.#queuedBytes = 0;
    if (queued !== "" || !this.#dropping) return queued;
    this.#telling = "";
    this.#tell(this.#untold);
    const told = this.#telling;
    this.#telling = undefined;
    this.#beingTold = told === "" ? 0 : this.#untold;
    this.#untold = 0;
    this.#dropping = false;
    return told;
  }

  #write(): void {
    this.#state = "writing";
    this.#writingSince = elapsed();
    write(this.#fd, this.#chunk, this.#written, this.#chunk.length - this.#written, null, (error, bytes) => {
      if (error?.code === "EAGAIN") return void setTimeout(() => this.#write(), NO_ROOM_MS).unref();
      if (error !== null) return this.#failed();
      this.#written += bytes;
      if (this.#written < this.#chunk.length) this.#write();
      else this.#next();
    });
  }

  /** Drops what waits but for a line that is written in part: the log stays one of whole lines. */
  #failed(): void {
    this.#state = "pausing";
    const rest = this.#chunk.subarray(this.#written);
    const whole = this.#written === 0 || this.#chunk[this.#written - 1] === LINE_END;
    const begun = whole ? 0 : rest.indexOf(LINE_END) + 1;
    this.#drop(count(rest.subarray(begun)) + this.#queue.splice(0).length);
    if (this.#beingTold > 0 && whole) {
      // The line that tells of the others is made anew.
      this.dropped -= 1;
      this.#untold += this.#beingTold - 1;
    }
    this.#queuedBytes = 0;
    this.#chunk = rest.subarray(0, begun);
    this.#written = 0;
    this.#onEmpty?.();
    setTimeout(() => this.#next(), RETRY_MS).unref();
  }

  #drop(lines: number): void {
    if (lines === 0) return;
    this.dropped += lines;
    this.#untold += lines;
    this.#dropping = true;
  }
}

function count(lines: Buffer): number {
  let found = 0;
  for (let at = lines.indexOf(LINE_END); at >= 0; at = lines.indexOf(LINE_END, at + 1)) found += 1;
  return found;
}

function withResolver(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
