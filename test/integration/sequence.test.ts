import { expect, test } from "vitest";
import { startDaemon } from "../daemon.js";

test("next counts up per type, and upper and lower case are one", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  expect(await client.call("sequence.next", { type: "FR" })).toEqual({ type: "FR", seq: 1, id: "FR-001" });
  expect(await client.call("sequence.next", { type: "fr" })).toEqual({ type: "FR", seq: 2, id: "FR-002" });
  expect(await client.call("sequence.next", { type: "BUG" })).toEqual({ type: "BUG", seq: 1, id: "BUG-001" });
  expect(await daemon.end()).toBe(0);
});
