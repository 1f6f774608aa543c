import type { Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MEANING, WIDE_PARTS, type WidePiece } from "../domain/check.js";
import { type Fault, faultOf, Inspection, type Key, type Table } from "../store/inspection.js";
import type { Sender } from "../turns/handler.js";

/** Calls that are looked after or wait for that. */
const MAX_CHECKS = 16;
/** Faults after which a call is answered. */
const MAX_FAULTS_PER_CALL = 200;
const TABLE_PREFIX = "pawl_";

/** Looks whether a database is sound, beside the turns: one call after the other, some milliseconds at a time. */
export class Checks {
  readonly #path: string;
  /** The end of the calls before. */
  #last: Promise<unknown> = Promise.resolve();
  #calls = 0;
  #tables: readonly Table[] | undefined;
  #stopping = false;

  /** @param path of the database file. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * The next part of a look at the whole database. Refuses with `invalid_params` an `after` that is no `next`, and with
   * `unavailable` while too many others look, when no descriptor is left, and when the daemon stops.
   */
  async check(params: Parsed<"daemon.check">, sender: Sender): Promise<Result<"daemon.check">> {
    if (this.#calls === MAX_CHECKS) {
      throw refuse("unavailable", `${MAX_CHECKS} checks are under way. Ask again when they are done.`, {
        reason: "checks_under_way",
      });
    }
    this.#calls += 1;
    const done = this.#last.then(() => this.#look(params, sender));
    this.#last = done.catch(() => {});
    try {
      return await done;
    } finally {
      this.#calls -= 1;
    }
  }

  /** Gives up the one that is under way, and resolves once nothing is open. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#last;
  }

  async #look({ after, limit }: Parsed<"daemon.check">, sender: Sender): Promise<Result<"daemon.check">> {
    const inspection = this.#open();
    try {
      this.#tables ??= inspection.tables(TABLE_PREFIX);
      const parts = inspection.parts(this.#tables, MEANING);
      const all = [...parts, ...WIDE_PARTS];
      let at = after === undefined ? { part: 0, key: undefined } : placeOf(after, all);
      const problems: Fault[] = [];
      let checked = 0;
      let within: unknown;
      for (;;) {
        await new Promise((resolve) => setImmediate(resolve));
        if (this.#stopping || sender.closed) throw givenUp();
        const { name } = all[at.part] as { name: string };
        const part = parts[at.part];
        let piece: WidePiece;
        try {
          piece =
            part === undefined
              ? inspection.perform(
                  (WIDE_PARTS[at.part - parts.length] as (typeof WIDE_PARTS)[number]).look(at.key, within),
                )
              : part.look(at.key);
        } catch (error) {
          const fault = faultOf(error, name);
          if (fault === undefined) throw error;
          piece = { faults: [fault], checked: 0, next: undefined };
        }
        problems.push(...piece.faults);
        checked += piece.checked;
        within = piece.within;
        if (within === undefined) {
          at =
            piece.next === undefined
              ? { part: at.part + 1, key: undefined }
              : { part: at.part, key: piece.next };
        }
        if (at.part === all.length) return { problems, checked };
        const isFull = checked >= limit || problems.length >= MAX_FAULTS_PER_CALL;
        if (isFull && within === undefined)
          return { problems, checked, next: cursorOf(all[at.part]?.name, at.key) };
      }
    } finally {
      inspection.close();
    }
  }

  #open(): Inspection {
    try {
      return new Inspection(this.#path);
    } catch (error) {
      if ((error as { code?: string }).code !== "SQLITE_CANTOPEN") throw error;
      throw refuse("unavailable", "The daemon cannot open its database once more now. Ask again later.", {
        reason: "cannot_open",
      });
    }
  }
}

interface Place {
  readonly part: number;
  readonly key: Key | undefined;
}

function cursorOf(part: string | undefined, key: Key | undefined): string {
  return JSON.stringify([part, ...(key ?? [])]);
}

/** Throws `invalid_params` for what is no `next`. */
function placeOf(cursor: string, parts: readonly { name: string; keyLength: number }[]): Place {
  const [name, ...key] = valuesOf(cursor);
  const part = parts.findIndex((each) => each.name === name);
  if (part >= 0 && key.length === 0) return { part, key: undefined };
  if (parts[part]?.keyLength !== key.length) throw noPlace(cursor);
  return { part, key };
}

function valuesOf(cursor: string): Key {
  try {
    const values = JSON.parse(cursor) as unknown;
    const isKey =
      Array.isArray(values) && values.every((each) => typeof each === "string" || Number.isSafeInteger(each));
    if (isKey) return values as unknown as Key;
  } catch {
    // As what is JSON and no key.
  }
  throw noPlace(cursor);
}

function noPlace(cursor: string): PawlError {
  const message = `${shown(cursor)} is not the \`next\` of a check`;
  return refuse("invalid_params", `${message}. Begin without \`after\`.`, {
    issues: [{ path: "/after", message }],
  });
}

function givenUp(): PawlError {
  return refuse("unavailable", "The check was given up.", { reason: "given_up" });
}
