// Every rule of ../shared/spec/wire.md on lines, JSON-RPC and errors, at the socket.
import type { ErrorKind } from "@pawl/protocol/errors";
import {
  DEFAULT_MAX_MESSAGE_BYTES,
  MAX_BATCH_CALLS,
  MAX_ID_LENGTH,
  MAX_LINE_NESTING_LEVELS,
} from "@pawl/protocol/limits";
import Database from "better-sqlite3";
import { afterEach, describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { expectRefusal, expectRefusedReply } from "../refusal.js";

const SMALL_LIMIT_BYTES = 1024;

const daemon = sharedDaemon();
const strict = sharedDaemon({ args: ["--max-message-bytes", String(SMALL_LIMIT_BYTES)] });

const connect = (): Promise<RawClient> => daemon().place.connect();

/** A ping as one line of exactly so many bytes, without its end. */
function pingOfLength(bytes: number): string {
  const shortest = JSON.stringify({ jsonrpc: "2.0", id: "i", method: "daemon.ping" });
  return shortest.replace(",", `,${" ".repeat(bytes - shortest.length)}`);
}

const PING = '{"jsonrpc":"2.0","id":"ping","method":"daemon.ping"}';

/** The messages that have come with headers, and what is behind the last. */
function bodies(text: string): string[] {
  const found: string[] = [];
  let rest = Buffer.from(text);
  for (let end = rest.indexOf("\r\n\r\n"); end !== -1; end = rest.indexOf("\r\n\r\n")) {
    const length = Number(/^Content-Length: (\d+)$/.exec(rest.toString("latin1", 0, end))?.[1]);
    found.push(rest.toString("utf8", end + 4, end + 4 + length));
    rest = rest.subarray(end + 4 + length);
  }
  return [...found, rest.toString()];
}

/** The number that is next: shows whether a request took effect. */
async function peek(type: string): Promise<number> {
  const client = await connect();
  const { seq } = await client.call("sequence.peek", { type });
  await client.destroy();
  return seq;
}

// After anything that a test did to it the daemon serves the next connection.
afterEach(async () => {
  for (const { place } of [daemon(), strict()]) {
    const client = await place.connect();
    await client.call("daemon.ping", {});
    await client.destroy();
  }
});

describe("lines", () => {
  test("one line is one request, without any handshake", async () => {
    const client = await connect();
    const reply = await client.ask(
      '{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"HELLO"}}',
    );
    expect(reply).toEqual({ jsonrpc: "2.0", id: 1, result: { type: "HELLO", seq: 1, id: "HELLO-001" } });
  });

  test("a final \\r is tolerated and blank lines are ignored", async () => {
    const client = await connect();
    client.write(`\n\n\r\n \n\t \r\n${PING}\r\n\n`);
    expect((await client.reply()).id).toBe("ping");
    expect((await client.ask('{"jsonrpc":"2.0","id":"last","method":"daemon.ping"}')).id).toBe("last");
  });

  test("a client may send one byte at a time", async () => {
    const client = await connect();
    const line = Buffer.from('{"jsonrpc":"2.0","id":"ü€😀","method":"daemon.ping"}\n');
    for (const byte of line) {
      // The kernel would gather bytes that are written in one turn.
      client.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await client.reply()).id).toBe("ü€😀");
  });

  test("requests may come many to a packet", async () => {
    const client = await connect();
    const lines = Array.from({ length: 500 }, (_, id) =>
      JSON.stringify({ jsonrpc: "2.0", id: `p${id}`, method: "daemon.ping" }),
    );
    client.write(`${lines.join("\n")}\n`);
    const ids = [];
    for (let i = 0; i < 500; i += 1) ids.push((await client.reply()).id);
    expect(ids).toEqual(Array.from({ length: 500 }, (_, id) => `p${id}`));
  });

  test("a client that half-closes after writing gets all its answers, then the end", async () => {
    const client = await connect();
    const lines = Array.from({ length: 3000 }, (_, id) =>
      JSON.stringify({ jsonrpc: "2.0", id: `h${id}`, method: "sequence.next", params: { type: "HALF" } }),
    );
    client.socket.end(`${lines.join("\n")}\n`);
    await client.closed;
    const replies = client.lines.map((line) => JSON.parse(line) as RawReply);
    expect(replies.map(({ id }) => id)).toEqual(Array.from({ length: 3000 }, (_, id) => `h${id}`));
    expect(replies.map(({ result }) => (result as { seq: number }).seq)).toEqual(
      Array.from({ length: 3000 }, (_, index) => index + 1),
    );
  });

  test("half a line and then the end is refused, and not executed", async () => {
    const client = await connect();
    client.socket.end('{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"CUT"}}');
    await client.closed;
    expect(client.lines).toHaveLength(1);
    expectRefusedReply(JSON.parse(client.lines[0] as string), null, "parse_error");
    expect(await peek("CUT")).toBe(1);
  });

  test("half a line and then a close is not executed", async () => {
    const client = await connect();
    client.write('{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"GONE"}}');
    client.socket.destroySoon();
    await client.closed;
    expect(await peek("GONE")).toBe(1);
  });

  test("requests of a client that does not wait for their answers are performed", async () => {
    const client = await connect();
    const notification = '{"jsonrpc":"2.0","method":"sequence.next","params":{"type":"FORGET"}}\n';
    client.socket.end(notification.repeat(2500));
    await client.closed;
    expect(await peek("FORGET")).toBe(2501);
    expect(client.lines).toEqual([]);
  });
});

