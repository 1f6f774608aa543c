import type { JsonSchema } from "./published-schemas.js";

/** The parts of the OpenRPC document that types are made from. */
export interface Document {
  readonly methods: readonly {
    readonly name: string;
    readonly summary: string;
    readonly description?: string;
    readonly params: readonly { readonly required: boolean }[];
    readonly result?: { readonly schema: JsonSchema };
    readonly "x-direction": string;
    readonly "x-params": JsonSchema;
  }[];
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>;
    readonly tags: Readonly<Record<string, { readonly description: string }>>;
    readonly errors: Readonly<Record<string, { readonly message: string; readonly data: JsonSchema }>>;
  };
}

/** Columns of a comment. */
const COLUMNS = 116;

/**
 * The document as types of TypeScript, with its descriptions as comments: a source without schemas, which clients take
 * their types from. `Methods` has the calls by noun, `CallTypes` all by name.
 */
export function typesOf({ methods, components }: Document): string {
  const calls = methods.filter((method) => method["x-direction"] === "toDaemon");
  const notifications = methods.filter(
    (method) => method["x-direction"] === "toClient" && method.result === undefined,
  );
  const nouns = Object.entries(components.tags).filter(([noun]) =>
    calls.some(({ name }) => name.startsWith(`${noun}.`)),
  );
  const byName = (each: Document["methods"][number]): string =>
    `  "${each.name}": { params: ${typeOf(each["x-params"])}; result: ${typeOf(each.result?.schema ?? {})} };\n`;
  return [
    "// Made from the nouns by `npm run openrpc`, not by hand.\n\n",
    ...Object.entries(components.schemas).map(declaration),
    "/** The params and the result of each method. */\n",
    "export interface CallTypes {\n",
    ...calls.map(byName),
    "}\n\n/** The params of each notification. */\nexport interface NotificationTypes {\n",
    ...notifications.map((each) => `  "${each.name}": ${typeOf(each["x-params"])};\n`),
    "}\n\n/** `error.data` by kind. */\nexport interface ErrorDataTypes {\n",
    ...Object.entries(components.errors).map(
      ([kind, { message, data }]) =>
        `${comment(`${message.slice(0, 1).toUpperCase()}${message.slice(1)}.`, "  ")}  ${kind}: ${typeOf(data)};\n`,
    ),
    "}\n\n",
    ...nouns.map(([noun, { description }]) =>
      [
        comment(description, ""),
        `export interface ${typeName(noun)}Methods<Options> {\n`,
        ...calls
          .filter(({ name }) => name.startsWith(`${noun}.`))
          .map(({ name, summary, description: more, params, result, "x-params": whole }) => {
            const text = comment(`${summary}.${more === undefined ? "" : ` ${more}`}`, "  ");
            const given = `params${params.some(({ required }) => required) ? "" : "?"}: `;
            const signature = (of: string, answer: string): string =>
              `  ${name.slice(noun.length + 1)}(${given}${of}, options?: Options): Promise<${answer}>;\n`;
            const [of, answer] = [typeOf(whole), typeOf(result?.schema ?? {})];
            if (name !== "lease.acquire") return text + signature(of, answer);
            const several = signature("SeveralNames", "SeveralLeases");
            return text + several + text + signature(of, "OneLease");
          }),
        "}\n\n",
      ].join(""),
    ),
    "/** Every method that has a noun, by it. */\nexport interface Methods<Options> {\n",
    ...nouns.map(
      ([noun, { description }]) =>
        `${comment(description, "  ")}  readonly ${noun}: ${typeName(noun)}Methods<Options>;\n`,
    ),
    "}\n\n",
    "export type MethodName = keyof CallTypes;\n",
    "/** The params as a caller sends them. */\n",
    'export type Params<N extends MethodName> = CallTypes[N]["params"];\n',
    "/** The result that a caller gets. */\n",
    'export type Result<N extends MethodName> = CallTypes[N]["result"];\n',
    "/** What `lease.acquire` takes for several names. */\n",
    'export type SeveralNames = Params<"lease.acquire"> & { names: string[] };\n',
    "export type NotificationName = keyof NotificationTypes;\n",
    "/** The params of a notification. */\n",
    "export type NotificationParams<N extends NotificationName> = NotificationTypes[N];\n",
  ].join("");
}

function declaration([name, schema]: readonly [string, JsonSchema]): string {
  const { description, properties } = schema;
  const head = description === undefined ? "" : comment(description, "");
  return properties === undefined
    ? `${head}export type ${name} = ${typeOf(schema)};\n\n`
    : `${head}export type ${name} = ${membersOf(schema)};\n\n`;
}

function membersOf({ properties = {}, required = [] }: JsonSchema): string {
  const members = Object.entries(properties).map(([name, schema]) => {
    const isRequired = required.includes(name);
    const type = `${isRequired ? ":" : "?:"} ${typeOf(schema)}${isRequired ? "" : " | undefined"}`;
    return `${schema.description === undefined ? "" : comment(schema.description, "  ")}  ${name}${type};\n`;
  });
  return members.length === 0 ? "{}" : `{\n${members.join("")}}`;
}

function typeOf(schema: JsonSchema): string {
  const { $ref, allOf, anyOf, oneOf, items, type, properties } = schema as JsonSchema & {
    readonly [K in "allOf" | "anyOf" | "oneOf"]?: readonly JsonSchema[];
  } & { readonly items?: JsonSchema };
  if ($ref !== undefined) return $ref.split("/").at(-1) as string;
  if ("const" in schema) return JSON.stringify(schema.const);
  if (Array.isArray(schema.enum)) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (allOf !== undefined) return allOf.map(typeOf).join(" & ");
  const either = anyOf ?? oneOf;
  if (either !== undefined) return either.map(typeOf).join(" | ");
  if (Array.isArray(type)) return type.map((each: string) => typeOf({ ...schema, type: each })).join(" | ");
  if (type === "array") return `(${typeOf(items ?? {})})[]`.replace(/^\((\w+)\)/, "$1");
  if (type === "integer") return "number";
  if (type !== "object") return type ?? "unknown";
  if (properties !== undefined) return membersOf(schema);
  const value = schema.additionalProperties;
  return `Record<string, ${typeof value === "object" ? typeOf(value as JsonSchema) : "unknown"}>`;
}

/** A comment, in one line if it fits. */
function comment(text: string, indent: string): string {
  const safe = text.replaceAll("*/", "*\\/");
  if (indent.length + safe.length + 7 <= COLUMNS) return `${indent}/** ${safe} */\n`;
  const lines = [""];
  for (const word of safe.split(" ")) {
    const line = lines.at(-1) as string;
    if (line !== "" && indent.length + 3 + line.length + 1 + word.length > COLUMNS) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}\n`).join("")}${indent} */\n`;
}

function typeName(noun: string): string {
  return noun.slice(0, 1).toUpperCase() + noun.slice(1);
}
