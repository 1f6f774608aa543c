// A connection that sends without end is read a little at a time, between which others are and turns are performed.
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate as nextRound } from "node:timers/promises";
import { expect, test } from "vitest";
import { Connection, type ConnectionOptions } from "../../daemon/dist/socket/connection.js";
import { afterRest } from "../../daemon/dist/socket/resting.js";
import { Unread } from "../../daemon/dist/socket/unread.js";
import { Unsent } from "../../daemon/dist/socket/unsent.js";

const KIB = 1024;
const FLOOD_BYTES = 4 * KIB * KIB;

test("no more than 192 KiB of a connection are read in one round of the event loop", async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "rest-"));
  const place = path.join(directory, "s");
  const server = createServer({ allowHalfOpen: true }).listen(place);
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const client = connect(place);
  const [socket] = await accepted;
  const none = () => {};
  const connection = new Connection({
    socket,
    caller: { connection: 1, pid: null, uid: null, gid: null },
    siblings: { ready: 0 },
    readOnly: false,
    forbidden: undefined,
    hangUps: undefined,
    maxMessageBytes: KIB * KIB,
    unsent: new Unsent(128 * KIB * KIB),
    unread: new Unread(64 * KIB * KIB),
    mayTakeUp: () => true,
    onLine: none,
    isAsked: () => false,
    onSkipped: none,
    onRefused: none,
    onWrote: none,
    onHolds: none,
    onRoom: none,
    onDrain: none,
    onSilent: none,
    onClose: none,
    onOverload: none,
  } satisfies ConnectionOptions);

  client.write("\n".repeat(FLOOD_BYTES));
  let most = 0;
  for (let before = 0; before < FLOOD_BYTES; before = socket.bytesRead) {
    await nextRound();
    most = Math.max(most, socket.bytesRead - before);
  }
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(192 * KIB);
  expect(connection.closed).toBe(false);
  client.destroy();
  socket.destroy();
  server.close();
  rmSync(directory, { recursive: true });
});

test("of many that rest a few go on in each round, in their order", async () => {
  const gone: number[] = [];
  for (let index = 0; index < 30; index += 1) afterRest(() => gone.push(index));
  const rounds: number[] = [];
  for (let before = 0; before < 30; before = gone.length) {
    await nextRound();
    rounds.push(gone.length - before);
  }
  expect(Math.max(...rounds)).toBeLessThanOrEqual(8);
  expect(gone).toEqual([...gone.keys()]);
});
