import { z } from "zod";
import {
  DEFAULT_BATCH_ATTEMPTS,
  DEFAULT_RETRY_BASE_MS,
  DEFAULT_RETRY_FACTOR,
  DEFAULT_RETRY_MAX_MS,
  MAX_BATCH_ATTEMPTS,
  MAX_BATCH_DELAY_MS,
  MAX_BATCH_PAYLOADS,
  MAX_CLAIMED_BATCHES,
  MAX_ENQUEUED_BATCHES,
  MAX_LAST_ERROR_LENGTH,
  MAX_RETRY_FACTOR,
  MAX_SOURCE_KEY_LENGTH,
} from "./limits.js";
import { method, noun } from "./method.js";
import {
  duration,
  instant,
  integer,
  json,
  label,
  leaseMs,
  limit,
  releaseOn,
  text,
  waitMs,
} from "./schemas.js";

/** The states of a batch. `completed` and `cancelled` are final; `dead` ends by `queue.retry`. */
export const BATCH_STATES = ["ready", "scheduled", "claimed", "completed", "dead", "cancelled"] as const;
export type BatchState = (typeof BATCH_STATES)[number];

const DELIVERY_POLICIES = ["earliest_safe_boundary", "after_current_turn_commit"] as const;
export type DeliveryPolicy = (typeof DELIVERY_POLICIES)[number];

const SLOT_POLICIES = ["exclusive", "join"] as const;
export type SlotPolicy = (typeof SLOT_POLICIES)[number];

const BOUNDARIES = ["idle", "active_turn_checkpoint"] as const;
/** Where a worker stands when it claims. */
export type Boundary = (typeof BOUNDARIES)[number];

