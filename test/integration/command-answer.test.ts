// Answers that come, and are read, in pieces.
import { randomBytes } from "node:crypto";
import { INLINE_MAX_BYTES } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import { answer, create, ended, get, lateAnswers, newDeployment, pushed, take } from "../commands.js";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

interface Delivery {
  readonly commandId: string;
  readonly leaseId: string;
}

function paramsOf({ commandId, leaseId }: Delivery, text: Buffer, offset: number, length: number) {
  const chunk = text.subarray(offset, offset + length).toString("base64");
  const final = offset + length >= text.length;
  return { commandId, leaseId, offset, chunk, final, sizeBytes: text.length };
}

/** Sends a text in pieces, and gives the reply to the last. */
async function send(delivery: Delivery, text: Buffer, pieceBytes = 500_000) {
  for (let offset = 0; ; offset += pieceBytes) {
    const params = paramsOf(delivery, text, offset, pieceBytes);
    const reply = await client.call("command.answer", params);
    if (params.final) return reply;
    expect(reply).toEqual({ receivedBytes: offset + pieceBytes, state: "DISPATCHED" });
  }
}

/** Reads an answer in pieces. */
async function read(commandId: string, length: number): Promise<string> {
  const pieces: Buffer[] = [];
  for (let offset = 0; ; ) {
    const { chunk, sizeBytes, ...rest } = await client.call("command.response", {
      commandId,
      offset,
      length,
    });
    expect(rest.offset).toBe(offset);
    const piece = Buffer.from(chunk as string, "base64");
    pieces.push(piece);
    offset += piece.length;
    if (offset === sizeBytes) return Buffer.concat(pieces).toString("utf8");
  }
}

async function delivered(): Promise<Delivery> {
  const deployment = newDeployment();
  await create(client, deployment);
  return await take(client, deployment);
}

describe("an answer in pieces", () => {
  test("is larger than a line, and is read as it came, byte for byte", async () => {
    const delivery = await delivered();
    const { commandId } = delivery;
    const value = `[12345678901234567890, 1.0,"${randomBytes(1_000_000).toString("base64")}"]`;
    const text = `{ "response" :${value}, "status":"success"}`;
    expect(await send(delivery, Buffer.from(text))).toEqual({
      receivedBytes: text.length,
      state: "SUCCEEDED",
      accepted: true,
    });
    expect(await get(client, commandId)).toMatchObject({
      state: "SUCCEEDED",
      responseSizeBytes: value.length,
      error: null,
    });
    const { response } = await client.call("command.response", { commandId });
    expect(response).toEqual({ $upload: { sizeBytes: text.length } });
    expect(await read(commandId, 300_000)).toBe(text);
  });

  test("that is short is read like any other, or in pieces too", async () => {
    const delivery = await delivered();
    const text = '{"status":"success","response":{"a":1.0}}';
    await send(delivery, Buffer.from(text), 7);
    const { commandId } = delivery;
    const line = await client.ask(
      `{"jsonrpc":"2.0","id":"r","method":"command.response","params":{"commandId":"${commandId}"}}`,
    );
    expect(line.result).toEqual({ response: JSON.parse(text) });
    expect(await read(commandId, 5)).toBe(text);
  });

  test("may be an error, whose message is shown with the command", async () => {
    const delivery = await delivered();
    const response = {
      status: "error",
      code: "BROKEN",
      message: "m".repeat(5000),
      details: "d".repeat(2 * INLINE_MAX_BYTES),
    };
    expect(await send(delivery, Buffer.from(JSON.stringify(response)), 1500)).toMatchObject({
      state: "FAILED",
      accepted: true,
    });
    const { error } = await get(client, delivery.commandId);
    expect(error).toEqual({ code: "BROKEN", message: "m".repeat(1024) });
  });

  test.each([
    ['{"status":"success","more":1}', "/chunk"],
    ['{"status":"success","response":1,"response":2}', "/chunk"],
    ['{"status":"error","message":"m"}', "/chunk"],
    ['{"status":"error","code":"C"}', "/chunk"],
    ['{"status":"error","code":"C","message":1}', "/chunk"],
    ["[1]", "/chunk"],
    ['{"status":"success"', "/chunk"],
    ['{"status":"success"}}', "/chunk"],
  ])("that is %s is refused, and the command can still be answered", async (text, path) => {
    const delivery = await delivered();
    const params = paramsOf(delivery, Buffer.from(text), 0, text.length);
    const { data } = expectRefusal(await client.refusal("command.answer", params), "invalid_params");
    expect(data).toMatchObject({ issues: [{ path }], receivedBytes: 0 });
    expect(await send(delivery, Buffer.from('{"status":"success"}'))).toMatchObject({ accepted: true });
  });

  test("goes on where it ended; its last piece is answered alike, and other pieces are late", async () => {
    const delivery = await delivered();
    const text = Buffer.from(`{"status":"success","response":"${"x".repeat(2 * INLINE_MAX_BYTES)}"}`);
    await client.call("command.answer", paramsOf(delivery, text, 0, 1000));
    for (const [offset, path] of [
      [0, "/offset"],
      [2000, "/offset"],
    ] as const) {
      const refused = await client.refusal("command.answer", paramsOf(delivery, text, offset, 10));
      expect(expectRefusal(refused, "invalid_params").data).toMatchObject({
        issues: [{ path }],
        receivedBytes: 1000,
      });
    }
    const other = { ...paramsOf(delivery, text, 1000, 10), sizeBytes: 5000 };
    expectRefusal(await client.refusal("command.answer", other), "invalid_params");
    const last = paramsOf(delivery, text, 1000, text.length);
    const reply = { receivedBytes: text.length, state: "SUCCEEDED", accepted: true };
    expect(await client.call("command.answer", last)).toEqual(reply);
    expect(await client.call("command.answer", last)).toEqual(reply);
    const first = await client.call("command.answer", paramsOf(delivery, text, 0, 1000));
    expect(first).toEqual({ receivedBytes: 1000, state: "SUCCEEDED", accepted: false });
  });

  test("belongs to a delivery: another one begins anew, and the one before is lost", async () => {
    const deployment = newDeployment();
    await create(client, deployment);
    const text = Buffer.from('{"status":"success","response":"one"}');
    const first = await take(client, deployment);
    await client.call("command.answer", paramsOf(first, text, 0, 10));
    await client.call("command.release", { leaseId: first.leaseId });
    const second = await take(client, deployment);
    const params = paramsOf(first, text, 10, 5);
    expectRefusal(await client.refusal("command.answer", params), "lease_lost");
    expect(await send(second, text, 9)).toMatchObject({ state: "SUCCEEDED", accepted: true });
  });

  test("to a push makes its response one that is ignored", async () => {
    const deployment = newDeployment();
    const receiver = await daemon().place.connect();
    await receiver.call("command.serve", { deployment, owner: "receiver" });
    const commandId = await create(client, deployment);
    const push = await pushed(receiver);
    const { leaseId } = push.params as unknown as Delivery;
    await send({ commandId, leaseId }, Buffer.from('{"status":"success","response":"pieces"}'));
    answer(receiver, push, { result: "response" });
    // The place is free again.
    const next = await create(client, deployment);
    expect((await pushed(receiver)).params.commandId).toBe(next);
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED" });
    expect(await read(commandId, 100)).toContain("pieces");
    expect(lateAnswers(daemon(), commandId)).toBe(0);
  });
});
