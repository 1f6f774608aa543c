// The room of hooks: what a coding agent's host asks before and after what the agent does. It is loaded for each edit,
// and so has nothing in it that is not needed for that.
import { connect, type Socket } from "node:net";
import type { MethodName, Params, Result } from "@pawl/protocol/types";

/** An agent waits for its hook: a daemon that is stopped or busy must not keep it. */
const ANSWER_MS = 3000;

type Waiting = { resolve: (result: never) => void; reject: (error: Error) => void };

/** A connection for the few calls of one hook, which ends with the first failure. */
export class DaemonCalls {
  readonly socketPath: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;

  /** Connects to the first place where a daemon answers; resolves with undefined where none does. */
  static async open(socketPaths: readonly string[]): Promise<DaemonCalls | undefined> {
    for (const path of socketPaths) {
      const socket = await new Promise<Socket | undefined>((resolve) => {
        const trying = connect(path);
        trying.once("connect", () => resolve(trying)).once("error", () => resolve(undefined));
      });
      if (socket !== undefined) return new DaemonCalls(path, socket);
    }
    return undefined;
  }

  private constructor(socketPath: string, socket: Socket) {
    this.socketPath = socketPath;
    this.#socket = socket;
    let rest = "";
    socket.setEncoding("utf8").setTimeout(ANSWER_MS);
    socket.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() as string;
      for (const line of lines) this.#take(line);
    });
    const fail = (): void => this.#fail(new Error(`The daemon on ${socketPath} does not answer.`));
    socket.on("timeout", fail).on("error", fail).on("close", fail);
  }

  /** Rejects with the message of a refusal, or when no answer comes soon. */
  call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(line: string): void {
    const { id, result, error } = JSON.parse(line) as {
      id?: number;
      result?: unknown;
      error?: { message: string };
    };
    const waiting = this.#waiting.get(id as number);
    if (waiting === undefined) return;
    this.#waiting.delete(id as number);
    if (error === undefined) waiting.resolve(result as never);
    else waiting.reject(new Error(error.message));
  }

  #fail(error: Error): void {
    this.#socket.destroy();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
