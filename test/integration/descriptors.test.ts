// A daemon that has few descriptors left (spec: operations.md, Faults from outside).
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { startDaemon } from "../daemon.js";
import { RawClient } from "../raw-client.js";

const FEW_DESCRIPTORS = 64;
const CLIENTS = 120;

test("lets new connections wait, serves those that are open, and takes up the others as these close", async () => {
  const daemon = await startDaemon({
    command: ["sh", "-c", `ulimit -n ${FEW_DESCRIPTORS}; exec "$0" "$@"`, process.execPath],
  });
  const { socket, directory } = daemon.place;
  const first = await RawClient.connect(socket);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawClient.connect(socket)));
  const answered: RawClient[] = [];
  const numbers: number[] = [];
  for (const client of clients) {
    void client.call("sequence.next", { type: "FR" }).then(({ seq }) => {
      answered.push(client);
      numbers.push(seq);
    });
  }
  expect(await daemon.logged(({ msg }) => msg.startsWith("few descriptors are left"))).toMatchObject({
    level: "warn",
    limit: FEW_DESCRIPTORS,
  });

  // Work that needs descriptors itself goes on.
  for (let round = 0; round < 3; round += 1) {
    await first.call("daemon.backup", { path: join(directory, `backup-${round}`) });
    const { connections, memoryBytes } = await first.call("daemon.stats", {});
    expect(connections.open).toBeLessThan(FEW_DESCRIPTORS);
    expect(connections.acceptPauses).toBeGreaterThan(0);
    expect(memoryBytes).toBeGreaterThan(0);
  }
  expect(numbers.length).toBeLessThan(FEW_DESCRIPTORS);

  // Each that closes makes room for one that waits, until all have had their answers.
  await vi.waitFor(
    async () => {
      await Promise.all(answered.splice(0).map((client) => client.destroy()));
      expect(numbers).toHaveLength(CLIENTS);
    },
    { timeout: 60_000, interval: 10 },
  );
  expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: CLIENTS }, (_, index) => index + 1));
  const { connections, errors } = await first.call("daemon.stats", {});
  expect([connections.accepted, errors]).toEqual([CLIENTS + 1, {}]);
  expect(daemon.log.filter(({ level }) => level !== "info")).toHaveLength(1);
  expect(await daemon.end()).toBe(0);
});

test("has as many as the hard limit allows, whatever the soft one is", async () => {
  const daemon = await startDaemon({
    command: ["sh", "-c", `ulimit -Sn ${FEW_DESCRIPTORS}; exec "$0" "$@"`, process.execPath],
  });
  const { socket } = daemon.place;
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawClient.connect(socket)));
  await Promise.all(clients.map((client) => client.call("daemon.ping", {})));
  expect(daemon.log.map(({ level }) => level)).toEqual(["info"]);
});
