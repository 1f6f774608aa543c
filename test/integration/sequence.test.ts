// Sequences over the socket, with everything that ../shared/spec/sequence.md promises or refuses.
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { connect as connectClient } from "@pawl/client";
import { openDispenser } from "@pawl/daemon";
import type { MethodName } from "@pawl/protocol";
import type { ErrorKind } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_NODE_ID, MAX_RESERVE_COUNT } from "@pawl/protocol/limits";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory, sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal, refusedStart } from "../refusal.js";

const daemon = sharedDaemon();
const connect = (): Promise<RawClient> => daemon().place.connect();

let types = 0;
/** A type that no other test uses, so that all can share a daemon. */
function freshType(): string {
  types += 1;
  return `T${types}`;
}

describe("next", () => {
  test("counts up per type, and upper and lower case are one", async () => {
    const client = await connect();
    expect(await client.call("sequence.next", { type: "FR" })).toEqual({ type: "FR", seq: 1, id: "FR-001" });
    expect(await client.call("sequence.next", { type: "fr" })).toEqual({ type: "FR", seq: 2, id: "FR-002" });
    expect(await client.call("sequence.next", { type: "Fr" })).toEqual({ type: "FR", seq: 3, id: "FR-003" });
    expect(await client.call("sequence.next", { type: "BUG" })).toEqual({
      type: "BUG",
      seq: 1,
      id: "BUG-001",
    });
  });

  test("pads to three digits and grows past them", async () => {
    const client = await connect();
    const type = freshType();
    await client.call("sequence.advance", { type, to: 98 });
    expect((await client.call("sequence.next", { type })).id).toBe(`${type}-099`);
    await client.call("sequence.advance", { type, to: 998 });
    expect((await client.call("sequence.next", { type })).id).toBe(`${type}-999`);
    expect((await client.call("sequence.next", { type })).id).toBe(`${type}-1000`);
    await client.call("sequence.advance", { type, to: 123_456_788 });
    expect((await client.call("sequence.next", { type })).id).toBe(`${type}-123456789`);
  });

  test("takes names at the edges of what a type may be", async () => {
    const client = await connect();
    for (const type of ["A", "Z9_", "A_", "X".repeat(32)]) {
      expect(await client.call("sequence.next", { type })).toEqual({ type, seq: 1, id: `${type}-001` });
    }
  });
});

describe("peek and state", () => {
  test("peek says what next would return, and changes nothing", async () => {
    const client = await connect();
    const type = freshType();
    for (let i = 0; i < 3; i += 1) {
      expect(await client.call("sequence.peek", { type: type.toLowerCase() })).toEqual({
        type,
        seq: 1,
        id: `${type}-001`,
      });
    }
    expect((await client.call("sequence.state", {})).sequences).not.toHaveProperty(type);
    await client.call("sequence.next", { type });
    expect((await client.call("sequence.peek", { type })).seq).toBe(2);
  });

  test("state has the mode and the last number of each type", async () => {
    const own = await new Place().start();
    const client = await own.place.connect();
    expect(await client.call("sequence.state", {})).toEqual({
      mode: { kind: "centralized" },
      sequences: {},
      granted: {},
    });
    await client.call("sequence.next", { type: "FR" });
    await client.call("sequence.next", { type: "FR" });
    await client.call("sequence.reserve", { type: "BUG", count: 10 });
    await client.call("sequence.advance", { type: "FEAT", to: 7 });
    await client.call("sequence.advance", { type: "NONE", to: 0 });
    await client.call("sequence.peek", { type: "SEEN" });
    expect((await client.call("sequence.state", {})).sequences).toEqual({ BUG: 10, FEAT: 7, FR: 2 });
  });
});

