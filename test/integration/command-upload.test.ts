// Params that are too large for the request that creates the command: pieces in their order, what is refused, and
// what the daemon has to keep in memory for them (spec: command.md, command.upload).
import type { Params } from "@pawl/protocol";
import { INLINE_MAX_BYTES } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import { create, get, newDeployment, respond, stateOf, take } from "../commands.js";
import { NAMES_ARE_SHARED, sharedDaemon, startDaemon } from "../daemon.js";
import { sized } from "../long-form.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const LARGE_BYTES = sized(100_000_000, 30_000_000);
const PIECE_BYTES = 512 * 1024;
/** The growth of the daemon's memory, whatever is uploaded. */
const MAX_GROWTH_BYTES = 16 * 1024 * 1024;

/** Some pieces, with what else is written. */
const MAX_LOG_BYTES = 4 * 1024 * 1024;

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

type Piece = Omit<Params<"command.upload">, "chunk"> & { chunk: string | Buffer };

const encoded = ({ chunk, ...piece }: Piece): Params<"command.upload"> => ({
  ...piece,
  chunk: Buffer.from(chunk).toString("base64"),
});
const upload = (piece: Piece) => client.call("command.upload", encoded(piece));
const refusal = (piece: Piece) => client.refusal("command.upload", encoded(piece));

/** The params of a command, read in pieces. */
async function paramsOf(commandId: string): Promise<string> {
  const pieces: Buffer[] = [];
  for (let offset = 0; ; ) {
    const { chunk } = await client.call("command.params", { commandId, offset });
    if (chunk === "") return Buffer.concat(pieces).toString("utf8");
    pieces.push(Buffer.from(chunk, "base64"));
    offset += (pieces.at(-1) as Buffer).length;
  }
}

/** JSON texts of either kind: kept like params of a request, and in pieces. */
const TEXTS = {
  small: JSON.stringify({ text: "äöü€", number: 1 }),
  large: JSON.stringify({ text: "äöü€".repeat(INLINE_MAX_BYTES / 4) }),
};

