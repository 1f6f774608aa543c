import type { JsonSchema } from "./published-schemas.js";
import type { Document } from "./typescript.js";

/** The shapes that the clients of other languages have by name; those that they refer to come with them. */
const SHAPES = [
  "NumberedId",
  "SequenceReserveResult",
  "QueueEnqueueResult",
  "QueueRenewResult",
  "Claim",
  "Lease",
  "Reservation",
  "CommandExecuteParams",
];

type Schemas = Document["components"]["schemas"];

/** A member of a shape, with what a type of it depends on. */
interface Member {
  readonly name: string;
  readonly schema: JsonSchema;
  readonly required: boolean;
  /** True if its value may be null. */
  readonly nullable: boolean;
}

/** The shapes, each after those that it refers to. */
function shapesOf(schemas: Schemas): [name: string, schema: JsonSchema, members: Member[]][] {
  const found = new Set<string>();
  const add = (name: string): void => {
    const schema = schemas[name];
    if (schema === undefined || found.has(name)) return;
    for (const [, referred] of JSON.stringify(schema).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      add(referred as string);
    }
    if (schema.properties !== undefined) found.add(name);
  };
  SHAPES.forEach(add);
  return [...found].map((name) => {
    const schema = schemas[name] as JsonSchema;
    const members = Object.entries(schema.properties ?? {}).map(([member, whole]): Member => {
      const either = (whole.anyOf ?? [whole]) as JsonSchema[];
      const others = either.filter(({ type }) => type !== "null");
      return {
        name: member,
        schema: others.length === 1 ? (others[0] as JsonSchema) : {},
        required: (schema.required ?? []).includes(member),
        nullable: others.length < either.length,
      };
    });
    return [name, schema, members];
  });
}

/** The shapes as types of Python 3.9, which has no `NotRequired`: what is optional is in the heir of what is not. */
export function pythonTypesOf({ components: { schemas } }: Document): string {
  const shapes = shapesOf(schemas);
  const known = new Set(shapes.map(([name]) => name));
  const typeOf = (schema: JsonSchema): string => {
    const reference = referred(schema, known);
    if (reference !== undefined) return reference;
    const { type, items, additionalProperties: values } = schema as JsonSchema & { items?: JsonSchema };
    if (type === "array") return `List[${typeOf(items ?? {})}]`;
    if (type === "object")
      return `Dict[str, ${typeof values === "object" ? typeOf(values as JsonSchema) : "Any"}]`;
    return { string: "str", integer: "int", number: "float", boolean: "bool" }[String(type)] ?? "Any";
  };
  const classOf = (name: string, bases: string, doc: string, members: Member[]): string =>
    [
      `\n\nclass ${name}(${bases}):\n`,
      doc === "" ? "" : `    """${doc}"""\n\n`,
      ...members.map((member) => {
        const type = typeOf(member.schema);
        return `    ${member.name}: ${member.nullable && type !== "Any" ? `Optional[${type}]` : type}\n`;
      }),
    ].join("");
  return [
    '"""The shapes of results, as they travel. Made from the nouns by `npm run openrpc`, not by hand."""\n\n',
    "from typing import Any, Dict, List, Optional, TypedDict\n",
    ...shapes.map(([name, { description = "" }, members]) => {
      const [required, optional] = [true, false].map((is) =>
        members.filter((member) => member.required === is),
      );
      if (optional?.length === 0) return classOf(name, "TypedDict", description, required ?? []);
      if (required?.length === 0) return classOf(name, "TypedDict, total=False", description, optional ?? []);
      return [
        classOf(`_${name}`, "TypedDict", "", required ?? []),
        classOf(name, `_${name}, total=False`, description, optional ?? []),
      ].join("");
    }),
  ].join("");
}

/** The shapes as types of Go; what is optional or may be null is a pointer if it has no empty value of its own. */
export function goTypesOf({ components: { schemas } }: Document): string {
  const shapes = shapesOf(schemas);
  const known = new Set(shapes.map(([name]) => name));
  const typeOf = (schema: JsonSchema): string => {
    const reference = referred(schema, known);
    if (reference !== undefined) return goName(reference);
    const { type, items, additionalProperties: values } = schema as JsonSchema & { items?: JsonSchema };
    if (type === "array") return `[]${typeOf(items ?? {})}`;
    if (type === "object" && typeof values === "object") return `map[string]${typeOf(values as JsonSchema)}`;
    return (
      { string: "string", integer: "int64", number: "float64", boolean: "bool" }[String(type)] ??
      "json.RawMessage"
    );
  };
  return [
    "// Made from the nouns by `npm run openrpc`, not by hand.\n\n",
    'package pawl\n\nimport "encoding/json"\n',
    ...shapes.map(([name, { description = "" }, members]) => {
      const rows = members.map((member): [string, string, string] => {
        const type = typeOf(member.schema);
        const empty = type === "json.RawMessage" || /^(\[\]|map)/.test(type);
        const pointer = !empty && (member.nullable || (!member.required && known.has(type)));
        return [goName(member.name), `${pointer ? "*" : ""}${type}`, `\`json:"${member.name}"\``];
      });
      // As gofmt has it: names and types in columns.
      const widths = [0, 1].map((column) => Math.max(...rows.map((row) => (row[column] as string).length)));
      return [
        `\n// ${goName(name)}: ${description}\n`,
        `type ${goName(name)} struct {\n`,
        ...rows.map(
          ([field, type, tag]) =>
            `\t${field.padEnd(widths[0] as number)} ${type.padEnd(widths[1] as number)} ${tag}\n`,
        ),
        "}\n",
      ].join("");
    }),
  ].join("");
}

/** The name of the shape that a schema refers to, if it is one of these. */
function referred({ $ref }: JsonSchema, known: ReadonlySet<string>): string | undefined {
  const name = $ref?.split("/").at(-1);
  return name !== undefined && known.has(name) ? name : undefined;
}

/** `batchId` as `BatchID`. */
function goName(name: string): string {
  return (name.slice(0, 1).toUpperCase() + name.slice(1)).replace(/Id(?=$|[A-Z])/, "ID");
}