describe("reserve", () => {
  test("takes a contiguous block", async () => {
    const client = await connect();
    const type = freshType();
    await client.call("sequence.next", { type });
    expect(await client.call("sequence.reserve", { type: type.toLowerCase(), count: 50 })).toEqual({
      type,
      first: 2,
      last: 51,
      firstId: `${type}-002`,
      lastId: `${type}-051`,
    });
    expect((await client.call("sequence.next", { type })).seq).toBe(52);
    expect(await client.call("sequence.reserve", { type, count: 1 })).toMatchObject({ first: 53, last: 53 });
    expect(await client.call("sequence.reserve", { type, count: MAX_RESERVE_COUNT })).toMatchObject({
      first: 54,
      last: 53 + MAX_RESERVE_COUNT,
    });
  });

  test("blocks of callers at once do not overlap", async () => {
    const clients = await Promise.all(Array.from({ length: 10 }, connect));
    const type = freshType();
    const blocks = await Promise.all(
      clients.flatMap((client, index) =>
        Array.from({ length: 20 }, () => client.call("sequence.reserve", { type, count: index + 1 })),
      ),
    );
    let last = 0;
    for (const block of blocks.sort((a, b) => a.first - b.first)) {
      expect(block.first).toBe(last + 1);
      last = block.last;
    }
    expect(last).toBe(20 * 55);
  });
});

describe("advance", () => {
  test("raises a counter, and never lowers it", async () => {
    const client = await connect();
    const type = freshType();
    const advance = (to: number) => client.call("sequence.advance", { type: type.toLowerCase(), to });
    expect(await advance(0)).toEqual({ type, seq: 0 });
    expect(await advance(120)).toEqual({ type, seq: 120 });
    expect(await advance(119)).toEqual({ type, seq: 120 });
    expect(await advance(0)).toEqual({ type, seq: 120 });
    expect(await advance(120)).toEqual({ type, seq: 120 });
    expect((await client.call("sequence.next", { type })).seq).toBe(121);
    expect(await advance(121)).toEqual({ type, seq: 121 });
  });
});

describe("the last number", () => {
  test("after 2^53 - 1 a sequence is exhausted, and says so without wrapping or rounding", async () => {
    const client = await connect();
    const type = freshType();
    await client.call("sequence.advance", { type, to: MAX_INTEGER - 3 });
    const tooMany = expectRefusal(await client.refusal("sequence.reserve", { type, count: 4 }), "exhausted");
    expect(tooMany.data).toMatchObject({ type, last: MAX_INTEGER - 3, left: 3 });
    expect(tooMany.message).toContain(type);
    // The refusal has taken none.
    expect(await client.call("sequence.reserve", { type, count: 2 })).toMatchObject({
      first: MAX_INTEGER - 2,
      last: MAX_INTEGER - 1,
    });
    expect(await client.call("sequence.peek", { type })).toMatchObject({ seq: MAX_INTEGER });
    expect(await client.call("sequence.next", { type })).toEqual({
      type,
      seq: MAX_INTEGER,
      id: `${type}-9007199254740991`,
    });
    for (let i = 0; i < 3; i += 1) {
      expectRefusal(await client.refusal("sequence.next", { type }), "exhausted");
      expectRefusal(await client.refusal("sequence.peek", { type }), "exhausted");
      expectRefusal(await client.refusal("sequence.reserve", { type, count: 1 }), "exhausted");
      expectRefusal(
        await client.refusal("sequence.next", { type, requestId: `exhausted ${i}` }),
        "exhausted",
      );
    }
    expect((await client.call("sequence.state", {})).sequences[type]).toBe(MAX_INTEGER);
    expect(await client.call("sequence.advance", { type, to: MAX_INTEGER })).toEqual({
      type,
      seq: MAX_INTEGER,
    });
  });
});

