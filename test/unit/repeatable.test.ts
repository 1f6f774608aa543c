// Which requests a client sends again by itself when it does not know whether they took effect.
import { METHODS } from "@pawl/protocol";
import { isRepeatable } from "@pawl/protocol/repeatable";
import { expect, test } from "vitest";
import { openrpc } from "../../protocol/dist/openrpc.js";
import { type ReferencedDocument, referenceOf } from "../../protocol/dist/reference.js";

test("every method that only reads is repeated, so that a restart of the daemon is not noticed", () => {
  const reading = METHODS.filter(({ writes }) => !writes);
  expect(reading.filter(({ name }) => !isRepeatable(name, {})).map(({ name }) => name)).toEqual([]);
  expect(reading.length).toBeGreaterThan(10);
});

test("a key that the caller chose makes a call repeatable", () => {
  expect(isRepeatable("sequence.next", { type: "FR" })).toBe(false);
  expect(isRepeatable("sequence.next", { type: "FR", requestId: "a" })).toBe(true);
  expect(isRepeatable("sequence.reserve", { type: "FR", count: 3, requestId: "a" })).toBe(true);
  expect(isRepeatable("queue.enqueue", { queue: "q", payloads: [1], sourceKey: "a" })).toBe(true);
  expect(isRepeatable("queue.enqueue", { queue: "q", payloads: [1], requestId: "a" })).toBe(false);
  expect(isRepeatable("command.create", { deployment: "d", command: "c", idempotencyKey: "a" })).toBe(true);
  // A key that is not there is none.
  expect(isRepeatable("sequence.next", { type: "FR", requestId: undefined })).toBe(false);
});

test("a key is not enough where a repetition would append, or run again", () => {
  const keyed = { queue: "q", payloads: [1], sourceKey: "a" };
  for (const onExisting of ["append", "rerun"]) {
    expect(isRepeatable("queue.enqueue", { ...keyed, onExisting })).toBe(false);
    expect(isRepeatable("queue.enqueueMany", { batches: [keyed, { ...keyed, onExisting }] })).toBe(false);
  }
  expect(isRepeatable("queue.enqueue", { ...keyed, onExisting: "replace" })).toBe(true);
});

test("many at once are repeatable if each of them is", () => {
  const keyed = { queue: "q", payloads: [1], sourceKey: "a" };
  const bare = { queue: "q", payloads: [1] };
  expect(isRepeatable("queue.enqueueMany", { batches: [keyed, keyed] })).toBe(true);
  expect(isRepeatable("queue.enqueueMany", { batches: [keyed, bare] })).toBe(false);
  expect(isRepeatable("queue.enqueueMany", { batches: [keyed, null] })).toBe(false);
  expect(isRepeatable("queue.enqueueMany", {})).toBe(false);
});

test("the reference says of each method whether it may be repeated, and with which values not", () => {
  const document = openrpc("0.0.0") as unknown as ReferencedDocument;
  const again = (name: string) =>
    /^\S+; (.*?); may/m.exec(referenceOf(document).split(`\n### ${name}\n`)[1] ?? "")?.[1];
  expect(again("queue.get")).toBe("may be sent again after a lost answer");
  expect(again("queue.abandon")).toBe("not to be sent again after a lost answer");
  expect(again("sequence.next")).toBe("may be sent again after a lost answer if `requestId` is given");
  expect(again("queue.enqueue")).toBe(
    'may be sent again after a lost answer if `sourceKey` is given and `onExisting` is not `"append"` or `"rerun"`',
  );
  expect(again("queue.enqueueMany")).toBe(
    'may be sent again after a lost answer if each of `batches` has `sourceKey` and `onExisting` of none is `"append"` or `"rerun"`',
  );
});

test("a transaction is not, whatever it is made of", () => {
  const calls = [{ method: "sequence.next", params: { type: "FR", requestId: "a" } }];
  expect(isRepeatable("transact", { calls })).toBe(false);
});

test("a property that every object has is no method", () => {
  for (const name of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
    expect(isRepeatable(name, {})).toBe(false);
  }
});
