import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import {
  DEFAULT_LEASE_MS,
  MAX_INTEGER,
  MAX_LEASE_MS,
  MAX_NAME_LENGTH,
  MAX_WAIT_MS,
  MIN_LEASE_MS,
} from "./limits.js";

/**
 * What a method is for in the contract. `read` changes nothing in the database; `write` does; `wait` may
 * answer later (`waitMs`) and therefore cannot be in a `transact`; `local` needs no database at all.
 */
export interface Method<P extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> {
  readonly name: string;
  readonly summary: string;
  readonly description?: string;
  /** A strict object without transforms: what it accepts is what the operation gets, defaults filled in. */
  readonly params: P;
  readonly result: R;
  /** Whether it can change the database. Read-only sockets and daemons refuse it. */
  readonly writes: boolean;
  /** Whether it may be one of the calls of a `transact`: not if it waits, streams or leaves the database. */
  readonly transactable: boolean;
  /**
   * The path in its params to what is kept as the text it was sent as, byte for byte: names of members, and `*`
   * for every element of an array.
   */
  readonly raw?: readonly string[];
  /** Refusals of its own, beside those that any method can give. */
  readonly errors: readonly ErrorKind[];
  readonly examples?: readonly {
    readonly name: string;
    readonly params: unknown;
    readonly result: unknown;
  }[];
}

export function method<const N extends string, P extends z.ZodType, R extends z.ZodType>(
  definition: Method<P, R> & { readonly name: N },
): Method<P, R> & { readonly name: N } {
  return definition;
}

/** What the daemon sends without being asked: a JSON-RPC request without an id, never answered. */
export interface Notification<P extends z.ZodType = z.ZodType> {
  readonly name: string;
  readonly summary: string;
  readonly params: P;
}

export function notification<const N extends string, P extends z.ZodType>(
  definition: Notification<P> & { readonly name: N },
): Notification<P> & { readonly name: N } {
  return definition;
}

export type ParamsOf<M extends Method> = z.input<M["params"]>;
/** The params as an operation sees them, with defaults filled in. */
export type ParsedOf<M extends Pick<Method, "params">> = z.output<M["params"]>;
export type ResultOf<M extends Method> = z.output<M["result"]>;

// Schemas that several nouns share.

export const integer = z.int().min(0).max(MAX_INTEGER);
export const instant = integer.meta({ description: "Milliseconds since the Unix epoch." });
export const duration = integer.meta({ description: "Milliseconds." });
/** Text that stays what it is in a database: no NUL, no lone surrogates, which would fold into one another. */
export const text = z.string().regex(/^[^\0\p{Surrogate}]*$/u, "must not hold NUL or lone surrogates");
/** Any label of 1 to 128 characters, such as a queue or an owner. */
export const label = text.min(1).max(MAX_NAME_LENGTH);
/** Any JSON value, taken as it comes. */
export const json = z.unknown().meta({ description: "Any JSON value." });

export const waitMs = z.int().min(0).max(MAX_WAIT_MS).default(0).meta({
  description: "How long to wait for the condition to come true; 0 answers at once.",
});
export const leaseMs = z.int().min(MIN_LEASE_MS).max(MAX_LEASE_MS).default(DEFAULT_LEASE_MS).meta({
  description: "How long the grant lasts unless it is renewed.",
});
export const releaseOn = z.enum(["expiry", "disconnect"]).default("expiry").meta({
  description: "`disconnect` also ends the grant the moment the connection closes.",
});
export const limit = z.int().min(1).max(1000).default(100).meta({ description: "Most rows to return." });