describe("format and parse", () => {
  test.each([
    ["fr", 7, "FR-007"],
    ["FR", 1, "FR-001"],
    ["A_1", 999, "A_1-999"],
    ["FR", 1000, "FR-1000"],
    ["FR", MAX_INTEGER, "FR-9007199254740991"],
  ])("%s and %i are %s, and back", async (type, seq, id) => {
    const client = await connect();
    expect(await client.call("sequence.format", { type, seq })).toEqual({ id });
    expect(await client.call("sequence.parse", { id })).toEqual({ type: type.toUpperCase(), nodeId: 0, seq });
  });

  test.each([
    ["FR-7-001", { type: "FR", nodeId: 7, seq: 1 }],
    ["fr-7-001", { type: "FR", nodeId: 7, seq: 1 }],
    ["fr-001", { type: "FR", nodeId: 0, seq: 1 }],
    [`A-${MAX_NODE_ID}-${MAX_INTEGER}`, { type: "A", nodeId: MAX_NODE_ID, seq: MAX_INTEGER }],
    [`${"X".repeat(32)}-100`, { type: "X".repeat(32), nodeId: 0, seq: 100 }],
    // The middle part is a node id even where it is as short as one.
    ["FR-123-001", { type: "FR", nodeId: 123, seq: 1 }],
    ["FR-JM-020", { type: "FR", nodeId: "JM", seq: 20 }],
    ["fr-j2-1", { type: "FR", nodeId: "J2", seq: 1 }],
    [`A-${"N".repeat(32)}-7`, { type: "A", nodeId: "N".repeat(32), seq: 7 }],
    // Any padding.
    ["FR-1", { type: "FR", nodeId: 0, seq: 1 }],
    ["FR-01000", { type: "FR", nodeId: 0, seq: 1000 }],
    ["FR-7-0001", { type: "FR", nodeId: 7, seq: 1 }],
    [`FR-${"0".repeat(100)}9`, { type: "FR", nodeId: 0, seq: 9 }],
  ])("%s has these parts", async (id, parts) => {
    const client = await connect();
    expect(await client.call("sequence.parse", { id })).toEqual(parts);
  });

  test.each([
    [""],
    ["FR"],
    ["FR-"],
    ["-001"],
    ["001"],
    ["FR001"],
    ["FR_001"],
    ["FR-0"],
    ["FR-000"],
    ["FR--001"],
    ["FR-+01"],
    ["FR-1e3"],
    ["FR-0x1"],
    ["FR-1.0"],
    ["FR-001 "],
    [" FR-001"],
    ["FR-001\n"],
    ["FR-001\u0000"],
    ["FR-\u0661\u0662\u0663"],
    ["FR-0-001"],
    ["FR-07-001"],
    ["FR-7-000"],
    ["FR-7JM-001"],
    ["FR-J_M-001"],
    ["FR-ÄM-001"],
    [`FR-${"N".repeat(33)}-001`],
    ["FR-JM"],
    ["FR-7-8-001"],
    ["FR-4294967296-001"],
    ["FR-99999999999-001"],
    ["FR-9007199254740992"],
    ["FR-99999999999999999999"],
    ["1FR-001"],
    ["_FR-001"],
    ["FÜR-001"],
    ["ﬀ-001"],
    [`${"X".repeat(33)}-001`],
  ])("%j is no id", async (id) => {
    const client = await connect();
    const error = expectRefusal(await client.refusal("sequence.parse", { id }), "invalid_params");
    expect(error.message).toContain(JSON.stringify(id).slice(0, 20));
    expect(error.data.issues).toEqual([{ path: "/id", message: expect.any(String) }]);
  });
});