describe.each(Object.entries(TEXTS))("a %s upload", (_size, text) => {
  const bytes = Buffer.from(text);
  const half = Math.floor(bytes.length / 2);

  async function announced(params: Partial<Params<"command.create">> = {}) {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { upload: { sizeBytes: bytes.length }, ...params });
    return { commandId, deployment };
  }

  async function uploaded() {
    const { commandId, deployment } = await announced();
    await upload({ commandId, offset: 0, chunk: bytes.subarray(0, half) });
    const last = { commandId, offset: half, chunk: bytes.subarray(half), final: true };
    expect(await upload(last)).toEqual({ receivedBytes: bytes.length, state: "PENDING" });
    return { commandId, deployment, last };
  }

  test("arrives as it was sent", async () => {
    const { commandId, deployment } = await uploaded();
    expect(await paramsOf(commandId)).toBe(text);
    const { envelope } = await take(client, deployment);
    const isInline = bytes.length <= INLINE_MAX_BYTES;
    expect(envelope.params).toEqual(isInline ? JSON.parse(text) : { $upload: { sizeBytes: bytes.length } });
  });

  test("of which the last piece comes again, because its answer was lost, is the same upload", async () => {
    const { commandId, deployment, last } = await uploaded();
    const again = async (state: string): Promise<void> => {
      const before = await get(client, commandId);
      expect(await upload(last)).toEqual({ receivedBytes: bytes.length, state });
      const { lease: _, ...after } = await get(client, commandId);
      expect(before).toMatchObject(after);
    };
    await again("PENDING");
    const leased = await take(client, deployment);
    await again("DISPATCHED");
    await respond(client, leased);
    await again("SUCCEEDED");
    // The whole as one piece is no repetition of what was sent, and is the same bytes.
    expect(await upload({ commandId, offset: 0, chunk: bytes, final: true })).toMatchObject({
      state: "SUCCEEDED",
    });
    expect(await paramsOf(commandId)).toBe(text);
  });

  test("takes nothing more after its last piece", async () => {
    const { commandId, last } = await uploaded();
    const other = Buffer.from(last.chunk);
    other[other.length - 1] = 0x20;
    for (const piece of [
      { ...last, final: false },
      { ...last, chunk: other },
      { ...last, offset: last.offset - 1 },
      { ...last, offset: last.offset + 1 },
      { ...last, chunk: last.chunk.subarray(1) },
      { ...last, offset: bytes.length, chunk: "1" },
      { commandId, offset: 0, chunk: bytes.subarray(0, half) },
      { commandId, offset: bytes.length, chunk: "", final: false },
    ]) {
      const error = expectRefusal(await refusal(piece), "invalid_state");
      expect(error.data).toMatchObject({ from: "PENDING", to: "PENDING_UPLOAD" });
    }
    expect(await paramsOf(commandId)).toBe(text);
  });

  test("takes a piece only where the one before ended, and keeps nothing of what it refuses", async () => {
    const { commandId } = await announced();
    await upload({ commandId, offset: 0, chunk: bytes.subarray(0, half) });
    for (const piece of [
      { commandId, offset: half + 1, chunk: bytes.subarray(half + 1), final: true },
      { commandId, offset: half - 1, chunk: bytes.subarray(half - 1), final: true },
      { commandId, offset: 0, chunk: bytes.subarray(0, half) },
      { commandId, offset: half, chunk: `${bytes.subarray(half)} ` },
      { commandId, offset: half, chunk: bytes.subarray(half, -1), final: true },
      { commandId, offset: half, chunk: "\u0000" },
    ]) {
      const error = expectRefusal(await refusal(piece), "invalid_params");
      expect(error.data).toMatchObject({ receivedBytes: half, sizeBytes: bytes.length });
    }
    for (const chunk of ["*", "A", "MTI*", "MTIzN", "MT Iz", "MTIz\n"]) {
      const error = await client.refusal("command.upload", { commandId, offset: half, chunk });
      expect(expectRefusal(error, "invalid_params").message).toContain("must be base64");
    }
    expect(await stateOf(client, commandId)).toBe("PENDING_UPLOAD");
    await upload({ commandId, offset: half, chunk: bytes.subarray(half), final: true });
    expect(await paramsOf(commandId)).toBe(text);
  });

  test("to a receiver that has gone cannot be completed, though its last piece comes alone", async () => {
    const deployment = newDeployment();
    const receiver = await daemon().place.connect();
    await receiver.call("command.lease", { deployment, owner: "r", incarnation: "gone" });
    await receiver.destroy();
    const params = { deployment, command: "run", incarnation: "gone", upload: { sizeBytes: bytes.length } };
    let created = await client.call("command.create", params);
    await until(async () => {
      created = await client.call("command.create", params);
      return created.state === "FAILED";
    });
    const { commandId } = created;
    for (const offset of [0, half]) {
      const error = await refusal({ commandId, offset, chunk: bytes.subarray(offset), final: true });
      expect(expectRefusal(error, "invalid_state").data).toMatchObject({ from: "FAILED" });
    }
  });

  test("that ended before it was complete cannot be completed", async () => {
    const { commandId } = await announced();
    await upload({ commandId, offset: 0, chunk: bytes.subarray(0, half) });
    await client.call("command.cancel", { commandId });
    const last = { commandId, offset: half, chunk: bytes.subarray(half), final: true };
    const error = expectRefusal(await refusal(last), "invalid_state");
    expect(error.data).toMatchObject({ from: "FAILED", to: "PENDING_UPLOAD" });
  });
});

/** A JSON text of this size, of characters of one and of two bytes. */
function textOf(bytes: number): Buffer {
  const text = Buffer.alloc(bytes, "0123456789abcdef äöü ");
  // Its end may have cut a character in two.
  text.fill("x", text.length - 8);
  text[0] = text[text.length - 1] = 0x22;
  return text;
}

/** Uploads params in pieces and gives the id of their command. */
async function send(sender: RawClient, text: Buffer): Promise<string> {
  const { commandId } = await sender.call("command.create", {
    deployment: "d",
    command: "run",
    upload: { sizeBytes: text.length },
  });
  for (let offset = 0; offset < text.length; offset += PIECE_BYTES) {
    const piece = text.subarray(offset, offset + PIECE_BYTES);
    const { receivedBytes } = await sender.call("command.upload", {
      commandId,
      offset,
      chunk: piece.toString("base64"),
      final: offset + piece.length === text.length,
    });
    expect(receivedBytes).toBe(offset + piece.length);
  }
  return commandId;
}