const queue = label.meta({ description: "A queue exists by being used." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseToken does." });
const batchId = label.meta({ description: "qwb: and a hex SHA-256." });
const claimId = label.meta({ description: "qwc:<enqueueSeq of the first batch>:<fencingToken>." });
const leaseToken = label.meta({ description: "Secret. Whoever has it can renew, complete and abandon." });
const fencingToken = integer.meta({
  description: "Greater than that of every earlier claim in the queue.",
});
const enqueueSeq = integer.meta({ description: "Strictly increasing over the database." });
const state = z.enum(BATCH_STATES);
const payloads = z.array(json).min(1).max(MAX_BATCH_PAYLOADS).meta({
  description: "JSON values, kept byte for byte.",
});
const deliveryPolicy = z.enum(DELIVERY_POLICIES).default("earliest_safe_boundary").meta({
  description: "`after_current_turn_commit` is claimed at the boundary `idle` only.",
});
const slotPolicy = z.enum(SLOT_POLICIES).default("exclusive").meta({
  description: "`join` may be claimed together with those that follow it.",
});
const mergeKey = z
  .union([z.enum(["never", "payload_default"]), z.strictObject({ group: label })], {
    error: 'must be "never", "payload_default" or {"group": name}',
  })
  .default("never")
  .meta({ description: "`never` joins with nothing, not even itself." });
export type MergeKey = z.output<typeof mergeKey>;
const sourceKey = text.min(1).max(MAX_SOURCE_KEY_LENGTH);
const maxAttempts = integer.max(MAX_BATCH_ATTEMPTS);
const delayMs = integer.max(MAX_BATCH_DELAY_MS);
const retry = z.strictObject({
  baseMs: delayMs.default(DEFAULT_RETRY_BASE_MS),
  factor: z.number().min(1).max(MAX_RETRY_FACTOR).default(DEFAULT_RETRY_FACTOR),
  maxMs: delayMs.default(DEFAULT_RETRY_MAX_MS),
  jitter: z.boolean().default(true).meta({
    description: "Whether it rests for a random time, from half of the rest to all of it.",
  }),
});
/** How long a batch rests after deliveries that ended without success. */
export type Retry = z.output<typeof retry>;

const batch = z.strictObject({
  batchId,
  queue,
  enqueueSeq,
  payloads,
  sourceKey: sourceKey.nullable(),
  deliveryPolicy: z.enum(DELIVERY_POLICIES),
  slotPolicy: z.enum(SLOT_POLICIES),
  mergeKey: mergeKey.unwrap(),
  state,
  attempt: integer.meta({ description: "Deliveries that ended without success and count." }),
  maxAttempts: integer,
  retry: retry.nullable().meta({ description: "Of its own; null where that of the queue counts." }),
  enqueuedAt: instant,
  availableAt: instant.meta({ description: "Since when, or when, it can be claimed, if nobody holds it." }),
  claim: z
    .strictObject({ owner, claimId, fencingToken, expiresAt: instant, remainingMs: duration })
    .optional()
    .meta({ description: "Who holds it now." }),
  lastError: z.string().optional().meta({ description: "Why the last counted delivery ended." }),
});

const claim = z.strictObject({
  claimId,
  leaseToken,
  fencingToken,
  queue,
  owner,
  claimedAt: instant,
  expiresAt: instant,
  remainingMs: duration,
  batches: z.array(batch).min(1),
});

const newBatch = z
  .strictObject({
    queue,
    payloads,
    sourceKey: sourceKey.optional().meta({
      description:
        "Makes a retry safe: the same queue and key with the same content is the same batch, also after it ended. Content is the payloads and the policies by their meaning, and maxAttempts and retry as given: not given equals not given, whatever the queue has set meanwhile.",
    }),
    deliveryPolicy,
    slotPolicy,
    mergeKey,
    delayMs: delayMs.optional().meta({ description: "Not before so long from now." }),
    availableAt: instant.optional().meta({ description: "Not before then; the past is now." }),
    maxAttempts: maxAttempts.optional().meta({
      description: `After so many counted attempts it is dead, 0 for no limit; if not given, as the queue is configured, else ${DEFAULT_BATCH_ATTEMPTS}.`,
    }),
    retry: retry.optional().meta({
      description: `A delivery that ended with an error makes the batch rest for \`baseMs * factor^(n - 1)\`, at most \`maxMs\`, n being its counted attempts of any kind. The first end by expiry or disconnect lets it not rest at all. If not given, as the queue is configured by then, else ${DEFAULT_RETRY_BASE_MS} ms, ${DEFAULT_RETRY_FACTOR}, ${DEFAULT_RETRY_MAX_MS} ms, with jitter.`,
    }),
  })
  .refine(({ delayMs, availableAt }) => delayMs === undefined || availableAt === undefined, {
    error: "must be left out beside delayMs",
    path: ["availableAt"],
  });

const leaseLength = leaseMs.unwrap().optional().meta({
  description: "How long it lasts from now on; what it was claimed for if not given.",
});

const depths = {
  ready: integer,
  scheduled: integer,
  claimed: integer,
  completed: integer.meta({ description: "Kept until their retention ends." }),
  dead: integer,
  cancelled: integer.meta({ description: "Kept until their retention ends." }),
};
const settings = z.strictObject({
  retry: retry.nullable(),
  maxAttempts: integer.nullable(),
});

/** How many batches are in which state. */
export const queueDepths = z.strictObject(depths);

export const QUEUE = noun("queue", {
  methods: {
    enqueue: method({
      summary: "Add a batch of work",
      params: newBatch,
      result: z.strictObject({
        batch,
        created: z.boolean().meta({ description: "False if the sourceKey was there with this content." }),
      }),
      raw: ["payloads"],
      writes: true,
      repeatable: { withKey: "sourceKey" },
      transactable: true,
      errors: ["conflict"],
      examples: [
        {
          name: "A thumbnail to make",
          params: { queue: "thumbnails", payloads: [{ image: "a.png", width: 640 }], sourceKey: "a.png@640" },
          result: {
            batch: {
              batchId: "qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
              queue: "thumbnails",
              enqueueSeq: 1,
              payloads: [{ image: "a.png", width: 640 }],
              sourceKey: "a.png@640",
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
            created: true,
          },
        },
      ],
    }),

    enqueueMany: method({
      summary: "Add many batches in one transaction: all of them or none",
      params: z.strictObject({ batches: z.array(newBatch).min(1).max(MAX_ENQUEUED_BATCHES) }),
      result: z.strictObject({ batches: z.array(batch), created: z.array(z.boolean()) }),
      raw: ["batches", "*", "payloads"],
      writes: true,
      repeatable: { withKey: "sourceKey", ofEach: "batches" },
      transactable: true,
      errors: ["conflict"],
    }),

    claim: method({
      summary: "Take the next batch, or the next group of batches, to work on it under a lease",
      params: z.strictObject({
        queue,
        owner,
        boundary: z.enum(BOUNDARIES).default("idle").meta({
          description: "At `active_turn_checkpoint` only what is `earliest_safe_boundary` is handed out.",
        }),
        maxBatches: z.int().min(1).max(MAX_CLAIMED_BATCHES).default(1),
        leaseMs,
        waitMs,
        releaseOn,
      }),
      result: z.strictObject({ claim: claim.nullable() }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: [],
    }),

    renew: method({
      summary: "Hold a claim for longer",
      params: z.strictObject({ claimId, leaseToken, leaseMs: leaseLength }),
      result: z.strictObject({ expiresAt: instant, remainingMs: duration }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["claim_lost"],
    }),

    complete: method({
      summary: "The work is done; doing it twice answers the same",
      description:
        "Succeeds also after the claim has expired, as long as nobody else has claimed or cancelled any of its batches.",
      params: z.strictObject({ claimId, leaseToken }),
      result: z.strictObject({ completed: integer }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["claim_lost"],
    }),

    abandon: method({
      summary: "Give the work back, as failed if with an error",
      params: z.strictObject({
        claimId,
        leaseToken,
        delayMs: delayMs.optional().meta({
          description:
            "Not to be claimed again before so long from now. If not given, with an error as `retry` says, else at once.",
        }),
        error: text.min(1).max(MAX_LAST_ERROR_LENGTH).optional().meta({
          description: "Why it failed; the delivery then counts as an attempt.",
        }),
      }),
      result: z.strictObject({
        released: integer.meta({ description: "Batches that can be claimed again." }),
        dead: integer.meta({ description: "Batches that have no attempts left." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["claim_lost"],
    }),

    get: method({
      summary: "One batch",
      params: z.strictObject({ batchId }),
      result: z.strictObject({ batch }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    list: method({
      summary: "The batches of a queue, in the order they were added",
      params: z.strictObject({
        queue,
        state: state.optional(),
        limit,
        after: enqueueSeq.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({ batches: z.array(batch), next: enqueueSeq.optional() }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    stats: method({
      summary: "How many batches are in which state, of one queue or of all by their names",
      params: z.strictObject({
        queue: queue.optional(),
        limit: limit.unwrap().default(1000),
        after: queue.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        queues: z.array(
          z.strictObject({
            queue,
            ...depths,
            oldestReadyMs: duration.nullable().meta({
              description: "How long the first that is ready has been so; null if none is.",
            }),
          }),
        ),
        next: queue.optional(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    cancel: method({
      summary: "Take a batch back that nobody has claimed yet",
      params: z.strictObject({ batchId }),
      result: z.strictObject({
        outcome: z.enum([
          "cancelled",
          "already_claimed",
          "already_completed",
          "already_cancelled",
          "already_dead",
        ]),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    retry: method({
      summary: "Bring dead batches back, with a fresh attempt count: one, or those of a queue",
      params: z
        .strictObject({ batchId: batchId.optional(), queue: queue.optional() })
        .refine(({ batchId, queue }) => (batchId === undefined) !== (queue === undefined), {
          error: "must have either `batchId` or `queue`",
        }),
      result: z.strictObject({
        retried: integer,
        more: z.literal(true).optional().meta({
          description: "There are more than one call brings back: call again.",
        }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found"],
    }),

    configure: method({
      summary: "Change the settings of a queue; only what is given changes, null takes a setting back",
      params: z.strictObject({
        queue,
        retry: retry.nullable().optional().meta({
          description: "How batches that have no `retry` of their own rest after a delivery without success.",
        }),
        maxAttempts: maxAttempts.nullable().optional().meta({
          description: "Of batches that are enqueued without `maxAttempts` from now on; 0 for no limit.",
        }),
      }),
      result: z.strictObject({ settings }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "What fails rests for 10 s, 30 s, 90 s and so on, up to an hour",
          params: { queue: "mails", retry: { baseMs: 10_000, factor: 3 } },
          result: {
            settings: {
              retry: { baseMs: 10_000, factor: 3, maxMs: 3_600_000, jitter: true },
              maxAttempts: null,
            },
          },
        },
      ],
    }),

    settings: method({
      summary: "Every setting of a queue, null where there is none",
      params: z.strictObject({ queue }),
      result: z.strictObject({ settings }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Of a queue that nobody has configured",
          params: { queue: "thumbnails" },
          result: { settings: { retry: null, maxAttempts: null } },
        },
      ],
    }),

    explain: method({
      summary: "Why the head of a queue can or cannot be claimed now",
      description:
        "The head is the first batch that a claim would take; if there is none, the first that is held or scheduled. `ready`: it can be claimed. `boundary`: it can be claimed at `idle`, not at an `active_turn_checkpoint`. `claimed`: a `holder` has it. `scheduled`: it can be claimed from `availableAt` on. `resting`: so it can, having been tried before. `empty`: nothing is there.",
      params: z.strictObject({ queue }),
      result: z.strictObject({
        queue,
        claimable: z.boolean().meta({ description: "At the boundary `idle`." }),
        reason: z.enum(["ready", "boundary", "claimed", "scheduled", "resting", "empty"]),
        batchId: batchId.optional().meta({ description: "The head." }),
        deliveryPolicy: z.enum(DELIVERY_POLICIES).optional(),
        availableAt: instant.optional(),
        holder: z
          .strictObject({
            owner,
            pid: integer.nullable(),
            claimId,
            fencingToken,
            expiresAt: instant,
            remainingMs: duration,
          })
          .optional(),
        dead: integer.meta({ description: "Batches that only queue.retry brings back." }),
        waiting: integer.nullable().meta({
          description: "Claims that wait for the queue; null from a daemon that only reads.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),
  },
});
