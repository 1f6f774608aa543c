import * as limits from "./limits.js";
import type { Repeatable } from "./method.js";
import type { JsonSchema } from "./published-schemas.js";
import type { Document } from "./typescript.js";

/** The parts of the OpenRPC document that people read. */
export type ReferencedDocument = Omit<Document, "methods"> & {
  readonly methods: readonly (Omit<Document["methods"][number], "params"> & {
    readonly params: readonly {
      readonly name: string;
      readonly required: boolean;
      readonly description?: string;
      readonly schema: JsonSchema;
    }[];
    readonly errors?: readonly { readonly $ref: string }[];
    readonly examples: readonly {
      readonly name: string;
      readonly params: readonly { readonly name: string; readonly value: unknown }[];
      readonly result?: { readonly value: unknown };
    }[];
    readonly "x-writes"?: boolean;
    readonly "x-transactable"?: boolean;
    readonly "x-repeatable"?: Repeatable;
  })[];
  readonly components: {
    readonly errors: Readonly<Record<string, { readonly code: number }>>;
  };
};

/** The reference for people: each method, notification, object, error and limit, in Markdown. */
export function referenceOf(document: ReferencedDocument): string {
  const { methods, components } = document;
  const { schemas, tags, errors } = components;
  const own = new Set(
    methods.flatMap((method) => [method["x-params"].$ref, method.result?.schema.$ref]).map(nameOf),
  );
  const shared = Object.keys(schemas).filter((name) => !own.has(name) && !name.endsWith("Data"));
  const objects = [...shared, ...[...own].filter((name) => isShared(name, document))].sort();
  return [
    "# Reference\n\n",
    "Made from the schemas by `npm run openrpc`, not by hand: every method, notification, object, error and limit. Times\n",
    "end in `At` and are milliseconds since the Unix epoch; durations end in `Ms` and are milliseconds.\n\n",
    ...Object.entries(tags).map(([noun]) => {
      const names = methods.filter(({ name }) => name.split(".")[0] === noun).map(({ name }) => name);
      return `- ${noun}: ${names.map((name) => `[${name}](#${anchor(name)})`).join(", ")}\n`;
    }),
    "- [Objects](#objects), [errors](#errors), [limits](#limits)\n\n",
    ...Object.entries(tags).flatMap(([noun, { description }]) => [
      `## ${noun}\n\n${description}\n\n`,
      ...methods.filter(({ name }) => name.split(".")[0] === noun).map((each) => describe(each, document)),
    ]),
    "## Objects\n\n",
    ...objects.map((name) => {
      const schema = schemas[name] as JsonSchema;
      return `### ${name}\n\n${schema.description}\n\n${schema.properties === undefined ? `One of: ${typeOf(schema)}.\n\n` : members(schema, document)}`;
    }),
    "## Errors\n\n",
    "`error.data` has `kind`, `retryable` and what the last column names.\n\n",
    "| code | kind | when | details |\n|---|---|---|---|\n",
    ...Object.entries(errors).map(([kind, { code, message, data }]) => {
      const { properties = {} } = schemas[nameOf(data.$ref)] as JsonSchema;
      const details = Object.keys(properties).filter(
        (name) => !["kind", "retryable", "index", "guard"].includes(name),
      );
      return `| ${code} | \`${kind}\` | ${cell(message)} | ${details.map((name) => `\`${name}\``).join(", ")} |\n`;
    }),
    "\nWhat is part of a `transact` or of many batches has `index` or `guard` besides: which of them was refused, from 0.\n\n",
    "## Limits\n\n| limit | value |\n|---|---|\n",
    ...Object.entries(limits)
      .filter(([, value]) => typeof value === "number")
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => `| \`${name}\` | ${(value as number).toLocaleString("en-US")} |\n`),
  ].join("");
}

function describe(method: ReferencedDocument["methods"][number], document: ReferencedDocument): string {
  const { name, summary, description, params, result, errors, examples } = method;
  const schema = result?.schema;
  const resultName = nameOf(schema?.$ref);
  const answered = document.components.schemas[resultName];
  return [
    `### ${name}\n\n${summary}.${description === undefined ? "" : ` ${description}`}\n\n`,
    `${traits(method)}\n\n`,
    params.length === 0
      ? "No params.\n\n"
      : `| param | type | |\n|---|---|---|\n${params
          .map(
            (param) =>
              `| \`${param.name}\`${param.required ? "" : "?"} | ${typeOf(param.schema)} | ${cell(said(param.description, param.schema))} |\n`,
          )
          .join("")}\n`,
    schema === undefined
      ? ""
      : answered === undefined
        ? `Result: ${cell(schema.description ?? typeOf(schema))}\n\n`
        : isShared(resultName, document)
          ? `Result: ${typeOf(schema)}.\n\n`
          : members(answered, document, "result"),
    errors === undefined
      ? ""
      : `Errors: ${errors.map(({ $ref }) => `\`${$ref.split("/").at(-1)}\``).join(", ")}.\n\n`,
    ...examples.map((example) => {
      const sent = Object.fromEntries(example.params.map(({ name: param, value }) => [param, value]));
      const lines = [JSON.stringify({ method: name, params: sent })];
      if (example.result !== undefined) lines.push(JSON.stringify({ result: example.result.value }));
      return `${example.name}:\n\n${lines.map((line) => `    ${line}\n`).join("")}\n`;
    }),
  ].join("");
}

function traits(method: ReferencedDocument["methods"][number]): string {
  if (method["x-direction"] === "toClient") {
    return method.result === undefined
      ? "A notification: the daemon sends it, and it has no answer."
      : "A request of the daemon to a connection that has offered to answer it.";
  }
  const writes = method["x-writes"] ? "Writes" : "Reads";
  const again = repetition(method["x-repeatable"]);
  return `${writes}; ${again}; ${method["x-transactable"] ? "may" : "may not"} be part of a \`transact\`.`;
}