/** Takes the command that was sent and answers it in pieces; returns the text of the answer, which has as many more. */
async function answerInPieces(receiver: RawClient, value: Buffer): Promise<Buffer> {
  const { commandId, leaseId } = await take(receiver, "d");
  const text = Buffer.concat([Buffer.from('{"status":"success","response":'), value, Buffer.from("}")]);
  for (let offset = 0; offset < text.length; offset += PIECE_BYTES) {
    const piece = text.subarray(offset, offset + PIECE_BYTES);
    const final = offset + piece.length === text.length;
    const given = {
      commandId,
      leaseId,
      offset,
      chunk: piece.toString("base64"),
      final,
      sizeBytes: text.length,
    };
    const { receivedBytes, accepted } = await receiver.call("command.answer", given);
    expect([receivedBytes, accepted]).toEqual([offset + piece.length, final ? true : undefined]);
  }
  return text;
}

/** Reads a text back, with so many requests under way, and compares it with what it has to be. */
async function readBack(
  reader: RawClient,
  method: "command.params" | "command.response",
  commandId: string,
  text: Buffer,
  depth: number,
): Promise<void> {
  const offsets = Array.from({ length: Math.ceil(text.length / PIECE_BYTES) }, (_, i) => i * PIECE_BYTES);
  const reading = Array.from({ length: Math.min(depth, offsets.length) }, async () => {
    for (let offset = offsets.shift(); offset !== undefined; offset = offsets.shift()) {
      const { chunk } = await reader.call(method, { commandId, offset, length: PIECE_BYTES });
      const piece = text.subarray(offset, offset + PIECE_BYTES);
      if (!Buffer.from(chunk ?? "", "base64").equals(piece))
        throw new Error(`other bytes came back at ${offset}`);
    }
  });
  await Promise.all(reading);
}

test(`${LARGE_BYTES / 1e6} MB are uploaded, answered and read back, and the daemon grows by less than 16 MiB`, async () => {
  const running = await startDaemon();
  const [sender, other] = [await running.place.connect(), await running.place.connect()];
  const text = textOf(LARGE_BYTES);

  /** By how much the daemon is larger at most while something is done, and others are served, than before. */
  async function growth(what: string, work: () => Promise<unknown>): Promise<number> {
    const before = running.residentBytes;
    running.forgetPeak();
    let others = 0;
    let busy = true;
    const meanwhile = (async () => {
      while (busy) {
        await other.call("sequence.next", { type: "FR" });
        others += 1;
      }
    })();
    await work();
    busy = false;
    await meanwhile;
    const grown = running.peakResidentBytes - before;
    console.log(
      `${text.length / 1e6} MB ${what}: from ${before >> 20} MiB by ${(grown / 2 ** 20).toFixed(1)} MiB; ${others} other calls meanwhile`,
    );
    expect(others).toBeGreaterThan(10);
    return grown;
  }

  let commandId = "";
  let answer: Buffer = Buffer.alloc(0);
  const grown = [
    await growth("uploaded", async () => {
      commandId = await send(sender, text);
      // It is moved piece by piece: all at once would stall the others.
      const { database } = await sender.call("daemon.stats", {});
      expect(database.walBytes).toBeLessThan(MAX_LOG_BYTES);
    }),
    await growth("read piece by piece", () => readBack(sender, "command.params", commandId, text, 1)),
    await growth("read with all requests sent at once", () =>
      readBack(sender, "command.params", commandId, text, Infinity),
    ),
    await growth("answered", async () => {
      answer = await answerInPieces(sender, text);
    }),
    await growth("of answer read piece by piece", () =>
      readBack(sender, "command.response", commandId, answer, 1),
    ),
    await growth("of answer read with all requests sent at once", () =>
      readBack(sender, "command.response", commandId, answer, Infinity),
    ),
  ];
  // A turn of shared names keeps the answers of all its calls until it is committed.
  if (!NAMES_ARE_SHARED) for (const each of grown) expect(each).toBeLessThan(MAX_GROWTH_BYTES);
  expect(await running.end()).toBe(0);
});
