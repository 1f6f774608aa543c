import { z } from "zod";
import { ERRORS, type ErrorKind } from "./errors.js";
import type { Method } from "./method.js";
import { METHODS, NOTIFICATIONS, REQUESTS } from "./methods.js";

/** Refusals that any method can give, so they are not repeated at each. */
const COMMON_ERRORS: readonly ErrorKind[] = ["invalid_params", "unavailable", "forbidden", "internal"];

/**
 * The OpenRPC 1.3 document (https://spec.open-rpc.org) of every method, from the schemas that validate.
 * `x-writes` tells whether a read-only socket refuses the method, `x-transactable` whether `transact` takes it.
 */
export function openrpc(version: string): Record<string, unknown> {
  return {
    openrpc: "1.3.2",
    info: {
      title: "pawl",
      version,
      description: "Sequences, queues, commands, write leases and a merging board, over a Unix socket.",
      license: { name: "MIT" },
    },
    methods: METHODS.map(describeMethod),
    // OpenRPC has no place for what a server asks, nor for what it sends by itself.
    "x-requests": REQUESTS.map(describeMethod),
    "x-notifications": NOTIFICATIONS.map(({ name, summary, params }) => {
      const { $schema: _, ...schema } = z.toJSONSchema(params, { io: "output" });
      return { name, summary, params: schema };
    }),
    components: {
      errors: Object.fromEntries(
        Object.entries(ERRORS).map(([kind, { code, when, retryable }]) => [
          kind,
          { code, message: when, data: { kind, retryable } },
        ]),
      ),
    },
  };
}

function describeMethod(method: Method): Record<string, unknown> {
  const params = z.toJSONSchema(method.params, { io: "input" }) as {
    properties?: Record<string, unknown>;
    required?: string[];
  };
  const { $schema: _, ...result } = z.toJSONSchema(method.result, { io: "output" });
  const kinds: readonly ErrorKind[] = [
    ...(method.writes ? (["read_only"] as const) : []),
    ...method.errors,
    // Of too many that wait.
    ...("waitMs" in (params.properties ?? {}) ? (["exhausted"] as const) : []),
    ...COMMON_ERRORS,
  ];
  return {
    name: method.name,
    summary: method.summary,
    ...(method.description === undefined ? {} : { description: method.description }),
    paramStructure: "by-name",
    params: Object.entries(params.properties ?? {}).map(([name, schema]) => ({
      name,
      required: params.required?.includes(name) ?? false,
      schema,
    })),
    result: { name: "result", schema: result },
    errors: [...new Set(kinds)].map((kind) => ({ $ref: `#/components/errors/${kind}` })),
    ...(method.examples === undefined
      ? {}
      : {
          examples: method.examples.map((example) => ({
            name: example.name,
            params: Object.entries(example.params as object).map(([name, value]) => ({ name, value })),
            result: { name: "result", value: example.result },
          })),
        }),
    "x-writes": method.writes,
    "x-transactable": method.transactable,
  };
}