describe("refused params", () => {
  const bad: [MethodName, string, unknown][] = [
    ...(["sequence.next", "sequence.peek"] as const).flatMap((method): [MethodName, string, unknown][] => [
      [method, "/type", {}],
      [method, "/type", { type: "" }],
      [method, "/type", { type: "F-R" }],
      [method, "/type", { type: "1FR" }],
      [method, "/type", { type: "_FR" }],
      [method, "/type", { type: "F R" }],
      [method, "/type", { type: "FR\n" }],
      [method, "/type", { type: "FÜR" }],
      [method, "/type", { type: "ıFR" }],
      [method, "/type", { type: "X".repeat(33) }],
      [method, "/type", { type: null }],
      [method, "/type", { type: ["FR"] }],
      [method, "/requestid", { type: "FR", requestid: "x" }],
    ]),
    ["sequence.next", "/requestId", { type: "FR", requestId: "" }],
    ["sequence.next", "/requestId", { type: "FR", requestId: "r".repeat(129) }],
    ["sequence.next", "/requestId", { type: "FR", requestId: 5 }],
    ["sequence.next", "/requestId", { type: "FR", requestId: "a\0b" }],
    ["sequence.next", "/requestId", { type: "FR", requestId: "\ud800" }],
    ["sequence.next", "/count", { type: "FR", count: 2 }],
    ["sequence.reserve", "/count", { type: "FR" }],
    ["sequence.reserve", "/count", { type: "FR", count: 0 }],
    ["sequence.reserve", "/count", { type: "FR", count: -1 }],
    ["sequence.reserve", "/count", { type: "FR", count: 1.5 }],
    ["sequence.reserve", "/count", { type: "FR", count: "5" }],
    ["sequence.reserve", "/count", { type: "FR", count: MAX_RESERVE_COUNT + 1 }],
    ["sequence.peek", "/requestId", { type: "FR", requestId: "x" }],
    ["sequence.state", "/type", { type: "FR" }],
    ["sequence.format", "/seq", { type: "FR" }],
    ["sequence.format", "/seq", { type: "FR", seq: 0 }],
    ["sequence.format", "/seq", { type: "FR", seq: -1 }],
    ["sequence.format", "/seq", { type: "FR", seq: 1.5 }],
    ["sequence.format", "/seq", { type: "FR", seq: 2 ** 53 }],
    ["sequence.format", "/seq", { type: "FR", seq: "1" }],
    ["sequence.parse", "/id", {}],
    ["sequence.parse", "/id", { id: 5 }],
    ["sequence.advance", "/to", { type: "FR" }],
    ["sequence.advance", "/to", { type: "FR", to: -1 }],
    ["sequence.advance", "/to", { type: "FR", to: 0.5 }],
    ["sequence.advance", "/to", { type: "FR", to: 2 ** 53 }],
    ["sequence.advance", "/to", { type: "FR", to: 1e300 }],
    ["sequence.advance", "/requestId", { type: "FR", to: 5, requestId: "x" }],
  ];

  test.each(bad)("%s: %s", async (method, path, params) => {
    const client = await connect();
    const before = await client.call("sequence.state", {});
    const error = expectRefusal(await client.refusal(method, params), "invalid_params");
    const issues = error.data.issues as { path: string; message: string }[];
    expect(new Set(issues.map((issue) => issue.path))).toEqual(new Set([path]));
    expect(error.message).toContain(path);
    expect(await client.call("sequence.state", {})).toEqual(before);
  });
});

