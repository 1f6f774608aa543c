// The three backings of one interface, under one suite.
// Not over shared names: it is about both databases.
import { join } from "node:path";
import { connect, type Dispenser, type Mode } from "@pawl/client";
import { type LocalDispenser, memoryDispenser, openDispenser } from "@pawl/daemon";
import { expect, onTestFinished, test } from "vitest";
import { Place, privateDirectory } from "../daemon.js";
import { dispenserSuite } from "./dispenser-suite.js";

dispenserSuite("a daemon", async (mode) => {
  const args = mode.kind === "distributed" ? ["--mode", mode.kind, "--node-id", String(mode.nodeId)] : [];
  const place = new Place();
  let daemon = await place.start({ args });
  const client = await connect({ socket: place.socket });
  onTestFinished(() => client.close());
  return {
    dispenser: client.dispenser(),
    reopen: async () => {
      await daemon.end("SIGKILL");
      daemon = await place.start({ args });
      return client.dispenser();
    },
  };
});

dispenserSuite("a file of this process", async (mode) => {
  const path = join(privateDirectory(), "pawl.db");
  const first = closed(openDispenser({ path, mode }));
  return {
    dispenser: first,
    reopen: async () => {
      first.close();
      return closed(openDispenser({ path, mode }));
    },
  };
});

dispenserSuite("memory", async (mode: Mode) => ({
  dispenser: closed(memoryDispenser({ mode })),
  reopen: undefined,
}));

test("a file of this process goes on after the numbers of a daemon, and the other way round", async () => {
  const place = new Place();
  const path = join(place.stateDir, "pawl.db");
  const numbers: number[] = [];
  for (let round = 0; round < 2; round++) {
    const daemon = await place.start();
    const client = await connect({ socket: place.socket });
    const overSocket: Dispenser = client.dispenser();
    numbers.push(await overSocket.next("FR"));
    client.close();
    await daemon.end();

    const inProcess = openDispenser({ path });
    numbers.push(await inProcess.next("FR"));
    inProcess.close();
  }
  expect(numbers).toEqual([1, 2, 3, 4]);
});

/** Closed with the test, also if it is closed before. */
function closed(dispenser: LocalDispenser): LocalDispenser {
  let open = true;
  const close = (): void => {
    if (open) dispenser.close();
    open = false;
  };
  onTestFinished(close);
  return { ...dispenser, close };
}
