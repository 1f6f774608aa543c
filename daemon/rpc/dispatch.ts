import type { Id } from "@pawl/protocol/envelope";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { type Texts, textsOf } from "@pawl/protocol/json-text";
import { Damaged } from "../json/damaged.js";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { RepeatedLines } from "../log/repeated-lines.js";
import type { Places } from "../shared/places.js";
import type { Operation } from "../store/statement.js";
import type { Call } from "../turns/call.js";
import type { Sender } from "../turns/handler.js";
import type { Caller, Env, Outcome } from "../turns/operation.js";
import type { Statistics } from "../turns/statistics.js";
import { CANCEL, CANCEL_NOTIFICATION } from "./cancel-request.js";
import type { ServedMethod } from "./served-methods.js";
import { noSuchMethod } from "./validation-errors.js";

/** Where the outcome of a request goes. */
export interface Reply {
  /** The id of the request; undefined for a notification. */
  readonly id: Id | undefined;
  /** False while its peer has so much to read that a long answer has to wait. */
  readonly hasRoom: boolean;
  /** The answer to a request that has waited, once no other can be kept. */
  readonly refusal: PawlError | undefined;
  /** Called once: with the result or a refusal. */
  answer(outcome: unknown): void;
}

/** The source that a request was read from. */
export interface Source {
  /** The JSON text of the request, which is found only when it is asked for. */
  readonly json: () => string;
  /** How many bytes it has; of a request in a batch, about. */
  readonly bytes: number;
  /** The base64 of an upload, which is too long to be in that text. */
  readonly piece?: UploadedPiece;
}

/** From a method name and raw params to a call: access, validation, and what is logged of a refusal. */
export class Dispatcher {
  readonly #methods: ReadonlyMap<string, ServedMethod>;
  readonly #statistics: Statistics;
  readonly #lines: RepeatedLines;
  readonly #readOnly: boolean;
  /** Only where names are kept in databases that other daemons share. */
  readonly #places: Places | undefined;
  #failures = 0;

  constructor(options: {
    methods: ReadonlyMap<string, ServedMethod>;
    statistics: Statistics;
    lines: RepeatedLines;
    /** True if the daemon as a whole serves only reads. */
    readOnly: boolean;
    places?: Places | undefined;
  }) {
    this.#methods = options.methods;
    this.#statistics = options.statistics;
    this.#lines = options.lines;
    this.#readOnly = options.readOnly;
    this.#places = options.places;
  }

