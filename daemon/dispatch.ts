import { METHODS, type MethodName } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import leven from "leven";
import type { Logger } from "pino";
import type { z } from "zod";
import type { Handlers } from "./handlers.js";
import { describeIssues } from "./invalid.js";
import type { Caller, Env, Operation, Outcome } from "./operation.js";
import type { Reactor } from "./reactor.js";
import type { Statistics } from "./statistics.js";

const MAX_SHOWN_NAME_LENGTH = 64;

/** Who sent a request, as far as dispatching goes. */
export interface Sender {
  readonly caller: Caller;
  /** Whether it came by a socket that serves only reads. */
  readonly readOnly: boolean;
  /** Whether the connection is closed and nobody can get an answer. */
  readonly closed: boolean;
}

type Handler = (params: unknown, env: Env) => Operation<Outcome<unknown>>;

interface Entry {
  readonly writes: boolean;
  readonly schema: z.ZodType;
  readonly handler: Handler;
}

/** From a method name and raw params to a call of the reactor: access, validation, and what is logged of a refusal. */
export class Dispatcher {
  readonly #entries = new Map<string, Entry>();
  readonly #reactor: Reactor;
  readonly #statistics: Statistics;
  readonly #log: Logger;
  readonly #readOnly: boolean;
  #failures = 0;

  constructor(options: {
    handlers: Handlers;
    reactor: Reactor;
    statistics: Statistics;
    log: Logger;
    /** Whether the daemon as a whole serves only reads. */
    readOnly: boolean;
  }) {
    this.#reactor = options.reactor;
    this.#statistics = options.statistics;
    this.#log = options.log;
    this.#readOnly = options.readOnly;
    for (const { name, writes, params } of METHODS) {
      const handler = options.handlers[name as MethodName] as Handler;
      this.#entries.set(name, { writes, schema: params, handler });
    }
  }

  /** Performs a method and resolves with its result, after the commit. Rejects with a `PawlError`. */
  call(name: string, params: unknown, sender: Sender): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const settle = (outcome: unknown): void => {
        if (outcome instanceof Error) reject(this.explain(name, outcome, sender));
        else resolve(outcome);
      };

      const entry = this.#entries.get(name);
      if (entry === undefined) return reject(this.noSuchMethod(name, sender));
      this.#statistics.request(name);
      if (entry.writes && (this.#readOnly || sender.readOnly)) return settle(readOnly(name, this.#readOnly));
      const checked = entry.schema.safeParse(params ?? {});
      if (!checked.success) return settle(describeIssues(name, checked.error.issues, params));

      const parsed = checked.data as { waitMs?: number };
      this.#reactor.submit({
        caller: sender.caller,
        start: (env) => entry.handler(parsed, env),
        waitMs: parsed.waitMs ?? 0,
        closed: () => sender.closed,
        settle,
      });
    });
  }

  /**
   * Counts and logs a refusal, without payloads, and returns what the caller is told. What is not a refusal
   * is a defect: its text stays in the log under a reference, and only the reference travels.
   */
  explain(name: string, error: Error, sender: Sender): PawlError {
    this.#failures += 1;
    const reference = `${process.pid.toString(36)}-${this.#failures.toString(36)}`;
    const known = error instanceof PawlError;
    const refusal = known
      ? error
      : refuse(
          "internal",
          `Something in pawld is broken; its log has the details under the reference ${reference}. Please report it.`,
          { reference },
        );
    const method = this.#entries.has(name) ? name : "-";
    this.#statistics.error(method, refusal.kind);
    const line = { method, kind: refusal.kind, reference, ...sender.caller };
    if (known) this.#log.info(line, "refused");
    else this.#log.error({ ...line, err: error }, "failed");
    return refusal;
  }

  noSuchMethod(name: string, sender: Sender): PawlError {
    const names = [...this.#entries.keys()];
    // A name may be as long as a message, and comparing costs its length times that of each method.
    const wanted = name.slice(0, MAX_SHOWN_NAME_LENGTH);
    const closest = names.reduce((best, each) => (leven(wanted, each) < leven(wanted, best) ? each : best));
    const refusal = refuse(
      "method_not_found",
      `There is no method ${JSON.stringify(wanted)}. The closest is ${closest}; rpc.discover lists all.`,
      { closest },
    );
    return this.explain("-", refusal, sender);
  }
}

function readOnly(name: string, daemon: boolean): PawlError {
  return refuse(
    "read_only",
    daemon
      ? `${name} writes, and this daemon serves only reads (--read-only). Ask the daemon that writes.`
      : `${name} writes, and this socket serves only reads. Use the daemon's main socket.`,
    { method: name },
  );
}
