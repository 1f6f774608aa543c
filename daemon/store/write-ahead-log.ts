import { constants, readFileSync, truncateSync } from "node:fs";
import { open, statfs } from "node:fs/promises";
import { endianness } from "node:os";
import type Database from "better-sqlite3";
import type { OwnFiles } from "./own-files.js";

/** Pages in the log before a commit moves them into the database: 4,000 x 4 KiB = 16 MB. */
export const AUTOMATIC_CHECKPOINT_PAGES = 4000;
/** A log that grew beyond this is cut back once it has been moved. */
export const LOG_LIMIT_BYTES = 64 * 1024 * 1024;
/**
 * Large values in the log before it is moved all the same. Rows that are changed again and again are better moved
 * late, but a large value is written once, and 16 MB of them would stall everybody for 50 ms instead of 2.
 */
const MOVED_VALUE_BYTES = 512 * 1024;

/** The parts of a log, and of a frame, which has a page (https://www.sqlite.org/fileformat2.html#walformat). */
const LOG_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const PAGE_BYTES = 4096;
export const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES;
/** As long as the log is when it is moved, with the pages of the commit that does so. */
const FULL_LENGTH_BYTES = LOG_HEADER_BYTES + (AUTOMATIC_CHECKPOINT_PAGES + 256) * FRAME_BYTES;
/** The file is longer than what is in it by so much, so that what is written next finds its blocks there. */
const AHEAD_BYTES = 2 * 1024 * 1024;
/** While less than this is in the log, it is not made longer: most daemons write little. */
const LITTLE_BYTES = 512 * 1024;
/** Zeros written at once: 1 MiB, which takes 16 times the same memory. */
const ZEROS_BYTES = 64 * 1024;
const ZEROS_PER_PIECE = 16;
/** The file system has to have more free space than this, or the log grows only as it has to. */
const ROOMY_BYTES = 16 * FULL_LENGTH_BYTES;

/**
 * Work that SQLite's write-ahead log needs beside the commits: its blocks made, its content moved, and what failed
 * taken off it.
 *
 * A commit to blocks that the file has had before takes half as long as one that makes it grow, since its fsync has
 * to write no length and no extents. So the file is extended by zeros ahead of what is written, up to the length at
 * which a commit moves the log; from then on SQLite writes it from its beginning again, and nothing cuts it.
 * SQLite ignores what follows the last frame: a frame counts only with the salts of the log's header, a sum
 * over all frames before it, and a page number above 0, none of which zeros or the frames of an earlier round have.
 * The zeros are appended (O_APPEND): whoever writes a frame at the same moment, in this process or another, either
 * finds them there and overwrites them, or has them put behind the frame. No lock of SQLite is on this file, so it
 * may be opened and closed here, as the database and its `-shm` must not be.
 */
export class WriteAheadLog {
  readonly #database: Database.Database;
  readonly #path: string;
  readonly #files: OwnFiles;
  readonly #length: Database.Statement;
  readonly #moveWhatCan: Database.Statement;
  /** Of large values, since the log was moved. */
  #unmovedBytes = 0;
  #moving: NodeJS.Immediate | undefined;
  /** Of the file, as far as it was looked at. */
  #fileBytes = 0;
  /** True if the file is being extended, or is not to be any more. */
  #extends: "ahead" | "now" | "no" = "ahead";

  constructor(database: Database.Database, files: OwnFiles) {
    this.#database = database;
    this.#files = files;
    this.#path = `${database.name}-wal`;
    this.#length = database.prepare("PRAGMA wal_checkpoint(NOOP)").raw();
    this.#moveWhatCan = database.prepare("PRAGMA wal_checkpoint(PASSIVE)");
    if (database.memory) this.#extends = "no";
  }

