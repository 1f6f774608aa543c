// Many processes contend for one name, and for several that are shared, counted and taken together, while some of them
// are killed or stopped, some while they hold it, and the daemon too. A short run always; with PAWL_TORTURE=1 fifty
// processes for a minute.
import { spawn } from "node:child_process";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { Place, startDaemon } from "../daemon.js";
import { checkWaits, type LogLine } from "../lease-log.js";
import { sized, TORTURE } from "../long-form.js";

const PROCESSES = TORTURE ? 50 : 6;
const RUN_MS = sized(60_000, 5_000);
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
    const endsOf = (): number => linesOf().filter((line) => line.startsWith("end ")).length;
    // At least one has to be killed while it holds the lease, and some have to come to their end, whatever chance is.
    for (let kill = 0; performance.now() < end || killedHolders === 0 || endsOf() <= PROCESSES; kill += 1) {
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

const LEASES = fileURLToPath(new URL("../workers/leases.js", import.meta.url));
/** How many slots each name has; the last is a pool. */
const SLOTS: Readonly<Record<string, number>> = { a: 1, b: 1, c: 2, d: 3, e: 4 };
const MEMBERS = ["p", "q", "r", "s"];
const MIXED_PROCESSES = TORTURE ? 50 : 6;
const MIXED_MS = sized(60_000, 4_000);
const MIXED_TTL_MS = 1500;
/** As the processes ask for with onLoss, and what a busy machine adds. */
const LOSS_GRACE_MS = 1000;
const KILL_PAUSE_MS = TORTURE ? 300 : 1500;
/** Restarts of the daemon, and stops of a process for longer than its leases last. */
const RESTARTS = sized(6, 1);
const STOPS = sized(30, 2);

interface Grant {
  readonly id: string;
  readonly mode?: "shared";
  readonly slots?: number;
  readonly onLoss?: object;
  readonly held: readonly { name: string; fencingToken: number; members: readonly string[] }[];
}

test(
  `${MIXED_PROCESSES} processes for ${MIXED_MS / 1000} s over names that are shared, counted and taken together: never more than there is`,
  async () => {
    const place = new Place();
    let daemon = await place.start();
    const client = await place.connect();
    for (const [name, slots] of Object.entries(SLOTS)) {
      await client.call("lease.configure", name === "e" ? { name, members: MEMBERS } : { name, slots });
    }
    const log = join(place.directory, "mixed.log");
    writeFileSync(log, "");
    const running = new Map<ReturnType<typeof spawn>, string>();
    const note = (word: string, id: string): void =>
      appendFileSync(
        log,
        `${JSON.stringify({ word, id, at: Number(process.hrtime.bigint() / 1000n) / 1000 })}\n`,
      );
    let started = 0;
    let endedByLoss = 0;
    const startOne = (): void => {
      started += 1;
      const owner = `p${started}`;
      const args = [LEASES, place.socket, log, owner, `${MIXED_TTL_MS}`, JSON.stringify(SLOTS)];
      const child = spawn(process.execPath, args, { stdio: "ignore" });
      running.set(child, owner);
      // One that was ended because it lost a lease has a successor.
      child.once("exit", () => {
        if (!running.delete(child)) return;
        note("killed", owner);
        endedByLoss += 1;
        startOne();
      });
    };
    const killAll = (): void => {
      const all = [...running.keys()];
      running.clear();
      for (const child of all) child.kill("SIGKILL");
    };
    onTestFinished(killAll);
    for (let count = 0; count < MIXED_PROCESSES; count += 1) startOne();
    type Line = LogLine & { readonly kind?: string } & Grant;
    const lines = (): Line[] =>
      readFileSync(log, "utf8")
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Line);
    const grants = (): number => lines().filter(({ word }) => word === "begin").length;
    while (grants() < MIXED_PROCESSES) await sleep(20);

    const anyone = (): ReturnType<typeof spawn> =>
      [...running.keys()][Math.floor(Math.random() * running.size)] as ReturnType<typeof spawn>;
    const until = performance.now() + MIXED_MS;
    const killing = (async () => {
      while (performance.now() < until) {
        await sleep(Math.random() * KILL_PAUSE_MS);
        const child = anyone();
        note("killed", running.get(child) as string);
        running.delete(child);
        child.kill("SIGKILL");
        startOne();
      }
    })();
    const stopping = (async () => {
      for (let stop = 0; stop < STOPS; stop += 1) {
        const child = anyone();
        note("stopped", running.get(child) as string);
        child.kill("SIGSTOP");
        await sleep(MIXED_TTL_MS * 1.2);
        child.kill("SIGCONT");
      }
    })();
    for (let restart = 0; restart < RESTARTS; restart += 1) {
      await sleep(MIXED_MS / (RESTARTS + 1));
      note("gone", "daemon");
      await daemon.end("SIGKILL");
      daemon = await place.start();
      // Those who asked while there was no daemon, or while it started, may have asked twice.
      note("gone", "daemon");
    }
    await Promise.all([killing, stopping]);
    const before = grants();
    // Whatever was killed, stopped and started again, it goes on.
    while (grants() < before + MIXED_PROCESSES) await sleep(20);
    killAll();

    const seen = checked(lines());
    const waits = checkWaits(lines(), MIXED_TTL_MS + LOSS_GRACE_MS);
    expect(waits.behindOthers).toBeGreaterThan(MIXED_PROCESSES);
    expect(seen.ended).toBeGreaterThan(MIXED_PROCESSES);
    const refused = lines().filter(({ word }) => word === "refused");
    expect(refused.map(({ kind }) => kind).filter((kind) => kind === "invalid_params")).toEqual([]);
    console.log(
      `${MIXED_PROCESSES} processes: ${seen.begun} grants, ${seen.ended} of them known to their end, ${seen.strict} with onLoss; ${started - MIXED_PROCESSES} killed, ${endedByLoss} of them by the daemon, ${seen.late} late; at most ${JSON.stringify(seen.most)} at a time; ${waits.inOrder} tokens in order, ${waits.behindOthers} of ${waits.bounded} waits behind others, the longest ${Math.round(waits.longestMs)} ms, with ${Math.round(waits.noiseMs)} ms for each before it`,
    );
  },
  MIXED_MS * 3 + 60_000,
);

