import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import {
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
} from "./limits.js";
import { method, noun } from "./method.js";
import { author, board, hexadecimal } from "./peer.js";
import { duration, instant, integer, json, label, limit, named, text, waitMs } from "./schemas.js";

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
  }),
);

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
const fields = z
  .record(fieldName, json)
  .refine((given) => Object.keys(given).length <= MAX_OWN_FIELDS, {
    error: `must be at most ${MAX_OWN_FIELDS} fields`,
  })
  .meta({
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
const fewHeads = heads.max(MAX_HEADS);

const signedChange = named(
  "SignedChange",
  "A change as its author signed it.",
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
        })
        .refine(
          ({ storyId: _, if: __, ...fields }) => Object.values(fields).some((value) => value !== undefined),
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
      errors: ["too_large", "bad_value", "conflict", "exhausted"],
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
          text: text.min(1).max(MAX_SEARCH_LENGTH).optional().meta({
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
      params: z.strictObject({ storyId }),
      result: z.strictObject({
        deleted: z.boolean().meta({ description: "False if there was none of this name." }),
        changeId: changeId.optional(),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["exhausted"],
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
      }),
      result: z.strictObject({
        heads,
        known: z
          .array(changeId)
          .optional()
          .meta({ description: "The given ones that are stored here; absent if none were given." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "A node with one change", params: {}, result: { heads: [HEAD] } }],
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
      errors: ["log_corrupt"],
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
          .min(1)
          .max(MAX_CHANGES_PER_CALL)
          .meta({ description: "As pipeline.changes of the other node gave them." }),
      }),
      result: z.strictObject({
        applied: integer.meta({ description: "Changes that were taken in." }),
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
  },
});
