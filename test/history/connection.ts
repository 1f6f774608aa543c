// A connection that pipelines requests and records each of them, and what became of it.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { RawError } from "../raw-client.js";
import { type Call, GUARD, type Operation, type Outcome, type Recording } from "./history.js";
import type { Json } from "./models/calls.js";

/** A request to be made. */
export interface Planned {
  calls: readonly Call[];
  /** The grants that `transact` has to find held. */
  guard?: Call;
  waits?: boolean;
}

export type Reply = Extract<Outcome, { kind: "answered" | "refused" }> | undefined;

/** A request of the daemon: `command.execute`. */
export interface Execution {
  id: unknown;
  params: Record<string, unknown>;
}

interface Open {
  operation: Operation;
  resolve: (reply: Reply) => void;
}

/** Reasons of `unavailable` with which a request had no effect; with others nobody knows. */
const WITHOUT_EFFECT = new Set([
  "disk_full",
  "database_locked",
  "stopping",
  "batch_too_large",
  "shared_unavailable",
]);

/** The refusal of a grant that is not answered in time says so: it was made. */
const GIVEN_BACK = "it is given back";

/** The notifications that tell a holder that it is none any more. */
const LOSSES = new Set(["lease.lost", "claim.lost", "path.lost", "command.cancelled"]);

const NEVER = { order: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY };

export class Connection {
  readonly id: number;
  readonly closed: Promise<void>;
  onExecute: (execution: Execution) => void = () => {};
  /** Lines that were no JSON, and errors that must not be. */
  readonly complaints: string[] = [];
  isOver = false;
  readonly #recording: Recording;
  readonly #socket: Socket;
  readonly #record: (operation: Operation) => void;
  readonly #open = new Map<number, Open>();
  /** The deliveries that it had last, by their commands. */
  readonly #deliveries = new Map<string, string>();
  #partial = "";

  private constructor(socket: Socket, recording: Recording, record: (operation: Operation) => void) {
    this.id = recording.nextConnection();
    this.#recording = recording;
    this.#socket = socket;
    this.#record = record;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#read(text));
    socket.on("error", () => {});
    this.closed = new Promise((resolve) =>
      socket.once("close", () => {
        this.isOver = true;
        for (const { resolve: give } of this.#open.values()) give(undefined);
        this.#open.clear();
        resolve();
      }),
    );
  }

  /** Rejects where nobody listens. */
  static async open(
    path: string,
    recording: Recording,
    record: (operation: Operation) => void,
  ): Promise<Connection> {
    const socket = connect(path);
    await once(socket, "connect");
    return new Connection(socket, recording, record);
  }

  /**
   * Sends requests by one write and resolves, for each, with its answer: undefined if the connection was lost before.
   * An operation is recorded as soon as it is sent, with an outcome that is unknown until there is one.
   */
  send(planned: readonly Planned[]): Promise<Reply[]> {
    const requests = planned.map((each) => this.#request(each));
    if (!this.isOver) this.#socket.write(requests.map(({ line }) => line).join(""));
    return Promise.all(requests.map(({ reply }) => reply));
  }

  /** Sends a line that is no request of the history. */
  write(line: string): void {
    this.#socket.write(`${line}\n`);
  }

  /** Stops reading, or goes on. */
  setDeaf(isDeaf: boolean): void {
    if (isDeaf) this.#socket.pause();
    else this.#socket.resume();
  }

  /** Closes it at once, as a process that dies does: what its grants are bound to is gone from now on. */
  destroy(): void {
    const { ms } = this.#recording.now();
    this.#recording.closed.set(this.id, ms);
    this.#recording.boundUntil.set(this.id, ms);
    this.#socket.destroy();
  }

  #request({ calls, guard, waits = false }: Planned): { line: string; reply: Promise<Reply> } {
    const operation: Operation = {
      id: this.#recording.nextOperation(),
      connection: this.id,
      waits,
      calls: guard === undefined ? calls : [{ ...guard, method: GUARD }, ...calls],
      outcome: { kind: "unknown" },
      sent: this.#recording.now(),
      ended: NEVER,
    };
    const [call] = calls as [Call];
    const request =
      calls.length === 1
        ? { method: call.method, params: call.params }
        : { method: "transact", params: { calls: calls.map(withoutObject), ...guarded(guard) } };
    if (this.isOver) return { line: "", reply: Promise.resolve(undefined) };
    this.#record(operation);
    const reply = new Promise<Reply>((resolve) => this.#open.set(operation.id, { operation, resolve }));
    return { line: `${JSON.stringify({ jsonrpc: "2.0", id: operation.id, ...request })}\n`, reply };
  }

  /** A request that was refused, or one that was sent to a daemon that had said that it ends. */
  #hadNoEffect({ sent }: Operation, reason: string): boolean {
    if (reason !== "storage_failed") return WITHOUT_EFFECT.has(reason);
    this.#recording.storageFailed ??= this.#recording.now();
    return sent.order > this.#recording.storageFailed.order;
  }

  #read(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop() as string;
    for (const line of lines) {
      try {
        this.#take(JSON.parse(line));
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        this.complaints.push(`no JSON: ${line.slice(0, 300)}`);
      }
    }
  }

