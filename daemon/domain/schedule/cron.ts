// The times of a cron expression in a time zone. croner reads the expression and finds the times; this file names the
// field that is wrong, and shifts a fixed time that the clock leaves out by what it leaves out.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { Cron } from "croner";
import { hasDates } from "./cron-dates.js";

const FIELDS = [
  { name: "second", takes: "0 to 59" },
  { name: "minute", takes: "0 to 59" },
  { name: "hour", takes: "0 to 23" },
  { name: "day of the month", takes: "1 to 31, L for the last, or 15W for the weekday next to the 15th" },
  { name: "month", takes: "1 to 12 or JAN to DEC" },
  { name: "day of the week", takes: "0 to 7 or SUN to SAT, 5#2 for the second Friday, 5L for the last" },
] as const;
const NICKNAMES = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"] as const;

/** Expressions that are kept read: each takes 80 kB, since croner has a place for each of 10,000 years. */
const MAX_KEPT = 32;
/** No time zone leaves out more at once, but when it went to the other side of the date line. */
const MAX_GAP_MS = 3 * 3_600_000;

/** `fixedTimeRule`: a pattern that has neither `*` nor a step in its seconds, minutes and hours is of fixed times. */
const OPTIONS = { mode: "5-or-6-parts", fixedTimeRule: "no-wildcard" } as const;
/** Without a time zone, croner asks nobody what the clock shows there. */
const IN_UTC = { ...OPTIONS, utcOffset: 0 } as const;

/** A cron expression in a time zone: pure, for it reads no clock. All times are milliseconds since the Unix epoch. */
export class CronTimes {
  readonly #cron: Cron;
  /** The same by a clock that leaves nothing out, for fixed times in a zone; undefined where none can be left out. */
  readonly #unchanged: Cron | undefined;
  readonly #zone: Zone;
  readonly #everComes: boolean;
  #lastAsked = Number.NaN;
  #lastFound: number | undefined;

  private constructor(cron: string, timeZone: string) {
    this.#zone = new Zone(timeZone);
    this.#cron = new Cron(cron, this.#zone.isUtc ? IN_UTC : { ...OPTIONS, timezone: timeZone });
    this.#unchanged = this.#zone.isUtc || !isFixed(cron) ? undefined : new Cron(cron, IN_UTC);
    this.#everComes = isNickname(cron) || hasDates(dateFieldsOf(cron));
  }

  /** Reads an expression; refuses one that is wrong, naming the field, and a time zone that is not known. */
  static of(cron: string, timeZone: string): CronTimes | PawlError {
    const key = `${timeZone} ${cron}`;
    let times = kept.get(key);
    if (times === undefined) {
      const wrong = wrongTimeZone(timeZone) ?? wrongCron(cron);
      if (wrong !== undefined) return wrong;
      times = new CronTimes(cron, timeZone);
      for (const oldest of kept.keys()) {
        if (kept.size < MAX_KEPT) break;
        kept.delete(oldest);
      }
      kept.set(key, times);
    }
    return times;
  }