describe("requestId", () => {
  test("a retry gets the same number and burns none", async () => {
    const [client, other] = [await connect(), await connect()];
    const type = freshType();
    const requestId = `retry of ${type}`;
    const first = await client.call("sequence.next", { type, requestId });
    expect(first.seq).toBe(1);
    expect(await other.call("sequence.next", { type, requestId })).toEqual(first);
    // Types that differ only in case are the same request.
    expect(await client.call("sequence.next", { type: type.toLowerCase(), requestId })).toEqual(first);
    const block = await client.call("sequence.reserve", { type, count: 5, requestId: `${requestId}, block` });
    expect(block).toMatchObject({ first: 2, last: 6 });
    expect(
      await client.call("sequence.reserve", { type, count: 5, requestId: `${requestId}, block` }),
    ).toEqual(block);
    expect((await client.call("sequence.next", { type })).seq).toBe(7);
  });

  test("retries that arrive together get one number", async () => {
    const clients = await Promise.all(Array.from({ length: 20 }, connect));
    const type = freshType();
    const answers = await Promise.all(
      clients.flatMap((client) =>
        Array.from({ length: 5 }, () =>
          client.call("sequence.next", { type, requestId: `crowd of ${type}` }),
        ),
      ),
    );
    expect(new Set(answers.map(({ seq }) => seq))).toEqual(new Set([1]));
    expect((await clients[0]?.call("sequence.peek", { type }))?.seq).toBe(2);
  });

  test("the same id with other params is a conflict that names both", async () => {
    const client = await connect();
    const type = freshType();
    const requestId = `conflict of ${type}`;
    await client.call("sequence.reserve", { type, count: 5, requestId });
    const others: [MethodName, Record<string, unknown>][] = [
      ["sequence.reserve", { type, count: 6 }],
      ["sequence.reserve", { type: `${type}X`, count: 5 }],
      ["sequence.next", { type }],
    ];
    for (const [method, params] of others) {
      const error = expectRefusal(await client.refusal(method, { ...params, requestId }), "conflict");
      expect(error.message).toContain(requestId);
      expect(error.data).toMatchObject({
        requestId,
        first: { method: "sequence.reserve", type, count: 5 },
        now: { method, ...params },
      });
    }
    expect((await client.call("sequence.peek", { type })).seq).toBe(6);
  });

  test("ids of 1 to 128 characters are told apart to the last one", async () => {
    const client = await connect();
    const type = freshType();
    const ids = [
      "a",
      "b",
      "A",
      "r".repeat(128),
      `${"r".repeat(127)}s`,
      "ü",
      "u\u0308",
      " ",
      "'; DROP TABLE x; --",
    ];
    const numbers = [];
    for (const requestId of ids) numbers.push((await client.call("sequence.next", { type, requestId })).seq);
    expect(numbers).toEqual(ids.map((_, index) => index + 1));
    for (const [index, requestId] of ids.entries()) {
      expect((await client.call("sequence.next", { type, requestId })).seq).toBe(index + 1);
    }
  });

  test("is remembered by the next daemon, also after a kill", async () => {
    const place = new Place();
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      const own = await place.start();
      const client = await place.connect();
      expect((await client.call("sequence.next", { type: "FR", requestId: "once" })).seq).toBe(1);
      await own.end(signal);
    }
    await place.start();
    const client = await place.connect();
    expect((await client.call("sequence.next", { type: "FR", requestId: "once" })).seq).toBe(1);
    expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(2);
  });
});

