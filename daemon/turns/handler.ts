import type { MethodName, MethodsOf, NounName, Parsed, Result } from "@pawl/protocol";
import type { Id } from "@pawl/protocol/envelope";
import type { Texts } from "@pawl/protocol/json-text";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { Operation } from "../store/statement.js";
import type { Caller, Env, Outcome } from "./operation.js";

/**
 * Performs a method in a turn.
 *
 * @param params with defaults filled in.
 * @param texts of the params that the method names as `raw`, as they were sent.
 * @param piece the long param of an upload, if it is not in `params`.
 */
export type Handler<N extends MethodName> = (
  params: Parsed<N>,
  env: Env,
  texts: Texts,
  piece?: UploadedPiece,
) => Operation<Outcome<Result<N>>>;

/** Methods without an operation: what they do is no business of the database. */
type AsyncOnly = "daemon.backup" | "daemon.check";

type NameOf<M> = M extends { name: infer N extends MethodName } ? N : never;

/** The operations of a noun's methods, by their verbs: all of them, and no others. */
export type HandlersOf<N extends NounName> = {
  readonly [V in keyof MethodsOf<N> as NameOf<MethodsOf<N>[V]> extends AsyncOnly ? never : V]: Handler<
    NameOf<MethodsOf<N>[V]>
  >;
};

/** The sender of a request. */
export interface Sender {
  readonly caller: Caller;
  /** True if it came by a socket that serves only reads. */
  readonly readOnly: boolean;
  /** True if the connection is closed and nobody can get an answer. */
  readonly closed: boolean;
  /** Its requests that wait for a condition take so many bytes more, or fewer. */
  parked(bytes: number): void;
  /** Its requests that are done in steps take so many bytes more, or fewer, between two of them. */
  holds(bytes: number): void;
}

/**
 * Performs a method outside the turns, because it has to wait for something else than this database. The handler
 * starts when the request is taken up, before the operations of that turn. Its promise rejects with a `PawlError`.
 *
 * @param id of the request; undefined for a notification.
 */
export type AsyncHandler<N extends MethodName> = (
  params: Parsed<N>,
  sender: Sender,
  id: Id | undefined,
) => Promise<Result<N>>;

/** The asynchronous handlers. For a method that has an operation too, undefined leaves the call to that. */
export type AsyncHandlers = { readonly [N in AsyncOnly]: AsyncHandler<N> } & {
  readonly [N in MethodName]?: (
    ...call: Parameters<AsyncHandler<N>>
  ) => ReturnType<AsyncHandler<N>> | undefined;
};
