import { z } from "zod";
import {
  DEFAULT_BATCH_ATTEMPTS,
  DEFAULT_LEASE_MS,
  DEFAULT_RETRY_BASE_MS,
  DEFAULT_RETRY_FACTOR,
  DEFAULT_RETRY_MAX_MS,
  DEFAULT_STOP_MS,
  MAX_AFTER_BATCHES,
  MAX_BATCH_ATTEMPTS,
  MAX_BATCH_DELAY_MS,
  MAX_BATCH_PAYLOADS,
  MAX_CLAIM_HELD,
  MAX_CLAIM_NAMED_BATCHES,
  MAX_CLAIM_QUEUES,
  MAX_CLAIMED_BATCHES,
  MAX_ENQUEUED_BATCHES,
  MAX_LAST_ERROR_LENGTH,
  MAX_LEASE_MS,
  MAX_MAX_CLAIMED,
  MAX_MAX_WAITING,
  MAX_NAME_LENGTH,
  MAX_NAMED_BATCHES,
  MAX_NOTE_LENGTH,
  MAX_PARENT_RESULTS_BYTES,
  MAX_PRIORITY,
  MAX_RATE_COUNT,
  MAX_RATE_PER_MS,
  MAX_REASON_LENGTH,
  MAX_RESULT_BYTES,
  MAX_SOURCE_KEY_LENGTH,
  MAX_TRACE_STATE_LENGTH,
  MIN_PRIORITY,
} from "./limits.js";
import { method, noun } from "./method.js";
import {
  byName,
  duration,
  graceMs,
  instant,
  integer,
  json,
  label,
  leaseMs,
  leaseName,
  limit,
  named,
  releaseOn,
  retry,
  text,
  waitMs,
} from "./schemas.js";
import {
  BATCH_STATES,
  BOUNDARIES,
  CLAIM_ORDERS,
  DELIVERY_POLICIES,
  KEY_ORDERS,
  MOVED_STATES,
  ON_EXISTING,
  PURGED_STATES,
  SLOT_POLICIES,
  WHENS,
} from "./values.js";