describe("modes", () => {
  const distributed = (nodeId: number): string[] => ["--mode", "distributed", "--node-id", String(nodeId)];

  async function mismatch(own: DaemonProcess): Promise<string> {
    const message = await refusedStart(own);
    expect(message).toContain("--accept-mode-change");
    return message;
  }

  test("distributed ids have the node in them", async () => {
    const own = await new Place().start({ args: distributed(7) });
    const client = await own.place.connect();
    expect(await client.call("sequence.next", { type: "fr" })).toEqual({
      type: "FR",
      seq: 1,
      id: "FR-7-001",
    });
    expect(await client.call("sequence.peek", { type: "FR" })).toEqual({
      type: "FR",
      seq: 2,
      id: "FR-7-002",
    });
    expect(await client.call("sequence.reserve", { type: "FR", count: 999 })).toMatchObject({
      firstId: "FR-7-002",
      lastId: "FR-7-1000",
    });
    expect(await client.call("sequence.format", { type: "BUG", seq: 5 })).toEqual({ id: "BUG-7-005" });
    expect(await client.call("sequence.parse", { id: "BUG-8-005" })).toEqual({
      type: "BUG",
      nodeId: 8,
      seq: 5,
    });
    expect(await client.call("sequence.state", {})).toEqual({
      mode: { kind: "distributed", nodeId: 7 },
      sequences: { FR: 1000 },
      granted: {},
    });
    expect(await client.call("daemon.info", {})).toMatchObject({
      mode: { kind: "distributed", nodeId: 7 },
      nodeId: 7,
    });
  });

  test("the largest node id", async () => {
    const own = await new Place().start({ args: distributed(MAX_NODE_ID) });
    const client = await own.place.connect();
    const { id } = await client.call("sequence.next", { type: "FR" });
    expect(id).toBe("FR-4294967295-001");
    expect(await client.call("sequence.parse", { id })).toEqual({ type: "FR", nodeId: MAX_NODE_ID, seq: 1 });
  });

  test("a node may have a name, in whatever case", async () => {
    const place = new Place();
    const args = ["--mode", "distributed", "--node-id", "jm"];
    const own = await place.start({ args });
    const client = await place.connect();
    expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-JM-001");
    expect(await client.call("daemon.info", {})).toMatchObject({ nodeId: "JM", idDigits: 3 });
    await own.end("SIGKILL");
    expect(await mismatch(place.spawn({ args: distributed(7) }))).toContain("node id JM");
    await place.start({ args: ["--mode", "distributed", "--node-id", "JM"] });
    expect((await (await place.connect()).call("sequence.next", { type: "FR" })).id).toBe("FR-JM-002");
  });

  test("the padding of ids is that of the database, and may be changed", async () => {
    const place = new Place();
    const ids: string[] = [];
    for (const args of [["--id-digits", "5"], [], ["--id-digits", "0"], []]) {
      const own = await place.start({ args });
      const client = await place.connect();
      const { id } = await client.call("sequence.next", { type: "FR" });
      ids.push(id, (await client.call("sequence.format", { type: "FR", seq: 12 })).id);
      expect((await client.call("sequence.parse", { id })).seq).toBe(ids.length / 2);
      await own.end();
    }
    expect(ids).toEqual(["FR-00001", "FR-00012", "FR-00002", "FR-00012", "FR-3", "FR-12", "FR-4", "FR-12"]);
  });

  test("another mode is refused, and accepted keeps the former counters", async () => {
    const place = new Place();
    const during = async (args: string[], use: (client: RawClient) => Promise<void>): Promise<void> => {
      const own = await place.start({ args });
      await use(await place.connect());
      await own.end("SIGKILL");
    };

    await during([], async (client) => {
      await client.call("sequence.advance", { type: "FR", to: 5 });
    });
    // Nothing asked for takes the database as it is, and so does asking for the same.
    await during(["--mode", "centralized"], async (client) => {
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-006");
    });
    const toNode = await mismatch(place.spawn({ args: distributed(7) }));
    expect(toNode).toContain("centralized");
    expect(toNode).toContain("distributed (node id 7)");

    await during([...distributed(7), "--accept-mode-change"], async (client) => {
      expect((await client.call("sequence.state", {})).sequences).toEqual({});
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-7-001");
    });
    await during([], async (client) => {
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-7-002");
    });
    const toOther = await mismatch(place.spawn({ args: distributed(8) }));
    expect(toOther).toContain("node id 7");
    expect(toOther).toContain("node id 8");
    expect(await mismatch(place.spawn({ args: ["--mode", "centralized"] }))).toContain("node id 7");

    await during([...distributed(8), "--accept-mode-change"], async (client) => {
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-8-001");
    });
    await during([...distributed(7), "--accept-mode-change"], async (client) => {
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-7-003");
    });
    await during(["--mode", "centralized", "--accept-mode-change"], async (client) => {
      expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-007");
      expect((await client.call("sequence.state", {})).sequences).toEqual({ FR: 7 });
    });
  });
});