  /** The first time after `after`; undefined if there is none. */
  next(after: number): number | undefined {
    if (!this.#everComes) return undefined;
    // A hundred thousand schedules may run at one instant.
    if (after === this.#lastAsked) return this.#lastFound;
    this.#lastFound = this.#next(after);
    this.#lastAsked = after;
    return this.#lastFound;
  }

  /** The last time before `before`; undefined if there is none. */
  previous(before: number): number | undefined {
    if (!this.#everComes) return undefined;
    for (let [found] = this.#cron.previousRuns(1, new Date(before)); found !== undefined; ) {
      // A time that is shifted comes later than where croner has it, so it is looked for from there on.
      let last: number | undefined;
      for (let next = this.next(found.getTime() - 1); next !== undefined && next < before; ) {
        last = next;
        next = this.next(next);
      }
      if (last !== undefined) return last;
      [found] = this.#cron.previousRuns(1, found);
    }
    return undefined;
  }

  #next(after: number): number | undefined {
    const found = this.#cron.nextRun(new Date(after))?.getTime();
    const unchanged = this.#unchanged;
    if (unchanged === undefined) return found;
    const gap =
      this.#zone.gapBefore(after, MAX_GAP_MS) ??
      (found === undefined ? undefined : this.#zone.gapBefore(found, 1000));
    if (gap === undefined) return found;
    // The fixed times that are left out, each later by as much as is left out.
    const from = Math.max(gap.begin - 1000, gap.begin + after - gap.at);
    const leftOut = unchanged.nextRun(new Date(from))?.getTime();
    const shifted =
      leftOut !== undefined && leftOut < gap.begin + gap.ms ? gap.at + leftOut - gap.begin : undefined;
    // croner has those come at the end of what is left out, where nothing may be asked for.
    const isMoved = found === gap.at && !this.#matches(gap.begin + gap.ms);
    const other = isMoved ? this.#cron.nextRun(new Date(gap.at))?.getTime() : found;
    return shifted === undefined || other === undefined ? (shifted ?? other) : Math.min(shifted, other);
  }

  /** @param shows what the clock on the wall shows, as if it were UTC. */
  #matches(shows: number): boolean {
    return this.#unchanged?.nextRun(new Date(shows - 1000))?.getTime() === shows;
  }
}

/** By time zone and expression, the longest kept first. */
const kept = new Map<string, CronTimes>();

/** Times that the clock leaves out. */
interface Gap {
  /** When that happens. */
  readonly at: number;
  /** What the clock would show then, as if it were UTC. */
  readonly begin: number;
  /** How much it leaves out. */
  readonly ms: number;
}

/** How far the clock of a time zone is from UTC. */
class Zone {
  readonly isUtc: boolean;
  readonly #format: Intl.DateTimeFormat;

  constructor(timeZone: string) {
    this.isUtc = timeZone === "UTC";
    this.#format = new Intl.DateTimeFormat("en-US", {
      timeZone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  }

  /** What the clock leaves out in the last `withinMs` before a time, that time included. */
  gapBefore(time: number, withinMs: number): Gap | undefined {
    const second = Math.floor(time / 1000) * 1000;
    let [before, at] = [second - withinMs, second];
    const earlier = this.#aheadMs(before);
    const ms = this.#aheadMs(at) - earlier;
    if (ms <= 0) return undefined;
    while (at - before > 1000) {
      const middle = before + Math.floor((at - before) / 2000) * 1000;
      if (this.#aheadMs(middle) === earlier) before = middle;
      else at = middle;
    }
    return { at, begin: at + earlier, ms };
  }

  #aheadMs(second: number): number {
    const part: Record<string, number> = {};
    for (const { type, value } of this.#format.formatToParts(second)) part[type] = Number(value);
    const { year = 0, month = 0, day = 0, hour = 0, minute = 0, second: s = 0 } = part;
    return Date.UTC(year, month - 1, day, hour, minute, s) - second;
  }
}

function isNickname(cron: string): boolean {
  return cron.trim().startsWith("@");
}

function dateFieldsOf(cron: string): [string, string, string] {
  return cron.trim().split(/\s+/).slice(-3) as [string, string, string];
}

/** Says that neither seconds nor minutes nor hours have a wildcard or a step. */
function isFixed(cron: string): boolean {
  if (isNickname(cron)) return !cron.includes("@hourly");
  const fields = cron.trim().split(/\s+/);
  return !/[*?/]/.test((fields.length === 5 ? fields.slice(0, 2) : fields.slice(0, 3)).join(" "));
}

function wrongTimeZone(timeZone: string): PawlError | undefined {
  try {
    // Offsets such as +01:00 are time zones for Node and no names of any.
    if (/^[A-Za-z]/.test(timeZone) && new Intl.DateTimeFormat("en-US", { timeZone })) return undefined;
  } catch {
    // Told below.
  }
  return wrong(
    "/timeZone",
    `${shown(timeZone)} is no time zone that is known here`,
    "Use a name of the IANA database, such as Europe/Berlin.",
  );
}

function wrongCron(cron: string): PawlError | undefined {
  const text = cron.trim();
  if (text.startsWith("@")) {
    if (NICKNAMES.some((name) => name === text.toLowerCase())) return undefined;
    return wrong("/cron", `has no ${shown(text)}`, `There are ${NICKNAMES.join(", ")}.`);
  }
  const fields = text.split(/\s+/);
  if (fields.length !== 5 && fields.length !== 6) {
    const counted = text === "" ? 0 : fields.length;
    return wrong(
      "/cron",
      `has ${counted === 1 ? "1 field" : `${counted} fields`}, not five or six`,
      "Give minute, hour, day of the month, month and day of the week, perhaps with the second before them.",
    );
  }
  try {
    new Cron(text, IN_UTC);
    return undefined;
  } catch {
    // The field that is wrong is told below.
  }
  const withSecond = fields.length === 6 ? fields : ["0", ...fields];
  for (const [index, field] of withSecond.entries()) {
    const alone = withSecond.map((_, other) => (other === index ? field : "*"));
    try {
      new Cron(alone.join(" "), IN_UTC);
    } catch {
      const { name, takes } = FIELDS[index] as (typeof FIELDS)[number];
      return wrong(
        "/cron",
        `has a wrong ${name} ${shown(field)}`,
        `It takes ${takes}, lists 1,2, ranges 1-5, and steps */2 or 1-5/2.`,
      );
    }
  }
  return undefined;
}

function wrong(path: string, message: string, advice: string): PawlError {
  return refuse("invalid_params", `${path.slice(1)} ${message}. ${advice}`, { issues: [{ path, message }] });
}
