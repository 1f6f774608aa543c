import type { z } from "zod";

/** The parts of a schema that can hold optional members. */
type Definition = Readonly<{
  type: string;
  /** Of an object. */
  shape?: Readonly<Record<string, z.ZodType>>;
  /** Of an optional one, or one with a default. */
  innerType?: z.ZodType;
  /** Of an array. */
  element?: z.ZodType;
  checks?: readonly { readonly _zod: { readonly def: { readonly maximum?: number } } }[];
  /** Of a union. */
  options?: readonly z.ZodType[];
}>;

/**
 * Params without each optional member that is null where its type has no null: generated clients write that for a
 * member that is not given. Values whose type has null, and values of any type, stay.
 *
 * @returns the same params if there is no such member; otherwise a copy of what is around them.
 */
export function withoutNulls(schema: z.ZodType, params: unknown): unknown {
  if (typeof params !== "object" || params === null) return params;
  const definition = schema._zod.def as unknown as Definition;
  const { shape, innerType, element, options } = definition;
  if (innerType !== undefined) return withoutNulls(innerType, params);
  if (options !== undefined) return ofUnion(options, params);
  if (shape !== undefined) return ofObject(shape, params as Record<string, unknown>);
  if (element === undefined || !Array.isArray(params)) return params;
  // One that is too long is refused whatever is in it.
  if (params.length > mostElements(definition)) return params;
  const elements = params.map((each) => withoutNulls(element, each));
  return elements.some((each, index) => each !== params[index]) ? elements : params;
}

function ofObject(shape: Readonly<Record<string, z.ZodType>>, params: Record<string, unknown>): unknown {
  let copy: Record<string, unknown> | undefined;
  for (const [name, schema] of Object.entries(shape)) {
    if (!Object.hasOwn(params, name)) continue;
    const value = params[name];
    if (value === null && isLeftOut(schema)) {
      copy ??= { ...params };
      delete copy[name];
      continue;
    }
    const without = withoutNulls(schema, value);
    if (without === value) continue;
    copy ??= { ...params };
    copy[name] = without;
  }
  return copy ?? params;
}

/** The first form that the value then has decides. */
function ofUnion(options: readonly z.ZodType[], params: object): unknown {
  for (const option of options) {
    const without = withoutNulls(option, params);
    if (takes(option, without)) return without;
  }
  return params;
}

function takes(schema: z.ZodType, value: unknown): boolean {
  return schema.safeParse(value).success;
}

/** True if a member may be left out and not be null: found once, since a thousand batches have as many nulls. */
function isLeftOut(schema: z.ZodType): boolean {
  let known = leftOut.get(schema);
  if (known === undefined) {
    known = takes(schema, undefined) && !takes(schema, null);
    leftOut.set(schema, known);
  }
  return known;
}

const leftOut = new WeakMap<z.ZodType, boolean>();

function mostElements({ checks = [] }: Definition): number {
  return Math.min(...checks.map(({ _zod: { def } }) => def.maximum ?? Number.POSITIVE_INFINITY));
}
