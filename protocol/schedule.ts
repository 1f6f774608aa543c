import { z } from "zod";
import {
  DEFAULT_MISSED_WINDOW_MS,
  MAX_BATCH_ATTEMPTS,
  MAX_CRON_LENGTH,
  MAX_EVERY_MS,
  MAX_MISSED_OCCURRENCES,
  MAX_MISSED_WINDOW_MS,
  MAX_NEXT_TIMES,
  MAX_TIME_ZONE_LENGTH,
  MIN_EVERY_MS,
} from "./limits.js";
import { method, noun } from "./method.js";
import { batch, key, payloads, priority, queue } from "./queue.js";
import { instant, integer, label, limit, named, text } from "./schemas.js";
import { MISSED, OVERLAPS } from "./values.js";

const name = label.meta({ description: "The schedule. Setting it again changes it." });
const cron = text.min(1).max(MAX_CRON_LENGTH).meta({
  description:
    "Minute, hour, day of the month, month and day of the week, perhaps with the second before them; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. A time that the clock leaves out, as in the night in which summer time begins, is later by as much as is left out. A time that comes twice runs the first time, but where the second, minute or hour has `*` or a step, both times.",
});
const everyMs = z.int().min(MIN_EVERY_MS).max(MAX_EVERY_MS).meta({
  description: "Milliseconds between two occurrences. The first one comes so long after `set`.",
});
const timeZone = text.min(1).max(MAX_TIME_ZONE_LENGTH).meta({
  description: "By whose clock the cron expression is meant: a name of the IANA time zone database.",
});
const overlap = z.enum(OVERLAPS).meta({
  description:
    "While the last occurrence is unfinished: `skip` enqueues nothing; `one` enqueues another if the last is claimed, which waits for its end; `all` enqueues each.",
});
const missed = z.enum(MISSED).meta({
  description: `Which of the occurrences that came while there was no daemon are made up for, as far as \`overlap\` allows: \`none\`, the \`last\`, or \`all\`, at most the last ${MAX_MISSED_OCCURRENCES}.`,
});
const missedWindowMs = integer.max(MAX_MISSED_WINDOW_MS).meta({
  description: "Missed occurrences longer ago than so many milliseconds are not made up for.",
});
const maxAttempts = integer.max(MAX_BATCH_ATTEMPTS).meta({
  description: "Of each batch: after so many counted attempts it is dead, 0 for no limit.",
});
const endAt = instant.meta({
  description: "From then on it has no occurrences, in milliseconds since the Unix epoch.",
});

const schedule = named(
  "Schedule",
  "A schedule: what was set, when it comes next and what it enqueued last.",
  z.strictObject({
    name,
    cron: cron.nullable().meta({ description: "Its cron expression; null with `everyMs`." }),
    everyMs: everyMs
      .nullable()
      .meta({ description: "Milliseconds between two occurrences; null with `cron`." }),
    timeZone,
    queue: queue.meta({ description: "The queue that its occurrences are enqueued in." }),
    payloads,
    priority,
    key: key.nullable().meta({ description: "The subject of its batches; null for none." }),
    maxAttempts: maxAttempts.nullable().meta({ description: "Of its batches; null for that of the queue." }),
    overlap,
    missed,
    missedWindowMs,
    enabled: z.boolean().meta({ description: "Whether it has occurrences." }),
    endAt: endAt.nullable().meta({ description: "From then on it has no occurrences; null for no end." }),
    nextAt: instant.nullable().meta({
      description: "When it comes next, in milliseconds since the Unix epoch; null for never.",
    }),
    lastAt: instant.nullable().meta({
      description: "The time of the last occurrence that was enqueued; null for none.",
    }),
    lastBatchId: label.nullable().meta({ description: "The batch of that occurrence; null for none." }),
  }),
);

// The example of each method is a step of one story, in the order of the methods.
const nightly: z.output<typeof schedule> = {
  name: "nightly-report",
  cron: "30 2 * * *",
  everyMs: null,
  timeZone: "Europe/Berlin",
  queue: "reports",
  payloads: [{ report: "sales" }],
  priority: 0,
  key: null,
  maxAttempts: null,
  overlap: "one",
  missed: "last",
  missedWindowMs: DEFAULT_MISSED_WINDOW_MS,
  enabled: true,
  endAt: null,
  nextAt: 1_750_033_800_000,
  lastAt: null,
  lastBatchId: null,
};