describe("lines that are too long", () => {
  test.each([
    ["exactly at the limit", SMALL_LIMIT_BYTES, "\n"],
    ["exactly at the limit with \\r", SMALL_LIMIT_BYTES, "\r\n"],
  ])("%s is taken", async (_, bytes, end) => {
    const client = await strict().place.connect();
    client.write(pingOfLength(bytes) + end);
    expect((await client.reply()).result).toBeDefined();
    client.send({ jsonrpc: "2.0", id: "after", method: "daemon.ping" });
    expect((await client.reply()).id).toBe("after");
  });

  test("the limit is 1 MiB unless it is set", async () => {
    const client = await connect();
    client.write(`${pingOfLength(DEFAULT_MAX_MESSAGE_BYTES)}\n`);
    expect((await client.reply()).result).toBeDefined();
    client.write(`${pingOfLength(DEFAULT_MAX_MESSAGE_BYTES + 1)}\n`);
    const { message } = expectRefusedReply(await client.reply(), null, "message_too_large");
    expect(message).toContain(String(DEFAULT_MAX_MESSAGE_BYTES));
    await client.ended;
  });

  const next = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "sequence.next", params: { type: "LONG" } });

  test.each([
    ["one byte over", `${pingOfLength(SMALL_LIMIT_BYTES + 1)}\n`],
    ["one byte over with \\r", `${pingOfLength(SMALL_LIMIT_BYTES + 1)}\r\n`],
    ["one byte over before its end has come", pingOfLength(SMALL_LIMIT_BYTES + 1)],
    ["two bytes over, the last a \\r, before its end has come", `${pingOfLength(SMALL_LIMIT_BYTES + 1)}\r`],
    ["a good request with spaces after it", `${next}${" ".repeat(SMALL_LIMIT_BYTES)}\n`],
    ["nothing but spaces", " ".repeat(SMALL_LIMIT_BYTES + 1)],
    ["a thousand times over", "x".repeat(SMALL_LIMIT_BYTES * 1000)],
  ])("%s gets one error under the id null, then the end", async (_, bytes) => {
    const client = await strict().place.connect();
    client.write(bytes);
    expectRefusedReply(await client.reply(), null, "message_too_large");
    await client.ended;
    client.socket.end();
    await client.closed;
    expect(client.lines).toEqual([]);
  });

  test("requests before it are answered, and nothing after it is executed", async () => {
    const client = await strict().place.connect();
    const long = " ".repeat(SMALL_LIMIT_BYTES + 1);
    client.socket.end(`${next}\n${next}\n${long}\n${next}\n`);
    await client.closed;
    const replies = client.lines.map((line) => JSON.parse(line) as RawReply);
    expect(replies.filter(({ id }) => id === 1).map(({ result }) => result)).toEqual([
      { type: "LONG", seq: 1, id: "LONG-001" },
      { type: "LONG", seq: 2, id: "LONG-002" },
    ]);
    expectRefusedReply(replies.find(({ id }) => id === null) as RawReply, null, "message_too_large");
    expect(replies).toHaveLength(3);
    const other = await strict().place.connect();
    expect((await other.call("sequence.peek", { type: "LONG" })).seq).toBe(3);
  });

  test("a peer that goes on writing gets its answer all the same", async () => {
    const client = await strict().place.connect();
    client.write("x".repeat(SMALL_LIMIT_BYTES + 1));
    expectRefusedReply(await client.reply(), null, "message_too_large");
    for (let i = 0; i < 50; i += 1) {
      await new Promise((resolve) => client.socket.write("x".repeat(10_000), resolve));
    }
    client.socket.end();
    await client.closed;
    expect(client.socket.errored).toBeNull();
  });
});

