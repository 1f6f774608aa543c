// The socket as any program sees it: bytes and lines, without the client library.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { METHODS, type Method, type MethodName, type Params, type Result } from "@pawl/protocol";
import type { ErrorKind } from "@pawl/protocol/errors";
import { errorDataSchema, errorKinds } from "@pawl/protocol/openrpc";
import type { OneLease, SeveralLeases, SeveralNames } from "@pawl/protocol/types";

export interface RawError {
  code: number;
  message: string;
  data: { kind: string; retryable: boolean; [detail: string]: unknown };
}

export interface RawReply {
  jsonrpc: "2.0";
  id: string | number | null;
  result?: unknown;
  error?: RawError;
}

/** A refusal, thrown by `RawClient.call`. */
export class Refused extends Error {
  readonly kind: string;
  readonly error: RawError;
  constructor(error: RawError) {
    super(`${error.data?.kind}: ${error.message}`);
    this.kind = error.data?.kind;
    this.error = error;
  }
}

const RESULTS = new Map<string, Method>(METHODS.map((method) => [method.name, method]));
/** Throws if a reply is not what the contract says of its method; so every test also tests that. */
function checkContract(method: string, result: unknown, error: RawError | undefined): void {
  const definition = RESULTS.get(method);
  const checked = error === undefined ? definition?.result.safeParse(result) : undefined;
  if (checked?.success === false) {
    throw new Error(`${method} answered what its schema does not allow: ${checked.error.message}`);
  }
  if (error === undefined) return;
  const data = errorDataSchema(error.data.kind as ErrorKind).safeParse(error.data);
  if (!data.success) {
    const { kind } = error.data;
    throw new Error(`The details of ${kind} are not what error-details.ts says: ${data.error.message}`);
  }
  // A transact is refused as the call in it was.
  if (definition === undefined || method === "transact") return;
  if (!errorKinds(definition).includes(error.data.kind as ErrorKind)) {
    throw new Error(`${method} is not documented to be refused with ${error.data.kind}: ${error.message}`);
  }
}

export class RawClient {
  readonly socket: Socket;
  /** Lines that have arrived and that nobody has taken. */
  readonly lines: string[] = [];
  /** Resolves when the daemon has said all it has to say; this side may still be open. */
  readonly ended: Promise<void>;
  readonly closed: Promise<void>;
  #partial: string[] = [];
  #takers: { resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  #calls = new Map<number, { resolve: (reply: RawReply) => void; reject: (error: Error) => void }>();
  #nextId = 1;
  #over = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      const [first, ...others] = chunk.split("\n");
      // A long line comes in many chunks, which are put together only once.
      this.#partial.push(first as string);
      for (const next of others) {
        this.#take(this.#partial.join(""));
        this.#partial = [next];
      }
    });
    socket.on("error", () => {});
    this.ended = new Promise((resolve) => {
      socket.once("end", resolve);
      socket.once("close", () => resolve());
    });
    // The daemon may end without an answer, and then this side is still open.
    socket.once("end", () => this.#giveUp());
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#giveUp();
        resolve();
      });
    });
  }

  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path, allowHalfOpen: true });
    const client = new RawClient(socket);
    await once(socket, "connect");
    return client;
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Sends one message as a line. */
  send(message: unknown): void {
    this.write(`${JSON.stringify(message)}\n`);
  }

  /** The next line that answers none of `call`'s requests. Rejects when the connection closes first. */
  line(): Promise<string> {
    const line = this.lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    if (this.#over) return Promise.reject(new Error("connection closed"));
    return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
  }

  /** The next line, parsed. */
  async reply(): Promise<RawReply> {
    return JSON.parse(await this.line()) as RawReply;
  }

  /** Sends a line and takes the next one. */
  async ask(line: string | Uint8Array): Promise<RawReply> {
    this.write(line);
    this.write("\n");
    return await this.reply();
  }

  /** Calls a method and resolves with its result; rejects with `Refused`. */
  call(method: "lease.acquire", params: SeveralNames): Promise<SeveralLeases>;
  call(method: "lease.acquire", params: Params<"lease.acquire">): Promise<OneLease>;
  call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>>;
  async call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>> {
    if (this.#over) throw new Error("connection closed");
    const id = this.#nextId++;
    const reply = new Promise<RawReply>((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    this.send({ jsonrpc: "2.0", id, method, params });
    const { result, error } = await reply;
    checkContract(method, result, error);
    if (error !== undefined) throw new Refused(error);
    return result as Result<N>;
  }

  /** Calls a method that is expected to be refused, and resolves with the error. */
  async refusal(method: string, params?: unknown): Promise<RawError> {
    if (this.#over) throw new Error("connection closed");
    const id = this.#nextId++;
    const reply = new Promise<RawReply>((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    this.send({ jsonrpc: "2.0", id, method, ...(params === undefined ? {} : { params }) });
    const { result, error } = await reply;
    if (error === undefined) throw new Error(`${method} was not refused: ${JSON.stringify(result)}`);
    checkContract(method, undefined, error);
    return error;
  }

  /** Closes both directions at once, as a process that dies does. */
  async destroy(): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }

  /** No more lines will come. */
  #giveUp(): void {
    this.#over = true;
    const error = new Error("connection closed");
    for (const { reject } of this.#takers.splice(0)) reject(error);
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
  }

  #take(line: string): void {
    const reply = line.startsWith("{") ? (JSON.parse(line) as RawReply) : undefined;
    const call = typeof reply?.id === "number" ? this.#calls.get(reply.id) : undefined;
    if (reply !== undefined && call !== undefined) {
      this.#calls.delete(reply.id as number);
      call.resolve(reply);
      return;
    }
    const taker = this.#takers.shift();
    if (taker === undefined) this.lines.push(line);
    else taker.resolve(line);
  }
}
