import { z } from "zod";
import { method, noun } from "./method.js";

export const RPC = noun("rpc", {
  methods: {
    discover: method({
      summary: "The OpenRPC document of every method",
      params: z.strictObject({}),
      result: z.record(z.string(), z.unknown()),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
    }),
  },
});
