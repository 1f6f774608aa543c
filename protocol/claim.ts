import { z } from "zod";
import { notification, noun } from "./method.js";
import { batchId, claimId, queue, reason } from "./queue.js";
import { duration, EXPIRED } from "./schemas.js";

const why = reason
  .nullable()
  .meta({ description: "Why, in the words of whoever cancels; null without any." });
const CLAIM_ID = "qwc:1:1";
const BATCH_ID = "qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e";

/** What the holder of a claim is told without asking. */
export const CLAIM = noun("claim", {
  description: "What the holder of a claim of batches is told about it.",
  methods: {},
  notifications: {
    cancelling: notification({
      summary: "The work of a claim of this connection is to be stopped",
      description:
        "Sent to the connection that claimed or renewed it last. A completion before the end of the grace still counts; to give the claim back, or the end of the grace, cancels the batches that are named.",
      params: z.strictObject({
        claimId,
        queue,
        batchIds: z.array(batchId).meta({ description: "The batches of the claim that are cancelled." }),
        reason: why,
        graceMs: duration.meta({ description: "How many milliseconds are left until the claim is lost." }),
      }),
      example: {
        name: "Nobody needs the thumbnail any more",
        params: {
          claimId: CLAIM_ID,
          queue: "thumbnails",
          batchIds: [BATCH_ID],
          reason: "the image was deleted",
          graceMs: 30_000,
        },
      },
    }),

    lost: notification({
      summary: "A claim of this connection has ended, and not by its holder: stop the work",
      params: z.strictObject({
        claimId,
        queue,
        batchIds: z.array(batchId).meta({ description: "The batches of the claim." }),
        cause: z
          .enum(["cancelled", "expired", "disconnected", "lease_ended"])
          .meta({ description: `How it ended. ${EXPIRED}` }),
        reason: why,
      }),
      example: {
        name: "The grace is over",
        params: {
          claimId: CLAIM_ID,
          queue: "thumbnails",
          batchIds: [BATCH_ID],
          cause: "cancelled",
          reason: "the image was deleted",
        },
      },
    }),
  },
});
