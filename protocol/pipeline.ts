import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import {
  MAX_CHANGES_PER_CALL,
  MAX_DEPENDENCIES_PER_WRITE,
  MAX_HEADS,
  MAX_INCREMENT,
  MAX_INTEGER,
  MAX_RANK_LENGTH,
  MAX_STAGE_LENGTH,
  MAX_STORY_ID_LENGTH,
} from "./limits.js";
import { method, noun } from "./method.js";
import { author, board, hexadecimal } from "./peer.js";
import { duration, instant, integer, json, label, limit, text, waitMs } from "./schemas.js";

/** A place in a list, made of stage, rank and storyId. */
const MAX_CURSOR_LENGTH = 2048;
/** Items or changes that one step of a rebuild goes through at most: some 50 ms of work. */
const MAX_REBUILD_STEPS = 256;

const storyId = z
  .string()
  .max(MAX_STORY_ID_LENGTH)
  .regex(/^[A-Za-z0-9._-]+$/, "must be letters, digits, `.`, `_` or `-`")
  .meta({ description: "Names an item on all nodes." });
const stage = text
  .min(1)
  .max(MAX_STAGE_LENGTH)
  .meta({ description: "Free text; by convention 1_backlog, 2_current, 3_qa, 4_merge, 5_done." });
const name = text.nullable();
const agent = text.nullable().meta({ description: "Information about who works on it, not a lock." });
const signedInteger = z.int().min(-MAX_INTEGER).max(MAX_INTEGER);
const rank = z
  .string()
  .max(MAX_RANK_LENGTH)
  .regex(/^[A-Za-z][0-9A-Za-z]+$/, "must be a fractional index key such as a0 or a0V")
  .meta({ description: "Orders items within a stage, by its characters' codes; ties by storyId." });

const incarnation = hexadecimal(16).meta({
  description: "Random; an author's log begins anew under another.",
});
const changeId = hexadecimal(32).meta({ description: "SHA-256 of a change's body." });
const seq = z.int().min(1).max(MAX_INTEGER).meta({ description: "Place in a log, from 1 without gaps." });
const cursor = z.string().min(1).max(MAX_CURSOR_LENGTH);
const revision = integer.meta({ description: "Grows with every change that is stored here." });

const item = z.strictObject({
  storyId,
  stage,
  name,
  agent,
  retryCount: signedInteger,
  blocked: z.boolean(),
  dependsOn: z.array(storyId).meta({ description: "Sorted." }),
  rank,
  updatedAt: instant,
  updatedBy: author,
});

const dependencies = z.array(storyId).max(MAX_DEPENDENCIES_PER_WRITE);
const dependsOn = z
  .union([
    dependencies.meta({ description: "All that it depends on." }),
    z
      .strictObject({ add: dependencies.optional(), remove: dependencies.optional() })
      .refine(({ add = [], remove = [] }) => !add.some((id) => remove.includes(id)), {
        error: "must not add and remove the same item",
      }),
  ])
  .meta({ description: "Cycles and items that do not exist are reported when read, never refused." });

const head = z.strictObject({ author, incarnation, seq, hash: changeId });
const heads = z.array(head);
const fewHeads = heads.max(MAX_HEADS);

const signedChange = z.strictObject({
  body: z.string().meta({ description: "RFC 8785 canonical JSON." }),
  signature: z.string().meta({ description: "Ed25519, 128 lower-case hexadecimal digits." }),
});

/** Why a change can be refused. */
const CHANGE_ERRORS = [
  "too_large",
  "not_json",
  "not_canonical",
  "bad_value",
  "bad_shape",
  "unsupported_version",
  "wrong_board",
  "unknown_author",
  "revoked_author",
  "bad_signature",
  "missing_prev",
  "bad_chain",
  "clock_not_monotonic",
  "clock_ahead",
  "bad_story_id",
  "bad_generation",
  "bad_field",
] as const satisfies readonly ErrorKind[];