export const queue = label.meta({ description: "A queue exists by being used." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseToken does." });
export const batchId = label.meta({ description: "qwb: and a hex SHA-256." });
export const claimId = label.meta({ description: "qwc:<enqueueSeq of the first batch>:<fencingToken>." });
const leaseToken = label.meta({ description: "Secret. Whoever has it can renew, complete and abandon." });
const fencingToken = integer.meta({
  description: "Greater than that of every earlier claim in the queue.",
});
const enqueueSeq = integer.meta({ description: "Strictly increasing over the database." });
const state = z.enum(BATCH_STATES).meta({ description: "Where the batch stands." });
export const payloads = z.array(json).min(1).max(MAX_BATCH_PAYLOADS).meta({
  description: "JSON values, kept byte for byte.",
});
const deliveryPolicy = z.enum(DELIVERY_POLICIES).default("earliest_safe_boundary").meta({
  description: "`after_current_turn_commit` is claimed at the boundary `idle` only.",
});
const slotPolicy = z.enum(SLOT_POLICIES).default("exclusive").meta({
  description: "`join` may be claimed together with those that follow it.",
});
const mergeKey = z
  .union(
    [
      z.enum(["never", "payload_default"]),
      named(
        "MergeGroup",
        "A group of a name that the caller chose.",
        z.strictObject({ group: label.meta({ description: "Its name." }) }),
      ),
    ],
    { error: 'must be "never", "payload_default" or {"group": name}' },
  )
  .default("never")
  .meta({ description: "`never` joins with nothing, not even itself." });
export type MergeKey = z.output<typeof mergeKey>;
const sourceKey = text.min(1).max(MAX_SOURCE_KEY_LENGTH).meta({
  description: "The caller's own key of the batch, by which it is enqueued once.",
});
export const maxAttempts = integer.max(MAX_BATCH_ATTEMPTS);
const delayMs = integer.max(MAX_BATCH_DELAY_MS);
export const priority = z
  .int()
  .min(MIN_PRIORITY)
  .max(MAX_PRIORITY)
  .meta({ description: "Higher is claimed first; those of one priority in the order they were added." });
export const key = label.meta({
  description:
    "Its subject: a customer, a file, a branch. A queue can be configured to have few claims of a key at a time, and to keep their order.",
});
const ttlMs = z.int().min(1).max(MAX_BATCH_DELAY_MS).meta({
  description: "It expires when it has been available for so long and nobody has claimed it.",
});
export const reason = text
  .min(1)
  .max(MAX_REASON_LENGTH)
  .meta({ description: "Why, in the words of whoever did it." });
const processId = integer
  .nullable()
  .meta({ description: "The process, as the kernel told; null if it did not." });
const userId = integer.nullable().meta({ description: "Its user, as the kernel told; null if it did not." });
export const percent = z.number().min(0).max(100).meta({ description: "How much is done, from 0 to 100." });
export const note = text.max(MAX_NOTE_LENGTH).meta({ description: "What is being done, for people." });
export const checkpoint = json.meta({
  description: `From where another could go on: any JSON of up to ${MAX_RESULT_BYTES} bytes, kept byte for byte.`,
});
export const progress = named(
  "Progress",
  "How far the work has come, as its holder said.",
  z.strictObject({ percent: percent.optional(), note: note.optional() }),
);
const result = json.meta({
  description: `What came of the work: any JSON of up to ${MAX_RESULT_BYTES} bytes, kept byte for byte.`,
});
export const trace = named(
  "Trace",
  "The trace that the work belongs to (W3C Trace Context), handed on with the claim and no part of the content.",
  z.strictObject({
    traceparent: z
      .string()
      .regex(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/)
      .meta({ description: "Version, trace id, id of the parent and flags, in lower-case hexadecimal." }),
    tracestate: text
      .min(1)
      .max(MAX_TRACE_STATE_LENGTH)
      .optional()
      .meta({ description: "What vendors add, as it came." }),
  }),
);

const expiresAt = instant.meta({
  description: "When the claim ends unless it is renewed, in milliseconds since the Unix epoch.",
});
const remainingMs = duration.meta({ description: "Milliseconds until then." });

export const batch = named(
  "Batch",
  "Work of a queue: payloads that are claimed, completed and retried together.",
  z.strictObject({
    batchId,
    queue,
    enqueueSeq,
    payloads,
    priority,
    key: key.nullable().meta({ description: "Its subject; null for none." }),
    sourceKey: sourceKey
      .nullable()
      .meta({ description: "The key that it was enqueued with; null without one." }),
    deliveryPolicy: z.enum(DELIVERY_POLICIES).meta({ description: "At which boundary it is handed out." }),
    slotPolicy: z.enum(SLOT_POLICIES).meta({ description: "Whether it is claimed alone." }),
    mergeKey: mergeKey.unwrap().meta({ description: "With which others it may be claimed together." }),
    state,
    attempt: integer.meta({ description: "Deliveries that ended without success and count." }),
    maxAttempts: integer.meta({ description: "After so many counted attempts it is dead; 0 for no limit." }),
    retry: retry.nullable().meta({ description: "Of its own; null where that of the queue counts." }),
    enqueuedAt: instant.meta({ description: "When it was added, in milliseconds since the Unix epoch." }),
    availableAt: instant.meta({ description: "Since when, or when, it can be claimed, if nobody holds it." }),
    expiresAt: instant.optional().meta({
      description: "When it expires unless it is claimed: of one with a ttl that is ready or scheduled.",
    }),
    remainingMs: remainingMs.optional(),
    after: z.array(batchId).optional().meta({ description: "The batches that it waits for, or waited for." }),
    when: z.enum(WHENS).optional().meta({ description: "What has to become of those." }),
    trace: trace.optional(),
    claim: named(
      "BatchHolder",
      "Who holds a batch now.",
      z.strictObject({ owner, claimId, fencingToken, expiresAt, remainingMs }),
    ).optional(),
    progress: progress.optional(),
    checkpoint: checkpoint.optional(),
    result: result.optional(),
    lastError: z.string().optional().meta({ description: "Why the last counted delivery ended." }),
  }),
);

const claim = named(
  "Claim",
  "Batches that one owner works on, until the claim ends.",
  z.strictObject({
    claimId,
    leaseToken,
    fencingToken,
    queue,
    owner,
    claimedAt: instant.meta({ description: "When it was granted, in milliseconds since the Unix epoch." }),
    expiresAt,
    remainingMs,
    batches: z.array(batch).min(1).meta({ description: "The work, in order." }),
    parents: z
      .record(
        z.string(),
        named(
          "Parent",
          "A batch that a claimed one has waited for.",
          z.strictObject({ state, result: result.optional() }),
        ),
      )
      .optional()
      .meta({
        description: `The batches that these have waited for, by their batchIds, with their results: of ${MAX_PARENT_RESULTS_BYTES} bytes in all. Instead of one that has no room there stands \`{"$result": {"sizeBytes": n}}\`; queue.get has it.`,
      }),
  }),
);

const claimUnder = named(
  "ClaimUnder",
  "What a claim lives as long as.",
  z.strictObject({
    lease: named(
      "LeaseGrant",
      "A grant of a lease, by its name and fencing token.",
      z.strictObject({
        name: leaseName.meta({ description: "The name of the lease." }),
        fencingToken: integer.min(1).meta({ description: "That of the grant." }),
      }),
    ),
  }),
);

const heldClaim = named(
  "HeldClaim",
  "A claim of the caller, with the proof of it.",
  z.strictObject({ claimId, leaseToken }),
);

const newBatch = named(
  "NewBatch",
  "A batch to be added.",
  z
    .strictObject({
      queue,
      payloads,
      priority: priority.default(0),
      key: key.optional(),
      sourceKey: sourceKey.optional().meta({
        description:
          "Makes a retry safe: the same queue and key with the same content is the same batch, also after it ended. Content is the payloads and the policies by their meaning, priority and key, and ttlMs, maxAttempts and retry as given: not given equals not given, whatever the queue has set meanwhile.",
      }),
      onExisting: z.enum(ON_EXISTING).default("refuse").meta({
        description:
          "With other content under the same sourceKey: `refuse` it with `conflict`, or `return` the batch that is there. Otherwise a batch that has ended does not count, and of one that waits: `replace` puts the new content in its place, and its delay begins anew; `keepTime` leaves its time; `append` adds the payloads. Of one that is claimed these make a follower, which waits for its end; `rerun` always does. There is never more than one follower; it takes over what comes.",
      }),
      maxDelayMs: delayMs.optional().meta({
        description: "`replace` begins the delay anew no longer than so long after the first.",
      }),
      uniqueFor: z.enum(["unfinished"]).optional().meta({
        description: "The sourceKey is forgotten when the batch has ended.",
      }),
      deliveryPolicy,
      slotPolicy,
      mergeKey,
      delayMs: delayMs.optional().meta({ description: "Not before so long from now." }),
      availableAt: instant.optional().meta({ description: "Not before then; the past is now." }),
      ttlMs: ttlMs.optional(),
      maxAttempts: maxAttempts.optional().meta({
        description: `After so many counted attempts it is dead, 0 for no limit; if not given, as the queue is configured, else ${DEFAULT_BATCH_ATTEMPTS}.`,
      }),
      retry: retry.optional().meta({
        description: `A delivery that ended with an error makes the batch rest for \`baseMs * factor^(n - 1)\`, at most \`maxMs\`, n being its counted attempts of any kind. The first end by expiry or disconnect lets it not rest at all. If not given, as the queue is configured by then, else ${DEFAULT_RETRY_BASE_MS} ms, ${DEFAULT_RETRY_FACTOR}, ${DEFAULT_RETRY_MAX_MS} ms, with jitter.`,
      }),
      after: z.array(text.min(1).max(MAX_NAME_LENGTH)).max(MAX_AFTER_BATCHES).optional().meta({
        description:
          "Batches whose ends it waits for, by their batchIds; of one `queue.enqueueMany` also by their `ref`. It is `blocked` until all have ended; then its delay and its ttl begin.",
      }),
      when: z.enum(WHENS).optional().meta({
        description:
          "What has to become of these: `success` (default) of all, `failure` of at least one, or only `finished`. Where that cannot come true any more it is cancelled, and so are those that wait for it.",
      }),
      trace: trace.optional(),
    })
    .refine(({ after, when }) => after !== undefined || when === undefined, {
      error: "is about `after`, and there is none",
      path: ["when"],
    })
    .refine(({ delayMs, availableAt }) => delayMs === undefined || availableAt === undefined, {
      error: "must be left out beside delayMs",
      path: ["availableAt"],
    })
    .refine(({ sourceKey, onExisting }) => sourceKey !== undefined || onExisting === "refuse", {
      error: "is about batches with the same sourceKey, and there is none",
      path: ["onExisting"],
    })
    .refine(({ sourceKey, uniqueFor }) => sourceKey !== undefined || uniqueFor === undefined, {
      error: "is about the sourceKey, and there is none",
      path: ["uniqueFor"],
    })
    .refine(({ onExisting, maxDelayMs }) => maxDelayMs === undefined || onExisting === "replace", {
      error: 'must be left out unless onExisting is "replace"',
      path: ["maxDelayMs"],
    }),
);

const created = z.boolean().meta({ description: "Whether a batch was made." });
const outcome = z
  .enum(["created", "existing", "replaced", "kept", "appended", "follower"])
  .meta({ description: "What became of it; `batch` is the one that has what was sent." });

const leaseLength = leaseMs.unwrap().optional().meta({
  description: "How long it lasts from now on; what it was claimed for if not given.",
});

const renewed = z.strictObject({
  expiresAt,
  remainingMs,
  cancelling: z.boolean().meta({
    description: "Whether the work is to be stopped: somebody cancels it, and the claim ends soon.",
  }),
});

const depths = {
  ready: integer.meta({ description: "Batches that can be claimed." }),
  scheduled: integer.meta({ description: "Batches that can be claimed later." }),
  blocked: integer.meta({ description: "Batches that wait for other batches." }),
  claimed: integer.meta({ description: "Batches that somebody works on." }),
  completed: integer.meta({ description: "Batches that are done; kept until their retention ends." }),
  dead: integer.meta({ description: "Batches without attempts left, which only queue.retry brings back." }),
  cancelled: integer.meta({ description: "Batches that were taken back; kept until their retention ends." }),
  expired: integer.meta({
    description: "Batches whose ttl passed before anybody claimed them; kept until their retention ends.",
  }),
};
const maxClaimed = z.int().min(1).max(MAX_MAX_CLAIMED).meta({
  description: "Claims that may be held at a time, over all workers.",
});
const maxClaimedPerKey = z.int().min(1).max(MAX_MAX_CLAIMED).meta({
  description: "The same of each key. Batches whose key is full are passed over.",
});
const keyOrder = z.enum(KEY_ORDERS).meta({
  description:
    "`strict`: a batch waits for every earlier one of its key to be finished, also for those that rest, are scheduled or dead.",
});
const rate = named(
  "Rate",
  "How many batches may be claimed in which time, over all workers: a bucket that holds `count`, is full at first and refills evenly.",
  z.strictObject({
    count: z.int().min(1).max(MAX_RATE_COUNT).meta({ description: "How many batches." }),
    perMs: z.int().min(1).max(MAX_RATE_PER_MS).meta({ description: "In how many milliseconds." }),
  }),
);
const maxWaiting = z.int().min(1).max(MAX_MAX_WAITING).meta({
  description:
    "Batches that may be ready, scheduled and blocked together. More are refused with `exhausted` when they are enqueued; what comes back, or is moved there, is let in beyond it.",
});
const pauser = named(
  "Pauser",
  "The process that paused a queue, and its user.",
  z.strictObject({ pid: processId, uid: userId }),
);
const settings = named(
  "QueueSettings",
  "Every setting of a queue, null where there is none.",
  z.strictObject({
    retry: retry.nullable().meta({ description: "How batches without a `retry` of their own rest." }),
    maxAttempts: integer
      .nullable()
      .meta({ description: "Of batches that are enqueued without `maxAttempts`." }),
    ttlMs: ttlMs.nullable().meta({ description: "Of batches that are enqueued without `ttlMs`." }),
    maxClaimed: maxClaimed
      .nullable()
      .meta({ description: "Claims that may be held at a time, over all workers." }),
    maxClaimedPerKey: maxClaimedPerKey.nullable().meta({ description: "The same of each key." }),
    keyOrder: keyOrder.nullable().meta({ description: "Whether a batch waits for earlier ones of its key." }),
    rate: rate.nullable(),
    maxWaiting: maxWaiting
      .nullable()
      .meta({ description: "Batches that may be ready, scheduled and blocked together." }),
    paused: z.boolean().meta({ description: "Whether nothing of it is claimed." }),
    pausedUntilAt: instant.nullable().meta({ description: "Null if it is paused until that is taken back." }),
    reason: reason.nullable().meta({ description: "Why it is paused." }),
    pausedBy: pauser.nullable(),
    throttledUntilAt: instant.nullable().meta({
      description:
        "Until when workers said that nothing is to be claimed, in milliseconds since the Unix epoch.",
    }),
    throttledReason: reason.nullable().meta({ description: "Why they said so." }),
  }),
);
const NO_SETTINGS = {
  retry: null,
  maxAttempts: null,
  ttlMs: null,
  maxClaimed: null,
  maxClaimedPerKey: null,
  keyOrder: null,
  rate: null,
  maxWaiting: null,
  paused: false,
  pausedUntilAt: null,
  reason: null,
  pausedBy: null,
  throttledUntilAt: null,
  throttledReason: null,
};

/** How many batches are in which state. */
export const queueDepths = named(
  "QueueDepths",
  "How many batches are in which state.",
  z.strictObject(depths),
);

// The example of each method is a step of one story, in the order of the methods.
const thumbnail: z.output<typeof batch> = {
  batchId: "qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
  queue: "thumbnails",
  enqueueSeq: 1,
  payloads: [{ image: "a.png", width: 640 }],
  priority: 0,
  key: null,
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
};
const mail = (enqueueSeq: number, batchId: string): z.output<typeof batch> => ({
  ...thumbnail,
  batchId,
  queue: "mails",
  enqueueSeq,
  payloads: [{ to: `${enqueueSeq}@example.org` }],
  sourceKey: null,
});
const THUMBNAIL_DONE = {
  state: "completed",
  progress: { percent: 50, note: "scaling" },
  checkpoint: { row: 320 },
  result: { bytes: 48_211 },
} as const;
const MAIL_ID = "qwb:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
const OTHER_MAIL_ID = "qwb:1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a";
const CLAIM = { claimId: "qwc:1:1", leaseToken: "9aM3vQxg7nLsT0bKcUePzw" };
const MAIL_CLAIM = { claimId: "qwc:2:1", leaseToken: "Hc2bVgkR5tYp8wQnJ1xLsA" };

export const QUEUE = noun("queue", {
  description: "Batches of work, each claimed by one owner at a time under a lease with a fencing token.",
  methods: {
    enqueue: method({
      summary: "Add a batch of work",
      params: newBatch.safeExtend({
        waitMs: waitMs.meta({
          description: "How long to wait for room in a queue with `maxWaiting`, in the order of arrival.",
        }),
      }),
      result: z.strictObject({ batch, created, outcome }),
      raw: [["payloads"]],
      writes: true,
      repeatable: { withKey: "sourceKey", unless: { onExisting: ["append", "rerun"] } },
      transactable: true,
      errors: ["conflict", "exhausted", "not_found"],
      examples: [
        {
          name: "A thumbnail to make",
          params: { queue: "thumbnails", payloads: [{ image: "a.png", width: 640 }], sourceKey: "a.png@640" },
          result: { batch: thumbnail, created: true, outcome: "created" },
        },
      ],
    }),

    enqueueMany: method({
      summary: "Add many batches in one transaction: all of them or none",
      params: z.strictObject({
        batches: z
          .array(
            named(
              "NewBatchOfMany",
              "A batch to be added with others.",
              newBatch.safeExtend({
                ref: label.optional().meta({
                  description: "A name within this call, for `after` of its other batches.",
                }),
              }),
            ),
          )
          .min(1)
          .max(MAX_ENQUEUED_BATCHES)
          .meta({ description: "The batches, in the order in which they are added." }),
      }),
      result: z.strictObject({
        batches: z.array(batch).meta({ description: "In the order of the params." }),
        created: z.array(created).meta({ description: "Whether each was made." }),
        outcomes: z.array(outcome).meta({ description: "What became of each." }),
      }),
      raw: [["batches", "*", "payloads"]],
      writes: true,
      repeatable: {
        withKey: "sourceKey",
        ofEach: "batches",
        unless: { onExisting: ["append", "rerun"] },
      },
      transactable: true,
      composed: true,
      errors: ["conflict", "exhausted", "not_found"],
      examples: [
        {
          name: "Two mails",
          params: {
            batches: [
              { queue: "mails", payloads: [{ to: "2@example.org" }] },
              { queue: "mails", payloads: [{ to: "3@example.org" }] },
            ],
          },
          result: {
            batches: [mail(2, MAIL_ID), mail(3, OTHER_MAIL_ID)],
            created: [true, true],
            outcomes: ["created", "created"],
          },
        },
      ],
    }),

    claim: method({
      summary: "Take the next batch, or the next group of batches, to work on it under a lease",
      params: z
        .strictObject({
          owner,
          queue: queue.optional().meta({ description: "Of this queue; never a prefix." }),
          queues: z.array(label).min(1).max(MAX_CLAIM_QUEUES).optional().meta({
            description:
              "Of one of these: names, or `prefix/*` for all queues whose names begin with `prefix/`. A queue that is empty, paused or full is as if it were not there.",
          }),
          order: z.enum(CLAIM_ORDERS).optional().meta({
            description:
              "Of several queues: `listed` (default) takes from the first entry that has something to claim, and within a prefix as `oldest` does over all: what has the highest priority, then what was enqueued first.",
          }),
          batchIds: z.array(batchId).min(1).max(MAX_CLAIM_NAMED_BATCHES).optional().meta({
            description:
              "Of these batches of one queue, those that may be claimed now, in the order given, whatever their slotPolicy and place. With waitMs it waits until one may be, and is null at once when all have ended.",
          }),
          held: z.array(heldClaim).max(MAX_CLAIM_HELD).optional().meta({
            description:
              "Claims that the caller has: their batches are passed over. Where the first would be a batch of one that ran out and that nobody has touched since, the answer is that claim again, and the attempt that was counted for its end is taken back.",
          }),
          notify: z.boolean().optional().meta({
            description:
              "Whether this connection, or the one that renews the claim last, is told when the claim is lost (`claim.lost`).",
          }),
          boundary: z.enum(BOUNDARIES).default("idle").meta({
            description: "At `active_turn_checkpoint` only what is `earliest_safe_boundary` is handed out.",
          }),
          maxBatches: z.int().min(1).max(MAX_CLAIMED_BATCHES).optional().meta({
            description:
              "Most batches of a group that may be claimed together; 1 if not given, of `batchIds` all.",
          }),
          leaseMs: leaseMs
            .unwrap()
            .optional()
            .meta({
              description: `How many milliseconds the claim lasts unless it is renewed; ${DEFAULT_LEASE_MS} if not given.`,
            }),
          under: claimUnder.optional().meta({
            description:
              "The claim lives exactly as long as this lease, and is not renewed by itself. If the lease is released, it ends without counting as an attempt, and otherwise as by expiry; it cannot be completed afterwards. Beside it leaseMs, releaseOn and graceMs are left out.",
          }),
          waitMs,
          releaseOn: releaseOn.unwrap().optional().meta({
            description:
              "`disconnect` also ends the grant the moment the connection closes; `expiry` if not given.",
          }),
          graceMs: graceMs.unwrap().optional().meta({
            description:
              "How many milliseconds its holder may take to come back after its connection has closed, with `disconnect`.",
          }),
        })
        .refine(({ under, leaseMs }) => under === undefined || leaseMs === undefined, {
          error: "must be left out beside under: the claim lasts as long as the lease",
          path: ["leaseMs"],
        })
        .refine(({ under, graceMs: grace }) => under === undefined || grace === undefined, {
          error: "must be left out beside under: the claim lasts as long as the lease",
          path: ["graceMs"],
        })
        .refine(({ releaseOn: ends, graceMs: grace = 0 }) => grace === 0 || ends === "disconnect", {
          error: 'must be left out unless releaseOn is "disconnect"',
          path: ["graceMs"],
        })
        .refine(({ under, releaseOn }) => under === undefined || releaseOn === undefined, {
          error: "must be left out beside under: the claim lasts as long as the lease",
          path: ["releaseOn"],
        })
        .refine(
          ({ queue, queues, batchIds }) =>
            [queue, queues, batchIds].filter((each) => each !== undefined).length === 1,
          { error: "must have one of `queue`, `queues` and `batchIds`" },
        )
        .refine(({ queues, order }) => queues !== undefined || order === undefined, {
          error: "must be left out without queues",
          path: ["order"],
        }),
      result: z.strictObject({
        claim: claim.nullable().meta({ description: "Null if there was nothing to claim." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "claim_lost", "lease_lost"],
      examples: [
        {
          name: "The thumbnail",
          params: { queue: "thumbnails", owner: "worker-1", leaseMs: 30_000 },
          result: {
            claim: {
              ...CLAIM,
              fencingToken: 1,
              queue: "thumbnails",
              owner: "worker-1",
              claimedAt: 1_750_000_001_000,
              expiresAt: 1_750_000_031_000,
              remainingMs: 30_000,
              batches: [
                {
                  ...thumbnail,
                  state: "claimed",
                  claim: {
                    owner: "worker-1",
                    claimId: CLAIM.claimId,
                    fencingToken: 1,
                    expiresAt: 1_750_000_031_000,
                    remainingMs: 30_000,
                  },
                },
              ],
            },
          },
        },
        {
          name: "A batch by its id that somebody has",
          params: { batchIds: [thumbnail.batchId], owner: "worker-2" },
          result: { claim: null },
        },
        {
          name: "Of queues that have nothing",
          params: { queues: ["urgent", "build/*"], owner: "worker-1" },
          result: { claim: null },
        },
      ],
    }),

    renew: method({
      summary: "Hold a claim for longer",
      params: z.strictObject({ claimId, leaseToken, leaseMs: leaseLength }),
      result: renewed,
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["claim_lost"],
      examples: [
        {
          name: "A minute more",
          params: { ...CLAIM, leaseMs: 60_000 },
          result: { expiresAt: 1_750_000_070_000, remainingMs: 60_000, cancelling: false },
        },
      ],
    }),

    progress: method({
      summary: "Say how far the work of a claim has come, and hold it for longer",
      description:
        "Each batch of the claim shows what was given; what was not given stays as it was. The next holder is given the checkpoint, and begins with no progress.",
      params: z.strictObject({
        claimId,
        leaseToken,
        percent: percent.optional(),
        note: note.optional(),
        checkpoint: checkpoint.optional(),
        leaseMs: leaseLength,
      }),
      result: renewed,
      raw: [["checkpoint"]],
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["claim_lost"],
      examples: [
        {
          name: "Half of it is done",
          params: { ...CLAIM, percent: 50, note: "scaling", checkpoint: { row: 320 } },
          result: { expiresAt: 1_750_000_040_000, remainingMs: 30_000, cancelling: false },
        },
      ],
    }),

    complete: method({
      summary: "The work is done; doing it twice answers the same",
      description:
        "Succeeds also after the claim has expired, as long as nobody else has claimed or cancelled any of its batches.",
      params: z
        .strictObject({
          claimId,
          leaseToken,
          result: result.optional(),
          results: byName(z.string(), json, { max: MAX_CLAIMED_BATCHES, of: "batches" })
            .optional()
            .meta({ description: "The result of each batch of the claim that has one, by its batchId." }),
        })
        .refine(({ result, results }) => result === undefined || results === undefined, {
          error: "must be left out beside `result`, which is that of every batch of the claim",
          path: ["results"],
        }),
      result: z.strictObject({ completed: integer.meta({ description: "Batches that are done by it." }) }),
      raw: [["result"], ["results"]],
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["claim_lost"],
      examples: [
        {
          name: "The thumbnail is made",
          params: { ...CLAIM, result: { bytes: 48_211 } },
          result: { completed: 1 },
        },
      ],
    }),

    abandon: method({
      summary: "Give the work back, as failed if with an error",
      params: z
        .strictObject({
          claimId,
          leaseToken,
          delayMs: delayMs.optional().meta({
            description:
              "Not to be claimed again before so long from now. If not given, with an error as `retry` says, else at once.",
          }),
          error: text.min(1).max(MAX_LAST_ERROR_LENGTH).optional().meta({
            description: "Why it failed; the delivery then counts as an attempt.",
          }),
          dead: z.boolean().default(false).meta({
            description: "No further attempt is of use: its batches are dead at once.",
          }),
        })
        .refine(({ dead, delayMs }) => !dead || delayMs === undefined, {
          error: "must be left out beside `dead`, after which nothing is tried again",
          path: ["delayMs"],
        }),
      result: z.strictObject({
        released: integer.meta({ description: "Batches that can be claimed again." }),
        dead: integer.meta({ description: "Batches that are dead: no attempts are left, or of use." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["claim_lost"],
      examples: [
        {
          name: "The mail server is away",
          params: { ...MAIL_CLAIM, error: "connection refused", delayMs: 60_000 },
          result: { released: 1, dead: 0 },
        },
      ],
    }),

    get: method({
      summary: "One batch",
      params: z.strictObject({ batchId }),
      result: z.strictObject({ batch }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        { name: "A mail", params: { batchId: OTHER_MAIL_ID }, result: { batch: mail(3, OTHER_MAIL_ID) } },
      ],
    }),

    wait: method({
      summary: "Wait for the end of a batch",
      description: "A batch that is not final when the wait ends is answered as it is.",
      params: z.strictObject({ batchId, waitMs }),
      result: z.strictObject({ batch }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["not_found"],
      examples: [
        {
          name: "A thumbnail that is made",
          params: { batchId: thumbnail.batchId, waitMs: 60_000 },
          result: { batch: { ...thumbnail, ...THUMBNAIL_DONE } },
        },
      ],
    }),

    list: method({
      summary: "The batches of a queue, in the order they were added",
      params: z.strictObject({
        queue,
        state: state.optional().meta({ description: "Only those in this state." }),
        key: key.optional().meta({ description: "Those of one key alone." }),
        limit,
        after: enqueueSeq.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        batches: z.array(batch).meta({ description: "In the order they were added." }),
        next: enqueueSeq.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Mails that wait",
          params: { queue: "mails", state: "ready" },
          result: { batches: [mail(3, OTHER_MAIL_ID)] },
        },
      ],
    }),

    stats: method({
      summary: "How many batches are in which state, of one queue or of all by their names",
      params: z.strictObject({
        queue: queue.optional(),
        limit: limit.unwrap().default(1000).meta({ description: "Most queues to return." }),
        after: queue.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        queues: z
          .array(
            named(
              "QueueStats",
              "How many batches of a queue are in which state.",
              z.strictObject({
                queue,
                ...depths,
                paused: z.boolean().meta({ description: "Whether nothing of it is claimed." }),
                oldestReadyMs: duration.nullable().meta({
                  description:
                    "How long the first that is ready has been so, in milliseconds; null if none is.",
                }),
              }),
            ),
          )
          .meta({ description: "By name." }),
        next: queue.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Of one",
          params: { queue: "thumbnails" },
          result: {
            queues: [
              {
                queue: "thumbnails",
                ready: 0,
                scheduled: 0,
                blocked: 0,
                claimed: 0,
                completed: 1,
                dead: 0,
                cancelled: 0,
                expired: 0,
                paused: false,
                oldestReadyMs: null,
              },
            ],
          },
        },
      ],
    }),

    update: method({
      summary: "Change the priority or the time of a batch that waits",
      params: z
        .strictObject({
          batchId,
          priority: priority.optional(),
          availableAt: instant.optional().meta({ description: "Not before then; the past is now." }),
        })
        .refine(({ priority, availableAt }) => priority !== undefined || availableAt !== undefined, {
          error: "must have `priority` or `availableAt`",
        }),
      result: z.strictObject({ batch }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["not_found", "invalid_state"],
      examples: [
        {
          name: "It comes before others",
          params: { batchId: OTHER_MAIL_ID, priority: 10 },
          result: { batch: { ...mail(3, OTHER_MAIL_ID), priority: 10 } },
        },
      ],
    }),

    cancel: method({
      summary: "Take a batch back; with `stop`, also from whoever works on it",
      description:
        "With `stop`, the holder of a claimed batch is told by `claim.cancelling` and by each renewal, and has `graceMs` to end: a completion until then counts, anything else cancels the batch. The other batches of the claim are ready again. Of several cancels of one claim, `claim.cancelling` and `claim.lost` have the first reason that was given, and each batch its own.",
      params: z
        .strictObject({
          batchId: batchId.optional().meta({ description: "This batch." }),
          queue: queue.optional().meta({ description: "The queue of the sourceKey." }),
          sourceKey: sourceKey.optional().meta({
            description: "Of that queue; where a follower waits, that is cancelled first.",
          }),
          stop: z.boolean().default(false).meta({
            description: "Stop the work on a claimed batch; otherwise it is left alone.",
          }),
          graceMs: z
            .int()
            .min(0)
            .max(MAX_LEASE_MS)
            .optional()
            .meta({
              description: `How long its holder has to end, in milliseconds; ${DEFAULT_STOP_MS} if not given. A later cancel can only shorten it.`,
            }),
          reason: reason.optional(),
        })
        .refine(({ stop, graceMs }) => stop || graceMs === undefined, {
          error: "must be left out without `stop`",
          path: ["graceMs"],
        })
        .refine(
          ({ batchId, queue, sourceKey }) =>
            batchId === undefined
              ? queue !== undefined && sourceKey !== undefined
              : queue === undefined && sourceKey === undefined,
          { error: "must have either `batchId`, or `queue` and `sourceKey`" },
        ),
      result: z.strictObject({
        outcome: z
          .enum([
            "cancelled",
            "cancelling",
            "already_claimed",
            "already_completed",
            "already_cancelled",
            "already_dead",
            "already_expired",
          ])
          .meta({
            description: "`cancelled`; `cancelling` while its holder is to stop; or why it stays as it is.",
          }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "A mail that need not be sent",
          params: { batchId: OTHER_MAIL_ID },
          result: { outcome: "cancelled" },
        },
        {
          name: "Work that is done",
          params: { batchId: thumbnail.batchId },
          result: { outcome: "already_completed" },
        },
      ],
    }),

    move: method({
      summary: "Move batches that nobody holds to another queue; each keeps its batchId and its enqueueSeq",
      description:
        "What is claimed or completed stays, and so does a batch whose sourceKey is in use there, that has a follower, or that is one. `maxWaiting` of the other queue refuses none.",
      params: z
        .strictObject({
          to: queue.meta({
            description: "Fencing tokens there go on above those of the queue they come from.",
          }),
          batchIds: z
            .array(batchId)
            .min(1)
            .max(MAX_NAMED_BATCHES)
            .optional()
            .meta({ description: "These batches." }),
          queue: queue.optional().meta({ description: "Batches of this queue." }),
          state: z.enum(MOVED_STATES).optional().meta({ description: "Which of that queue." }),
        })
        .refine(
          ({ batchIds, queue, state }) =>
            batchIds === undefined
              ? queue !== undefined && state !== undefined
              : queue === undefined && state === undefined,
          { error: "must have either `batchIds`, or `queue` and `state`" },
        ),
      result: z.strictObject({
        moved: integer.meta({ description: "Batches that are there now." }),
        kept: integer.meta({ description: "Batches that stay where they are." }),
        more: z.boolean().meta({ description: "There are more than one call moves: call again." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "What is dead goes where somebody looks at it",
          params: { queue: "mails", state: "dead", to: "mails-failed" },
          result: { moved: 0, kept: 0, more: false },
        },
      ],
    }),

    purge: method({
      summary: "Remove batches that nobody holds, for good",
      description: "A batch that others wait for stays.",
      params: z
        .strictObject({
          queue: queue.optional().meta({ description: "Batches of this queue." }),
          states: z
            .array(z.enum(PURGED_STATES))
            .min(1)
            .optional()
            .meta({ description: "In any of these states." }),
          olderThanMs: delayMs.optional().meta({
            description: "Only what ended so long ago, or was enqueued so long ago and has not ended.",
          }),
          dryRun: z.boolean().default(false).meta({ description: "Only say how many." }),
          batchIds: z
            .array(batchId)
            .min(1)
            .max(MAX_NAMED_BATCHES)
            .optional()
            .meta({ description: "These batches." }),
        })
        .refine(
          ({ batchIds, queue, states }) =>
            batchIds === undefined
              ? queue !== undefined && states !== undefined
              : queue === undefined && states === undefined,
          { error: "must have either `batchIds`, or `queue` and `states`" },
        ),
      result: z.strictObject({
        purged: integer.meta({ description: "Batches that are gone, or would be." }),
        more: z.boolean().meta({ description: "There are more than one call removes: call again." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "How many dead ones are older than a week",
          params: { queue: "mails", states: ["dead"], olderThanMs: 604_800_000, dryRun: true },
          result: { purged: 0, more: false },
        },
      ],
    }),

    retry: method({
      summary:
        "Bring batches back that ended without success, with a fresh attempt count: one, or a queue's dead ones",
      params: z
        .strictObject({ batchId: batchId.optional(), queue: queue.optional() })
        .refine(({ batchId, queue }) => (batchId === undefined) !== (queue === undefined), {
          error: "must have either `batchId` or `queue`",
        }),
      result: z.strictObject({
        retried: integer.meta({ description: "Batches that are ready again." }),
        more: z.boolean().meta({ description: "There are more than one call brings back: call again." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found"],
      examples: [{ name: "None was dead", params: { queue: "mails" }, result: { retried: 0, more: false } }],
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
        ttlMs: ttlMs.nullable().optional().meta({
          description: "Of batches that are enqueued without `ttlMs` from now on.",
        }),
        maxClaimed: maxClaimed.nullable().optional(),
        maxClaimedPerKey: maxClaimedPerKey.nullable().optional(),
        keyOrder: keyOrder.nullable().optional(),
        rate: rate.nullable().optional(),
        maxWaiting: maxWaiting.nullable().optional(),
        paused: z.boolean().nullable().optional().meta({
          description: "While it is paused nothing is claimed; what is claimed goes on.",
        }),
        pausedUntilAt: instant.nullable().optional().meta({ description: "Until then; null for no end." }),
        reason: reason.nullable().optional().meta({ description: "Why it is paused, for people." }),
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
              ...NO_SETTINGS,
              retry: { baseMs: 10_000, factor: 3, maxMs: 3_600_000, jitter: true },
            },
          },
        },
        {
          name: "One delivery to a customer at a time, in their order, and 50 a second in all",
          params: {
            queue: "deliveries",
            maxClaimedPerKey: 1,
            keyOrder: "strict",
            rate: { count: 50, perMs: 1000 },
          },
          result: {
            settings: {
              ...NO_SETTINGS,
              maxClaimedPerKey: 1,
              keyOrder: "strict",
              rate: { count: 50, perMs: 1000 },
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
          result: { settings: NO_SETTINGS },
        },
      ],
    }),

    throttle: method({
      summary: "Say that what the work needs has had enough: nothing of a queue is claimed for a while",
      description:
        "For a worker that was told to come again later, as by HTTP 429 and its `Retry-After`. Of several ends the later one holds.",
      params: z
        .strictObject({
          queue,
          untilAt: instant.nullable().optional().meta({ description: "Until then; null ends it." }),
          delayMs: delayMs.optional().meta({ description: "For so long from now." }),
          reason: reason.optional(),
        })
        .refine(({ untilAt, delayMs }) => (untilAt === undefined) !== (delayMs === undefined), {
          error: "must have either `untilAt` or `delayMs`",
        }),
      result: z.strictObject({ settings }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "The mail server wants a minute of rest",
          params: { queue: "mails", delayMs: 60_000, reason: "429 Too Many Requests" },
          result: {
            settings: {
              ...NO_SETTINGS,
              retry: { baseMs: 10_000, factor: 3, maxMs: 3_600_000, jitter: true },
              throttledUntilAt: 1_750_000_060_000,
              throttledReason: "429 Too Many Requests",
            },
          },
        },
      ],
    }),

    explain: method({
      summary: "Why the head of a queue, or a batch, can or cannot be claimed now, and what would change it",
      description:
        "The head is the first batch that a claim would take; if there is none, the first that waits for something. `ready`: it can be claimed. `boundary`: it can be claimed at `idle`, not at an `active_turn_checkpoint`. `claimed`: a `holder` has it. `scheduled`: it can be claimed from `availableAt` on. `resting`: so it can, having been tried before. `blocked`: it waits for the batches `waitsFor`. `paused`, `throttled`, `rate`: nothing of the queue is claimed until `until`, or until somebody resumes it. `full`: the queue has as many claims as it may. `key_full`: its `key` has. `strict`: the earlier batch `behind` of its key is not finished. `final`: it has ended. `empty`: nothing is there.",
      params: z
        .strictObject({ queue: queue.optional(), batchId: batchId.optional() })
        .refine(({ queue, batchId }) => (queue === undefined) !== (batchId === undefined), {
          error: "must have either `queue` or `batchId`",
        }),
      result: z.strictObject({
        queue,
        claimable: z.boolean().meta({ description: "At the boundary `idle`." }),
        reason: z
          .enum([
            "ready",
            "boundary",
            "claimed",
            "scheduled",
            "resting",
            "blocked",
            "paused",
            "throttled",
            "full",
            "rate",
            "key_full",
            "strict",
            "final",
            "empty",
          ])
          .meta({ description: "Why it can or cannot be claimed." }),
        batchId: batchId.optional().meta({ description: "The head, or the batch that was asked about." }),
        state: state.optional().meta({ description: "Where that batch stands." }),
        deliveryPolicy: z
          .enum(DELIVERY_POLICIES)
          .optional()
          .meta({ description: "At which boundary it is handed out." }),
        availableAt: instant
          .optional()
          .meta({ description: "When it can be claimed, in milliseconds since the Unix epoch." }),
        until: instant.nullable().optional().meta({
          description:
            "When a queue that is paused, throttled or over its rate opens; null for no such time.",
        }),
        pause: named(
          "Pause",
          "Why a queue is paused, and by whom.",
          z.strictObject({
            reason: reason.nullable().meta({ description: "In the words of whoever paused it." }),
            by: pauser,
          }),
        ).optional(),
        throttle: named(
          "Throttle",
          "Why workers said that nothing is to be claimed.",
          z.strictObject({
            reason: reason.nullable().meta({ description: "In the words of the last of them." }),
          }),
        ).optional(),
        key: key.optional().meta({ description: "The key that is full, or whose order is strict." }),
        claims: integer
          .optional()
          .meta({ description: "How many are held, of a queue or a key that is full." }),
        most: integer.optional().meta({ description: "How many may be." }),
        behind: batchId
          .optional()
          .meta({ description: "The earlier batch of its key that is not finished." }),
        behindState: state.optional().meta({ description: "Where that batch stands." }),
        waitsFor: z.array(batchId).optional().meta({
          description: "Batches that it waits for and that are not final, the first hundred.",
        }),
        holder: named(
          "ClaimHolder",
          "Who has it.",
          z.strictObject({
            owner,
            pid: integer.nullable().meta({
              description: "The holder's process, as the kernel told; null if it did not.",
            }),
            claimId,
            fencingToken,
            expiresAt,
            remainingMs,
          }),
        ).optional(),
        dead: integer.meta({ description: "Batches that only queue.retry brings back." }),
        waiting: integer.nullable().meta({
          description: "Claims that wait for the queue, at this daemon; null from a daemon that only reads.",
        }),
        keptIn: z.string().optional().meta({
          description:
            "The server and the database that keep the queue, where several daemons share it; left out for this node.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "All is done",
          params: { queue: "thumbnails" },
          result: { queue: "thumbnails", claimable: false, reason: "empty", dead: 0, waiting: 0 },
        },
      ],
    }),
  },
});