describe("lines that are not JSON", () => {
  const ping = (id: Buffer): Buffer =>
    Buffer.concat([Buffer.from('{"jsonrpc":"2.0","id":"'), id, Buffer.from('","method":"daemon.ping"}')]);

  test.each<[string, Buffer]>([
    ["words", Buffer.from("hello there")],
    ["HTTP", Buffer.from("GET / HTTP/1.1")],
    ["JSON cut off", Buffer.from(PING.slice(0, -1))],
    ["two messages on a line", Buffer.from(PING + PING)],
    ["a byte order mark", Buffer.from(`\ufeff${PING}`)],
    ["single quotes", Buffer.from(PING.replaceAll('"', "'"))],
    ["NaN", Buffer.from('{"jsonrpc":"2.0","id":NaN,"method":"daemon.ping"}')],
    ["a NUL byte outside of strings", Buffer.from(`\0${PING}`)],
    ["a NUL byte in a string", ping(Buffer.from("a\0b"))],
    ["nothing but NUL bytes", Buffer.alloc(100)],
    ["a control character in a string", ping(Buffer.from("a\tb"))],
    ["a \\r in the middle", Buffer.from(`${PING}\r${PING}`)],
    ["a byte that UTF-8 never has", ping(Buffer.from([0xff]))],
    ["a UTF-8 sequence cut off", ping(Buffer.from([0xe2, 0x82]))],
    ["a continuation byte alone", ping(Buffer.from([0x80]))],
    ["an overlong UTF-8 sequence", ping(Buffer.from([0xc0, 0xaf]))],
    ["a surrogate in UTF-8", ping(Buffer.from([0xed, 0xa0, 0x80]))],
    ["a code point beyond Unicode", ping(Buffer.from([0xf4, 0x90, 0x80, 0x80]))],
    ["Latin-1", Buffer.from(PING.replace("ping", "gr\u00fc\u00df"), "latin1")],
    ["UTF-16", Buffer.from("ping", "utf16le")],
  ])("%s", async (_, bytes) => {
    const client = await connect();
    const reply = await client.ask(bytes);
    expectRefusedReply(reply, null, "parse_error");
    // The line is over with its end: the connection goes on.
    expect((await client.ask(PING)).id).toBe("ping");
  });

  test.each<[string, string, ErrorKind]>([
    ["arrays without an end", "[", "parse_error"],
    ["objects without an end", '{"a":', "parse_error"],
  ])("1 MiB of %s", async (_, unit, kind) => {
    const client = await connect();
    const line = unit.repeat(Math.floor(DEFAULT_MAX_MESSAGE_BYTES / unit.length));
    expectRefusedReply(await client.ask(line), null, kind);
    expect((await client.ask(PING)).id).toBe("ping");
  });

  // As deep as a line may be: the rest is around it.
  const DEPTH = MAX_LINE_NESTING_LEVELS - 4;
  const arrays = "[".repeat(DEPTH) + "]".repeat(DEPTH);
  const objects = `${'{"a":'.repeat(DEPTH)}1${"}".repeat(DEPTH)}`;

  test.each<[string, string]>([
    ["arrays", arrays],
    ["objects", objects],
  ])("%s nested as deeply as a line may be are refused wherever they stand", async (_, deep) => {
    const client = await connect();
    client.write(`[${deep}]\n`);
    const inBatch = JSON.parse(await client.line()) as RawReply[];
    expectRefusedReply(inBatch[0] as RawReply, null, "invalid_request");
    const asId = await client.ask(`{"jsonrpc":"2.0","id":${deep},"method":"daemon.ping"}`);
    expectRefusedReply(asId, null, "invalid_request");
    const asMethod = await client.ask(`{"jsonrpc":"2.0","id":1,"method":${deep}}`);
    expectRefusedReply(asMethod, 1, "invalid_request");
    const asVersion = await client.ask(`{"jsonrpc":${deep},"id":1,"method":"daemon.ping"}`);
    expectRefusedReply(asVersion, 1, "invalid_request");
    const asParam = `{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":${deep}}}`;
    expectRefusedReply(await client.ask(asParam), 1, "invalid_params");
    const asUnknown = `{"jsonrpc":"2.0","id":1,"method":"sequence.state","params":{"no":${deep}}}`;
    expectRefusedReply(await client.ask(asUnknown), 1, "invalid_params");
  });

  test("150,000 arrays in one another are no JSON for the daemon", async () => {
    const client = await connect();
    const deep = "[".repeat(150_000) + "]".repeat(150_000);
    const named = `{"jsonrpc":"2.0","id":1,"method":"sequence.state","params":{"no":${deep}}}`;
    expectRefusedReply(await client.ask(named), null, "parse_error");
    expect((await client.ask(PING)).id).toBe("ping");
  });

  test("nested params", async () => {
    const client = await connect();
    const named = `{"jsonrpc":"2.0","id":1,"method":"sequence.state","params":${objects}}`;
    expectRefusedReply(await client.ask(named), 1, "invalid_params");
    const positional = `{"jsonrpc":"2.0","id":1,"method":"sequence.state","params":${arrays}}`;
    expectRefusedReply(await client.ask(positional), 1, "invalid_params");
  });
});

