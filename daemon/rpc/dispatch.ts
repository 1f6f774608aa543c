import { PawlError, refuse } from "@pawl/protocol/errors";
import { type Texts, textsAt } from "@pawl/protocol/json-text";
import type { Logger } from "pino";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { Call } from "../turns/call.js";
import type { Sender } from "../turns/handler.js";
import type { Statistics } from "../turns/statistics.js";
import type { ServedMethod } from "./served-methods.js";
import { noSuchMethod } from "./validation-errors.js";

/** Who sent a request, as far as dispatching goes. */
export interface RequestSender extends Sender {
  /** What every request of this sender is answered by, if its user may not use the daemon. */
  readonly forbidden: PawlError | undefined;
}

/** What a request was read from. */
export interface Source {
  /** The JSON text of the request, which is found only when it is asked for. */
  readonly json: () => string;
  /** The base64 of an upload, which is too long to be in that text. */
  readonly piece?: UploadedPiece;
}

/** From a method name and raw params to a call: access, validation, and what is logged of a refusal. */
export class Dispatcher {
  readonly #methods: ReadonlyMap<string, ServedMethod>;
  readonly #statistics: Statistics;
  readonly #log: Logger;
  readonly #readOnly: boolean;
  #failures = 0;

  constructor(options: {
    methods: ReadonlyMap<string, ServedMethod>;
    statistics: Statistics;
    log: Logger;
    /** Whether the daemon as a whole serves only reads. */
    readOnly: boolean;
  }) {
    this.#methods = options.methods;
    this.#statistics = options.statistics;
    this.#log = options.log;
    this.#readOnly = options.readOnly;
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
    sender: RequestSender,
    source: Source,
    calls: Call[],
    answer: (outcome: unknown) => void,
  ): void {
    const settle = (outcome: unknown): void =>
      answer(outcome instanceof Error ? this.explain(name, outcome, sender) : outcome);

    const method = this.#methods.get(name);
    if (method === undefined) return answer(this.noSuchMethod(name, sender));
    this.#statistics.request(name);
    // Nobody is there any more to get what it would read.
    if (sender.closed && !method.writes) return answer(null);
    if (method.writes && (this.#readOnly || sender.readOnly)) return settle(readOnly(name, this.#readOnly));
    try {
      this.#begin(method, params, sender, source, calls, settle);
    } catch (error) {
      settle(error);
    }
  }

  /** Checks the params of a request and adds its call. */
  #begin(
    method: ServedMethod,
    params: unknown,
    sender: RequestSender,
    source: Source,
    calls: Call[],
    settle: (outcome: unknown) => void,
  ): void {
    const parsed = method.check(params ?? {}, []);
    if (parsed instanceof PawlError) return settle(parsed);

    const answered = method.performAsync(parsed, sender);
    if (answered !== undefined) return void answered.then(settle, settle);
    const { rawInRequest } = method;
    const texts = rawInRequest === undefined ? NO_TEXTS : textsAt(source.json(), rawInRequest);
    calls.push({
      caller: sender.caller,
      start: (env) => method.perform(parsed, env, texts, source.piece),
      waitMs: (parsed as { waitMs?: number }).waitMs ?? 0,
      // The one operation that is made of others: one of them may be refused after another has written.
      undoOnRefusal: method.name === "transact",
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
  explain(name: string, error: Error, sender: RequestSender): PawlError {
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
    const method = this.#methods.has(name) ? name : "-";
    this.#statistics.error(method, refusal.kind);
    const line = { method, kind: refusal.kind, reference, caller: sender.caller };
    if (known) this.#log.info(line, "refused");
    else this.#log.error({ ...line, err: error }, "failed");
    return refusal;
  }

  noSuchMethod(name: string, sender: RequestSender): PawlError {
    return this.explain("-", noSuchMethod(name, [...this.#methods.keys()]), sender);
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