describe("grants", () => {
  test("have the numbers of a type come from blocks of another node, over restarts", async () => {
    const other = await (await new Place().start()).place.connect();
    const place = new Place();
    const own = await place.start();
    let client = await place.connect();
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await other.call("sequence.advance", { type: "FR", to: 100 });
    const block = await other.call("sequence.reserve", { type: "FR", count: 2 });
    const grant = { type: "fr", first: block.first, last: block.last };
    expect(await client.call("sequence.grant", grant)).toEqual({ type: "FR", left: 2 });
    const again = expectRefusal(await client.refusal("sequence.grant", grant), "conflict");
    expect(again.data).toMatchObject({ type: "FR", highest: 102 });
    expect((await client.call("sequence.peek", { type: "FR" })).id).toBe("FR-101");
    expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-101");
    await own.end("SIGKILL");
    await place.start();
    client = await place.connect();
    expect(await client.call("sequence.state", {})).toMatchObject({
      sequences: { FR: 101 },
      granted: { FR: 1 },
    });
    expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-102");
    for (const method of ["sequence.next", "sequence.peek"] as const) {
      const { message, data } = expectRefusal(await client.refusal(method, { type: "FR" }), "exhausted");
      expect(data).toMatchObject({ type: "FR", last: 102, left: 0, granted: true });
      expect(message).toContain("sequence.grant");
    }
    expect(await client.call("sequence.grant", { type: "FR", first: 201, last: 300 })).toMatchObject({
      left: 100,
    });
    expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-201");
    expect(await client.call("sequence.advance", { type: "FR", to: 300 })).toEqual({ type: "FR", seq: 300 });
    expect((await client.call("sequence.next", { type: "FR" })).id).toBe("FR-301");
    expect((await client.call("sequence.state", {})).granted).toEqual({});
    const wrong = { type: "FR", first: 500, last: 499 };
    expectRefusal(await client.refusal("sequence.grant", wrong), "invalid_params");
  });

  test("stay the only numbers of their type in an older copy that goes on", async () => {
    const place = new Place();
    const own = await place.start();
    const client = await place.connect();
    for (const first of [11, 1001, 100_001])
      await client.call("sequence.grant", { type: "FR", first, last: first + 99 });
    await client.call("sequence.next", { type: "FR" });
    await own.end();
    const path = join(place.stateDir, "pawl.db");
    const copy = `${path}.copy`;
    copyFileSync(path, copy);
    const later = await place.start();
    const more = await place.connect();
    await more.call("sequence.reserve", { type: "FR", count: 99 });
    await later.end();
    copyFileSync(copy, path);
    await place.start({ args: ["--accept-restore"] });
    const after = await place.connect();
    // The first range may be used up; what was granted above that is as it was.
    expect((await after.call("sequence.next", { type: "FR" })).seq).toBe(1001);
    expect((await after.call("sequence.state", {})).granted).toEqual({ FR: 199 });
    expect((await after.call("sequence.reserve", { type: "FR", count: 100 })).first).toBe(100_001);
    expectRefusal(await after.refusal("sequence.next", { type: "FR" }), "exhausted");
  });
});

test("state comes in pages, which the clients put together", async () => {
  const place = new Place();
  const first = await place.start();
  await first.end();
  // So many are not taken one by one.
  await place.query(`
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050)
    INSERT INTO pawl_sequence (node_id, type, last) SELECT '0', 'T' || i, i FROM n`);
  await place.start();
  const client = await place.connect();
  const page = await client.call("sequence.state", { limit: 2 });
  expect(page).toEqual({
    mode: { kind: "centralized" },
    sequences: { T1: 1, T10: 10 },
    granted: {},
    next: "T10",
  });
  const following = await client.call("sequence.state", { limit: 1, after: "t10" });
  expect(following).toMatchObject({ sequences: { T100: 100 }, next: "T100" });
  const most = await client.call("sequence.state", {});
  expect(Object.keys(most.sequences)).toHaveLength(10_000);
  expect(most.next).toBe(Object.keys(most.sequences).at(-1));
  // A transaction does one step.
  const { results } = await client.call("transact", { calls: [{ method: "sequence.state", params: {} }] });
  expect(results[0]).toMatchObject({ next: expect.any(String) });
  const library = await connectClient({ socket: place.socket });
  const whole = await library.dispenser().state();
  library.close();
  expect(whole).not.toHaveProperty("next");
  expect(Object.keys(whole.sequences)).toHaveLength(10_050);
});

