// When a cron expression comes, above all where the clock leaves an hour out or shows one twice.
import { PawlError } from "@pawl/protocol/errors";
import { Cron } from "croner";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { CronTimes } from "../../daemon/dist/domain/schedule/cron.js";

function timesOf(cron: string, timeZone: string): CronTimes {
  const times = CronTimes.of(cron, timeZone);
  if (times instanceof PawlError) throw times;
  return times;
}

/** The times after one, in UTC and to the minute. */
function after(cron: string, timeZone: string, from: string, count: number): string[] {
  const found: string[] = [];
  for (let at: number | undefined = Date.parse(from); found.length < count; ) {
    at = timesOf(cron, timeZone).next(at);
    if (at === undefined) break;
    found.push(new Date(at).toISOString().slice(0, 16));
  }
  return found;
}

/** An expression, whose clock, after when, and the times that come. */
type Row = readonly [cron: string, timeZone: string, from: string, expected: readonly string[]];

/** Where the clock leaves out 02:00 to 03:00, 02:00 to 03:00 and 02:00 to 02:30. */
const FORWARD: readonly Row[] = [
  // A time that is left out is later by what is left out; the day after all is as ever.
  ["30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:30", "2026-03-30T00:30"]],
  ["0 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:00"]],
  ["59 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:59", "2026-03-30T00:59"]],
  ["0 3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T01:00"]],
  ["30 1 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T00:30", "2026-03-29T23:30"]],
  // Also for whoever asks between the end of the gap and that time, and at and after it.
  ["30 2 * * *", "Europe/Berlin", "2026-03-29T01:10Z", ["2026-03-29T01:30", "2026-03-30T00:30"]],
  ["30 2 * * *", "Europe/Berlin", "2026-03-29T01:00Z", ["2026-03-29T01:30", "2026-03-30T00:30"]],
  ["30 2 * * *", "Europe/Berlin", "2026-03-29T01:30Z", ["2026-03-30T00:30"]],
  [
    "0,30 2,3 * * *",
    "Europe/Berlin",
    "2026-03-29T00:00Z",
    ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"],
  ],
  ["30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["2026-03-08T07:30", "2026-03-09T06:30"]],
  ["15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["2026-10-03T15:45", "2026-10-04T15:15"]],
  ["30 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["2026-10-03T15:30", "2026-10-04T15:30"]],
  // What comes every hour or minute goes on.
  [
    "*/30 * * * *",
    "Europe/Berlin",
    "2026-03-29T00:10Z",
    ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"],
  ],
  [
    "0 * * * *",
    "America/New_York",
    "2026-03-08T05:30Z",
    ["2026-03-08T06:00", "2026-03-08T07:00", "2026-03-08T08:00"],
  ],
  [
    "*/20 * * * *",
    "Australia/Lord_Howe",
    "2026-10-03T15:10Z",
    ["2026-10-03T15:40", "2026-10-03T16:00", "2026-10-03T16:20"],
  ],
];

/** Where the clock shows 02:00 to 03:00, 01:00 to 02:00 and 01:30 to 02:00 twice. */
const BACK: readonly Row[] = [
  // A fixed time that comes twice runs the first time, also one of several.
  ["30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30", "2026-10-26T01:30"]],
  ["0 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:00", "2026-10-26T01:00"]],
  ["0 3 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T02:00", "2026-10-26T02:00"]],
  [
    "30 2,14 * * *",
    "Europe/Berlin",
    "2026-10-24T23:00Z",
    ["2026-10-25T00:30", "2026-10-25T13:30", "2026-10-26T01:30"],
  ],
  ["30 2 * * *", "Europe/Berlin", "2026-10-25T00:45Z", ["2026-10-26T01:30"]],
  ["30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["2026-11-01T05:30", "2026-11-02T06:30"]],
  ["45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["2026-04-04T14:45", "2026-04-05T15:15"]],
  // What comes every hour or minute goes on through both.
  [
    "*/30 * * * *",
    "Europe/Berlin",
    "2026-10-25T00:10Z",
    ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"],
  ],
  [
    "0 * * * *",
    "Europe/Berlin",
    "2026-10-24T23:30Z",
    ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
  ],
  [
    "@hourly",
    "America/New_York",
    "2026-11-01T04:30Z",
    ["2026-11-01T05:00", "2026-11-01T06:00", "2026-11-01T07:00"],
  ],
  [
    "*/15 1 * * *",
    "America/New_York",
    "2026-11-01T05:40Z",
    ["2026-11-01T05:45", "2026-11-01T06:00", "2026-11-01T06:15"],
  ],
  [
    "*/15 * * * *",
    "Australia/Lord_Howe",
    "2026-04-04T14:40Z",
    ["2026-04-04T14:45", "2026-04-04T15:00", "2026-04-04T15:15", "2026-04-04T15:30"],
  ],
];

describe.each([
  ["forward", FORWARD],
  ["back", BACK],
] as const)("the clock goes %s", (_, rows) => {
  test.each(rows)("%s in %s after %s", (cron, timeZone, from, expected) => {
    expect(after(cron, timeZone, from, expected.length)).toEqual(expected);
  });
});

test("expressions of every kind", () => {
  const next = (cron: string): string | undefined => after(cron, "UTC", "2026-11-29T07:00:00Z", 1)[0];
  expect(next("@daily")).toBe("2026-11-30T00:00");
  expect(next("@Weekly")).toBe("2026-12-06T00:00");
  expect(next("0 0 L * *")).toBe("2026-11-30T00:00");
  expect(next("0 9 * * MON-FRI")).toBe("2026-11-30T09:00");
  expect(next("0 9 1,15 * 5#2")).toBe("2026-12-01T09:00");
  expect(next("0 0 29 2 *")).toBe("2028-02-29T00:00");
  expect(next("  5  4 * *   * ")).toBe("2026-11-30T04:05");
  expect(timesOf("*/10 * * * * *", "UTC").next(Date.parse("2026-11-29T07:00:01.500Z"))).toBe(
    Date.parse("2026-11-29T07:00:10Z"),
  );
  expect(next("0 0 30 2 *")).toBeUndefined();
});

test.each([
  ["61 * * * *", /wrong minute "61". It takes 0 to 59/],
  ["* 24 * * *", /wrong hour "24"/],
  ["* * 0 * *", /wrong day of the month "0"/],
  ["* * * foo *", /wrong month "foo"/],
  ["* * * * 8", /wrong day of the week "8"/],
  ["60 * * * * *", /wrong second "60"/],
  ["5/5 * * * *", /wrong minute "5\/5"/],
  ["1:2 * * * *", /wrong minute "1:2"/],
  ["* * * *", /has 4 fields, not five or six/],
  ["* * * * * * 2027", /has 7 fields/],
  ["2027-01-01T00:00:00", /has 1 field,/],
  [" ", /has 0 fields/],
  ["@reboot", /has no "@reboot". There are @yearly/],
])("%s is refused, naming the field", (cron, message) => {
  const refusal = CronTimes.of(cron, "UTC") as PawlError;
  expect(refusal.kind).toBe("invalid_params");
  expect(refusal.message).toMatch(message);
  expect(refusal.details).toMatchObject({ issues: [{ path: "/cron" }] });
});

test.each(["Mars/Olympus", "+01:00", "", "europe"])("the time zone %s is refused", (timeZone) => {
  expect(CronTimes.of("@daily", timeZone)).toMatchObject({ details: { issues: [{ path: "/timeZone" }] } });
});

test("a time is the one before the next, and both move strictly", () => {
  const crons = ["30 2 * * *", "*/20 * * * *", "0 0,30 1-3 * * *", "15 2 29 3 *", "@hourly", "0 0 1 * *"];
  const zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"];
  const days = [
    "2026-03-28",
    "2026-10-24",
    "2026-03-07",
    "2026-10-31",
    "2026-10-03",
    "2026-04-04",
    "2026-04-23",
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...crons),
      fc.constantFrom(...zones),
      fc.constantFrom(...days),
      fc.integer({ min: 0, max: 2 * 86_400_000 }),
      (cron, zone, day, ms) => {
        const times = timesOf(cron, zone);
        const from = Date.parse(`${day}T00:00:00Z`) + ms;
        const next = times.next(from) as number;
        const previous = times.previous(next) as number;
        expect(next).toBeGreaterThan(from);
        expect(previous).toBeLessThanOrEqual(from);
        expect(times.next(previous)).toBe(next);
        // Nothing lies between that is found from elsewhere.
        const middle = Math.floor((from + next) / 2);
        if (middle < next) expect(times.next(middle)).toBe(next);
      },
    ),
    { numRuns: 400 },
  );
});