export const SCHEDULE = noun("schedule", {
  description:
    "Batches that are enqueued at times: by a cron expression or every so often, each occurrence once. They are claimed as all others.",
  methods: {
    set: method({
      summary: "Make a schedule, or change it",
      description:
        "Each occurrence is a batch with the sourceKey `schedule:<name>@<time>`. A definition that is the same as before changes nothing; a changed one counts from now: what was to come by the one before does not, and `everyMs` begins anew.",
      params: z
        .strictObject({
          name,
          queue: queue.meta({ description: "The queue that its occurrences are enqueued in." }),
          payloads,
          cron: cron.optional(),
          everyMs: everyMs.optional(),
          timeZone: timeZone.default("UTC"),
          priority: priority.default(0),
          key: key.optional(),
          maxAttempts: maxAttempts.optional(),
          overlap: overlap.default("one"),
          missed: missed.default("last"),
          missedWindowMs: missedWindowMs.default(DEFAULT_MISSED_WINDOW_MS),
          enabled: z
            .boolean()
            .default(true)
            .meta({ description: "Whether it has occurrences; a disabled one is kept for later." }),
          endAt: endAt.optional(),
        })
        .refine(({ cron, everyMs }) => cron !== undefined || everyMs !== undefined, {
          error: "is needed, or everyMs",
          path: ["cron"],
        })
        .refine(({ cron, everyMs }) => cron === undefined || everyMs === undefined, {
          error: "must be left out beside cron",
          path: ["everyMs"],
        }),
      result: z.strictObject({ schedule }),
      raw: [["payloads"]],
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "A report every night",
          params: {
            name: "nightly-report",
            cron: "30 2 * * *",
            timeZone: "Europe/Berlin",
            queue: "reports",
            payloads: [{ report: "sales" }],
          },
          result: { schedule: nightly },
        },
      ],
    }),

    get: method({
      summary: "Show a schedule",
      params: z.strictObject({ name }),
      result: z.strictObject({ schedule }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        { name: "When it comes next", params: { name: "nightly-report" }, result: { schedule: nightly } },
      ],
    }),

    list: method({
      summary: "The schedules by name",
      params: z.strictObject({
        limit,
        after: name.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        schedules: z.array(schedule).meta({ description: "By name." }),
        next: name.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "The only one", params: {}, result: { schedules: [nightly] } }],
    }),

    run: method({
      summary: "Enqueue a batch of a schedule now, besides its occurrences",
      description:
        "Also of a schedule that is disabled. The batch has no sourceKey, counts for no `overlap`, and changes nothing of the schedule.",
      params: z.strictObject({ name }),
      result: z.strictObject({ batch }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "exhausted"],
      examples: [
        {
          name: "A report at once",
          params: { name: "nightly-report" },
          result: {
            batch: {
              batchId: "qwb:2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b",
              queue: "reports",
              enqueueSeq: 4,
              payloads: [{ report: "sales" }],
              priority: 0,
              key: null,
              sourceKey: null,
              deliveryPolicy: "earliest_safe_boundary",
              slotPolicy: "exclusive",
              mergeKey: "never",
              state: "ready",
              attempt: 0,
              maxAttempts: 20,
              retry: null,
              enqueuedAt: 1_750_000_000_000,
              availableAt: 1_750_000_000_000,
            },
          },
        },
      ],
    }),

    next: method({
      summary: "When a schedule comes next, or would by a cron expression",
      params: z
        .strictObject({
          name: name.optional().meta({ description: "The schedule; otherwise `cron`." }),
          cron: cron.optional(),
          timeZone: timeZone.optional().meta({
            description: "With `cron`: by whose clock it is meant; UTC if not given.",
          }),
          count: z
            .int()
            .min(1)
            .max(MAX_NEXT_TIMES)
            .default(1)
            .meta({ description: "How many times to give." }),
        })
        .refine(({ name, cron }) => name !== undefined || cron !== undefined, {
          error: "is needed, or cron",
          path: ["name"],
        })
        .refine(({ name, cron }) => name === undefined || cron === undefined, {
          error: "must be left out beside name",
          path: ["cron"],
        })
        .refine(({ name, timeZone }) => name === undefined || timeZone === undefined, {
          error: "must be left out beside name",
          path: ["timeZone"],
        }),
      result: z.strictObject({
        times: z.array(instant).meta({
          description:
            "Milliseconds since the Unix epoch, the soonest first: fewer than asked for where it ends, none of a disabled schedule.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "The next night",
          params: { name: "nightly-report" },
          result: { times: [1_750_033_800_000] },
        },
      ],
    }),

    delete: method({
      summary: "Remove a schedule; what it has enqueued stays",
      params: z.strictObject({ name }),
      result: z.strictObject({
        deleted: z.boolean().meta({ description: "False if there was none of that name." }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "No more reports", params: { name: "nightly-report" }, result: { deleted: true } }],
    }),
  },
});
