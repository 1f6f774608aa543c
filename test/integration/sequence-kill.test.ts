// kill -9 of the daemon at random moments under load: what was answered holds (spec: wire.md, Order and
// durability). PAWL_TORTURE=1 does it 50 times instead of 3.
import { expect, test } from "vitest";
import { Place } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { isRising, startWorker, upTo } from "../worker.js";

const KILLS = sized(50, 3);
/** Numbers of FR that one life of the daemon dispenses at most; now and then it is killed before the first. */
const MAX_LIFE_NUMBERS = 500;
const PROCESSES = TORTURE ? 4 : 2;
/** Time for 50 restarts on a slow machine. */
const TIMEOUT_MS = 300_000;

test(
  `${KILLS} kills: no number is answered twice, none that was answered is missing`,
  async () => {
    const place = new Place();
    let daemon = await place.start();
    const args = [place.socket, "FR", "0", "--stubborn"];
    const askers = upTo(PROCESSES).map(() => startWorker("next.js", args));
    const shortLived = startWorker("next.js", [...args, "--short"]);
    // Each has a type of its own, so that a number that was burned or given twice would show.
    const repeaters = upTo(PROCESSES).map((index) =>
      startWorker("next.js", [place.socket, `ONCE_${index}`, "0", "--stubborn", "--once"]),
    );

    let last = 0;
    for (let kill = 0; kill < KILLS; kill += 1) {
      const until = last + Math.floor(Math.random() * MAX_LIFE_NUMBERS);
      const watcher = await place.connect();
      while ((await watcher.call("sequence.peek", { type: "FR" })).seq <= until);
      expect(await daemon.end("SIGKILL")).toBe("SIGKILL");
      daemon = await place.start();
      const client = await place.connect();
      const { sequences } = await client.call("sequence.state", {});
      await client.destroy();
      expect(sequences.FR).toBeGreaterThanOrEqual(last);
      last = sequences.FR ?? 0;
    }

    for (const worker of [...askers, shortLived, ...repeaters]) worker.finish();
    const asked = await Promise.all([...askers, shortLived].map(({ printed }) => printed));
    const repeated = await Promise.all(repeaters.map(({ printed }) => printed));
    const client = await place.connect();
    const { sequences } = await client.call("sequence.state", {});

    for (const numbers of asked) expect(isRising(numbers)).toBe(true);
    const answered = asked.flat().sort((a, b) => a - b);
    expect(isRising(answered)).toBe(true);
    expect(answered.at(-1)).toBeLessThanOrEqual(sequences.FR as number);
    // A caller that lost its reply leaves a gap, and each can have lost one reply per kill.
    const gaps = (sequences.FR as number) - answered.length;
    expect(gaps).toBeLessThanOrEqual((KILLS + 1) * asked.length);

    for (const [index, numbers] of repeated.entries()) {
      expect(numbers).toEqual(upTo(numbers.length));
      const taken = sequences[`ONCE_${index + 1}`] as number;
      // The last call may have been given up unanswered.
      expect([numbers.length, numbers.length + 1]).toContain(taken);
    }
    expect(await daemon.end()).toBe(0);
  },
  TIMEOUT_MS,
);
