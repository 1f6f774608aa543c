import { type PawlError, refuse, shown } from "@pawl/protocol/errors";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

/** A container whose beginning is written and whose members up to `next` are. */
interface Open {
  readonly container: readonly Json[] | { readonly [name: string]: Json };
  /** Sorted names of an object's members; undefined for an array. */
  readonly names: readonly string[] | undefined;
  readonly length: number;
  next: number;
}

const SURROGATE = /\p{Surrogate}/u;

/**
 * The one text of a JSON value: RFC 8785, members sorted by UTF-16 code units, numbers and strings as
 * ECMAScript writes them. What would have no single form in every language is refused with `bad_value`: -0,
 * integers beyond 2^53 - 1, numbers that are not finite, lone surrogates in strings and in member names.
 *
 * It does not recurse: a received body may be nested as deeply as its size allows.
 */
export function canonical(value: Json): string | PawlError {
  let text = "";
  const open: Open[] = [];
  let current = value;
  for (;;) {
    if (typeof current === "string") {
      if (SURROGATE.test(current)) return loneSurrogate(current);
      text += JSON.stringify(current);
    } else if (typeof current === "number") {
      const refused = refuseNumber(current);
      if (refused !== undefined) return refused;
      text += JSON.stringify(current);
    } else if (current === null || typeof current === "boolean") {
      text += String(current);
    } else if (Array.isArray(current)) {
      text += "[";
      open.push({ container: current, names: undefined, length: current.length, next: 0 });
    } else if (typeof current === "object") {
      // The default order of `sort` is that of UTF-16 code units, which is what RFC 8785 asks for.
      const names = Object.keys(current).sort();
      text += "{";
      open.push({ container: current, names, length: names.length, next: 0 });
    } else {
      return refuse("bad_value", `A value of type ${typeof current} has no JSON form.`);
    }

    // Close what is complete, then go on with the next member of what is not.
    let inner = open.at(-1);
    while (inner !== undefined && inner.next === inner.length) {
      text += inner.names === undefined ? "]" : "}";
      open.pop();
      inner = open.at(-1);
    }
    if (inner === undefined) return text;
    if (inner.next > 0) text += ",";
    if (inner.names === undefined) {
      current = (inner.container as readonly Json[])[inner.next] as Json;
    } else {
      const name = inner.names[inner.next] as string;
      if (SURROGATE.test(name)) return loneSurrogate(name);
      text += `${JSON.stringify(name)}:`;
      current = (inner.container as { readonly [name: string]: Json })[name] as Json;
    }
    inner.next += 1;
  }
}

function refuseNumber(value: number): PawlError | undefined {
  if (Object.is(value, -0)) return refuse("bad_value", "-0 has no form of its own in JSON; write 0.");
  if (!Number.isFinite(value)) return refuse("bad_value", `${value} is not a JSON number.`);
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return refuse("bad_value", `The integer ${value} is beyond 2^53 - 1, where readers of JSON disagree.`);
  }
  return undefined;
}

function loneSurrogate(value: string): PawlError {
  return refuse("bad_value", `The text ${shown(value)} holds a lone surrogate, which UTF-8 cannot express.`);
}