/** Expressions for whose next time croner looks through 400 years, in up to half a second. */
const NEVER_COMING = [
  "0 0 30 2 *",
  "* * 31 2,4,6,9,11 *",
  "0 0 30W FEB *",
  "0 0 1-6 * +1#5,0#5",
  "0 0 1W,2W,3W,4W,5W,6W,7W,8W,9W,10W,11W,12W,13W,14W,15W * +6,0",
];

test.each(NEVER_COMING)(
  "%s never comes, in either direction, which is found without croner's search",
  (cron) => {
    const searches = vi.spyOn(Cron.prototype, "nextRun");
    const back = vi.spyOn(Cron.prototype, "previousRuns");
    try {
      const times = timesOf(cron, "Europe/Berlin");
      expect(times.next(0)).toBeUndefined();
      expect(times.previous(1e12)).toBeUndefined();
      expect([searches.mock.calls, back.mock.calls]).toEqual([[], []]);
    } finally {
      vi.restoreAllMocks();
    }
  },
);

test("an expression comes if croner finds a date of it", () => {
  const days = [
    "1",
    "28",
    "29",
    "30",
    "31",
    "L",
    "1W",
    "30W",
    "31W",
    "1-6",
    "29-31",
    "*/15",
    "20/3",
    "*",
    "?",
  ];
  const weekdays = [
    "*",
    "?",
    "1",
    "+1",
    "+6",
    "+1#5",
    "+1#1",
    "+0#2,6#5",
    "5L",
    "+5L",
    "1-5",
    "+1-5",
    "+SUN",
  ];
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.constantFrom(...days), { minLength: 1, maxLength: 2 }),
      fc.constantFrom("2", "FEB,4", "4,6,9,11"),
      fc.constantFrom(...weekdays),
      (day, month, weekday) => {
        const cron = `0 0 ${day.join(",")} ${month} ${weekday}`;
        const times = CronTimes.of(cron, "UTC");
        fc.pre(!(times instanceof PawlError));
        const found = new Cron(cron, { mode: "5-or-6-parts", utcOffset: 0 }).nextRun(new Date(0));
        expect(times.next(0)).toBe(found?.getTime());
      },
    ),
    { numRuns: 150 },
  );
});
