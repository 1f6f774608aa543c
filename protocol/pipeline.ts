import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import { lease } from "./lease.js";
import {
  MAX_BOARD_RETRIES,
  MAX_BOARD_STAGES,
  MAX_CHANGES_PER_CALL,
  MAX_DEPENDENCIES_PER_WRITE,
  MAX_HEADS,
  MAX_INCREMENT,
  MAX_INTEGER,
  MAX_LABEL_BYTES,
  MAX_LABELS_PER_WRITE,
  MAX_NOTES_PER_READ,
  MAX_OWN_FIELD_BYTES,
  MAX_OWN_FIELDS,
  MAX_RANK_LENGTH,
  MAX_STAGE_LENGTH,
  MAX_STORY_ID_LENGTH,
  MAX_WANTED_LABELS,
} from "./limits.js";
import { method, noun } from "./method.js";
import { author, board, hexadecimal, statement } from "./peer.js";
import {
  byName,
  duration,
  graceMs,
  instant,
  integer,
  json,
  label,
  leaseMs,
  limit,
  named,
  releaseOn,
  text,
  waitMs,
} from "./schemas.js";

/** A place in a list, made of stage, rank and storyId. */
const MAX_CURSOR_LENGTH = 2048;
/** Characters of the words that are searched for. */
const MAX_SEARCH_LENGTH = 256;
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
const name = text.nullable().meta({ description: "A title for people." });
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
const retryCount = signedInteger.meta({ description: "How often it was tried." });
const blocked = z.boolean().meta({ description: "True if somebody says that it cannot go on." });
const itemLabel = text
  .min(1)
  .refine((value) => new TextEncoder().encode(value).length <= MAX_LABEL_BYTES, {
    error: `must be at most ${MAX_LABEL_BYTES} bytes of UTF-8`,
  })
  .meta({ description: `A label, at most ${MAX_LABEL_BYTES} bytes of UTF-8.` });
const fieldName = z
  .string()
  .regex(/^[a-z][A-Za-z0-9_]{0,63}$/, "must be a lower-case letter and up to 63 letters, digits or `_`");
const noteText = text.min(1).meta({
  description: `Free text, at most ${MAX_OWN_FIELD_BYTES} bytes of UTF-8; longer is \`too_large\`.`,
});
const noteAgent = text.nullable();
const fencingToken = z.int().min(1).max(MAX_INTEGER).meta({
  description: "The token of the lease `item/<storyId>`, greater than that of every earlier one.",
});
const nextPage = { description: "There are more: ask again with it as `after`." };
const revision = integer.meta({ description: "Grows with every change that is stored here." });

const item = named(
  "Item",
  "An item of the board.",
  z.strictObject({
    storyId,
    stage,
    name,
    agent,
    retryCount,
    blocked,
    dependsOn: z.array(storyId).meta({ description: "The items that it depends on, sorted." }),
    labels: z.array(z.string()).meta({ description: "Its labels, sorted." }),
    fields: z.record(z.string(), json).meta({
      description:
        "Fields of the user's own, by name; by convention description, priority (0 to 4, 0 first), type, assignee and parent.",
    }),
    notes: integer.meta({ description: "How many notes it has; pipeline.read gives them." }),
    rank,
    updatedAt: instant.meta({ description: "When it last changed, in milliseconds since the Unix epoch." }),
    updatedBy: author.meta({ description: "The public key of the node that changed it last." }),
    claim: named(
      "ItemClaim",
      "Who works on an item, by a claim that was made on this node.",
      z.strictObject({
        agent: label.meta({ description: "Who claimed it." }),
        expiresAt: instant.meta({
          description: "When the claim ends unless it is renewed, in milliseconds since the Unix epoch.",
        }),
        pid: integer
          .nullable()
          .meta({ description: "The process that claimed it, as the kernel told; null if it did not." }),
      }),
    )
      .optional()
      .meta({ description: "Absent if nobody has claimed it on this node." }),
    ready: z.boolean().meta({
      description:
        "True if it can be claimed: in a stage that work is taken from, not blocked, its lease held by nobody, and all that it depends on in a stage that ends work.",
    }),
  }),
);

/** An item, and the claim of it. */
export const claimedItem = { storyId, fencingToken };

