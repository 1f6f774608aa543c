import { METHODS, type Method, type MethodName } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { type Texts, textsAt } from "@pawl/protocol/json-text";
import type { Logger } from "pino";
import type { z } from "zod";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { Operation } from "../store/statement.js";
import type { Call } from "../turns/call.js";
import type { Caller, Env, Outcome } from "../turns/operation.js";
import type { Statistics } from "../turns/statistics.js";
import type { Handlers, OutsideHandlers } from "./handlers.js";
import { describeIssues, noSuchMethod } from "./validation-errors.js";

/** Who sent a request, as far as dispatching goes. */
export interface Sender {
  readonly caller: Caller;
  /** Whether it came by a socket that serves only reads. */
  readonly readOnly: boolean;
  /** Whether the connection is closed and nobody can get an answer. */
  readonly closed: boolean;
  /** What every request of this sender is answered by, if its user may not use the daemon. */
  readonly forbidden: PawlError | undefined;
}

/** What a request was read from. */
export interface Source {
  /** The JSON text of the request, which is found only when it is asked for. */
  readonly json: () => string;
  /** What was too long to be in that text (cut-out.ts). */
  readonly cutOut?: UploadedPiece;
}

type Handler = (
  params: unknown,
  env: Env,
  texts: Texts,
  cutOut?: UploadedPiece,
) => Operation<Outcome<unknown>>;
type OutsideHandler = (params: unknown, sender: Sender) => Promise<unknown> | undefined;

interface Entry {
  readonly writes: boolean;
  readonly schema: z.ZodType;
  /** Where in a request is what its handler gets as it was sent. */
  readonly raw: readonly string[] | undefined;
  readonly handler: Handler;
  readonly outside: OutsideHandler | undefined;
}

/** From a method name and raw params to a call: access, validation, and what is logged of a refusal. */
export class Dispatcher {
  readonly #entries = new Map<string, Entry>();

  readonly #statistics: Statistics;
  readonly #log: Logger;
  readonly #readOnly: boolean;
  #failures = 0;

  constructor(options: {
    handlers: Handlers;
    outside: OutsideHandlers;
    statistics: Statistics;
    log: Logger;
    /** Whether the daemon as a whole serves only reads. */
    readOnly: boolean;
  }) {
    this.#statistics = options.statistics;
    this.#log = options.log;
    this.#readOnly = options.readOnly;
    for (const { name, writes, params, raw } of METHODS as readonly Method[]) {
      const handler = options.handlers[name as keyof Handlers] as Handler;
      const outside = options.outside[name as MethodName] as OutsideHandler | undefined;
      this.#entries.set(name, {
        writes,
        schema: params,
        raw: raw === undefined ? undefined : ["params", ...raw],
        handler,
        outside,
      });
    }
  }

  /**
   * Makes a request a call for the turn under way. `answer` is called once, after the commit, with the result or a
   * `PawlError`; at once, if nothing is to be performed.
   *
   * @param calls of the turn under way; the new one is added.
   */
  call(
    name: string,
    params: unknown,
    sender: Sender,
    source: Source,
    calls: Call[],
    answer: (outcome: unknown) => void,
  ): void {
    const settle = (outcome: unknown): void =>
      answer(outcome instanceof Error ? this.explain(name, outcome, sender) : outcome);

    const entry = this.#entries.get(name);
    if (entry === undefined) return answer(this.noSuchMethod(name, sender));
    this.#statistics.request(name);
    // Nobody is there any more to get what it would read.
    if (sender.closed && !entry.writes) return answer(null);
    if (entry.writes && (this.#readOnly || sender.readOnly)) return settle(readOnly(name, this.#readOnly));
    try {
      this.#begin(name, entry, params, sender, source, calls, settle);
    } catch (error) {
      settle(error);
    }
  }

  /** Checks the params of a request and adds its call. */
  #begin(
    name: string,
    entry: Entry,
    params: unknown,
    sender: Sender,
    source: Source,
    calls: Call[],
    settle: (outcome: unknown) => void,
  ): void {
    const checked = entry.schema.safeParse(params ?? {});
    if (!checked.success) return settle(describeIssues(name, checked.error.issues, params));

    const parsed = checked.data as { waitMs?: number };
    const outside = entry.outside?.(parsed, sender);
    if (outside !== undefined) return void outside.then(settle, settle);
    const texts = entry.raw === undefined ? NO_TEXTS : textsAt(source.json(), entry.raw);
    calls.push({
      caller: sender.caller,
      start: (env) => entry.handler(parsed, env, texts, source.cutOut),
      waitMs: parsed.waitMs ?? 0,
      // The one operation that is made of others: one of them may be refused after another has written.
      undoOnRefusal: name === "transact",
      get closed() {
        return sender.closed;
      },
      settle,
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
    const line = { method, kind: refusal.kind, reference, caller: sender.caller };
    if (known) this.#log.info(line, "refused");
    else this.#log.error({ ...line, err: error }, "failed");
    return refusal;
  }

  noSuchMethod(name: string, sender: Sender): PawlError {
    return this.explain("-", noSuchMethod(name, [...this.#entries.keys()]), sender);
  }
}

const NO_TEXTS: Texts = [];

function readOnly(name: string, daemon: boolean): PawlError {
  return refuse(
    "read_only",
    daemon
      ? `${name} writes, and this daemon serves only reads (--read-only). Ask the daemon that writes.`
      : `${name} writes, and this socket serves only reads. Use the daemon's main socket.`,
    { method: name },
  );
}
