import { z } from "zod";
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
  },
});