/**
 * Those who were certain of what they held until its end never had more than there is, and no token twice. Those who
 * are ended when they lose it need not be certain: as long as they can write anything, nobody else has it.
 */
function checked(lines: readonly ({ readonly word: string } & Grant)[]) {
  const strict = new Set(lines.filter(({ onLoss }) => onLoss !== undefined).map(({ id }) => id));
  const isLast = ({ word, id }: Pick<Grant, "id"> & { readonly word: string }): boolean =>
    word === "end" || (word === "late" && strict.has(id));
  const ended = new Set(lines.filter(isLast).map(({ id }) => id));
  const holding = new Map<string, Grant>();
  const tokens = new Set<string>();
  const highest = new Map<string, number>();
  const most: Record<string, number> = {};
  for (const line of lines) {
    const { word, id } = line;
    if (isLast(line)) holding.delete(id);
    if (word !== "begin") continue;
    for (const { name, fencingToken } of line.held) {
      expect(tokens, `${name} ${fencingToken}`).not.toContain(`${name} ${fencingToken}`);
      tokens.add(`${name} ${fencingToken}`);
    }
    // One that was killed, stopped or lost it while it held it may have been followed already.
    if (!ended.has(id)) continue;
    for (const { name, fencingToken, members } of line.held) {
      const others = [...holding.values()].filter(({ held }) => held.some((each) => each.name === name));
      const parts = [...others, line];
      const shared = parts.filter(({ mode }) => mode === "shared").length;
      const taken = parts.reduce((sum, { mode, slots = 1 }) => sum + (mode === "shared" ? 0 : slots), 0);
      expect(
        shared === 0 || shared === parts.length,
        `${name} for ${id} beside ${JSON.stringify(others)}`,
      ).toBe(true);
      expect(taken, `${name} for ${id} beside ${JSON.stringify(others)}`).toBeLessThanOrEqual(
        SLOTS[name] as number,
      );
      expect(members).toHaveLength(name === "e" && line.mode !== "shared" ? (line.slots ?? 1) : 0);
      const given = others.flatMap(({ held }) => held.find((each) => each.name === name)?.members ?? []);
      expect(given.filter((member) => members.includes(member))).toEqual([]);
      if (SLOTS[name] === 1 && line.mode !== "shared") {
        expect(fencingToken).toBeGreaterThan(highest.get(name) ?? 0);
      }
      highest.set(name, Math.max(fencingToken, highest.get(name) ?? 0));
      most[name] = Math.max(most[name] ?? 0, parts.length);
    }
    holding.set(id, line);
  }
  const begun = lines.filter(({ word }) => word === "begin").length;
  return {
    begun,
    ended: ended.size,
    strict: strict.size,
    late: lines.filter(({ word }) => word === "late").length,
    most,
  };
}