describe("a database that holds another application's tables", () => {
  /** Everything in a file that is not pawl's. */
  function foreign(path: string): unknown {
    const database = new Database(path, { readonly: true });
    const schema = database
      .prepare(
        `SELECT type, name, tbl_name, sql FROM sqlite_schema
         WHERE tbl_name NOT LIKE 'pawl\\_%' ESCAPE '\\' AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name`,
      )
      .all();
    const rows = ["meta", "sequence", "ticket"].map((table) =>
      database.prepare(`SELECT * FROM ${table}`).all(),
    );
    // SQLite's own, shared by all AUTOINCREMENT columns of a file.
    const last = database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'ticket'").all();
    const versions = [database.pragma("user_version"), database.pragma("application_id")];
    database.close();
    return { schema, rows, last, versions };
  }

  function makeForeign(path: string): void {
    const database = new Database(path);
    database.exec(`
      CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB);
      CREATE TABLE sequence (node_id INTEGER, type TEXT);
      CREATE TABLE ticket (id INTEGER PRIMARY KEY AUTOINCREMENT);
      INSERT INTO ticket VALUES (41);
      CREATE INDEX meta_value ON meta (value);
      CREATE VIEW mine AS SELECT key FROM meta;
      CREATE TRIGGER watch AFTER INSERT ON meta BEGIN INSERT INTO sequence VALUES (1, new.key); END;
      INSERT INTO meta VALUES ('schema_version', '41'), ('mode', x'00ff');
      PRAGMA user_version = 41;
      PRAGMA application_id = 1234567;
    `);
    database.close();
  }

  test("is left alone by a dispenser in this process", async () => {
    const path = join(privateDirectory(), "app.db");
    makeForeign(path);
    const before = foreign(path);
    const dispenser = openDispenser({ path });
    expect(await dispenser.next("FR")).toBe(1);
    // The application goes on writing its own tables meanwhile, and is not kept from it.
    const application = new Database(path);
    application.prepare("INSERT INTO meta VALUES ('during', 1)").run();
    expect(await dispenser.next("FR")).toBe(2);
    application.prepare("DELETE FROM meta WHERE key = 'during'").run();
    application.prepare("DELETE FROM sequence WHERE type = 'during'").run();
    application.close();
    dispenser.close();
    expect(foreign(path)).toEqual(before);
    const again = openDispenser({ path });
    expect(await again.next("FR")).toBe(3);
    again.close();
  });

  test("is left alone by a daemon", async () => {
    const place = new Place();
    mkdirSync(place.stateDir);
    const path = join(place.stateDir, "pawl.db");
    makeForeign(path);
    const before = foreign(path);
    const own = await place.start();
    const client = await place.connect();
    await client.call("sequence.next", { type: "FR" });
    await own.end();
    expect(foreign(path)).toEqual(before);
  });

  test("has one writer at a time, also in one process and beside a daemon", async () => {
    const place = new Place();
    const own = await place.start();
    const path = join(place.stateDir, "pawl.db");
    const refusedBy = (kind: ErrorKind, pid: number): void => {
      expect(() => openDispenser({ path })).toThrow(
        expect.objectContaining({ kind, details: expect.objectContaining({ pid }) }),
      );
    };
    refusedBy("invalid_state", own.pid);
    await own.end();
    const dispenser = openDispenser({ path });
    refusedBy("invalid_state", process.pid);
    dispenser.close();
    openDispenser({ path }).close();
  });
});
