// Params that are too large for the request that creates the command: pieces in their order, what is refused, and
// what the daemon has to keep in memory for them (spec: command.md, command.upload).
import type { Params } from "@pawl/protocol";
import { INLINE_MAX_BYTES } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import { create, get, newDeployment, respond, stateOf, take } from "../commands.js";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

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

  test("that ended before it was complete cannot be completed", async () => {
    const { commandId } = await announced();
    await upload({ commandId, offset: 0, chunk: bytes.subarray(0, half) });
    await client.call("command.cancel", { commandId });
    const last = { commandId, offset: half, chunk: bytes.subarray(half), final: true };
    const error = expectRefusal(await refusal(last), "invalid_state");
    expect(error.data).toMatchObject({ from: "FAILED", to: "PENDING_UPLOAD" });
  });
});
