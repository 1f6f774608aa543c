import { METHODS, type Method, type MethodName } from "@pawl/protocol";
import { EACH, Scanner } from "@pawl/protocol/json-text";
import { MAX_ID_LENGTH } from "@pawl/protocol/limits";
import type { z } from "zod";

/**
 * Where in a value there is JSON that is kept as the text it was sent as: `whole` is such JSON itself, `each` is in all
 * elements or members, `names` in members of these names. `calls` are calls of other methods, each with its own.
 */
interface Kept {
  readonly whole?: boolean;
  readonly each?: Kept | undefined;
  readonly names?: ReadonlyMap<string, Kept>;
  readonly calls?: boolean;
}

/** Stands for an array or object that is kept as its text, where any JSON may stand. */
const STAND_IN = "0";

/**
 * The text of a request without the arrays and objects in its params that are kept as text. Nobody looks at the values
 * of those, which would take fifty times as much memory, and five times as long as reading the text does.
 *
 * @param json must be JSON that `JSON.parse` takes.
 * @returns undefined if the text is no request.
 */
export function withoutKept(json: string): string | undefined {
  const request = placesOf(json, ["method", "params"]);
  if (request === undefined) return undefined;
  const [method, params] = request;
  if (method === undefined) return undefined;
  if (params === undefined) return json;
  const kept = methodAt(json, method);
  if (kept === undefined) return json;
  const shortened = new Shortened(json, params.from);
  shortened.passParams(kept);
  return shortened.text;
}

/** The text of a request without its params, and without members that are no part of a request. */
export function withoutParams(json: string): string {
  const names = ["jsonrpc", "id", "method"];
  const places = placesOf(json, names) ?? [];
  const members = places.flatMap((place, index) => {
    if (place === undefined) return [];
    const { from, to } = place;
    // None that is right is so long.
    return [`"${names[index]}":${to - from > MAX_MEMBER_LENGTH ? "{}" : json.slice(from, to)}`];
  });
  return `{${members.join(",")}}`;
}

/** An id has 1,024 characters at most, each of which may be escaped. */
const MAX_MEMBER_LENGTH = 6 * MAX_ID_LENGTH + 2;

interface Place {
  readonly from: number;
  readonly to: number;
}

/** Where the values of members of an object are, of members of one name the last. */
function placesOf(json: string, names: readonly string[], from = 0): (Place | undefined)[] | undefined {
  const places: (Place | undefined)[] = names.map(() => undefined);
  const scanner = new Scanner(json);
  if (from > 0) scanner.at = from;
  if (json[scanner.at] !== "{") return undefined;
  for (let more = scanner.enter(); more; more = scanner.next()) {
    const index = names.indexOf(scanner.takeName());
    const begin = scanner.at;
    const { length } = scanner.takeValue();
    if (index !== -1) places[index] = { from: begin, to: begin + length };
  }
  return places;
}

function methodAt(json: string, { from, to }: Place): Kept | undefined {
  const name: unknown = JSON.parse(json.slice(from, to));
  return typeof name === "string" ? keptBy(name) : undefined;
}

/** A text on its way to one in which what is kept is short. */
class Shortened {
  readonly #json: string;
  readonly #scanner: Scanner;
  #done = "";
  #copied = 0;

  /** @param at where the params begin. */
  constructor(json: string, at: number) {
    this.#json = json;
    this.#scanner = new Scanner(json);
    this.#scanner.at = at;
  }

  get text(): string {
    return this.#done + this.#json.slice(this.#copied);
  }

  passParams(kept: Kept | undefined): void {
    const scanner = this.#scanner;
    const isObject = this.#json[scanner.at] === "{";
    const isArray = this.#json[scanner.at] === "[";
    if (kept === undefined || !(isObject || isArray)) return scanner.skipValue();
    if (kept.whole === true) return this.#leaveOut();
    if (kept.calls === true && isObject) return this.#passCall();
    if (isArray && kept.each === undefined) return scanner.skipValue();
    for (let more = scanner.enter(); more; more = scanner.next()) {
      const name = isObject ? scanner.takeName() : undefined;
      this.passParams(kept.each ?? kept.names?.get(name as string));
    }
  }

  #passCall(): void {
    const from = this.#scanner.at;
    const [method] = placesOf(this.#json, ["method"], from) as (Place | undefined)[];
    const params = method === undefined ? undefined : methodAt(this.#json, method);
    this.passParams(params === undefined ? {} : { names: new Map([["params", params]]) });
  }

  #leaveOut(): void {
    const from = this.#scanner.at;
    const { length } = this.#scanner.takeValue();
    this.#done += this.#json.slice(this.#copied, from) + STAND_IN;
    this.#copied = from + length;
  }
}

const known = new Map<string, Kept | undefined>();

function keptBy(name: string): Kept | undefined {
  if (known.size === 0) for (const method of METHODS) known.set(method.name, keptOf(method));
  return known.get(name);
}

function keptOf(method: Method): Kept | undefined {
  if (method.name === ("transact" satisfies MethodName)) return CALLS;
  return merged((method.raw ?? []).map((path) => atPath(method.params, path)));
}

const CALLS: Kept = { names: new Map([["calls", { each: { calls: true } }]]) };

function atPath(schema: z.ZodType, [step, ...rest]: readonly string[]): Kept | undefined {
  if (step === undefined) return within(schema);
  const { shape, element } = unwrapped(schema);
  const next = step === EACH ? element : shape?.[step];
  const kept = next === undefined ? undefined : atPath(next, rest);
  if (kept === undefined) return undefined;
  return step === EACH ? { each: kept } : { names: new Map([[step, kept]]) };
}

/** Any JSON may stand where it is kept as its text. */
function within(schema: z.ZodType): Kept | undefined {
  const { type, shape, element, valueType, options } = unwrapped(schema);
  if (type === "unknown") return { whole: true };
  if (options !== undefined) return merged(options.map(within));
  const each = element ?? valueType;
  if (each !== undefined) return { each: within(each) };
  const members = Object.entries(shape ?? {}).map(([name, member]) => [name, within(member)] as const);
  return { names: new Map(members.filter((member): member is [string, Kept] => member[1] !== undefined)) };
}

function merged(all: readonly (Kept | undefined)[]): Kept | undefined {
  const names = all.flatMap((kept) => [...(kept?.names ?? [])]);
  return names.length === 0 ? all[0] : { names: new Map(names) };
}

/** The parts of a schema that say what is in its values. */
type Definition = Readonly<{
  type: string;
  shape?: Readonly<Record<string, z.ZodType>>;
  element?: z.ZodType;
  valueType?: z.ZodType;
  options?: readonly z.ZodType[];
  innerType?: z.ZodType;
  /** Of what is checked before. */
  out?: z.ZodType;
}>;

function unwrapped(schema: z.ZodType): Definition {
  const definition = schema._zod.def as unknown as Definition;
  const inner = definition.innerType ?? definition.out;
  return inner === undefined ? definition : unwrapped(inner);
}
