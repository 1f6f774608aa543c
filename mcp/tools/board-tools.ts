import type { Params } from "@pawl/protocol/types";
import { z } from "zod";
import { itemView, viewOf } from "./item-view.js";
import { ADDS, READS, SETS, tool } from "./tool.js";

const storyId = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,128}$/, "must be 1 to 128 letters, digits, `.`, `_` or `-`");
const names = z.array(z.string().min(1).max(200)).max(64);

export const idNext = tool({
  name: "id_next",
  title: "Get new ids that nobody else has",
  description:
    "Use this whenever you need a new id, such as FR-017, for an item, a file or a document. Never make one up or take the highest plus one: another agent does the same at this moment. Returns `ids`, which are yours for good; numbers that are not used are lost, and that is all right.",
  annotations: ADDS,
  input: {
    type: z
      .string()
      .regex(/^[A-Za-z][A-Za-z0-9_]{0,31}$/)
      .meta({ description: "The kind of id, such as FR." }),
    count: z.int().min(1).max(100).optional().meta({ description: "How many; 1 if not given." }),
  },
  output: { ids: z.array(z.string()) },
  async run({ type, count = 1 }, { link }) {
    const taken = await Promise.all(
      Array.from({ length: count }, () => link.call("sequence.next", { type })),
    );
    return { ids: taken.map(({ id }) => id) };
  },
});

export const itemEdit = tool({
  name: "item_edit",
  title: "Create or change an item of the board",
  description:
    "Use this to write down work for others or for later: a new item (take its id from id_next), or a change of one. Only what you give changes. `dependsOn` are ids that have to be done before it. Refused with lease_held where you change the stage of what another works on; ask that one instead. For notes and progress of your own work use work_update.",
  annotations: SETS,
  input: {
    id: storyId,
    title: z.string().max(500).optional(),
    description: z.string().max(16_000).optional(),
    stage: z.string().min(1).max(64).optional().meta({
      description:
        "Spelled as on the board; 1_backlog, unless it is configured otherwise, for what can be worked on. Needed for a new item.",
    }),
    priority: z.int().min(0).max(4).optional().meta({ description: "0 is the most urgent." }),
    dependsOn: z
      .array(storyId)
      .max(64)
      .optional()
      .meta({ description: "All that it depends on, in place of before." }),
    addLabels: names.optional(),
    removeLabels: names.optional(),
    blocked: z
      .boolean()
      .optional()
      .meta({ description: "True: it cannot go on, and nobody shall take it. False: it can again." }),
    note: z.string().min(1).max(16_000).optional(),
  },
  output: { item: itemView },
  async run({ id, title, description, priority, addLabels, removeLabels, note, ...same }, { link, session }) {
    const own = session.find("item", id);
    const fields = {
      ...(description === undefined ? {} : { description }),
      ...(priority === undefined ? {} : { priority }),
    };
    const labels = {
      ...(addLabels === undefined ? {} : { add: addLabels }),
      ...(removeLabels === undefined ? {} : { remove: removeLabels }),
    };
    const { item } = await link.call("pipeline.write", {
      storyId: id,
      ...same,
      ...(title === undefined ? {} : { name: title }),
      ...(Object.keys(fields).length === 0 ? {} : { fields }),
      ...(Object.keys(labels).length === 0 ? {} : { labels }),
      ...(note === undefined ? {} : { note: { text: note, agent: session.name } }),
      ...(own === undefined ? {} : { claim: { fencingToken: own.fencingToken } }),
    });
    return { item: viewOf(item) };
  },
});

export const board = tool({
  name: "board",
  title: "Look at the board",
  description:
    "Use this to see what there is to do and who does what, or to find an item by its words. Returns the items of each stage, and how many there are. With `id` it returns that item with its notes, and why it is not ready. To take work use work_next; you need not look first.",
  annotations: READS,
  input: {
    id: storyId.optional().meta({ description: "One item, with its notes." }),
    stage: z.string().min(1).max(64).optional(),
    agent: z.string().min(1).max(128).optional().meta({ description: "Only items of this agent." }),
    label: z.string().min(1).max(200).optional(),
    text: z.string().min(1).max(256).optional().meta({ description: "Only items with these words." }),
    limit: z.int().min(1).max(200).optional().meta({ description: "Items of each stage; 20 if not given." }),
  },
  output: {
    stages: z.record(z.string(), z.array(itemView)).optional(),
    counts: z.record(z.string(), z.int()).optional(),
    item: itemView.nullable().optional(),
    reason: z.string().optional(),
  },
  async run({ id, stage, limit = 20, ...filter }, { link }) {
    if (id !== undefined) {
      const { item, notes, reason } = await link.call("pipeline.read", { storyId: id, notes: 50 });
      return {
        item: item === null ? null : viewOf(item, notes),
        ...(reason === undefined ? {} : { reason }),
      };
    }
    const given = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined));
    const page =
      stage === undefined && filter.text === undefined
        ? { perStage: limit }
        : { limit, ...(stage === undefined ? {} : { stage }) };
    const { stages, counts } = await link.call("pipeline.list", {
      ...given,
      ...page,
    } as Params<"pipeline.list">);
    const shown = Object.entries(stages).map(([name, items]) => [name, items.map((item) => viewOf(item))]);
    return { stages: Object.fromEntries(shown), ...(counts === undefined ? {} : { counts }) };
  },
});
