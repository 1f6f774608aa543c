import { z } from "zod";
import { MAX_TRANSACT_CALLS, MAX_TRANSACT_GUARDS } from "./limits.js";
import { method, noun } from "./method.js";
import { integer, json, label, leaseName, named, text } from "./schemas.js";

/**
 * Not `z.record`, which drops a key named __proto__ before the method could refuse it. An empty array is none, as it is
 * for a request.
 */
const anyParams = z
  .unknown()
  .refine(
    (value) => typeof value === "object" && value !== null && (!Array.isArray(value) || value.length === 0),
    { message: "must be an object" },
  )
  .meta({ type: "object" }) as unknown as z.ZodType<Record<string, unknown>, Record<string, unknown>>;

const call = named(
  "TransactCall",
  "One call of a transaction.",
  z.strictObject({
    method: text.meta({ description: "Any method with `x-transactable`." }),
    params: anyParams.optional().meta({
      description:
        'Its params. `{"$result": "/0/id"}`, anywhere in them, stands for a value of an earlier call: a JSON Pointer (RFC 6901) into `results`.',
    }),
  }),
);

/** Not a union, of which a refusal could only say that neither half fits. */
const guard = named(
  "TransactGuard",
  "A grant that has to be held for the transaction to be performed: one of the three.",
  z
    .strictObject({
      lease: named(
        "LeaseGuard",
        "A lease, held and with this token.",
        z.strictObject({
          name: leaseName.meta({ description: "The name that the lease is for." }),
          fencingToken: integer.meta({ description: "The token that it was granted with." }),
        }),
      ).optional(),
      claim: named(
        "ClaimGuard",
        "A claim, neither expired, nor ended, nor taken over.",
        z.strictObject({
          claimId: label.meta({ description: "The claim." }),
          leaseToken: label.meta({ description: "Its secret." }),
        }),
      ).optional(),
      path: named(
        "PathGuard",
        "A reservation of paths, held and with this token.",
        z.strictObject({
          reservationId: label.meta({ description: "Its secret." }),
          fencingToken: integer.meta({ description: "The token that it was granted with last." }),
        }),
      ).optional(),
    })
    .refine((given) => Object.values(given).filter((each) => each !== undefined).length === 1, {
      message: "must have one of `lease`, `claim` and `path`",
    }),
);

export const TRANSACT = noun("transact", {
  description: "Several calls in one transaction.",
  methods: {
    transact: method({
      summary: "Perform several calls in one transaction: all of them or none",
      description:
        "Guards are checked first. The first call that is refused undoes all before it, and its refusal is the answer, with `details.index`. The calls name at most 1,000 batches, changes and items in all; more is `invalid_params` before anything is begun.",
      params: z.strictObject({
        calls: z.array(call).min(1).max(MAX_TRANSACT_CALLS).meta({ description: "Performed in this order." }),
        guards: z
          .array(guard)
          .max(MAX_TRANSACT_GUARDS)
          .default([])
          .meta({ description: "Checked first, in the same transaction." }),
        dryRun: z.boolean().default(false).meta({
          description:
            "Perform all, answer what would have been answered, and undo it. Each secret that is granted (leaseToken, leaseId, reservationId) is then the text `dry-run`, also where `$result` refers to it.",
        }),
      }),
      result: z.strictObject({
        results: z.array(json).meta({ description: "The result of each call, in their order." }),
      }),
      writes: true,
      repeatable: false,
      transactable: false,
      composed: true,
      raw: [["calls", "*", "params"]],
      errors: ["lease_lost", "claim_lost", "method_not_found"],
      examples: [
        {
          name: "Take an id and raise another counter to it",
          params: {
            calls: [
              { method: "sequence.next", params: { type: "TASK" } },
              { method: "sequence.advance", params: { type: "BUG", to: { $result: "/0/seq" } } },
            ],
          },
          result: {
            results: [
              { type: "TASK", seq: 1, id: "TASK-001" },
              { type: "BUG", seq: 1 },
            ],
          },
        },
        {
          name: "See what would happen",
          params: { calls: [{ method: "sequence.next", params: { type: "TASK" } }], dryRun: true },
          result: { results: [{ type: "TASK", seq: 2, id: "TASK-002" }] },
        },
      ],
    }),
  },
});