  /**
   * Makes a request a call of the turn under way, whose outcome is given after the commit. If a turn has nothing to
   * perform, the outcome is given at once or when it comes.
   *
   * @param calls of the turn under way; the new one is added.
   */
  call(name: string, params: unknown, sender: Sender, source: Source, calls: Call[], reply: Reply): void {
    const method = this.#methods.get(name) ?? this.#methods.get(methodOf(name));
    if (method === undefined) return reply.answer(sender.closed ? null : this.#noSuchMethod(name, sender));
    this.#statistics.request(name);
    // Nobody is there any more to get what it would read, or to have what it would wait for.
    if (sender.closed && (!method.writes || isInVain(method, params))) return reply.answer(null);
    const give = (outcome: unknown): void =>
      reply.answer(outcome instanceof Error ? this.explain(name, outcome, sender) : outcome);
    if (method.writes && (this.#readOnly || sender.readOnly)) return give(readOnly(name, this.#readOnly));

    try {
      const checked = method.check(params ?? {}, []);
      if (checked instanceof PawlError) return give(checked);
      const route = this.#places?.route(name, checked as object);
      if (route instanceof PawlError) return give(route);
      const outcome = route === undefined ? method.performAsync(checked, sender, reply.id) : undefined;
      if (outcome !== undefined) return void outcome.then(give, give);
      const texts = textsIn(method, checked, source.json);
      const call = new RequestCall(method, checked, texts, source, sender, reply, give);
      if (route !== undefined) this.#places?.perform(call, route);
      // Requests of one connection take effect in the order in which they were sent.
      else if (this.#places?.isPerforming(sender.caller.connection)) this.#places.afterCalls(call);
      else calls.push(call);
    } catch (error) {
      give(error);
    }
  }

  /**
   * Counts and logs a refusal, without payloads, and returns what the caller is told. Anything that is not a refusal
   * is a defect, or a stored row that is damaged: of a defect the text stays in the log under a reference, and only the
   * reference travels. One that repeats itself keeps the reference of the line that was logged.
   */
  explain(name: string, error: Error, sender: Sender): PawlError {
    const method = this.#methods.has(name) ? name : "-";
    const logged = (): { reference: string; caller: Caller } => {
      this.#failures += 1;
      const reference = `${process.pid.toString(36)}-${this.#failures.toString(36)}`;
      return { reference, caller: sender.caller };
    };
    if (error instanceof PawlError) {
      this.#statistics.error(method, error.kind);
      this.#lines.log("info", "refused", { method, kind: error.kind }, logged);
      return error;
    }
    this.#statistics.error(method, "internal");
    const { reference } = this.#lines.log(
      "error",
      "failed",
      { method, kind: "internal", text: error.message },
      () => ({ ...logged(), err: error }),
    );
    const found = `its log has the details under the reference ${reference}`;
    const message =
      error instanceof Damaged
        ? `${error.message} \`pawl check\` lists all that is damaged; restore the database from a backup. The daemon runs on, and ${found}.`
        : `Something in pawld is broken; ${found}. Please report it.`;
    return refuse("internal", message, { reference });
  }

  #noSuchMethod(name: string, sender: Sender): PawlError {
    return this.explain("-", noSuchMethod(name, [...this.#methods.keys()]), sender);
  }
}

/**
 * The call of a request. While it waits it keeps its text, which is what its bytes are counted by, and no values: those
 * of a text like `[{},{}]` take 20 times as much memory.
 */
class RequestCall implements Call {
  readonly caller: Caller;
  readonly id: Id | undefined;
  readonly waitMs: number;
  readonly mayBeUndone: boolean;
  readonly #method: ServedMethod;
  /** What it is performed with; undefined while its text is kept instead. */
  #given: Given | undefined;
  #kept: KeptText | undefined;
  #bytes: number;
  /** What it takes between two steps, as far as its connection was told. */
  #heldBytes = 0;
  /** Of a call that may wait and has not yet: it refers to the whole line. */
  #source: Source | undefined;
  readonly #piece: UploadedPiece | undefined;
  readonly #sender: Sender;
  readonly #reply: Reply;
  readonly #give: (outcome: unknown) => void;

  constructor(
    method: ServedMethod,
    params: unknown,
    texts: Texts,
    source: Source,
    sender: Sender,
    reply: Reply,
    give: (outcome: unknown) => void,
  ) {
    this.caller = sender.caller;
    this.id = reply.id;
    this.waitMs = (params as { waitMs?: number }).waitMs ?? 0;
    this.mayBeUndone = method.composed === true;
    this.#method = method;
    this.#given = { params, texts };
    this.#bytes = source.bytes;
    this.#source = this.waitMs > 0 ? source : undefined;
    this.#piece = source.piece;
    this.#sender = sender;
    this.#reply = reply;
    this.#give = give;
  }

  get bytes(): number {
    if (this.#source !== undefined) this.#bytes = Buffer.byteLength(this.#source.json());
    return this.#bytes;
  }

  get closed(): boolean {
    return this.#sender.closed;
  }

  get hasRoom(): boolean {
    return this.#reply.hasRoom;
  }

  get refusal(): PawlError | undefined {
    return this.#reply.refusal;
  }

  get writes(): boolean {
    return this.#method.writes;
  }

  start(env: Env): Operation<Outcome<unknown>> {
    // Whoever may only read has no key made.
    const given = this.#sender.readOnly ? { ...env, identity: null } : env;
    const { params, texts } = this.#given ?? this.#read(this.#kept as KeptText);
    return this.#method.perform(params, given, texts, this.#piece);
  }

  parked(bytes: number): void {
    this.#sender.parked(bytes);
    if (bytes > 0) this.#keepText();
  }

  holds(bytes: number): void {
    this.#sender.holds(bytes - this.#heldBytes);
    this.#heldBytes = bytes;
  }

  #keepText(): void {
    const source = this.#source;
    if (source === undefined) return;
    // What is short and of a known shape is small, and is not to be read again each time it is tried.
    const isAnything = this.#method.raw !== undefined;
    if (isAnything || this.bytes > MAX_KEPT_VALUES_BYTES) {
      this.#kept = new KeptText(source.json());
      this.#given = undefined;
    }
    this.#source = undefined;
  }

  /** The params as they were checked before. */
  #read(kept: KeptText): Given {
    const json = kept.text;
    const { params = {} } = JSON.parse(json) as { params?: unknown };
    const checked = this.#method.check(params, []);
    if (checked instanceof PawlError) throw checked;
    return { params: checked, texts: textsIn(this.#method, checked, () => json) };
  }

  settle(outcome: unknown): void {
    if (this.#heldBytes > 0) this.holds(0);
    this.#give(outcome);
  }
}

interface Given {
  readonly params: unknown;
  readonly texts: Texts;
}

/** Requests of up to so many bytes are kept as values while they wait, unless those can be anything. */
const MAX_KEPT_VALUES_BYTES = 1024;

/** A text that takes as many bytes of memory as it has in UTF-8, and keeps no longer one that it is a part of. */
class KeptText {
  readonly #bytes: string;

  constructor(text: string) {
    this.#bytes = Buffer.from(text).toString("latin1");
  }

  get text(): string {
    return Buffer.from(this.#bytes, "latin1").toString();
  }
}

/**
 * True of a call that would write nothing once its connection has closed: it asks what would be written, or waits to be
 * granted something, which ends with the connection (spec: wire.md, Waiting).
 */
function isInVain({ grants }: ServedMethod, params: unknown): boolean {
  const { verify, dryRun, waitMs } = (params ?? {}) as Record<string, unknown>;
  return verify === true || dryRun === true || (typeof waitMs === "number" && waitMs > 0 && grants());
}

function textsIn({ raw }: ServedMethod, params: unknown, json: () => string): Texts {
  return raw === undefined ? NO_TEXTS : textsOf(params as object, raw, json, PARAMS);
}

const NO_TEXTS: Texts = [];

/** Where the params are in a request. */
const PARAMS = ["params"];

/** The method that a name of the Language Server Protocol stands for. */
function methodOf(name: string): string {
  return name === CANCEL_NOTIFICATION ? CANCEL : name;
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
