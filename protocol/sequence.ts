import { z } from "zod";
import {
  MAX_INTEGER,
  MAX_NODE_ID,
  MAX_NODE_NAME_LENGTH,
  MAX_REQUEST_ID_LENGTH,
  MAX_RESERVE_COUNT,
  MAX_STATE_TYPES,
  MAX_TYPE_LENGTH,
} from "./limits.js";
import { method, noun } from "./method.js";
import { named, text } from "./schemas.js";

const type = z
  .string()
  .max(MAX_TYPE_LENGTH)
  .regex(/^[A-Za-z][A-Za-z0-9_]*$/, "must be a letter, then letters, digits or _")
  .meta({ description: "The label of a counter, such as FR. Upper and lower case are one." });
const seq = z.int().min(1).max(MAX_INTEGER).meta({ description: "A number of a sequence, from 1." });
const last = z
  .int()
  .min(0)
  .max(MAX_INTEGER)
  .meta({ description: "The last number dispensed; 0 before the first." });
const left = z.int().min(0).max(MAX_INTEGER).meta({ description: "Granted numbers that are left." });
const id = z.string().meta({ description: "FR-001, or FR-7-001 or FR-JM-001 with a node id." });
const nodeName = z
  .string()
  .max(MAX_NODE_NAME_LENGTH)
  .regex(/^[A-Z][A-Z0-9]*$/, "must be a letter, then letters or digits, all upper case");
const requestId = text.min(1).max(MAX_REQUEST_ID_LENGTH).optional().meta({
  description: "Makes a retry safe: the same id and params return the same number for 24 hours.",
});
const numbered = named(
  "NumberedId",
  "A number of a type, and the id made of it.",
  z.strictObject({ type, seq, id }),
);

export const mode = named(
  "Mode",
  "Who the numbers are unique among: this database, or all nodes.",
  z.discriminatedUnion("kind", [
    named(
      "CentralizedMode",
      "Ids such as FR-001, unique within one database.",
      z.strictObject({ kind: z.literal("centralized").meta({ description: "Which mode it is." }) }),
    ),
    named(
      "DistributedMode",
      "Ids such as FR-7-001 or FR-JM-001, unique over all nodes without their knowing of each other.",
      z.strictObject({
        kind: z.literal("distributed").meta({ description: "Which mode it is." }),
        nodeId: z
          .union([z.int().min(1).max(MAX_NODE_ID), nodeName])
          .meta({ description: "The number or the name of this node, no other's." }),
      }),
    ),
  ]),
);
/** `{kind: "centralized"}` or `{kind: "distributed", nodeId}`: who the numbers are unique among. */
export type Mode = z.infer<typeof mode>;

/** The node that counters belong to; 0 in centralized mode. */
export const nodeId = z.union([z.int().min(0).max(MAX_NODE_ID), nodeName]);
export type NodeId = z.infer<typeof nodeId>;