describe("requests", () => {
  test.each<[string, string, RawReply["id"]]>([
    ["null", "null", null],
    ["a number", "1", null],
    ["a string", '"daemon.ping"', null],
    ["true", "true", null],
    ["an object of nothing", "{}", null],
    ["no version", '{"id":1,"method":"daemon.ping"}', 1],
    ["JSON-RPC 1.0", '{"jsonrpc":"1.0","id":1,"method":"daemon.ping"}', 1],
    ["a version that is a number", '{"jsonrpc":2.0,"id":1,"method":"daemon.ping"}', 1],
    ["no method", '{"jsonrpc":"2.0","id":1}', 1],
    ["no method and no id", '{"jsonrpc":"2.0","params":{}}', null],
    ["a response", '{"jsonrpc":"2.0","id":1,"result":{}}', 1],
    ["a number for a method", '{"jsonrpc":"2.0","id":1,"method":5}', 1],
    ["null for a method", '{"jsonrpc":"2.0","id":1,"method":null}', 1],
    ["an object for a method", '{"jsonrpc":"2.0","id":1,"method":{}}', 1],
    ["an array for a method", '{"jsonrpc":"2.0","id":1,"method":["daemon.ping"]}', 1],
    ["a method that is a number, and no id", '{"jsonrpc":"2.0","method":5}', null],
    ["an object for an id", '{"jsonrpc":"2.0","id":{},"method":"daemon.ping"}', null],
    ["an array for an id", '{"jsonrpc":"2.0","id":[1],"method":"daemon.ping"}', null],
    ["true for an id", '{"jsonrpc":"2.0","id":true,"method":"daemon.ping"}', null],
    ["a string for params", '{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":"x"}', 1],
    ["a number for params", '{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":1}', 1],
    ["true for params", '{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":true}', 1],
    // Answered, they would come under another id than they were sent with.
    ["an id that rounds", '{"jsonrpc":"2.0","id":9007199254740993,"method":"daemon.ping"}', null],
    ["an id beyond all numbers", '{"jsonrpc":"2.0","id":1e400,"method":"daemon.ping"}', null],
  ])("%s is an invalid request", async (_, line, id) => {
    const client = await connect();
    expectRefusedReply(await client.ask(line), id, "invalid_request");
    expect((await client.ask(PING)).id).toBe("ping");
  });

  test.each([
    ["9007199254740993", "9007199254740993"],
    ["1e400", "1e400"],
    ["-1E+400", "-1E+400"],
    ["12345678901234567890.0", "12345678901234567890.0"],
    ["9".repeat(100), `${"9".repeat(77)}...`],
  ])("a number that is no id is told as it was sent: %s", async (id, told) => {
    const client = await connect();
    const message = `or a number up to 9007199254740991, not ${told}. Use`;
    const line = `{"jsonrpc":"2.0","id": ${id} ,"method":"daemon.ping"}`;
    expect(expectRefusedReply(await client.ask(line), null, "invalid_request").message).toContain(message);
    client.write(`[${PING},${line}]\n`);
    const [, second] = JSON.parse(await client.line()) as RawReply[];
    expect(expectRefusedReply(second as RawReply, null, "invalid_request").message).toContain(message);
  });

  test.each<[string, RawReply["id"]]>([
    ["zero", 0],
    ["a negative number", -1],
    ["a fraction", 1.5],
    ["the largest number", Number.MAX_SAFE_INTEGER],
    ["the smallest number", -Number.MAX_SAFE_INTEGER],
    ["an empty string", ""],
    ["a word", "a"],
    ["a lone surrogate", "\ud800"],
    ["NUL", "\0"],
    ["line ends", "\u2028\u2029\n\r"],
    ["a string as long as may be", "x".repeat(MAX_ID_LENGTH)],
    ["null", null],
  ])("%s is an id that comes back as it was sent", async (_, id) => {
    const client = await connect();
    client.send({ jsonrpc: "2.0", id, method: "daemon.ping" });
    const reply = await client.reply();
    expect(reply.id).toBe(id);
    expect(reply.result).toBeDefined();
    client.send({ jsonrpc: "2.0", id, method: "no.such" });
    expectRefusedReply(await client.reply(), id, "method_not_found");
  });

  test.each([
    ["sequence.nxt", "sequence.next"],
    ["sequence_next", "sequence.next"],
    ["daemon.pign", "daemon.ping"],
    ["Sequence.Next", "sequence.next"],
    ["rpc.discovery", "rpc.discover"],
  ])("there is no method %s, but there is %s", async (method, closest) => {
    const client = await connect();
    const { message, data } = expectRefusal(await client.refusal(method, {}), "method_not_found");
    expect(data.closest).toBe(closest);
    expect(message).toContain(JSON.stringify(method));
    expect(message).toContain(closest);
  });

  test.each(["nope", "queue.publish", "x"])(
    "%s is close to no method, and none is suggested",
    async (method) => {
      const { message, data } = expectRefusal(
        await (await connect()).refusal(method, {}),
        "method_not_found",
      );
      expect(data).not.toHaveProperty("closest");
      expect(message).toContain("rpc.discover lists all");
    },
  );

  test.each([
    ["an empty name", ""],
    ["__proto__", "__proto__"],
    ["constructor", "constructor"],
    ["hasOwnProperty", "hasOwnProperty"],
    ["NUL", "\0"],
    ["a long name", "ü".repeat(9000)],
  ])("there is no method of %s", async (_, method) => {
    const client = await connect();
    const { message } = expectRefusal(await client.refusal(method, {}), "method_not_found");
    expect(message.length).toBeLessThan(300);
  });

  test("unknown members of a request are none of its params", async () => {
    const client = await connect();
    const reply = await client.ask('{"jsonrpc":"2.0","id":1,"method":"daemon.ping","trace":"abc"}');
    expect(reply.result).toBeDefined();
  });
});

