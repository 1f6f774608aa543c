import { z } from "zod";
import { MAX_NAME_LENGTH } from "./limits.js";
import { method, noun } from "./method.js";
import { integer, limit, named } from "./schemas.js";

/** Names in composed keys: without `:`, so that no two of them make the same key. */
export const name = z
  .string()
  .min(1)
  .max(MAX_NAME_LENGTH)
  .regex(/^[A-Za-z0-9._/-]+$/, "must be letters, digits, or any of . _ / -");
export const deployment = name.meta({ description: "The receiver: a worker process, a service, an agent." });
export const projectId = name.meta({ description: "The project that the deployment belongs to." });
export const model = z
  .enum(["pull", "push"])
  .meta({ description: "How the deployment says it takes commands." });

export const DEPLOYMENT = noun("deployment", {
  description: "Receivers of commands: worker processes, services, agents.",
  methods: {
    set: method({
      summary: "Say how a deployment takes commands and what it belongs to",
      description:
        "Replaces what was said before, for commands created from then on. A deployment needs no such call: it exists by being used, as `pull` and without a project. The model is what senders are told; either way of receiving works with either.",
      params: z.strictObject({ deployment, model: model.default("pull"), projectId: projectId.optional() }),
      result: z.strictObject({
        deployment,
        model,
        projectId: projectId
          .nullable()
          .meta({ description: "The project that it belongs to; null for none." }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "An indexer of a project",
          params: { deployment: "indexer", projectId: "site" },
          result: { deployment: "indexer", model: "pull", projectId: "site" },
        },
      ],
    }),

    list: method({
      summary: "The deployments by name, who receives for them and what waits for them",
      params: z.strictObject({
        projectId: projectId.optional(),
        after: name.optional().meta({ description: "`next` of the page before." }),
        limit,
      }),
      result: z.strictObject({
        deployments: z
          .array(
            named(
              "Deployment",
              "A receiver, and what waits for it.",
              z.strictObject({
                deployment,
                model,
                projectId: projectId
                  .nullable()
                  .meta({ description: "The project that it belongs to; null for none." }),
                receivers: integer.nullable().meta({
                  description:
                    "Connections that serve it, and leases that wait for a command of it; null from a daemon that only reads (--read-only).",
                }),
                pending: integer.meta({
                  description:
                    "Commands that are PENDING; within a `transact`, of a page no more than 16,384.",
                }),
              }),
            ),
          )
          .meta({ description: "By name." }),
        next: name.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "One that nobody serves",
          params: {},
          result: {
            deployments: [
              { deployment: "indexer", model: "pull", projectId: "site", receivers: 0, pending: 0 },
            ],
          },
        },
      ],
    }),
  },
});
