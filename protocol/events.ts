import { z } from "zod";
import { MAX_EVENT_TOPICS, MAX_PATH_LENGTH } from "./limits.js";
import { method, notification, noun } from "./method.js";
import { instant, limit, named, text, waitMs } from "./schemas.js";

/** The kinds of events, by the nouns that begin their topics. */
export const EVENT_KINDS = {
  queue: [
    "enqueued",
    "claimed",
    "progressed",
    "released",
    "lost",
    "completed",
    "failed",
    "dead",
    "cancelled",
    "expired",
    "retried",
    "unblocked",
    "updated",
    "moved",
    "configured",
    "paused",
    "resumed",
  ],
  lease: ["acquired", "released", "lost", "broken"],
  path: ["reserved", "released", "lost"],
  command: ["created", "dispatched", "progressed", "answered", "expired", "cancelled"],
  schedule: ["set", "ran", "skipped", "deleted"],
  item: ["created", "moved", "changed", "deleted", "claimed", "finished", "abandoned", "contested"],
  sequence: ["dispensed", "reserved", "advanced", "granted"],
  daemon: ["started", "stepped", "full", "stopping"],
} as const;

export type EventNoun = keyof typeof EVENT_KINDS;
export type EventKind<N extends EventNoun = EventNoun> = (typeof EVENT_KINDS)[N][number];

const TOPIC = /^(?:\*|daemon|(?:queue|lease|path|command|schedule|item|sequence):.+)$/su;

const topics = z
  .array(
    text.max(MAX_PATH_LENGTH).refine((topic) => TOPIC.test(topic), {
      error: "must be `daemon`, `*`, or as `queue:NAME` or `lease:PREFIX*`",
    }),
  )
  .min(1)
  .max(MAX_EVENT_TOPICS)
  .meta({
    description:
      "`queue:NAME`, `lease:NAME`, `path:ROOT`, `command:DEPLOYMENT`, `schedule:NAME`, `item:ID`, `sequence:TYPE` or `daemon`. The name may end in `*`; `*` alone is everything.",
  });

const cursor = z
  .string()
  .regex(/^[0-9a-f]{8}-[0-9]{1,15}$/, { error: "must be the cursor of an answer or of an event" })
  .meta({ description: "A place in the order of events, in one life of the daemon." });
const since = cursor.optional().meta({
  description: "The cursor behind which to begin; without it, only what happens from now on.",
});
const gap = z.boolean().meta({
  description:
    "True if events that the topics fit may be missing: list what is followed again, then go on from the new cursor.",
});
const subscriptionId = z
  .string()
  .min(1)
  .max(32)
  .meta({ description: "The subscription, within its connection." });

const members = {
  cursor,
  at: instant.meta({ description: "When it was committed, in milliseconds since the Unix epoch." }),
  topic: z.string().meta({ description: "The thing that it is about, as `queue:mail`." }),
  kind: z.string().meta({ description: "What happened, as `enqueued`. New kinds may be added." }),
  id: z.string().meta({ description: "The batch, the command, the lease, the id: never a secret." }),
  by: z.string().optional().meta({ description: "The owner who did it, where there is one." }),
  fencingToken: z.int().min(0).optional().meta({ description: "The token of a grant." }),
  from: z.string().optional().meta({ description: "The state, queue, stage or number before." }),
  to: z.string().optional().meta({ description: "The state, queue, stage or number after." }),
  reason: z
    .string()
    .optional()
    .meta({ description: "Why, in the words of whoever did it or of the daemon." }),
};

const event = named(
  "Event",
  "One effect on one thing. It holds labels and ids, never payloads or secrets.",
  z.strictObject(members),
);

const EXAMPLE = {
  cursor: "5f0c1a2b-42",
  at: 1_750_000_000_000,
  topic: "queue:mail",
  kind: "enqueued",
  id: "qwb:3f1a",
};

export const EVENTS = noun("events", {
  description: "Effects as they happen, for those who follow and must not ask in a loop.",
  methods: {
    watch: method({
      summary: "The events behind a cursor, or the next ones",
      description:
        "In the order of commits; one for each effect, none for what was refused or undone. They are kept in memory, the last 16,384 or 8 MiB of each noun, from the first call of this noun on. A cursor that is older, or of an earlier life of the daemon, is answered with `gap: true`. With `waitMs` it waits for the first event that the topics fit. A daemon that only reads refuses this with `read_only`.",
      params: z.strictObject({ topics, since, waitMs, limit }),
      result: z.strictObject({
        events: z.array(event).meta({ description: "The oldest first." }),
        cursor: cursor.meta({ description: "The cursor to go on from." }),
        gap,
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["read_only"],
      examples: [
        {
          name: "From now on",
          params: { topics: ["queue:mail", "lease:deploy/*"] },
          result: { events: [], cursor: "5f0c1a2b-41", gap: false },
        },
      ],
    }),

    subscribe: method({
      summary: "Be told of events by notifications `event`, until the connection closes",
      description:
        "A subscriber that does not read is told nothing more until it does. Where events have gone meanwhile, one of the kind `gap` comes in their place.",
      params: z.strictObject({ topics, since }),
      result: z.strictObject({ subscriptionId, cursor, gap }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["read_only", "exhausted"],
      examples: [
        {
          name: "Everything",
          params: { topics: ["*"] },
          result: { subscriptionId: "1", cursor: "5f0c1a2b-41", gap: false },
        },
      ],
    }),

    unsubscribe: method({
      summary: "End a subscription of this connection",
      params: z.strictObject({ subscriptionId }),
      result: z.strictObject({
        unsubscribed: z.boolean().meta({ description: "False if there was no such subscription." }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["read_only"],
      examples: [
        { name: "There was none", params: { subscriptionId: "7" }, result: { unsubscribed: false } },
      ],
    }),
  },
});

export const EVENT = noun("event", {
  description: "The news of a subscription.",
  methods: {},
  notifications: {
    event: notification({
      summary: "Something has happened that a subscription of this connection follows",
      description: "The kind `gap` says that events before this cursor are missing.",
      params: z.strictObject({ subscriptionId, ...members }),
      example: { name: "A batch was enqueued", params: { subscriptionId: "1", ...EXAMPLE } },
    }),
  },
});
