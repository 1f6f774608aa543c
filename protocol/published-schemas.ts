import { z } from "zod";

export interface JsonSchema {
  readonly [keyword: string]: unknown;
  readonly title?: string;
  readonly description?: string;
  readonly type?: string;
  readonly $ref?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
}

/** Params are closed, so that a typo does not pass; what the daemon sends is open, so that a member can be added. */
type Direction = "params" | "results";

type Definitions = Readonly<Record<string, JsonSchema>>;

const DEFINITIONS = "#/definitions/";
const COMPONENTS = "#/components/schemas/";

/**
 * The schemas of a document, as JSON Schema (draft 7, which OpenRPC is written in). Each object with a name stands once
 * under `components`, and is referred to. One that is in params as well as in results is there twice if its forms
 * differ: `Retry` as it is answered, `RetryInput` as it may be given.
 */
export class PublishedSchemas {
  readonly #converted = new Map<z.ZodType, JsonSchema>();
  readonly #definitions: Record<Direction, Map<string, JsonSchema>> = {
    params: new Map(),
    results: new Map(),
  };

  /** Every named object, by its name in the document. */
  readonly components: Readonly<Record<string, JsonSchema>>;

  /** @throws if two objects have one name. */
  constructor(schemas: Readonly<Record<Direction, readonly z.ZodType[]>>) {
    const directions = ["results", "params"] as const;
    for (const direction of directions) {
      for (const schema of schemas[direction]) this.#take(schema, direction);
    }
    this.components = Object.fromEntries(
      directions.flatMap((direction) =>
        [...this.#definitions[direction]].map(([name, schema]) => {
          const title = this.#nameOf(name, direction);
          return [title, this.#referring({ ...schema, title }, direction) as JsonSchema];
        }),
      ),
    );
  }

  /** The schema, with references into `components`. */
  of(schema: z.ZodType, direction: Direction): JsonSchema {
    return this.#referring(this.#converted.get(schema), direction) as JsonSchema;
  }

  /** The schema behind a reference, or the schema itself. */
  resolved(schema: JsonSchema): JsonSchema {
    const name = schema.$ref?.startsWith(COMPONENTS) ? schema.$ref.slice(COMPONENTS.length) : undefined;
    return name === undefined ? schema : (this.components[name] as JsonSchema);
  }

  #take(schema: z.ZodType, direction: Direction): void {
    const io = direction === "params" ? "input" : "output";
    const { $schema: _, definitions, ...converted } = z.toJSONSchema(schema, { target: "draft-7", io });
    const tidy = (each: unknown) =>
      published(each, direction, (definitions ?? {}) as Definitions) as JsonSchema;
    this.#converted.set(schema, tidy(converted));
    for (const [name, definition] of Object.entries(definitions ?? {})) {
      const taken = this.#definitions[direction].get(name);
      if (taken !== undefined && JSON.stringify(taken) !== JSON.stringify(tidy(definition))) {
        throw new Error(`Two schemas have the name ${name}. Give one of them another.`);
      }
      this.#definitions[direction].set(name, tidy(definition));
    }
  }

  #nameOf(name: string, direction: Direction): string {
    return direction === "params" && this.#differs(name) ? `${name}Input` : name;
  }

  /** True if an object is answered otherwise than it is given, itself or by what it refers to. */
  #differs(name: string, seen: readonly string[] = []): boolean {
    const [given, answered] = [this.#definitions.params.get(name), this.#definitions.results.get(name)];
    if (given === undefined || answered === undefined) return false;
    const text = JSON.stringify(given);
    if (text !== JSON.stringify(answered)) return true;
    return [...text.matchAll(/"#\/definitions\/(\w+)"/g)]
      .map(([, other]) => other as string)
      .some((other) => !seen.includes(other) && this.#differs(other, [...seen, name]));
  }

  #referring(value: unknown, direction: Direction): unknown {
    return mapped(value, (object) =>
      typeof object.$ref === "string" && object.$ref.startsWith(DEFINITIONS)
        ? { ...object, $ref: COMPONENTS + this.#nameOf(object.$ref.slice(DEFINITIONS.length), direction) }
        : object,
    );
  }
}

/** A converted schema without what says nothing, and open if the daemon sends it. */
function published(schema: unknown, direction: Direction, definitions: Definitions): unknown {
  return mapped(schema, ({ allOf, propertyNames, additionalProperties, ...rest }) => {
    const [only, ...others] = (allOf ?? []) as object[];
    if (only !== undefined && others.length === 0 && Object.keys(rest).length === 0) return only;
    const isOpen = additionalProperties === false && direction === "results";
    const isAnyName = JSON.stringify(propertyNames) === '{"type":"string"}';
    const description = rest.description ?? descriptionOfEither(rest.anyOf, definitions);
    const names = (propertyNames as JsonSchema | undefined)?.enum as string[] | undefined;
    if (names !== undefined && rest.required !== undefined) {
      // A record that has all of some names: as an object, which other languages can have as a type.
      const properties = Object.fromEntries(names.map((name) => [name, additionalProperties]));
      return { ...rest, properties, ...(direction === "params" ? { additionalProperties: false } : {}) };
    }
    return {
      ...rest,
      ...(description === undefined ? {} : { description }),
      ...(allOf === undefined ? {} : { allOf }),
      ...(propertyNames === undefined || isAnyName ? {} : { propertyNames }),
      ...(additionalProperties === undefined || isOpen ? {} : { additionalProperties }),
    };
  });
}

/** Of what is something or null: the description of the something. */
function descriptionOfEither(anyOf: unknown, definitions: Definitions): string | undefined {
  const [something, nothing] = (anyOf ?? []) as JsonSchema[];
  if (something === undefined || nothing?.type !== "null") return undefined;
  return something.description ?? definitions[something.$ref?.slice(DEFINITIONS.length) ?? ""]?.description;
}

/** A JSON value with each object in it replaced, the innermost first. */
function mapped(value: unknown, change: (object: Readonly<Record<string, unknown>>) => object): unknown {
  if (Array.isArray(value)) return value.map((each) => mapped(each, change));
  if (typeof value !== "object" || value === null) return value;
  return change(Object.fromEntries(Object.entries(value).map(([key, each]) => [key, mapped(each, change)])));
}