  #take(message: {
    id?: unknown;
    method?: string;
    params?: object;
    result?: unknown;
    error?: RawError;
  }): void {
    if (message.method === "command.execute") {
      this.#delivered(message.params as unknown as Json);
      this.onExecute({ id: message.id, params: message.params as Record<string, unknown> });
      return;
    }
    if (message.method !== undefined && LOSSES.has(message.method)) {
      const { leaseId, claimId, reservationId, commandId = "" } = message.params as Json;
      const id = leaseId ?? claimId ?? reservationId ?? this.#deliveries.get(commandId);
      if (!this.#recording.told.has(id)) this.#recording.told.set(id, this.#recording.now().ms);
      return;
    }
    const open = typeof message.id === "number" ? this.#open.get(message.id) : undefined;
    if (open === undefined) return;
    const { operation, resolve } = open;
    const { error } = message;
    this.#open.delete(operation.id);
    const kind = error?.data?.kind;
    if (error !== undefined && (kind === "internal" || kind === undefined)) {
      this.complaints.push(`${operation.calls.map(({ method }) => method)}: ${JSON.stringify(error)}`);
    }
    if (error !== undefined && kind === "unavailable") {
      // Without an effect it is no operation; else nobody knows.
      if (error.data.reason === "shared_unavailable" && error.message.includes(GIVEN_BACK)) {
        operation.mayBeGivenBack = true;
        operation.ended = this.#recording.now();
      } else if (this.#hadNoEffect(operation, error.data.reason as string)) {
        if (operation.waits) this.#recording.addRefusedWait(operation);
        operation.calls = [];
      }
      resolve({ kind: "refused", error });
      return;
    }
    operation.outcome =
      error === undefined
        ? { kind: "answered", results: resultsOf(operation, message.result) }
        : { kind: "refused", error };
    operation.ended = this.#recording.now();
    if (operation.calls[0]?.method === "command.lease" && error === undefined)
      for (const each of (message.result as Json).leases) this.#delivered(each);
    resolve(operation.outcome);
  }

  #delivered({ commandId, leaseId }: Json): void {
    this.#deliveries.set(commandId, leaseId);
  }
}

function withoutObject({ method, params }: Call): { method: string; params: object } {
  return { method, params };
}

function guarded(guard: Call | undefined): object {
  return guard === undefined ? {} : { guards: [{ claim: guard.params }] };
}

/** One for each call, a guard included. */
function resultsOf({ calls }: Operation, result: unknown): unknown[] {
  if (calls.length === 1) return [result];
  const { results } = result as { results: unknown[] };
  return calls[0]?.method === GUARD ? [null, ...results] : results;
}
