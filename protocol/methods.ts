import { CLAIM } from "./claim.js";
import { COMMAND } from "./command.js";
import { DAEMON } from "./daemon.js";
import { DEPLOYMENT } from "./deployment.js";
import { EVENT, EVENTS } from "./events.js";
import { ITEM } from "./item.js";
import { LEASE } from "./lease.js";
import type { Noun, ParamsOf, ParsedOf, ResultOf } from "./method.js";
import { PATH } from "./path.js";
import { PEER } from "./peer.js";
import { PIPELINE } from "./pipeline.js";
import { QUEUE } from "./queue.js";
import { RPC } from "./rpc.js";
import { SCHEDULE } from "./schedule.js";
import { SEQUENCE } from "./sequence.js";
import { TRANSACT } from "./transact.js";

/** The contract, in the order of the OpenRPC document: all that follows is made from it. */
export const NOUNS = [
  SEQUENCE,
  QUEUE,
  SCHEDULE,
  CLAIM,
  DEPLOYMENT,
  COMMAND,
  LEASE,
  PATH,
  PIPELINE,
  ITEM,
  PEER,
  TRANSACT,
  EVENTS,
  EVENT,
  DAEMON,
  RPC,
] as const satisfies readonly Noun[];

type AnyNoun = (typeof NOUNS)[number];
type Each<N, K extends "methods" | "requests" | "notifications"> = N extends Noun ? N[K][keyof N[K]] : never;
type Definition = Each<AnyNoun, "methods">;
type NotificationDefinition = Each<AnyNoun, "notifications">;

function each<K extends "methods" | "requests" | "notifications">(kind: K): Each<AnyNoun, K>[] {
  return NOUNS.flatMap((noun) => Object.values(noun[kind])) as Each<AnyNoun, K>[];
}

/** Every method. */
export const METHODS: readonly Definition[] = each("methods");
/** Requests of the daemon to a connection that has offered to answer them: JSON-RPC in the other direction. */
export const REQUESTS = each("requests");
/** Messages that the daemon sends to a connection without being asked. */
export const NOTIFICATIONS = each("notifications");

export type NounName = AnyNoun["noun"];
/** The methods of a noun, by their verbs. */
export type MethodsOf<N extends NounName> = Extract<AnyNoun, { noun: N }>["methods"];

export type NotificationName = NotificationDefinition["name"];
/** The params of a notification. */
export type NotificationParams<N extends NotificationName> = ParsedOf<
  Extract<NotificationDefinition, { name: N }>
>;

export type MethodName = Definition["name"];
type Named<N extends MethodName> = Extract<Definition, { name: N }>;

/** The params as a caller sends them. */
export type Params<N extends MethodName> = ParamsOf<Named<N>>;
/** The params as the daemon works on them, with defaults filled in. */
export type Parsed<N extends MethodName> = ParsedOf<Named<N>>;
/** The result that a caller gets. */
export type Result<N extends MethodName> = ResultOf<Named<N>>;
