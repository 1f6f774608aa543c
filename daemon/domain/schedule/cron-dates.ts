// The dates of a cron expression: whether there are any. croner looks through 400 years for one that never comes, which
// takes up to half a second; here each kind of month is looked at once.
import { Cron } from "croner";

/** In UTC, so that croner asks nobody what the clock shows. */
const OPTIONS = { mode: "6-part", utcOffset: 0 } as const;
/** Within these years each month begins with each day of the week, each February of both lengths. */
const FIRST_YEAR = 2000;
const YEARS = 28;
const DAYS_OF_WEEK = 7;

/** @param fields day of the month, month and day of the week, each of which croner can read. */
export function hasDates([day, month, weekday]: readonly [string, string, string]): boolean {
  if (isAny(day)) return true;
  // Each day of the week comes in each month; without a plus it is enough that one of both fields matches.
  if (!isAny(weekday) && !weekday.startsWith("+")) return true;
  const byDay = new Cron(`0 0 0 ${day} * *`, OPTIONS);
  const byWeekday = isAny(weekday) ? undefined : new Cron(`0 0 0 * * ${weekday}`, OPTIONS);
  /** By the day of the week, which one of its kind in the month it is, and whether it is the last. */
  const isOn = new Map<number, boolean>();
  for (const { year, index, days, first } of kindsOfMonths(month)) {
    for (let date = 1; date <= days; date++) {
      const at = new Date(Date.UTC(year, index, date));
      if (byWeekday !== undefined) {
        const nth = Math.ceil(date / DAYS_OF_WEEK);
        const isLast = date + DAYS_OF_WEEK > days ? 1 : 0;
        const kind = (((first + date - 1) % DAYS_OF_WEEK) * 10 + nth) * 10 + isLast;
        const matches = isOn.get(kind) ?? byWeekday.match(at);
        isOn.set(kind, matches);
        if (!matches) continue;
      }
      if (byDay.match(at)) return true;
    }
  }
  return false;
}

/** A month that stands for all that have so many days and begin with the same day of the week. */
interface Month {
  readonly year: number;
  /** 0 for January. */
  readonly index: number;
  readonly days: number;
  /** 0 for Sunday. */
  readonly first: number;
}

function kindsOfMonths(month: string): Month[] {
  const byMonth = new Cron(`0 0 0 1 ${month} *`, OPTIONS);
  const kinds = new Map<number, Month>();
  for (let index = 0; index < 12; index++) {
    if (!byMonth.match(new Date(Date.UTC(FIRST_YEAR, index, 1)))) continue;
    for (let year = FIRST_YEAR; year < FIRST_YEAR + YEARS; year++) {
      const days = new Date(Date.UTC(year, index + 1, 0)).getUTCDate();
      const first = new Date(Date.UTC(year, index, 1)).getUTCDay();
      kinds.set(days * DAYS_OF_WEEK + first, { year, index, days, first });
    }
  }
  return [...kinds.values()];
}

function isAny(field: string): boolean {
  return field === "*" || field === "?";
}
