// What sends without end, one connection or a hundred, is read a little at a time, between which turns are performed.
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate as nextRound } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { Connection, type ConnectionOptions } from "../../daemon/dist/socket/connection.js";
import { ReadingRounds } from "../../daemon/dist/socket/reading-rounds.js";
import { afterRest } from "../../daemon/dist/socket/resting.js";
import { Unread } from "../../daemon/dist/socket/unread.js";
import { Unsent } from "../../daemon/dist/socket/unsent.js";
import { until } from "../until.js";

const KIB = 1024;
const FLOOD_BYTES = 4 * KIB * KIB;

/** So many connections; `lines` are those of each that are cut and not taken up. */
async function connected(count: number) {
  const directory = mkdtempSync(path.join(tmpdir(), "rest-"));
  const place = path.join(directory, "s");
  const server = createServer({ allowHalfOpen: true }).listen(place);
  await once(server, "listening");
  const connections: Connection[] = [];
  const peers: { client: Socket; connection: Connection; lines: Buffer[] }[] = [];
  const none = () => {};
  const shared = {
    siblings: { ready: 0 },
    readOnly: false,
    forbidden: undefined,
    hangUps: undefined,
    maxMessageBytes: KIB * KIB,
    unsent: new Unsent(128 * KIB * KIB),
    unread: new Unread(64 * KIB * KIB),
    readingRounds: new ReadingRounds(connections),
    mayTakeUp: () => true,
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
  };
  for (let number = 1; number <= count; number += 1) {
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const client = connect(place);
    const [socket] = await accepted;
    const lines: Buffer[] = [];
    const connection = new Connection({
      ...shared,
      socket,
      caller: { connection: number, pid: null, uid: null, gid: null },
      onLine: (_, line) => void lines.push(line),
    } satisfies ConnectionOptions);
    connections.push(connection);
    peers.push({ client, connection, lines });
  }
  onTestFinished(() => {
    for (const { client, connection } of peers)
      for (const each of [client, connection.socket]) each.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
  return peers;
}

test("no more than 128 KiB of a connection are read in one round of the event loop", async () => {
  const [peer] = await connected(1);
  const { client, connection } = peer as NonNullable<typeof peer>;
  const { socket } = connection;
  client.write("\n".repeat(FLOOD_BYTES));
  let most = 0;
  for (let before = 0; before < FLOOD_BYTES; before = socket.bytesRead) {
    await nextRound();
    most = Math.max(most, socket.bytesRead - before);
  }
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(128 * KIB);
  expect(connection.closed).toBe(false);
});

test("of a hundred connections that send much a few requests each are cut, and all in the end", async () => {
  const sent = Array.from({ length: 1000 }, (_, number) => `${number}`.padStart(6));
  const peers = await connected(100);
  for (const { client } of peers) client.write(sent.map((line) => `${line}\n`).join(""));
  const cut = () => peers.reduce((sum, { lines }) => sum + lines.length, 0);
  await until(() => peers.every(({ lines }) => lines.length > 0));
  for (let round = 0; round < 100; round += 1) await nextRound();
  expect(cut()).toBeLessThan(4000);

  const taken = peers.map((): string[] => []);
  while (!taken.every(({ length }) => length === sent.length)) {
    for (const [index, { connection, lines }] of peers.entries()) {
      for (const line of lines.splice(0)) {
        taken[index]?.push(line.toString());
        connection.tookUp(line);
      }
    }
    await nextRound();
  }
  expect(taken).toEqual(peers.map(() => sent));
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

test("after a long round of reading, those that send much and new ones wait for the next, last those it read", async () => {
  const told: string[] = [];
  const source = (name: string, isNew: boolean) => ({
    readRound: Number.NEGATIVE_INFINITY,
    isNew,
    holdReading: () => told.push(`hold ${name}`) > 0,
    readOn: () => told.push(`read ${name}`),
  });
  const [quiet, first, last, fresh] = [
    source("quiet", false),
    source("first", false),
    source("last", false),
    source("new", true),
  ];
  const rounds = new ReadingRounds([quiet, first, last, fresh]);
  rounds.read(last, 64 * KIB);
  await nextRound();
  rounds.read(quiet, 100);
  rounds.read(first, 64 * KIB);
  expect(told).toEqual([]);
  for (const begun = performance.now(); performance.now() < begun + 5; );
  rounds.read(first, 64 * KIB);
  expect(told.splice(0)).toEqual(["hold first", "hold last", "hold new"]);
  await nextRound();
  expect(told).toEqual(["read new", "read last", "read first"]);
});
