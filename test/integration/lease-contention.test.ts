// Many processes contend for one name while some of them are killed, some while they hold it. A short run always;
// with PAWL_TORTURE=1 fifty processes for a minute.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { startDaemon } from "../daemon.js";

const TORTURE = process.env.PAWL_TORTURE === "1";
const PROCESSES = TORTURE ? 50 : 12;
const RUN_MS = TORTURE ? 60_000 : 5_000;
const KILL_EVERY_MS = TORTURE ? 150 : 100;
/** Long beside a stall of the machine, so that nobody who is alive outlives its lease. */
const TTL_MS = 3000;
/** Of the leases, so many end only by their ttl when their holder is killed. */
const EXPIRY_SHARE = 0.05;
const HOLD_MS = 5;

/**
 * Asks for the name again and again and writes to the shared log, one write per line: `ask` before it sends the
 * request, `queued` once the daemon has taken it up, `begin` and `end` with the token while it holds the lease.
 */
const CONTENDER = `
  import { openSync, writeSync } from "node:fs";
  import { connect } from "node:net";
  const [socketPath, logPath, owner, ttlMs, expiryShare, holdMs] = process.argv.slice(1);
  const log = openSync(logPath, "a");
  const write = (...words) => writeSync(log, words.join(" ") + "\\n");
  const socket = connect(socketPath);
  let partial = "";
  let attempt = 0;
  let asked = "";
  const send = (id, method, params) =>
    socket.write(JSON.stringify({ jsonrpc: "2.0", id, method, params }) + "\\n");
  function ask() {
    attempt += 1;
    asked = owner + "/" + attempt;
    write("ask", asked);
    const releaseOn = Math.random() < Number(expiryShare) ? "expiry" : "disconnect";
    send("acquire", "lease.acquire", { name: "contended", owner, ttlMs: Number(ttlMs), waitMs: 600000, releaseOn });
    send("queued", "daemon.ping", {});
  }
  function hold({ lease }) {
    const start = performance.now();
    write("begin", asked, lease.fencingToken);
    setTimeout(() => {
      // A process that was stopped for so long may no longer write.
      write(performance.now() - start < Number(ttlMs) / 2 ? "end" : "late", asked, lease.fencingToken);
      send("release", "lease.release", { leaseId: lease.leaseId });
    }, Math.random() * Number(holdMs));
  }
  socket.setEncoding("utf8");
  socket.on("data", (chunk) => {
    const lines = (partial + chunk).split("\\n");
    partial = lines.pop();
    for (const line of lines) {
      const { id, result, error } = JSON.parse(line);
      if (error !== undefined) throw new Error(error.message);
      if (id === "queued") write("queued", asked);
      if (id === "acquire") hold(result);
      if (id === "release") setTimeout(ask, Math.random() * 5);
    }
  });
  socket.on("connect", ask);
`;

interface Attempt {
  askedAt: number;
  queuedAt: number;
}

test(
  `${PROCESSES} processes for ${RUN_MS / 1000} s: one holder at a time, rising tokens, first come first served`,
  async () => {
    const daemon = await startDaemon();
    const log = join(daemon.place.directory, "shared.log");
    writeFileSync(log, "");
    const running = new Map<string, ReturnType<typeof spawn>>();
    let started = 0;
    let failed = "";
    const startOne = (): void => {
      started += 1;
      const owner = `p${started}`;
      const args = [daemon.place.socket, log, owner, TTL_MS, EXPIRY_SHARE, HOLD_MS].map(String);
      const child = spawn(process.execPath, ["--input-type=module", "--eval", CONTENDER, "--", ...args], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      child.stderr?.on("data", (chunk) => {
        failed += chunk;
      });
      running.set(owner, child);
    };
    onTestFinished(() => {
      for (const child of running.values()) child.kill("SIGKILL");
    });
    for (let count = 0; count < PROCESSES; count += 1) startOne();

    const linesOf = (): string[] => readFileSync(log, "utf8").split("\n").slice(0, -1);
    while (!linesOf().some((line) => line.startsWith("begin"))) await sleep(10);
    const end = performance.now() + RUN_MS;
    let killedHolders = 0;
    // At least one has to be killed while it holds the lease, however chance has it.
    for (let kill = 0; performance.now() < end || killedHolders === 0; kill += 1) {
      await sleep(Math.random() * 2 * KILL_EVERY_MS);
      // Every other one is whoever holds the lease now, if anybody does.
      const [word, attempt] = (linesOf().at(-1) ?? "").split(" ");
      const holder = word === "begin" ? attempt?.split("/")[0] : undefined;
      const owners = [...running.keys()];
      const victim =
        kill % 2 === 0 && holder !== undefined && running.has(holder)
          ? holder
          : (owners[Math.floor(Math.random() * owners.length)] as string);
      if (victim === holder) killedHolders += 1;
      running.get(victim)?.kill("SIGKILL");
      running.delete(victim);
      startOne();
    }
    for (const child of running.values()) child.kill("SIGKILL");
    expect(failed).toBe("");

    const attempts = new Map<string, Attempt>();
    const grants: { attempt: Attempt; token: number }[] = [];
    let holding: string | undefined;
    let ends = 0;
    for (const [index, line] of linesOf().entries()) {
      const [word, name, token] = line.split(" ") as [string, string, string];
      const attempt = attempts.get(name) ?? { askedAt: index, queuedAt: Number.POSITIVE_INFINITY };
      attempts.set(name, attempt);
      if (word === "queued") attempt.queuedAt = index;
      if (word === "begin") {
        expect(Number(token)).toBeGreaterThan(grants.at(-1)?.token ?? 0);
        grants.push({ attempt, token: Number(token) });
        holding = name;
      }
      // Another's begin before this end would be two holders at one time.
      if (word === "end") {
        expect(name, `line ${index + 1} of the log`).toBe(holding);
        ends += 1;
      }
    }
    expect(ends).toBeGreaterThan(PROCESSES);
    expect(killedHolders).toBeGreaterThan(0);
    console.log(
      `${PROCESSES} processes: ${grants.length} grants; killed: ${started - PROCESSES} processes, ${killedHolders} while they held it`,
    );

    // Nobody who was known to be waiting is served after somebody who had not even asked by then.
    let earliestQueued = Number.POSITIVE_INFINITY;
    for (const { attempt, token } of grants.reverse()) {
      expect(earliestQueued, `token ${token}`).toBeGreaterThan(attempt.askedAt);
      earliestQueued = Math.min(earliestQueued, attempt.queuedAt);
    }
    const client = await daemon.place.connect();
    const { highest } = await client.call("lease.check", { name: "contended", fencingToken: 1 });
    expect(highest).toBeGreaterThanOrEqual(grants[0]?.token ?? 0);
    // Information is at most that somebody was refused who had been killed meanwhile.
    expect(daemon.log.filter(({ level }) => level !== "info")).toEqual([]);
  },
  RUN_MS * 2 + 60_000,
);