function repetition(repeatable: Repeatable | undefined): string {
  if (repeatable === undefined || repeatable === false) return "not to be sent again after a lost answer";
  const may = "may be sent again after a lost answer";
  if (repeatable === true) return may;
  const { withKey, ofEach, unless = {} } = repeatable;
  const given = ofEach === undefined ? `\`${withKey}\` is given` : `each of \`${ofEach}\` has \`${withKey}\``;
  const not = ofEach === undefined ? "is not" : "of none is";
  const others = Object.entries(unless).map(([param, values]) => {
    const named = values.map((value) => `\`${JSON.stringify(value)}\``).join(" or ");
    return ` and \`${param}\` ${not} ${named}`;
  });
  return `${may} if ${given}${others.join("")}`;
}

/** An object that several methods answer, or that others are made of, stands by itself. */
function isShared(name: string, { methods }: ReferencedDocument): boolean {
  return (
    name !== "" &&
    !methods.some(
      (method) => name === ownName(method.name, "Params") || name === ownName(method.name, "Result"),
    )
  );
}

function ownName(method: string, what: string): string {
  return (
    method
      .split(".")
      .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
      .join("") + what
  );
}

function members(schema: JsonSchema, { components }: ReferencedDocument, heading = "member"): string {
  const { properties = {}, required = [] } = schema;
  if (Object.keys(properties).length === 0) return `Result: ${cell(schema.description ?? "")}\n\n`;
  const rows = Object.entries(properties).map(([name, each]) => {
    const text = each.description ?? components.schemas[nameOf(each.$ref)]?.description;
    return `| \`${name}\`${required.includes(name) ? "" : "?"} | ${typeOf(each)} | ${cell(said(text, each))} |\n`;
  });
  return `| ${heading} | type | |\n|---|---|---|\n${rows.join("")}\n`;
}

/** A type in words, objects as links. */
function typeOf(schema: JsonSchema): string {
  const { $ref, allOf, anyOf, oneOf, items, type } = schema as JsonSchema & {
    readonly [K in "allOf" | "anyOf" | "oneOf"]?: readonly JsonSchema[];
  } & { readonly items?: JsonSchema };
  if ($ref !== undefined) return `[${nameOf($ref)}](#${anchor(nameOf($ref))})`;
  if ("const" in schema) return `\`${JSON.stringify(schema.const)}\``;
  if (Array.isArray(schema.enum))
    return schema.enum.map((each) => `\`${JSON.stringify(each)}\``).join(" or ");
  const either = allOf ?? anyOf ?? oneOf;
  if (either !== undefined) return either.map(typeOf).join(" or ");
  if (Array.isArray(type)) return type.map((each: string) => typeOf({ ...schema, type: each })).join(" or ");
  if (type === "array") return `array of ${typeOf(items ?? {})}`;
  if (type !== "object") return type ?? "any JSON";
  const value = schema.additionalProperties;
  return typeof value === "object" ? `object of ${typeOf(value as JsonSchema)}` : "object";
}

function said(description: string | undefined, schema: JsonSchema): string {
  const { minimum, maximum, minLength, maxLength, maxItems, pattern, default: fallback } = schema;
  // A pattern that "" does not match asks for a character, too.
  const shortest = minLength ?? (typeof pattern === "string" && !new RegExp(pattern, "u").test("") ? 1 : 0);
  const bounds = [
    ...(typeof maximum === "number" && maximum < Number.MAX_SAFE_INTEGER
      ? [`${minimum ?? ""} to ${maximum}`]
      : []),
    ...(typeof maxLength === "number" ? [`${shortest} to ${maxLength} characters`] : []),
    ...(typeof maxItems === "number" ? [`at most ${maxItems}`] : []),
    ...(fallback === undefined ? [] : [`default \`${JSON.stringify(fallback)}\``]),
  ];
  return `${description ?? ""}${bounds.length === 0 ? "" : ` (${bounds.join(", ")})`}`.trim();
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function nameOf(reference: string | undefined): string {
  return reference?.split("/").at(-1) ?? "";
}

function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll(".", "");
}