  /**
   * Takes notice of a commit that wrote large values of so many bytes. What is due is done after this turn. Never
   * throws, since the commit is on disk.
   */
  committed(valueBytes: number): void {
    this.#unmovedBytes += valueBytes;
    if (this.#unmovedBytes >= MOVED_VALUE_BYTES) this.moveSoon();
    if (this.#extends !== "ahead") return;
    const usedBytes = this.#usedBytes();
    if (usedBytes < LITTLE_BYTES || usedBytes + AHEAD_BYTES <= this.#fileBytes) return;
    void this.#extend(usedBytes + AHEAD_BYTES);
  }

  /** Moves the content into the database, as far as readers allow, and keeps the blocks. */
  move(): void {
    this.#database.pragma("wal_checkpoint(RESTART)");
  }

  /** Moves the content into the database and gives the blocks back, if nobody reads what is in it. Never throws. */
  cut(): void {
    try {
      this.#database.pragma("wal_checkpoint(TRUNCATE)");
      if (this.#extends === "no") return;
      this.#fileBytes = 0;
      this.#extends = "ahead";
    } catch {
      // Another program has locked the database, or there is no space: it is tried again.
    }
  }

  /** Moves the content into the database, as far as readers allow, and gives the blocks back. */
  empty(): void {
    this.#extends = "no";
    this.#database.pragma("wal_checkpoint(TRUNCATE)");
  }

  close(): void {
    this.#extends = "no";
    clearImmediate(this.#moving);
  }

  /**
   * Cuts the log after its last committed frame, once a commit has failed. One whose fsync failed has written all
   * its frames before that, and recovery, which reads the log alone, would take them for committed. What is
   * committed is in the shared index beside the log, which a commit changes last (the format of both:
   * https://www.sqlite.org/walformat.html). Reading the index here drops SQLite's locks on it: nothing may be done
   * with the database afterwards but to close it.
   */
  dropUncommitted(): void {
    this.close();
    const index = readFileSync(`${this.#database.name}-shm`);
    const read16 = (at: number): number =>
      IS_LITTLE_ENDIAN ? index.readUInt16LE(at) : index.readUInt16BE(at);
    const read32 = (at: number): number =>
      IS_LITTLE_ENDIAN ? index.readUInt32LE(at) : index.readUInt32BE(at);
    const pageBytes = read16(INDEX_PAGE_SIZE_OFFSET) === 1 ? 65536 : read16(INDEX_PAGE_SIZE_OFFSET);
    const frames = read32(INDEX_FRAMES_OFFSET);
    truncateSync(this.#path, LOG_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + pageBytes));
  }

  /** Moves what can be moved after the answers have gone out, and not within a turn, so that nobody waits for both. */
  moveSoon(): void {
    this.#moving ??= setImmediate(() => {
      this.#moving = undefined;
      this.#unmovedBytes = 0;
      try {
        this.#moveWhatCan.get();
      } catch {
        // Like the checkpoints that SQLite makes by itself within a commit: the next one tries again.
      }
    });
  }

  #usedBytes(): number {
    try {
      const [, frames] = this.#length.get() as [busy: number, frames: number, moved: number];
      return LOG_HEADER_BYTES + frames * FRAME_BYTES;
    } catch {
      return 0;
    }
  }

  /**
   * Makes the file as long as wanted, piece by piece, outside the event loop. Whatever is in the way of that, the log
   * works without.
   */
  async #extend(wantedBytes: number): Promise<void> {
    this.#extends = "now";
    try {
      const file = await open(this.#path, constants.O_WRONLY | constants.O_APPEND);
      try {
        this.#fileBytes = (await file.stat()).size;
        this.#files.check();
        while (this.#fileBytes < wantedBytes && (await this.#hasRoom())) {
          const { bytesWritten } = await file.writev(PIECE);
          await file.datasync();
          this.#fileBytes += bytesWritten;
        }
      } finally {
        await file.close();
      }
      const goesOn = wantedBytes <= this.#fileBytes && this.#fileBytes < FULL_LENGTH_BYTES;
      if (this.#extends === "now") this.#extends = goesOn ? "ahead" : "no";
    } catch {
      this.#extends = "no";
    }
  }

  async #hasRoom(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.#path);
    return bavail * bsize >= ROOMY_BYTES;
  }
}

const PIECE: Buffer[] = new Array(ZEROS_PER_PIECE).fill(Buffer.alloc(ZEROS_BYTES));

/** The index is in the byte order of the machine. */
const IS_LITTLE_ENDIAN = endianness() === "LE";
const INDEX_PAGE_SIZE_OFFSET = 14;
const INDEX_FRAMES_OFFSET = 16;