const underClaim = named(
  "UnderClaim",
  "The claim of an item, by the token of its lease.",
  z.strictObject({ fencingToken }),
).meta({
  description:
    "Of an item that is claimed: the token of the claim, without which its stage, its agent and its deletion are refused with `lease_held`. Nothing is written if the claim has ended (`lease_lost`).",
});

const stageRule = named(
  "StageRule",
  "The part of a stage in work.",
  z.strictObject({
    stage,
    done: z.boolean().optional().meta({
      description: "True if an item in it is done, for those that depend on it.",
    }),
    ready: z.boolean().optional().meta({ description: "True if work is taken from it." }),
  }),
);
const stages = z.array(stageRule).max(MAX_BOARD_STAGES);
const transitions = byName(stage, z.array(stage).max(MAX_BOARD_STAGES), {
  max: MAX_BOARD_STAGES,
  of: "stages",
});
const maxRetries = z.int().min(0).max(MAX_BOARD_RETRIES);
/** All that a node says of stages. */
const configuration = z.strictObject({
  stages: z.array(stageRule).meta({
    description: "The stages that work is taken from, and those that end it.",
  }),
  transitions: z
    .record(z.string(), z.array(z.string()))
    .nullable()
    .meta({ description: "By stage, those that may follow it; null if any may." }),
  maxRetries: integer.meta({
    description: "At how many retries an item is blocked when its claim ends unfinished; 0 for never.",
  }),
});
const wantedLabels = z.array(itemLabel).min(1).max(MAX_WANTED_LABELS).meta({
  description: "Only items that have all of them.",
});
const wantedStages = z
  .array(stage)
  .min(1)
  .max(MAX_BOARD_STAGES)
  .meta({ description: "Only items in one of them; without it, all stages that work is taken from." });

const dependencies = z.array(storyId).max(MAX_DEPENDENCIES_PER_WRITE);
const dependsOn = z
  .union([
    dependencies.meta({ description: "All that it depends on." }),
    named(
      "DependencyChange",
      "Dependencies to add and to remove; others stay.",
      z
        .strictObject({
          add: dependencies.optional().meta({ description: "Items that it depends on from now on." }),
          remove: dependencies.optional().meta({ description: "Items that it depends on no more." }),
        })
        .refine(({ add = [], remove = [] }) => !add.some((id) => remove.includes(id)), {
          error: "must not add and remove the same item",
        }),
    ),
  ])
  .meta({ description: "Cycles and items that do not exist are reported when read, never refused." });

const labelsGiven = z.array(itemLabel).max(MAX_LABELS_PER_WRITE);
const labels = z
  .union([
    labelsGiven.meta({ description: "All labels that it has." }),
    named(
      "LabelChange",
      "Labels to add and to remove; others stay.",
      z
        .strictObject({
          add: labelsGiven.optional().meta({ description: "Labels that it has from now on." }),
          remove: labelsGiven.optional().meta({ description: "Labels that it has no more." }),
        })
        .refine(({ add = [], remove = [] }) => !add.some((each) => remove.includes(each)), {
          error: "must not add and remove the same label",
        }),
    ),
  ])
  .meta({ description: "A set; what several nodes add and remove is merged label by label." });
const fields = byName(fieldName, json, { max: MAX_OWN_FIELDS, of: "fields" }).meta({
  description: `Fields of the user's own to set, by name: any JSON of at most ${MAX_OWN_FIELD_BYTES} bytes, or null to take one away. An item has at most ${MAX_OWN_FIELDS}; each is merged by itself.`,
});
const note = z
  .union([
    noteText,
    named(
      "NewNote",
      "A note, and who says it.",
      z.strictObject({
        text: noteText,
        agent: noteAgent
          .optional()
          .meta({ description: "Who says it; without it, or with null, the agent of the item." }),
      }),
    ),
  ])
  .meta({
    description:
      "Something to be said about it, added to its notes for good; by its agent, unless it says another.",
  });