export const SEQUENCE = noun("sequence", {
  description:
    "Numbers per type that only go up, and ids made of them: no two callers ever get the same one.",
  methods: {
    next: method({
      summary: "Take the next number of a type",
      description:
        "Of a type that has grants (sequence.grant) the number comes from these, in order; with none left it is `exhausted`.",
      params: z.strictObject({ type, requestId }),
      result: numbered,
      writes: true,
      repeatable: { withKey: "requestId" },
      transactable: true,
      errors: ["conflict", "exhausted"],
      examples: [
        {
          name: "The first feature request",
          params: { type: "FR" },
          result: { type: "FR", seq: 1, id: "FR-001" },
        },
      ],
    }),

    reserve: method({
      summary: "Take a contiguous block of numbers, for a caller that goes offline",
      description:
        "Of a type that has grants, the block comes from the first range that has so many left; smaller rests before it are left out for good.",
      params: z.strictObject({
        type,
        count: z.int().min(1).max(MAX_RESERVE_COUNT).meta({ description: "How many numbers." }),
        requestId,
      }),
      result: z.strictObject({
        type,
        first: seq.meta({ description: "The first number of the block." }),
        last: seq.meta({ description: "The last number of the block." }),
        firstId: id.meta({ description: "The id of `first`." }),
        lastId: id.meta({ description: "The id of `last`." }),
      }),
      writes: true,
      repeatable: { withKey: "requestId" },
      transactable: true,
      errors: ["conflict", "exhausted"],
      examples: [
        {
          name: "Fifty at once",
          params: { type: "FR", count: 50 },
          result: { type: "FR", first: 2, last: 51, firstId: "FR-002", lastId: "FR-051" },
        },
      ],
    }),

    peek: method({
      summary: "See what next would return, without taking it",
      params: z.strictObject({ type }),
      result: numbered,
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["exhausted"],
      examples: [
        {
          name: "After fifty-one",
          params: { type: "FR" },
          result: { type: "FR", seq: 52, id: "FR-052" },
        },
      ],
    }),

    state: method({
      summary: "The mode and the last number dispensed per type",
      description: "A page may be short of `limit`, with `next`, within a `transact`.",
      params: z.strictObject({
        limit: z
          .int()
          .min(1)
          .max(MAX_STATE_TYPES)
          .default(MAX_STATE_TYPES)
          .meta({ description: "Most types to return." }),
        after: type.optional().meta({ description: "`next` of the page before." }),
      }),
      result: z.strictObject({
        mode,
        sequences: z.record(z.string(), last).meta({ description: "The last number dispensed, by type." }),
        granted: z
          .record(z.string(), left)
          .meta({ description: "Of types that have grants: how many of those numbers are left." }),
        next: z.string().optional().meta({ description: "There are more types: ask again after this one." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "One type",
          params: {},
          result: { mode: { kind: "centralized" }, sequences: { FR: 51 }, granted: {} },
        },
      ],
    }),

    format: method({
      summary: "The id of a number",
      params: z.strictObject({ type, seq }),
      result: z.strictObject({ id }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        { name: "Padded to three digits", params: { type: "fr", seq: 7 }, result: { id: "FR-007" } },
      ],
    }),

    parse: method({
      summary: "The parts of an id",
      description: "The number may be padded with any number of zeros.",
      params: z.strictObject({ id }),
      result: z.strictObject({
        type,
        nodeId: nodeId.meta({ description: "The number or the name of the node; 0 for a centralized id." }),
        seq,
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        { name: "Distributed", params: { id: "FR-7-001" }, result: { type: "FR", nodeId: 7, seq: 1 } },
        { name: "Centralized", params: { id: "FR-001" }, result: { type: "FR", nodeId: 0, seq: 1 } },
        {
          name: "Of a node with a name",
          params: { id: "fr-jm-20" },
          result: { type: "FR", nodeId: "JM", seq: 20 },
        },
      ],
    }),

    grant: method({
      summary: "Have the numbers of a type come from a range that another node gave",
      description:
        "The other node took the range by sequence.reserve, and gives none of it itself. Once a type has grants, its numbers come from them alone, in order. With none left `sequence.next` is `exhausted`, until the next grant, or until sequence.advance lets the counter go on above all of them. A range that begins at or below a number that was dispensed or granted here is `conflict`.",
      params: z.strictObject({
        type,
        first: seq.meta({ description: "The first number of the range." }),
        last: seq.meta({ description: "The last number of the range." }),
      }),
      result: z.strictObject({
        type,
        left: left.meta({ description: "Numbers of all grants of the type that are left." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["conflict", "exhausted"],
      examples: [
        {
          name: "A hundred numbers of another node",
          params: { type: "BUG", first: 1001, last: 1100 },
          result: { type: "BUG", left: 100 },
        },
      ],
    }),

    advance: method({
      summary: "Raise a counter so that the next number is above a given one; never lowers it",
      description:
        "Of a type that has grants, the numbers up to `to` are left out. Where `to` is at or above the last that was granted, the counter goes on by itself from there.",
      params: z.strictObject({ type, to: last.meta({ description: "The next number is above it." }) }),
      result: z.strictObject({ type, seq: last }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Move in from elsewhere",
          params: { type: "FR", to: 120 },
          result: { type: "FR", seq: 120 },
        },
      ],
    }),
  },
});
