import { z } from "zod";
import { MAX_ID_LENGTH } from "./limits.js";
import { method, noun } from "./method.js";

export const RPC = noun("rpc", {
  description: "The contract itself.",
  methods: {
    discover: method({
      summary: "The OpenRPC document of every method",
      params: z.strictObject({}),
      result: z.record(z.string(), z.unknown()),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "Its beginning",
          params: {},
          result: { openrpc: "1.3.2", info: { title: "pawl", version: "0.1.0" }, methods: [] },
        },
      ],
    }),

    cancel: method({
      summary: "End all requests of this connection with an id that still wait, also within a batch",
      description:
        "They are answered with `cancelled`, and have been granted nothing. It acts in its place in the order of the requests: one that has been answered by then, or is granted something in the same turn before it, keeps that. A request that is done in steps does not wait, and goes on. The notification `$/cancelRequest` with the same params does the same.",
      params: z.strictObject({
        id: z
          .union([z.string().max(MAX_ID_LENGTH), z.number(), z.null()], {
            error: "must be the id of a request: a string, a number or null",
          })
          .meta({ description: "The id of the requests, as they were sent." }),
      }),
      result: z.strictObject({
        cancelled: z.boolean().meta({ description: "False if no request with this id waited." }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [{ name: "A request that waits no more", params: { id: 17 }, result: { cancelled: false } }],
    }),
  },
});
