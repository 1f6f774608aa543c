import type { z } from "zod";
import type { ErrorKind } from "./errors.js";

/**
 * A client may send a request again when the connection broke before the answer: always, never, or if the
 * caller chose a key. The key is a param, or a member of each element of the param `ofEach`.
 */
export type Repeatable =
  | boolean
  | {
      readonly withKey: string;
      readonly ofEach?: string;
      /** Values of a param with which a repetition would do something again. */
      readonly unless?: Readonly<Record<string, readonly string[]>>;
    };

/** A call and its answer, as the document shows them. A test holds them against the schemas and against a daemon. */
export interface Example<P = unknown, R = unknown> {
  readonly name: string;
  readonly params: P;
  readonly result: R;
}

/** A method as its noun defines it. Each member of its schemas has a description, each object in them a name. */
export interface MethodDefinition<P extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> {
  /** A sentence without its full stop. */
  readonly summary: string;
  readonly description?: string;
  /** A strict object without transforms: what it accepts is what the operation gets, defaults filled in. */
  readonly params: P;
  /** Strict here, so that nothing undescribed is answered; published as open, so that a member can be added. */
  readonly result: R;
  /** True if it can change the database. Read-only sockets and daemons refuse it. */
  readonly writes: boolean;
  /**
   * A repetition changes nothing more than the first performance did. Its answer may say that there was nothing left
   * to do (`created: false`, `already_cancelled`).
   */
  readonly repeatable: Repeatable;
  /** True if it may be one of the calls of a `transact`: not if it waits, streams or leaves the database. */
  readonly transactable: boolean;
  /** True if it performs others of which one may be refused after another has written: all of it is undone then. */
  readonly composed?: boolean;
  /**
   * The paths in its params to what is kept as the text it was sent as, byte for byte: names of members, and `*`
   * for every element of an array.
   */
  readonly raw?: readonly (readonly string[])[];
  /** Refusals of its own, beside those that any method can give. */
  readonly errors: readonly ErrorKind[];
  /** At least one. */
  readonly examples: readonly [
    Example<z.input<NoInfer<P>>, z.output<NoInfer<R>>>,
    ...Example<z.input<NoInfer<P>>, z.output<NoInfer<R>>>[],
  ];
}

/** A message that the daemon sends without being asked: a JSON-RPC request without an id, never answered. */
export interface NotificationDefinition<P extends z.ZodType = z.ZodType> {
  /** A sentence without its full stop. */
  readonly summary: string;
  readonly description?: string;
  readonly params: P;
  readonly example: { readonly name: string; readonly params: z.output<NoInfer<P>> };
}

export type Method = MethodDefinition & { readonly name: string };

/** Checks a definition, and keeps the types of its schemas. */
export function method<P extends z.ZodType, R extends z.ZodType>(
  definition: MethodDefinition<P, R>,
): MethodDefinition<P, R> {
  return definition;
}

/** Checks a definition, and keeps the type of its schema. */
export function notification<P extends z.ZodType>(
  definition: NotificationDefinition<P>,
): NotificationDefinition<P> {
  return definition;
}

type Verbs<D> = Readonly<Record<string, D>>;
/** A verb that is the noun itself stands alone: `transact`. */
type Name<N extends string, V extends string> = V extends N ? N : `${N}.${V}`;
type Named<N extends string, D> = {
  readonly [V in keyof D & string]: D[V] & { readonly name: Name<N, V> };
};

export interface Noun<
  N extends string = string,
  M = Verbs<MethodDefinition>,
  Q = Verbs<MethodDefinition>,
  S = Verbs<NotificationDefinition>,
> {
  readonly noun: N;
  /** A sentence or two for people who see the noun for the first time. */
  readonly description: string;
  /** By their verbs, in the order of the OpenRPC document. */
  readonly methods: Named<N, M>;
  /** Requests of the daemon to a connection that has offered to answer them: JSON-RPC in the other direction. */
  readonly requests: Named<N, Q>;
  readonly notifications: Named<N, S>;
}

/** All that travels about one thing, by verbs; each gets its name from both, such as `queue.claim`. */
export function noun<
  const N extends string,
  M extends Verbs<MethodDefinition>,
  Q extends Verbs<MethodDefinition> = Record<never, never>,
  S extends Verbs<NotificationDefinition> = Record<never, never>,
>(
  name: N,
  {
    description,
    methods,
    requests,
    notifications,
  }: { description: string; methods: M; requests?: Q; notifications?: S },
): Noun<N, M, Q, S> {
  return {
    noun: name,
    description,
    methods: named(name, methods),
    requests: named(name, requests ?? ({} as Q)),
    notifications: named(name, notifications ?? ({} as S)),
  };
}

function named<N extends string, D extends Verbs<object>>(noun: N, definitions: D): Named<N, D> {
  return Object.fromEntries(
    Object.entries(definitions).map(([verb, definition]) => [
      verb,
      // Not by what its members are now: in the bundle of the daemon, params are made when they are asked for.
      Object.defineProperties(
        { name: verb === noun ? noun : `${noun}.${verb}` },
        Object.getOwnPropertyDescriptors(definition),
      ),
    ]),
  ) as Named<N, D>;
}

export type ParamsOf<M extends Pick<MethodDefinition, "params">> = z.input<M["params"]>;
/** The params as an operation sees them, with defaults filled in. */
export type ParsedOf<M extends Pick<MethodDefinition, "params">> = z.output<M["params"]>;
export type ResultOf<M extends MethodDefinition> = z.output<M["result"]>;