const condition = named(
  "ItemCondition",
  "What an item has to be for a write to be made.",
  z.strictObject({
    stage: stage.nullable().optional().meta({ description: "Its stage; null if it must not exist." }),
    agent: agent.optional().meta({ description: "Who works on it; null for nobody." }),
    updatedAt: instant.optional().meta({ description: "When it last changed, as an answer said." }),
  }),
);
const itemNote = named(
  "ItemNote",
  "A note of an item.",
  z.strictObject({
    at: instant.meta({ description: "When it was written, in milliseconds since the Unix epoch." }),
    author: author.meta({ description: "The public key of the node that wrote it." }),
    agent: noteAgent.meta({ description: "Who says it." }),
    text: z.string().meta({ description: "Free text." }),
  }),
);

const head = named(
  "Head",
  "A change, and with it all before it in its log.",
  z.strictObject({ author, incarnation, seq, hash: changeId }),
);
const heads = z
  .array(head)
  .meta({ description: "The last change of every log; several of one where it is forked." });
const cutPlace = named(
  "CutPlace",
  "The last change of a log that was taken away.",
  z.strictObject({ seq, hash: changeId }),
);
const cuts = z
  .array(
    named(
      "Cut",
      "A log of which changes were taken away: up to this one, what is kept are those on which something rests.",
      z.strictObject({ author, incarnation, cut: cutPlace }),
    ),
  )
  .meta({
    description:
      "Absent from a node of a version that knows no compaction, which cannot be given what was cut.",
  });

const openLogs = z.array(
  named(
    "OpenLog",
    "A log of which another node gave cuts, and perhaps not yet all that replaced what they stand for.",
    z.strictObject({
      author,
      incarnation,
      after: named(
        "OpenPlace",
        "The change before the first of what was taken away.",
        z.strictObject({ seq, hash: changeId }),
      )
        .nullable()
        .meta({ description: "Null if that is the first of the log." }),
      cut: cutPlace,
    }),
  ),
);

const fewHeads = heads.max(MAX_HEADS);

const signedChange = named(
  "SignedChange",
  "A change as its author signed it; or, in place of changes that were taken away, a cut that the node which gives it has signed.",
  z.strictObject({
    body: z.string().meta({ description: "RFC 8785 canonical JSON." }),
    signature: z.string().meta({ description: "Ed25519, 128 lower-case hexadecimal digits." }),
  }),
);

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

// The example of each method is a step of one story, in the order of the methods.
const AUTHOR = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const CHANGE_ID = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const INCARNATION = "000102030405060708090a0b0c0d0e0f";
const HEAD = { author: AUTHOR, incarnation: INCARNATION, seq: 1, hash: CHANGE_ID };
const NOTE = { at: 1_750_000_000_000, author: AUTHOR, agent: "ana", text: "Needs the new cookies." };
const SIGNED_CHANGE = {
  body: `{"author":"${AUTHOR}","board":"0f0e0d0c0b0a09080706050403020100","hlc":[1750000000000,0],"incarnation":"${INCARNATION}","ops":[{"g":1,"i":"FR-001","s":{"f/priority":1,"l/web":true,"n/0":{"agent":"ana","text":"${NOTE.text}"},"name":"Sign in with a key","rank":"a0","stage":"1_backlog"}}],"prev":null,"seq":1,"v":1}`,
  signature: "ab".repeat(64),
};
const story: z.output<typeof item> = {
  storyId: "FR-001",
  stage: "1_backlog",
  name: "Sign in with a key",
  agent: null,
  retryCount: 0,
  blocked: false,
  dependsOn: [],
  labels: ["web"],
  fields: { priority: 1 },
  notes: 1,
  rank: "a0",
  updatedAt: 1_750_000_000_000,
  updatedBy: AUTHOR,
  ready: true,
};

const claimed: z.output<typeof item> = {
  ...story,
  stage: "2_current",
  agent: "coder-1",
  claim: { agent: "coder-1", expiresAt: 1_750_000_030_000, pid: 4711 },
  ready: false,
};