export const PIPELINE = noun("pipeline", {
  methods: {
    write: method({
      summary: "Create or change an item; only the given fields change",
      description:
        "A `stage` is required when the item does not exist. A new item without a `rank` is put last in its stage.",
      params: z
        .strictObject({
          storyId,
          stage: stage.optional(),
          name: name.optional(),
          agent: agent.optional(),
          retryCount: signedInteger.optional(),
          retryCountDelta: z.int().min(-MAX_INCREMENT).max(MAX_INCREMENT).optional().meta({
            description: "Adds to the count; concurrent increments on several nodes all count.",
          }),
          blocked: z.boolean().optional(),
          dependsOn: dependsOn.optional(),
          rank: rank.optional(),
        })
        .refine(({ storyId: _, ...fields }) => Object.values(fields).some((value) => value !== undefined), {
          error: "must set at least one field",
        })
        .refine(
          ({ retryCount, retryCountDelta }) => retryCount === undefined || retryCountDelta === undefined,
          {
            error: "must not both set and increment the count",
            path: ["retryCountDelta"],
          },
        ),
      result: z.strictObject({ item, changeId }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["too_large", "exhausted"],
      examples: [
        {
          name: "A new story",
          params: { storyId: "FR-001", stage: "1_backlog", name: "Sign in with a key" },
          result: {
            item: {
              storyId: "FR-001",
              stage: "1_backlog",
              name: "Sign in with a key",
              agent: null,
              retryCount: 0,
              blocked: false,
              dependsOn: [],
              rank: "a0",
              updatedAt: 1_750_000_000_000,
              updatedBy: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            },
            changeId: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
          },
        },
      ],
    }),

    read: method({
      summary: "One item, or null",
      params: z.strictObject({ storyId }),
      result: z.strictObject({
        item: item.nullable(),
        missing: z
          .array(storyId)
          .optional()
          .meta({ description: "What it depends on and does not exist; absent if none." }),
        cycle: z.array(storyId).optional().meta({
          description: "The shortest way from it along dependsOn back to it, without it; absent if none.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    list: method({
      summary: "Items by stage, in rank order",
      description:
        "A page looks at no more than 1,000 items for those that fit `agent` and `blocked`: it may have few, or none, and a `next`.",
      params: z.strictObject({
        stage: stage.optional(),
        agent: agent.optional(),
        blocked: z.boolean().optional(),
        limit,
        after: cursor.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        stages: z.record(z.string(), z.array(item)),
        next: z.string().optional(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    delete: method({
      summary: "Delete an item; beats writes that other nodes make at the same time",
      params: z.strictObject({ storyId }),
      result: z.strictObject({ deleted: z.boolean(), changeId: changeId.optional() }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["exhausted"],
    }),

    history: method({
      summary: "What was done to an item, newest first",
      params: z.strictObject({
        storyId,
        limit,
        after: changeId.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        changes: z.array(
          z.strictObject({
            changeId,
            author,
            name: label
              .nullable()
              .meta({ description: "The author's name here; null for this node itself." }),
            at: instant,
            set: z.record(z.string(), json).meta({ description: "Fields set; dependsOn as {add, remove}." }),
            delta: z.record(z.string(), signedInteger).meta({ description: "Increments by field." }),
            deleted: z.literal(true).optional(),
          }),
        ),
        next: changeId.optional(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["log_corrupt"],
    }),

    identity: method({
      summary: "Who this node is on the board",
      description:
        "The key is made when it is first needed, as here. A daemon that only reads may find none yet.",
      params: z.strictObject({}),
      result: z.strictObject({
        author,
        board: board
          .nullable()
          .meta({ description: "Null until the first change or the first trusted peer." }),
        incarnation,
        heads,
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    heads: method({
      summary: "The last change of every log that this node has; several of one log where it is forked",
      params: z.strictObject({
        known: fewHeads.optional().meta({
          description:
            "Changes, such as a peer's heads, of which to say whether they are stored here: to ask the peer for what comes after them, where its logs end before those here.",
        }),
      }),
      result: z.strictObject({
        heads,
        known: z
          .array(changeId)
          .optional()
          .meta({ description: "Those of the given ones that are stored here; absent if none were given." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    changes: method({
      summary: "What the given heads lack, in sequence order",
      description:
        "A head says that the caller has this change and all before it in its log. Any change may be given, not " +
        "only the last of a log, and several of one log; those not known here are passed over.",
      params: z.strictObject({
        heads: fewHeads,
        want: fewHeads.optional().meta({
          description:
            "Only what leads to these changes, and these: to ask in parts where there are more heads than one call takes.",
        }),
        limit: z.int().min(1).max(MAX_CHANGES_PER_CALL).default(MAX_CHANGES_PER_CALL),
      }),
      result: z.strictObject({
        changes: z.array(signedChange).max(MAX_CHANGES_PER_CALL),
        more: z.boolean(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["log_corrupt"],
    }),

    apply: method({
      summary: "Take in changes of other nodes; a rejected one stops its own log only",
      params: z.strictObject({ changes: z.array(signedChange).min(1).max(MAX_CHANGES_PER_CALL) }),
      result: z.strictObject({
        applied: integer,
        duplicate: integer,
        rejected: z.array(
          z.strictObject({
            author: author
              .nullable()
              .meta({ description: "Null, as are the others, if the body does not say it." }),
            incarnation: incarnation.nullable(),
            seq: seq.nullable(),
            kind: z.enum(CHANGE_ERRORS),
            retryMs: duration.optional().meta({ description: "With clock_ahead: when to offer it again." }),
          }),
        ),
        more: z.literal(true).optional().meta({
          description: "Within transact: the changes that follow those counted here were not looked at.",
        }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    watch: method({
      summary: "Wait for the board to change",
      description: "Answers at once if `since` is left out, or is not the revision of this moment.",
      params: z.strictObject({ since: revision.optional(), waitMs }),
      result: z.strictObject({ revision }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
    }),

    rebuild: method({
      summary:
        "Compare the tables of the board with its log, and put right what differs unless it is only to verify",
      description:
        "In steps: first through the changes, whose hashes, signatures and places are checked, then through the items. Ask again with `next` until there is none.",
      params: z.strictObject({
        verify: z.boolean().default(false).meta({ description: "Changes nothing." }),
        limit: z.int().min(1).max(MAX_REBUILD_STEPS).default(MAX_REBUILD_STEPS),
        after: cursor.optional().meta({ description: "`next` of the step before." }),
      }),
      result: z.strictObject({
        changes: integer.meta({ description: "Replayed in this step." }),
        items: integer.meta({ description: "Compared in this step." }),
        differences: z.array(
          z.strictObject({
            changeId: changeId.optional(),
            storyId: storyId.optional(),
            what: z.string().meta({ description: "What the table has and what the log says." }),
          }),
        ),
        next: z.string().optional(),
      }),
      writes: true,
      repeatable: true,
      transactable: false,
      errors: ["log_corrupt"],
    }),
  },
});
