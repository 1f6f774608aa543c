import type { MethodName, Parsed, Result } from "@pawl/protocol";
import { discover, type Inside, info, ping } from "./domain/daemon.js";
import * as sequence from "./domain/sequence.js";
import type { Env, Operation, Outcome } from "./operation.js";

/** Which operation performs which method. */
export type Handlers = {
  readonly [N in MethodName]: (params: Parsed<N>, env: Env) => Operation<Outcome<Result<N>>>;
};

export function handlers(inside: Inside): Handlers {
  return {
    "sequence.next": sequence.next,
    "sequence.reserve": sequence.reserve,
    "sequence.peek": sequence.peek,
    "sequence.state": sequence.state,
    "sequence.format": sequence.format,
    "sequence.parse": sequence.parse,
    "sequence.advance": sequence.advance,
    "daemon.ping": ping,
    "daemon.info": (_params, env) => info(env, inside),
    "daemon.stats": (_params, env) => inside.stats(env),
    "rpc.discover": discover,
  };
}