export const PIPELINE = noun("pipeline", {
  description:
    "A board of items that move through stages, kept on every node and merged without a coordinator.",
  methods: {
    write: method({
      summary: "Create or change an item; only the given fields change",
      description:
        "A `stage` is required when the item does not exist. A new item without a `rank` is put last in its stage. With an `if` that does not hold nothing is written: the refusal `conflict` has the item as it is.",
      params: z
        .strictObject({
          storyId,
          stage: stage.optional(),
          name: name.optional(),
          agent: agent.optional(),
          retryCount: retryCount.optional(),
          retryCountDelta: z.int().min(-MAX_INCREMENT).max(MAX_INCREMENT).optional().meta({
            description: "Adds to the count; concurrent increments on several nodes all count.",
          }),
          blocked: blocked.optional(),
          dependsOn: dependsOn.optional(),
          labels: labels.optional(),
          fields: fields.optional(),
          note: note.optional(),
          rank: rank.optional(),
          if: condition.optional(),
          claim: underClaim.optional(),
        })
        .refine(
          ({ storyId: _, if: __, claim: ___, ...fields }) =>
            Object.values(fields).some((value) => value !== undefined),
          {
            error: "must set at least one field",
          },
        )
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
      errors: [
        "too_large",
        "bad_value",
        "conflict",
        "exhausted",
        "lease_held",
        "lease_lost",
        "invalid_state",
      ],
      examples: [
        {
          name: "A new story",
          params: {
            storyId: "FR-001",
            stage: "1_backlog",
            name: "Sign in with a key",
            labels: ["web"],
            fields: { priority: 1 },
            note: { text: NOTE.text, agent: "ana" },
            if: { stage: null },
          },
          result: { item: story, changeId: CHANGE_ID },
        },
      ],
    }),

    read: method({
      summary: "One item, or null",
      params: z.strictObject({
        storyId,
        notes: z
          .int()
          .min(1)
          .max(MAX_NOTES_PER_READ)
          .optional()
          .meta({ description: "How many of its last notes to give; without it, none." }),
        before: cursor.optional().meta({ description: "`before` of the answer with the notes after these." }),
      }),
      result: z.strictObject({
        item: item.nullable().meta({ description: "Null if there is none of this name." }),
        notes: z
          .array(itemNote)
          .optional()
          .meta({ description: "The last of its notes, in their order; absent unless asked for." }),
        before: z
          .string()
          .optional()
          .meta({ description: "There are notes before these: ask again with it as `before`." }),
        missing: z
          .array(storyId)
          .optional()
          .meta({ description: "The ids that it depends on and that do not exist; absent if none." }),
        cycle: z.array(storyId).optional().meta({
          description: "The shortest way from it along dependsOn back to it, without it; absent if none.",
        }),
        reason: z
          .string()
          .optional()
          .meta({ description: "Why it is not ready, in words; absent if it is." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["log_corrupt"],
      examples: [
        { name: "The story", params: { storyId: "FR-001" }, result: { item: story } },
        {
          name: "With its notes",
          params: { storyId: "FR-001", notes: 10 },
          result: { item: story, notes: [NOTE] },
        },
      ],
    }),

    list: method({
      summary: "Items by stage, in rank order",
      description:
        "A page looks at no more than 1,000 items for those that fit `agent`, `blocked` and `label`: it may have few, or none, and a `next`. The first search by `text` makes an index of the words on the board, which each change keeps from then on.",
      params: z
        .strictObject({
          perStage: z.int().min(1).max(1000).optional().meta({
            description:
              "Only the first so many of each stage, fewer where they are long, and in `counts` how many it has: what a person looks at. Not with `stage` and `text`, and not within transact.",
          }),
          stage: stage.optional().meta({ description: "Only items in it." }),
          agent: agent
            .optional()
            .meta({ description: "Only items that it works on; null for those of nobody." }),
          blocked: blocked.optional().meta({ description: "Only items that are blocked, or are not." }),
          label: itemLabel.optional().meta({ description: "Only items that have this label." }),
          text: text
            .min(1)
            .max(MAX_SEARCH_LENGTH)
            .refine((words) => /\S/.test(words), { error: "must have a word" })
            .optional()
            .meta({
              description:
                "Only items with all of these words, or words that begin so, in the name and the field `description` or in one of the notes. Not within transact.",
            }),
          limit,
          after: cursor.optional().meta({ description: "`next` of the page before." }),
        })
        .refine(
          ({ perStage, stage, text }) =>
            perStage === undefined || (stage === undefined && text === undefined),
          { error: "must not be given with `stage` or `text`", path: ["perStage"] },
        ),
      result: z.strictObject({
        stages: z.record(z.string(), z.array(item)).meta({ description: "Items in rank order, by stage." }),
        counts: z
          .record(z.string(), integer)
          .optional()
          .meta({ description: "With `perStage`: how many items fit, by stage." }),
        next: z.string().optional().meta(nextPage),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "The backlog",
          params: { stage: "1_backlog" },
          result: { stages: { "1_backlog": [story] } },
        },
        {
          name: "By words",
          params: { text: "cookies", label: "web" },
          result: { stages: { "1_backlog": [story] } },
        },
      ],
    }),

    delete: method({
      summary: "Delete an item; beats writes that other nodes make at the same time",
      params: z.strictObject({ storyId, claim: underClaim.optional() }),
      result: z.strictObject({
        deleted: z.boolean().meta({ description: "False if there was none of this name." }),
        changeId: changeId.optional(),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["exhausted", "lease_held", "lease_lost"],
      examples: [
        { name: "One that is not there", params: { storyId: "FR-404" }, result: { deleted: false } },
      ],
    }),

    history: method({
      summary: "What was done to an item, newest first",
      params: z.strictObject({
        storyId,
        limit,
        after: cursor.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        changes: z
          .array(
            named(
              "ItemChange",
              "The effect of one change on an item.",
              z.strictObject({
                changeId,
                author,
                name: label
                  .nullable()
                  .meta({ description: "The author's name here; null for this node itself." }),
                at: instant.meta({ description: "When, in milliseconds since the Unix epoch." }),
                set: z.record(z.string(), json).meta({
                  description: "Fields set; dependsOn and labels as {add, remove}, notes as those added.",
                }),
                delta: z.record(z.string(), signedInteger).meta({ description: "Increments by field." }),
                deleted: z.literal(true).optional().meta({ description: "True if it deleted the item." }),
              }),
            ),
          )
          .meta({ description: "Newest first." }),
        next: z.string().optional().meta(nextPage),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["log_corrupt"],
      examples: [
        {
          name: "One change",
          params: { storyId: "FR-001" },
          result: {
            changes: [
              {
                changeId: CHANGE_ID,
                author: AUTHOR,
                name: null,
                at: 1_750_000_000_000,
                set: {
                  stage: "1_backlog",
                  name: "Sign in with a key",
                  rank: "a0",
                  labels: { add: ["web"], remove: [] },
                  fields: { priority: 1 },
                  notes: [{ agent: "ana", text: NOTE.text }],
                },
                delta: {},
              },
            ],
          },
        },
      ],
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
      examples: [
        {
          name: "A node with one change",
          params: {},
          result: {
            author: AUTHOR,
            board: "0f0e0d0c0b0a09080706050403020100",
            incarnation: INCARNATION,
            heads: [HEAD],
          },
        },
      ],
    }),

    heads: method({
      summary: "The last change of every log that this node has; several of one log where it is forked",
      params: z.strictObject({
        known: fewHeads.optional().meta({
          description:
            "Changes, such as a peer's heads, of which to say whether they are stored here: to ask the peer for what comes after them, where its logs end before those here.",
        }),
        sign: z.boolean().default(false).meta({ description: "Says it in writing, too: see `statements`." }),
      }),
      result: z.strictObject({
        cuts: cuts.optional(),
        heads,
        known: z
          .array(changeId)
          .optional()
          .meta({ description: "The given ones that are stored here; absent if none were given." }),
        open: openLogs.optional().meta({
          description:
            "Logs of which to ask a peer again for what follows `after`, as if no more of them were here: a sync ended before all had come that stands for what was taken away. Absent if there are none.",
        }),
        statements: z.array(statement).optional().meta({
          description:
            "With `sign`, for peer.seen of another node: what this node has, signed by it, and the last that its trusted peers have said to it.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "A node with one change", params: {}, result: { cuts: [], heads: [HEAD] } }],
    }),

    changes: method({
      summary: "What the given heads lack, in sequence order",
      description:
        "A head says that the caller has this change and all before it in its log. Any change may be given, not " +
        "only the last of a log, and several of one log; those not known here are passed over.",
      params: z.strictObject({
        heads: fewHeads.meta({ description: "Changes that the caller has." }),
        want: fewHeads.optional().meta({
          description:
            "Only what leads to these changes, and these: to ask in parts where there are more heads than one call takes.",
        }),
        limit: z
          .int()
          .min(1)
          .max(MAX_CHANGES_PER_CALL)
          .default(MAX_CHANGES_PER_CALL)
          .meta({ description: "Most changes to return." }),
        cuts: z.boolean().default(false).meta({
          description:
            "The caller takes cuts, too. Without it, what was taken away is `unsupported_version` if the caller lacks it.",
        }),
      }),
      result: z.strictObject({
        changes: z
          .array(signedChange)
          .max(MAX_CHANGES_PER_CALL)
          .meta({ description: "In sequence order, for pipeline.apply of the other node." }),
        more: z.boolean().meta({ description: "True if there are more." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["log_corrupt", "unsupported_version"],
      examples: [
        {
          name: "For a node that has nothing",
          params: { heads: [] },
          result: { changes: [SIGNED_CHANGE], more: false },
        },
      ],
    }),

    apply: method({
      summary: "Take in changes of other nodes; a rejected one stops its own log only",
      params: z.strictObject({
        changes: z
          .array(signedChange)
          .max(MAX_CHANGES_PER_CALL)
          .meta({ description: "As pipeline.changes of the other node gave them." }),
        settled: openLogs.max(MAX_CHANGES_PER_CALL).optional().meta({
          description:
            "Of `open` of pipeline.heads, as it is now: logs of which a peer that has `cut`, and for which this log is not open, has given all that it has, from `after` on.",
        }),
      }),
      result: z.strictObject({
        applied: integer.meta({ description: "Changes that were taken in." }),
        cuts: integer.optional().meta({
          description: "Cuts that were taken in, each in place of up to 64 changes; absent if none was.",
        }),
        duplicate: integer.meta({ description: "Changes that were here already." }),
        rejected: z
          .array(
            named(
              "RejectedChange",
              "A change that was not taken in, and why.",
              z.strictObject({
                author: author
                  .nullable()
                  .meta({ description: "Null, as are the others, if the body does not say it." }),
                incarnation: incarnation.nullable().meta({ description: "Of the log." }),
                seq: seq.nullable().meta({ description: "The place in the log." }),
                kind: z.enum(CHANGE_ERRORS).meta({ description: "Why, as a kind of error." }),
                retryMs: duration.optional().meta({
                  description: "With clock_ahead: when to offer it again, in milliseconds from now.",
                }),
              }),
            ),
          )
          .meta({ description: "The first of each log that was refused." }),
        more: z.literal(true).optional().meta({
          description: "Within transact: the changes that follow those counted here were not looked at.",
        }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "One that somebody has tampered with",
          params: { changes: [{ ...SIGNED_CHANGE, signature: "cd".repeat(64) }] },
          result: {
            applied: 0,
            duplicate: 0,
            rejected: [{ author: AUTHOR, incarnation: INCARNATION, seq: 1, kind: "bad_signature" }],
          },
        },
      ],
    }),

    watch: method({
      summary: "Wait for the board to change",
      description: "Answers at once if `since` is left out, or is not the revision of this moment.",
      params: z.strictObject({
        since: revision.optional().meta({ description: "`revision` of the answer before." }),
        waitMs,
      }),
      result: z.strictObject({ revision }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [{ name: "As it is", params: {}, result: { revision: 1 } }],
    }),

    rebuild: method({
      summary:
        "Compare the tables of the board with its log, and put right what differs unless it is only to verify",
      description:
        "In steps: first through the changes, whose hashes, signatures and places are checked, then through the items. Ask again with `next` until there is none.",
      params: z.strictObject({
        verify: z.boolean().default(false).meta({ description: "Changes nothing." }),
        limit: z
          .int()
          .min(1)
          .max(MAX_REBUILD_STEPS)
          .default(MAX_REBUILD_STEPS)
          .meta({ description: "Most changes or items of this step." }),
        after: cursor.optional().meta({ description: "`next` of the step before." }),
      }),
      result: z.strictObject({
        changes: integer.meta({ description: "Replayed in this step." }),
        items: integer.meta({ description: "Compared in this step." }),
        differences: z
          .array(
            named(
              "Difference",
              "Where the tables and the log disagree.",
              z.strictObject({
                changeId: changeId.optional(),
                storyId: storyId.optional(),
                what: z.string().meta({ description: "The value of the table and that of the log." }),
              }),
            ),
          )
          .meta({ description: "Empty if they agree." }),
        next: z
          .string()
          .optional()
          .meta({ description: "There are more steps: ask again with it as `after`." }),
      }),
      writes: true,
      repeatable: true,
      transactable: false,
      errors: ["log_corrupt"],
      examples: [
        {
          name: "The first step of a check",
          params: { verify: true },
          result: { changes: 1, items: 0, differences: [], next: '["item",""]' },
        },
      ],
    }),

    compact: method({
      summary: "Take away changes on which nothing of the board rests any more",
      description:
        "Those that others have replaced in all that they said, and that every trusted peer is known to have (peer.seen) that was heard of within 90 days. Their places stay in their logs, by hash and time. The board is the same afterwards, and the history of its items shorter. Works in steps between other calls.",
      params: z.strictObject({
        dryRun: z.boolean().default(false).meta({ description: "Only says what would be taken away." }),
      }),
      result: z.strictObject({
        changes: integer.meta({ description: "Taken away, or with dryRun what would be." }),
        bytes: integer.meta({ description: "Of their bodies and signatures." }),
        kept: integer.meta({
          description: "Changes that something rests on, without the last of each log, which always stays.",
        }),
        unknown: integer.meta({
          description: "Changes that nothing rests on, and that some peer is not known to have.",
        }),
        waitsFor: z
          .array(
            named(
              "AwaitedPeer",
              "A peer that is not known to have all that is here.",
              z.strictObject({
                author,
                name: z.string().meta({ description: "Its name on this node." }),
                saidAt: instant.optional().meta({
                  description:
                    "When it last said what it has, in milliseconds since the Unix epoch; absent if it never did.",
                }),
              }),
            ),
          )
          .meta({ description: "Peers heard of within 90 days that lack something, as far as is known." }),
      }),
      writes: true,
      repeatable: true,
      transactable: false,
      errors: ["log_corrupt"],
      examples: [
        {
          name: "What it would take away",
          params: { dryRun: true },
          result: { changes: 0, bytes: 0, kept: 0, unknown: 0, waitsFor: [] },
        },
      ],
    }),

    repair: method({
      summary: "Give this node's latest changes again that lie ahead of the time, after its clock was wrong",
      description:
        "Other nodes refuse changes that are more than 60 s ahead, and all that this node writes is later still. Those that no trusted peer is known to have are taken back and given again, in their order, under a new incarnation with the time as it is. The items stay what they are. All in one turn: some 0.2 ms for each change.",
      params: z.strictObject({}),
      result: z.strictObject({
        changes: integer.meta({ description: "How many were given again." }),
        incarnation: incarnation.meta({ description: "Under which this node goes on." }),
        aheadMs: duration.optional().meta({
          description:
            "How far the latest change here is still ahead of the time, in milliseconds: one of another node, or one that a peer has. Absent if none is.",
        }),
      }),
      writes: true,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "A node whose clock is right",
          params: {},
          result: { changes: 0, incarnation: INCARNATION },
        },
      ],
    }),

    configure: method({
      summary: "Say of stages which work is taken from, which end it, and which may follow which",
      description:
        "Kept on this node; others need not agree, and what they write is always taken. Only what is given changes: each is replaced whole, and `null` gives it back what it is by default (work is taken from 1_backlog and ends in 5_done, any stage may follow any, 5 retries). With `transitions`, a stage that is not listed has none that may follow it, and a local write that goes elsewhere is refused with `invalid_state`.",
      params: z.strictObject({
        stages: stages
          .nullable()
          .optional()
          .meta({ description: "All stages that work is taken from or that end it; null for the default." }),
        transitions: transitions
          .nullable()
          .optional()
          .meta({
            description: `By stage, those that may follow it, of ${MAX_BOARD_STAGES} stages at most; null for any.`,
          }),
        maxRetries: maxRetries.nullable().optional().meta({
          description:
            "At how many retries an item is blocked when its claim ends unfinished; 0 for never, null for the default.",
        }),
      }),
      result: configuration,
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Work is taken for testing, too",
          params: {
            stages: [
              { stage: "1_backlog", ready: true },
              { stage: "3_qa", ready: true },
              { stage: "5_done", done: true },
            ],
          },
          result: {
            stages: [
              { stage: "1_backlog", ready: true },
              { stage: "3_qa", ready: true },
              { stage: "5_done", done: true },
            ],
            transitions: null,
            maxRetries: 5,
          },
        },
      ],
    }),

    configuration: method({
      summary: "What this node says of stages",
      params: z.strictObject({}),
      result: configuration,
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "As it was configured",
          params: {},
          result: {
            stages: [
              { stage: "1_backlog", ready: true },
              { stage: "3_qa", ready: true },
              { stage: "5_done", done: true },
            ],
            transitions: null,
            maxRetries: 5,
          },
        },
      ],
    }),

    ready: method({
      summary: "What can be worked on now, in the order in which it should be",
      description:
        "By the field `priority` (0 first, items without one last), then by rank, then by storyId.",
      params: z.strictObject({
        stages: wantedStages.optional(),
        labels: wantedLabels.optional(),
        agent: agent.optional().meta({ description: "Only items of this agent; null for those of nobody." }),
        limit,
      }),
      result: z.strictObject({
        items: z.array(item).meta({ description: "The first to be worked on first." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "All", params: {}, result: { items: [story] } }],
    }),

    claim: method({
      summary: "Take an item to work on: the one that is named, or the first that is ready; or wait for it",
      description:
        "In one transaction the lease `item/<storyId>` is granted, to be renewed with lease.heartbeat, and `agent` and `stage` are written. A claim that ends without pipeline.finish, because its time or its connection ended or its lease was broken, is taken back at once: nobody works on the item, it is in its former stage, and `retryCount` is one more, at `maxRetries` of which it is blocked; after lease.release it is not counted. What others wrote meanwhile stays.",
      params: z
        .strictObject({
          agent: label.meta({ description: "Who works on it from now on: the item's agent." }),
          storyId: storyId.optional(),
          stages: wantedStages.optional(),
          labels: wantedLabels.optional(),
          toStage: stage.optional().meta({ description: "Where it goes; without it, it stays where it is." }),
          ttlMs: leaseMs,
          waitMs,
          releaseOn,
          graceMs,
        })
        .refine(
          ({ storyId, stages, labels }) =>
            storyId === undefined || (stages === undefined && labels === undefined),
          { error: "must be left out where stages or labels are given", path: ["storyId"] },
        )
        .refine(({ releaseOn, graceMs }) => graceMs === 0 || releaseOn === "disconnect", {
          error: "is for `releaseOn: disconnect`",
          path: ["graceMs"],
        }),
      result: z.strictObject({
        item: item.nullable().meta({ description: "As it is claimed; null if there was nothing to claim." }),
        lease: lease.optional().meta({ description: "Its lease; absent without an item." }),
        reason: z.string().optional().meta({ description: "Why there is no item, in words." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "invalid_state", "exhausted"],
      examples: [
        {
          name: "The first that is ready",
          params: { agent: "coder-1", toStage: "2_current" },
          result: {
            item: claimed,
            lease: {
              name: "item/FR-001",
              leaseId: "lease_00112233445566778899aabbccddeeff",
              fencingToken: 1,
              owner: "coder-1",
              mode: "exclusive",
              slots: 1,
              acquiredAt: 1_750_000_000_000,
              expiresAt: 1_750_000_030_000,
              remainingMs: 30_000,
            },
          },
        },
      ],
    }),

    finish: method({
      summary: "Say that the work of a claim is done: the item goes on, and the claim ends",
      params: z.strictObject({
        storyId,
        fencingToken,
        toStage: stage.meta({ description: "Where it goes." }),
        note: note.optional(),
        agent: agent
          .optional()
          .meta({ description: "Who it is given to; without it, the agent stays who it was." }),
      }),
      result: z.strictObject({ item }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "lease_lost", "invalid_state", "too_large"],
      examples: [
        {
          name: "It is done",
          params: { storyId: "FR-001", fencingToken: 1, toStage: "5_done" },
          result: { item: { ...story, stage: "5_done", agent: "coder-1", ready: false } },
        },
      ],
    }),
  },
});