describe("params", () => {
  const next = (params: unknown): Promise<string> =>
    connect().then(async (client) => {
      const error = expectRefusal(await client.refusal("sequence.next", params), "invalid_params");
      expect(Array.isArray(error.data.issues)).toBe(true);
      return JSON.stringify([error.message, error.data.issues]);
    });

  test("positional params", async () => {
    expect(await next(["FR"])).toContain("by name");
    const client = await connect();
    expectRefusal(await client.refusal("daemon.ping", [{}]), "invalid_params");
  });

  test("an unknown param is named", async () => {
    const client = await connect();
    const error = expectRefusal(
      await client.refusal("sequence.next", { type: "FR", requestID: "a" }),
      "invalid_params",
    );
    expect(error.message).toContain("requestID");
    expect(error.data.issues).toEqual([
      { path: "/requestID", message: expect.stringContaining("requestID") },
    ]);
    expect(await peek("FR")).toBe(1);
  });

  test.each([["__proto__"], ["constructor"], ["toString"], ["a/b~c"], [""]])(
    "%j is an unknown param like any other",
    async (name) => {
      const client = await connect();
      client.write(
        `{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"FR",${JSON.stringify(name)}:{"type":"FR"}}}\n`,
      );
      const error = expectRefusal((await client.reply()).error, "invalid_params");
      const path = `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      expect(error.data.issues).toEqual([{ path, message: expect.stringContaining(JSON.stringify(name)) }]);
    },
  );

  test("a param that is missing, of the wrong type or out of range is named with its value", async () => {
    expect(await next(undefined)).toContain("/type is required");
    expect(await next({})).toContain("/type is required");
    expect(await next({ type: null })).toContain("/type must be a string, not null");
    expect(await next({ type: 7 })).toContain("/type must be a string, not 7");
    expect(await next({ type: "FR", requestId: 5 })).toContain("/requestId must be a string, not 5");
    expect(await next({ type: "F-R" })).toContain("F-R");
  });

  test("an answer lists several issues, but does not grow with the request", async () => {
    const client = await connect();
    const two = await client.refusal("sequence.reserve", { type: "?", count: 0 });
    expect(two.data.issues).toHaveLength(2);
    const names = Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [`name${index}`, index]));
    const many = expectRefusal(await client.refusal("sequence.next", names), "invalid_params");
    expect(JSON.stringify(many).length).toBeLessThan(5000);
    const long = { ["n".repeat(500_000)]: 1, type: "x".repeat(400_000) };
    const wide = expectRefusal(await client.refusal("sequence.next", long), "invalid_params");
    expect(JSON.stringify(wide).length).toBeLessThan(5000);
  });
});

describe("notifications", () => {
  test.each([
    ["a good one", '{"jsonrpc":"2.0","method":"sequence.next","params":{"type":"QUIET"}}'],
    ["an unknown method", '{"jsonrpc":"2.0","method":"no.such"}'],
    ["bad params", '{"jsonrpc":"2.0","method":"sequence.next","params":{"typo":1}}'],
    ["positional params", '{"jsonrpc":"2.0","method":"sequence.next","params":["FR"]}'],
  ])("%s is not answered", async (_, line) => {
    const client = await connect();
    client.write(`${line}\n[${line}]\n[${line},${line}]\n`);
    expect((await client.ask(PING)).id).toBe("ping");
    expect(client.lines).toEqual([]);
  });

  test("take effect", async () => {
    const client = await connect();
    const notification = '{"jsonrpc":"2.0","method":"sequence.next","params":{"type":"NOTIFIED"}}';
    client.write(`${notification}\n[${notification},${notification}]\n`);
    expect((await client.call("sequence.peek", { type: "NOTIFIED" })).seq).toBe(4);
  });
});

describe("batches", () => {
  const batch = async (line: string): Promise<RawReply[]> => {
    const client = await connect();
    client.write(`${line}\n`);
    const answer: unknown = JSON.parse(await client.line());
    expect(Array.isArray(answer)).toBe(true);
    expect((await client.ask(PING)).id).toBe("ping");
    return answer as RawReply[];
  };
  const request = (id: unknown, method: string, params = {}): string =>
    JSON.stringify({ jsonrpc: "2.0", id, method, params });

  test("an empty batch is one invalid request", async () => {
    const client = await connect();
    expectRefusedReply(await client.ask("[]"), null, "invalid_request");
    expectRefusedReply(await client.ask("[ ]"), null, "invalid_request");
  });

  test("a batch of one is answered by an array", async () => {
    const answers = await batch(`[${request(1, "daemon.ping")}]`);
    expect(answers).toEqual([{ jsonrpc: "2.0", id: 1, result: { now: expect.any(Number) } }]);
  });

  test.each([["[null]"], ["[1]"], ['["x"]'], ["[[]]"], ["[{}]"]])(
    "%s is answered per element",
    async (line) => {
      const [answer, ...others] = await batch(line);
      expectRefusedReply(answer as RawReply, null, "invalid_request");
      expect(others).toEqual([]);
    },
  );

  test("[1,2,3] gets three answers", async () => {
    const answers = await batch("[1,2,3]");
    expect(answers).toHaveLength(3);
    for (const answer of answers) expectRefusedReply(answer, null, "invalid_request");
  });

  test("notifications only are answered by nothing", async () => {
    const client = await connect();
    client.write('[{"jsonrpc":"2.0","method":"daemon.ping"},{"jsonrpc":"2.0","method":"no.such"}]\n');
    expect((await client.ask(PING)).id).toBe("ping");
  });

  test("a mixed batch: each element as if it were alone, and it is no transaction", async () => {
    const next = { type: "MIXED" };
    const answers = await batch(
      `[${request("a", "sequence.next", next)},{"jsonrpc":"2.0","method":"sequence.next","params":{"type":"MIXED"}},` +
        `${request("b", "sequence.next", { type: "?" })},5,${request("c", "no.such")},${request(null, "sequence.next", next)}]`,
    );
    expect(answers).toHaveLength(5);
    const byId = new Map(answers.map((answer) => [answer.id, answer]));
    expect(byId.get("a")?.result).toEqual({ type: "MIXED", seq: 1, id: "MIXED-001" });
    expectRefusedReply(byId.get("b") as RawReply, "b", "invalid_params");
    expectRefusedReply(byId.get("c") as RawReply, "c", "method_not_found");
    const nulls = answers.filter(({ id }) => id === null);
    expectRefusedReply(nulls.find(({ error }) => error) as RawReply, null, "invalid_request");
    expect(nulls.find(({ result }) => result)?.result).toEqual({ type: "MIXED", seq: 3, id: "MIXED-003" });
  });

  test.each(["lines", "headers"])("answers that many share are whole in a batch, in %s", async (framing) => {
    const client = await connect();
    let text = "";
    client.socket.on("data", (chunk) => {
      text += chunk;
    });
    const shares = `[${request("a", "rpc.discover")},${request("b", "daemon.ping")},${request("c", "rpc.discover")}]`;
    const head = (message: string): string => `Content-Length: ${Buffer.byteLength(message)}\r\n\r\n`;
    const requests = [shares, PING].map((line) => (framing === "lines" ? `${line}\n` : head(line) + line));
    client.socket.end(requests.join(""));
    await client.closed;
    const [answers, pong, rest] = framing === "lines" ? text.split("\n") : bodies(text);
    const [first, second, third] = JSON.parse(answers as string) as RawReply[];
    expect([first?.id, second?.id, third?.id]).toEqual(["a", "b", "c"]);
    expect(first?.result).toMatchObject({ openrpc: expect.any(String) });
    expect(third?.result).toEqual(first?.result);
    expect(JSON.parse(pong as string)).toMatchObject({ id: "ping" });
    expect(rest).toBe("");
  });

  test(`${MAX_BATCH_CALLS} requests are taken, one more is refused as a whole`, async () => {
    const next = '{"jsonrpc":"2.0","id":7,"method":"sequence.next","params":{"type":"BATCHED"}}';
    const answers = await batch(`[${Array(MAX_BATCH_CALLS).fill(next)}]`);
    expect(answers.map(({ result }) => (result as { seq: number }).seq)).toEqual(
      Array.from({ length: MAX_BATCH_CALLS }, (_, index) => index + 1),
    );
    const client = await connect();
    const reply = await client.ask(`[${Array(MAX_BATCH_CALLS + 1).fill(next)}]`);
    const { message } = expectRefusedReply(reply, null, "invalid_request");
    expect(message).toContain(String(MAX_BATCH_CALLS));
    expect(await peek("BATCHED")).toBe(MAX_BATCH_CALLS + 1);
  });

  test("many full batches at once are answered in order", async () => {
    const client = await connect();
    const next = '{"jsonrpc":"2.0","id":7,"method":"sequence.next","params":{"type":"PILED"}}';
    const line = `[${Array(1000).fill(next)}]\n`;
    client.socket.end(line.repeat(20));
    await client.closed;
    const numbers = client.lines.flatMap((text) =>
      (JSON.parse(text) as RawReply[]).map(({ result }) => (result as { seq: number }).seq),
    );
    expect(numbers).toEqual(Array.from({ length: 20_000 }, (_, index) => index + 1));
  });
});

describe("order", () => {
  test("requests of one connection take effect in the order sent", async () => {
    const client = await connect();
    const answers: Promise<{ seq: number }>[] = [];
    for (let i = 0; i < 300; i += 1) {
      answers.push(client.call("sequence.next", { type: "ORDER" }));
      answers.push(client.call("sequence.peek", { type: "ORDER" }));
      answers.push(client.call("sequence.advance", { type: "ORDER", to: 2 * i + 2 }));
    }
    const seqs = (await Promise.all(answers)).map(({ seq }) => seq);
    expect(seqs).toEqual(Array.from({ length: 300 }, (_, i) => [2 * i + 1, 2 * i + 2, 2 * i + 2]).flat());
  });

  test("an effect that was answered on one connection is seen by reads on every other", async () => {
    const [writer, ...readers] = await Promise.all(Array.from({ length: 5 }, connect));
    for (let i = 1; i <= 50; i += 1) {
      await writer?.call("sequence.next", { type: "SEEN" });
      const seen = await Promise.all(readers.map((reader) => reader.call("sequence.peek", { type: "SEEN" })));
      expect(seen.map(({ seq }) => seq)).toEqual(Array(4).fill(i + 1));
    }
  });

  test("a refusal leaves the other requests of its turn untouched", async () => {
    const client = await connect();
    const next = '{"jsonrpc":"2.0","id":"ok","method":"sequence.next","params":{"type":"BESIDE"}}\n';
    const bad =
      '{"jsonrpc":"2.0","id":"bad","method":"sequence.reserve","params":{"type":"BESIDE","count":-1}}\n';
    client.socket.end(`${next}${bad}not json\n${next}`);
    await client.closed;
    const results = client.lines
      .map((line) => JSON.parse(line) as RawReply)
      .filter(({ id }) => id === "ok")
      .map(({ result }) => (result as { seq: number }).seq);
    expect(results).toEqual([1, 2]);
    expect(client.lines).toHaveLength(4);
  });
});

describe("defects and the log", () => {
  // A table of the daemon's own file is gone.
  test.skipIf(NAMES_ARE_SHARED)(
    "a defect is internal with a reference that the log has too, and fails only its own request",
    async () => {
      const own = await startDaemon();
      const client = await own.place.connect();
      await client.call("sequence.next", { type: "FR" });
      const database = new Database(`${own.place.stateDir}/pawl.db`);
      database.exec("ALTER TABLE pawl_request RENAME TO elsewhere");
      database.close();

      client.write(
        '{"jsonrpc":"2.0","id":"a","method":"sequence.next","params":{"type":"FR"}}\n' +
          '{"jsonrpc":"2.0","id":"b","method":"sequence.next","params":{"type":"FR","requestId":"secret"}}\n' +
          '{"jsonrpc":"2.0","id":"c","method":"sequence.next","params":{"type":"FR"}}\n',
      );
      const replies = [await client.reply(), await client.reply(), await client.reply()];
      const byId = new Map(replies.map((reply) => [reply.id, reply]));
      expect(byId.get("a")?.result).toEqual({ type: "FR", seq: 2, id: "FR-002" });
      expect(byId.get("c")?.result).toEqual({ type: "FR", seq: 3, id: "FR-003" });
      const { message, data } = expectRefusedReply(byId.get("b") as RawReply, "b", "internal");
      expect(Object.keys(data).sort()).toEqual(["kind", "reference", "retryable"]);
      expect(message).toContain(data.reference);

      const line = await own.logged(({ reference }) => reference === data.reference);
      expect(line).toMatchObject({ level: "error", method: "sequence.next", kind: "internal" });
      expect(JSON.stringify(line.err)).toContain("pawl_request");
      expect(JSON.stringify(own.log)).not.toContain("secret");
    },
  );

  test("each refused request has a log line with method, kind and reference, and no payload", async () => {
    const own = await startDaemon({ args: ["--max-message-bytes", String(SMALL_LIMIT_BYTES)] });
    const client = await own.place.connect();
    const requests: [string, string, ErrorKind][] = [
      [
        '{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"SECRET-1"}}',
        "sequence.next",
        "invalid_params",
      ],
      [
        '{"jsonrpc":"2.0","id":1,"method":"sequence.peek","params":{"SECRET":1}}',
        "sequence.peek",
        "invalid_params",
      ],
      ['{"jsonrpc":"2.0","id":1,"method":"SECRET","params":{}}', "-", "method_not_found"],
      ['{"jsonrpc":"2.0","id":1,"method":{"SECRET":1}}', "-", "invalid_request"],
      ["SECRET", "-", "parse_error"],
      [`"${"SECRET".repeat(SMALL_LIMIT_BYTES)}"`, "-", "message_too_large"],
    ];
    for (const [line, method, kind] of requests) {
      expectRefusal((await client.ask(line)).error, kind);
      const logged = await own.logged((each) => each.kind === kind && each.method === method);
      expect(logged).toMatchObject({ level: "info", msg: "refused", reference: expect.any(String) });
    }
    const cut = await own.place.connect();
    cut.socket.end("SECRET");
    await cut.closed;
    expect(await own.end()).toBe(0);
    const refused = own.log.filter(({ msg }) => msg === "refused");
    expect(refused).toHaveLength(requests.length);
    // What nobody can name a method of is refused a second time.
    expect(own.log.filter(({ msg }) => msg === "refused again")).toMatchObject([
      { method: "-", kind: "parse_error", times: 1 },
    ]);
    expect(new Set(refused.map(({ reference }) => reference)).size).toBe(refused.length);
    expect(JSON.stringify(own.log)).not.toContain("SECRET");
  });

  test("errors are counted by method and kind", async () => {
    const own = await startDaemon();
    const client = await own.place.connect();
    await client.refusal("sequence.next", {});
    await client.refusal("sequence.next", { type: "FR", x: 1 });
    await client.refusal("no.such", {});
    await client.ask("nonsense");
    await client.call("sequence.next", { type: "FR" });
    const { requests, errors } = await client.call("daemon.stats", {});
    expect(errors).toEqual({
      "-": { method_not_found: 1, parse_error: 1 },
      "sequence.next": { invalid_params: 2 },
    });
    expect(requests).toEqual({ "sequence.next": 3, "daemon.stats": 1 });
  });
});
