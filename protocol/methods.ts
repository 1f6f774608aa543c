import * as daemon from "./daemon.js";
import type { ParamsOf, ParsedOf, ResultOf } from "./method.js";
import * as sequence from "./sequence.js";

/** Every method, in the order of the OpenRPC document. This list is the contract. */
export const METHODS = [
  sequence.next,
  sequence.reserve,
  sequence.peek,
  sequence.state,
  sequence.format,
  sequence.parse,
  sequence.advance,
  daemon.ping,
  daemon.info,
  daemon.stats,
  daemon.discover,
] as const;

type Definition = (typeof METHODS)[number];

export type MethodName = Definition["name"];
type Named<N extends MethodName> = Extract<Definition, { name: N }>;

/** What a caller sends. */
export type Params<N extends MethodName> = ParamsOf<Named<N>>;
/** What the daemon works on: params with defaults filled in. */
export type Parsed<N extends MethodName> = ParsedOf<Named<N>>;
/** What a caller gets. */
export type Result<N extends MethodName> = ResultOf<Named<N>>;
