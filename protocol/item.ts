import { z } from "zod";
import { notification, noun } from "./method.js";
import { author } from "./peer.js";
import { claimedItem } from "./pipeline.js";

const AUTHOR = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/** What the holder of a claim of an item is told without asking. */
export const ITEM = noun("item", {
  description: "What the holder of a claim of an item is told about it.",
  methods: {},
  notifications: {
    contested: notification({
      summary: "Somebody on another node has taken an item that this connection has claimed",
      description:
        "Without a lease provider that all nodes share, a claim holds on its own node. Sent when a change of another node comes here that gives the item to another agent; the other node tells its own holder when it gets the change of this claim. The claim stays: who goes on is for the two to settle.",
      params: z.strictObject({
        ...claimedItem,
        otherAgent: z.string().meta({ description: "Whom the other node gives it to." }),
        author: author.meta({ description: "The public key of that node." }),
        agent: z.string().nullable().meta({ description: "The agent that the board shows from now on." }),
      }),
      example: {
        name: "Two nodes that had not met",
        params: {
          storyId: "FR-001",
          fencingToken: 1,
          otherAgent: "coder-9",
          author: AUTHOR,
          agent: "coder-9",
        },
      },
    }),
  },
});
