// Connections that speak with the headers of the Language Server Protocol instead of lines.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Place, sharedDaemon, startDaemon } from "../daemon.js";
import type { RawReply } from "../raw-client.js";

const daemon = sharedDaemon();

/** A connection that takes headers and bodies apart, strictly. */
class HeaderClient {
  readonly socket: Socket;
  #bytes = Buffer.alloc(0);
  #ended = false;
  #changed: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#changed();
    });
    socket.on("end", () => {
      this.#ended = true;
      this.#changed();
    });
    socket.on("error", () => {});
  }

  static async connect({ socket: path }: Place): Promise<HeaderClient> {
    const socket = connect({ path, allowHalfOpen: true });
    onTestFinished(() => void socket.destroy());
    await once(socket, "connect");
    return new HeaderClient(socket);
  }

  send(message: unknown): void {
    this.socket.write(framed(JSON.stringify(message)));
  }

  /** The next message; undefined when the daemon has closed. */
  async message(): Promise<RawReply | undefined> {
    for (;;) {
      const [, head = "", length] =
        /^(Content-Length: (\d+)\r\n\r\n)/.exec(this.#bytes.toString("latin1")) ?? [];
      const end = head.length + Number(length);
      if (head !== "" && this.#bytes.length >= end) {
        const body = this.#bytes.subarray(head.length, end).toString("utf8");
        this.#bytes = this.#bytes.subarray(end);
        return JSON.parse(body) as RawReply;
      }
      if (this.#ended) {
        expect(this.#bytes).toHaveLength(0);
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

function framed(body: string, more = ""): string {
  return `Content-Length: ${Buffer.byteLength(body)}\r\n${more}\r\n${body}`;
}

function request(id: string | number, method: string, params: object = {}): object {
  return { jsonrpc: "2.0", id, method, params };
}

describe("a connection that begins with Content-Length", () => {
  test("is answered with headers, for its whole life, in bytes and not in characters", async () => {
    const client = await HeaderClient.connect(daemon().place);
    const payload = "é".repeat(100);
    client.send(request(1, "queue.enqueue", { queue: "headers", payloads: [payload] }));
    expect(await client.message()).toMatchObject({ id: 1, result: { batch: { payloads: [payload] } } });
    const type = "Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n";
    client.socket.write(framed(JSON.stringify(request(2, "daemon.ping")), type));
    expect(await client.message()).toMatchObject({ id: 2, result: { now: expect.any(Number) } });
    client.socket.write(`content-length:${framed(JSON.stringify([request(3, "daemon.ping")])).slice(15)}`);
    expect(await client.message()).toMatchObject([{ id: 3 }]);
    // A body may be JSON of several lines.
    client.socket.write(framed(JSON.stringify(request(4, "daemon.ping"), null, 2)));
    expect(await client.message()).toMatchObject({ id: 4 });
    client.socket.write(framed("{"));
    expect((await client.message())?.error?.data.kind).toBe("parse_error");
    client.send(request(5, "daemon.ping"));
    expect(await client.message()).toMatchObject({ id: 5 });
    client.socket.end();
    expect(await client.message()).toBeUndefined();
  });

  test("may be split at any byte", async () => {
    const bytes = Buffer.from(
      framed(JSON.stringify(request("ü", "daemon.ping"))) + framed(JSON.stringify(request(2, "daemon.ping"))),
    );
    const clients = await Promise.all(
      Array.from({ length: bytes.length - 1 }, () => HeaderClient.connect(daemon().place)),
    );
    for (const [index, client] of clients.entries()) {
      client.socket.write(bytes.subarray(0, index + 1));
    }
    const other = await HeaderClient.connect(daemon().place);
    other.send(request(1, "daemon.ping"));
    await other.message();
    for (const [index, client] of clients.entries()) client.socket.write(bytes.subarray(index + 1));
    for (const client of clients) {
      expect(await client.message()).toMatchObject({ id: "ü" });
      expect(await client.message()).toMatchObject({ id: 2 });
    }
    for (const byte of bytes) {
      other.socket.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    expect(await other.message()).toMatchObject({ id: "ü" });
  });

  test("is sent notifications and requests with headers too", async () => {
    const client = await HeaderClient.connect(daemon().place);
    client.send(request(1, "lease.acquire", { name: "headers", owner: "test" }));
    await client.message();
    client.send(request(2, "command.serve", { deployment: "headers", owner: "test" }));
    await client.message();
    const other = await daemon().place.connect();
    await other.call("lease.break", { name: "headers", reason: "test" });
    expect(await client.message()).toMatchObject({ method: "lease.lost", params: { name: "headers" } });
    const { commandId } = await other.call("command.create", {
      deployment: "headers",
      command: "go",
      params: ["é"],
    });
    const asked = (await client.message()) as unknown as { id: string };
    expect(asked).toMatchObject({ method: "command.execute", params: { commandId } });
    client.send({ jsonrpc: "2.0", id: asked.id, result: { status: "success", response: "done" } });
    expect(await other.call("command.wait", { commandId, waitMs: 60_000 })).toMatchObject({
      state: "SUCCEEDED",
    });
  });

  test("may answer a request by more than a message may have, and goes on", async () => {
    const { place } = await startDaemon({ args: ["--max-message-bytes", "4096"] });
    const client = await HeaderClient.connect(place);
    client.send(request(1, "command.serve", { deployment: "headers", owner: "test" }));
    await client.message();
    const other = await place.connect();
    const { commandId } = await other.call("command.create", { deployment: "headers", command: "go" });
    const asked = (await client.message()) as unknown as { id: string };
    const response = "x".repeat(100_000);
    client.send({ jsonrpc: "2.0", id: asked.id, result: { status: "success", response } });
    client.send(request(2, "daemon.ping"));
    expect(await other.call("command.wait", { commandId, waitMs: 60_000 })).toMatchObject({
      state: "FAILED",
      error: { code: "ANSWER_TOO_LARGE" },
    });
    const ids = [(await client.message())?.id];
    if (ids[0] !== 2) ids.push((await client.message())?.id);
    expect(ids.at(-1)).toBe(2);
  });

  test("takes messages as long as a line may be, and is refused longer ones", async () => {
    const { place } = await startDaemon({ args: ["--max-message-bytes", "2048"] });
    const client = await HeaderClient.connect(place);
    const body = JSON.stringify(request(1, "daemon.ping"));
    client.socket.write(framed(body.padEnd(2048)));
    expect(await client.message()).toMatchObject({ id: 1 });
    client.socket.write("Content-Length: 2049\r\n\r\n");
    expect(await client.message()).toMatchObject({
      id: null,
      error: { data: { kind: "message_too_large" } },
    });
    expect(await client.message()).toBeUndefined();
  });

  test("may carry long pieces in both directions", async () => {
    const client = await HeaderClient.connect(daemon().place);
    const bytes = Buffer.alloc(400_000, "é");
    const text = JSON.stringify(bytes.toString("utf8"));
    const upload = Buffer.from(text);
    client.send(
      request(1, "command.create", {
        deployment: "headers-long",
        command: "go",
        upload: { sizeBytes: upload.length },
      }),
    );
    const { commandId } = ((await client.message()) as RawReply).result as { commandId: string };
    client.send(
      request(2, "command.upload", { commandId, offset: 0, chunk: upload.toString("base64"), final: true }),
    );
    expect(await client.message()).toMatchObject({ id: 2, result: { receivedBytes: upload.length } });
    client.send(request(3, "command.params", { commandId, offset: 0, length: upload.length }));
    const { chunk } = ((await client.message()) as RawReply).result as { chunk: string };
    expect(Buffer.from(chunk, "base64").equals(upload)).toBe(true);
    client.send(request(4, "daemon.ping"));
    expect(await client.message()).toMatchObject({ id: 4 });
  });

  test.each([
    ["no number", "Content-Length: ten\r\n\r\n"],
    ["a negative number", "Content-Length: -1\r\n\r\n"],
    ["two lengths", "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"],
    ["lines without CRLF", "Content-Length: 2\n\n{}"],
    ["a line that is no header", "Content-Length: 2\r\n{}\r\n\r\n{}"],
    ["another encoding", "Content-Length: 2\r\nContent-Type: text/plain; charset=latin1\r\n\r\n{}"],
    ["headers without end", `Content-Length: 2\r\n${"X-More: y\r\n".repeat(400)}`],
  ])("with %s is refused and closed", async (_, bytes) => {
    const client = await HeaderClient.connect(daemon().place);
    client.socket.write(bytes);
    const refused = await client.message();
    expect(refused).toMatchObject({ id: null, error: { data: { kind: "parse_error" } } });
    expect(refused?.error?.message).toMatch(/^[A-Z].*\.$/);
    expect(await client.message()).toBeUndefined();
  });

  test("is refused lines later on; what came before is answered", async () => {
    const client = await HeaderClient.connect(daemon().place);
    client.send(request(1, "daemon.ping"));
    client.socket.write(`${JSON.stringify(request(2, "daemon.ping"))}\n`);
    const answers = [await client.message(), await client.message()];
    expect(answers.map((answer) => answer?.id).toSorted()).toEqual([1, null]);
    expect(answers.find((answer) => answer?.id === null)?.error?.data.kind).toBe("parse_error");
    expect(await client.message()).toBeUndefined();
  });

  test("that ends within a message is told so", async () => {
    const client = await HeaderClient.connect(daemon().place);
    client.socket.end("Content-Length: 20\r\n\r\n{}");
    expect((await client.message())?.error?.message).toContain("shorter than its Content-Length");
    const early = await HeaderClient.connect(daemon().place);
    early.socket.end("Content-Le");
    await once(early.socket, "end");
  });
});
