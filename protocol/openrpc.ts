import { z } from "zod";
import { ERROR_DETAILS } from "./error-details.js";
import { ERRORS, type ErrorKind } from "./errors.js";
import type { Method } from "./method.js";
import { METHODS, NOTIFICATIONS, NOUNS, REQUESTS } from "./methods.js";
import { type JsonSchema, PublishedSchemas } from "./published-schemas.js";
import { named } from "./schemas.js";

/** Refusals that any method can give, so they are not repeated at each. */
const COMMON_ERRORS: readonly ErrorKind[] = ["invalid_params", "unavailable", "forbidden", "internal"];

/** `error.data` by kind. */
const ERROR_DATA = Object.fromEntries(
  (Object.keys(ERRORS) as ErrorKind[]).map((kind) => [
    kind,
    named(
      `${upperCamelCase(kind)}Data`,
      `\`error.data\` of the kind ${kind}: ${ERRORS[kind].when}.`,
      z.strictObject({
        kind: z.literal(kind).meta({ description: "The kind of the error, for programs to match on." }),
        retryable: z.boolean().meta({
          description: "True if the same request may succeed later without anything being changed in it.",
        }),
        ...ERROR_DETAILS[kind].shape,
      }),
    ),
  ]),
) as unknown as Record<ErrorKind, z.ZodType>;

const methods: readonly Method[] = METHODS;
const requests: readonly Method[] = REQUESTS;

const schemas = new PublishedSchemas({
  params: [...methods.map(({ params }) => params), ...requests.map(({ result }) => result)],
  results: [
    ...methods.map(({ result }) => result),
    ...requests.map(({ params }) => params),
    ...NOTIFICATIONS.map(({ params }) => params),
    ...Object.values(ERROR_DATA),
  ],
});

/**
 * The OpenRPC 1.3 document (https://spec.open-rpc.org) of all that travels, from the schemas that validate. It is made
 * for the tools of other languages: each object with a name is one schema under `components.schemas`.
 *
 * - `x-direction`: `toDaemon` for what clients call; `toClient` for what the daemon sends to them, a request if it
 *   has a result, else a notification.
 * - `x-params`: the params as one object, of which `params` has the members.
 * - `x-writes`: a read-only socket refuses the method. `x-transactable`: `transact` takes it.
 * - `x-repeatable`: a client may send it again after a lost answer, always (`true`) or if the param `withKey` is given
 *   (in each element of `ofEach`).
 */
export function openrpc(version: string): Record<string, unknown> {
  return {
    openrpc: "1.3.2",
    info: {
      title: "pawl",
      version,
      description: "Sequences, queues, commands, leases and a merging board, over a Unix socket.",
      license: { name: "MIT" },
    },
    methods: [
      ...methods.map((method) => ({ ...describeCall(method, "toDaemon"), ...traits(method) })),
      ...requests.map((request) => describeCall(request, "toClient")),
      ...NOTIFICATIONS.map((notification) => {
        const { name, params, example } = notification;
        return {
          ...head(notification),
          ...describeParams(name, schemas.of(params, "results")),
          examples: [{ name: example.name, params: exampleParams(example.params) }],
          "x-direction": "toClient",
        };
      }),
    ],
    components: {
      schemas: components(),
      tags: Object.fromEntries(NOUNS.map(({ noun, description }) => [noun, { name: noun, description }])),
      errors: Object.fromEntries(
        Object.entries(ERRORS).map(([kind, { code, when }]) => [
          kind,
          { code, message: when, data: schemas.of(ERROR_DATA[kind as ErrorKind], "results") },
        ]),
      ),
    },
  };
}

/** The name of the schema of the params, or of the result, of a method: `QueueClaimParams`. */
function schemaName(method: string, what: "Params" | "Result"): string {
  return upperCamelCase(method) + what;
}

/** The schema of `error.data` of a kind. */
export function errorDataSchema(kind: ErrorKind): z.ZodType {
  return ERROR_DATA[kind];
}

/** The kinds of refusals that a method can give. */
export function errorKinds(method: Method): ErrorKind[] {
  const waits = "waitMs" in (schemas.resolved(schemas.of(method.params, "params")).properties ?? {});
  const kinds: ErrorKind[] = [
    ...(method.writes ? (["read_only"] as const) : []),
    ...method.errors,
    // Of too many that wait, and of one whose wait is ended.
    ...(waits ? (["exhausted", "cancelled"] as const) : []),
    ...COMMON_ERRORS,
  ];
  return [...new Set(kinds)];
}

/** Every schema of the document, in the order of their names. */
function components(): Record<string, JsonSchema> {
  const whole = [
    ...methods.flatMap(({ name, params, result }) => [
      ofMethod(name, "Params", schemas.of(params, "params")),
      ofMethod(name, "Result", schemas.of(result, "results")),
    ]),
    ...requests.map(({ name, params }) => ofMethod(name, "Params", schemas.of(params, "results"))),
    ...NOTIFICATIONS.map(({ name, params }) => ofMethod(name, "Params", schemas.of(params, "results"))),
  ].filter(({ $ref }) => $ref === undefined);
  const all = [...Object.values(schemas.components), ...whole].sort((a, b) =>
    titleOf(a) < titleOf(b) ? -1 : 1,
  );
  const twice = all.find(
    (each, index) => index > 0 && titleOf(each) === titleOf(all[index - 1] as JsonSchema),
  );
  if (twice !== undefined)
    throw new Error(`Two schemas have the name ${twice.title}. Give one of them another.`);
  return Object.fromEntries(all.map((each) => [titleOf(each), each]));
}

/** The params or the result of a method under a name of their own, unless they are an object that has one. */
function ofMethod(method: string, what: "Params" | "Result", schema: JsonSchema): JsonSchema {
  if (schema.$ref !== undefined) return schema;
  const title = schemaName(method, what);
  return { title, description: `${what === "Params" ? "Params" : "Result"} of ${method}.`, ...schema };
}

function titleOf(schema: JsonSchema): string {
  return schema.title as string;
}

function reference(method: string, what: "Params" | "Result", schema: JsonSchema): JsonSchema {
  return schema.$ref === undefined ? { $ref: `#/components/schemas/${schemaName(method, what)}` } : schema;
}

function head({ name, summary, description }: { name: string; summary: string; description?: string }) {
  return {
    name,
    tags: [{ $ref: `#/components/tags/${name.split(".")[0]}` }],
    summary,
    ...(description === undefined ? {} : { description }),
  };
}

function describeCall(method: Method, direction: "toDaemon" | "toClient"): Record<string, unknown> {
  const asks = direction === "toDaemon";
  const result = schemas.of(method.result, asks ? "results" : "params");
  return {
    ...head(method),
    ...describeParams(method.name, schemas.of(method.params, asks ? "params" : "results")),
    result: {
      name: "result",
      schema: asks ? reference(method.name, "Result", result) : result,
    },
    ...(asks ? { errors: errorKinds(method).map((kind) => ({ $ref: `#/components/errors/${kind}` })) } : {}),
    examples: method.examples.map((example) => ({
      name: example.name,
      params: exampleParams(example.params),
      result: { name: "result", value: example.result },
    })),
    "x-direction": direction,
  };
}

function traits({ writes, transactable, repeatable }: Method): Record<string, unknown> {
  return {
    "x-writes": writes,
    "x-transactable": transactable,
    ...(repeatable === false ? {} : { "x-repeatable": repeatable }),
  };
}

function describeParams(method: string, schema: JsonSchema): Record<string, unknown> {
  const { properties = {}, required = [] } = schemas.resolved(schema);
  return {
    paramStructure: "by-name",
    params: Object.entries(properties).map(([name, { description, ...rest }]) => {
      const text = description ?? schemas.resolved(rest).description;
      return {
        name,
        ...(text === undefined ? {} : { description: text }),
        required: required.includes(name),
        schema: rest,
      };
    }),
    "x-params": reference(method, "Params", schema),
  };
}

function exampleParams(params: unknown): { name: string; value: unknown }[] {
  return Object.entries(params as object).map(([name, value]) => ({ name, value }));
}

function upperCamelCase(name: string): string {
  return name
    .split(/[._]/)
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join("");
}
