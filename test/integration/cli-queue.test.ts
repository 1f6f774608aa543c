// The queue commands of `pawl` as a script uses them, and `pawl work` under kill -9 of whoever takes part.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { until } from "../until.js";
import { type PawlProcess, pawl, type Ran, startPawl } from "./cli-program.js";

const DONE = 0;
const REFUSED = 1;
const USAGE = 2;

describe("the commands of queues", () => {
  const daemon = sharedDaemon();
  const run = (args: string[], input?: string) =>
    pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });
  const json = async (args: string[], input?: string) =>
    JSON.parse((await run([...args, "--json"], input)).stdout);

  test("enqueue makes one batch of its arguments, and prints its id", async () => {
    const { code, stdout, stderr } = await run(["enqueue", "one", '{"to":"ada"}', "2", '"x"', "null"]);
    expect([code, stderr]).toEqual([DONE, ""]);
    expect(stdout).toMatch(/^qwb:[0-9a-f]{64}\n$/);
    const { claim } = await json(["claim", "one"]);
    expect(claim.batches).toHaveLength(1);
    expect(claim.batches[0]).toMatchObject({
      batchId: stdout.trim(),
      payloads: [{ to: "ada" }, 2, "x", null],
    });
  });

  test("enqueue - reads lines, and --each makes a batch of each, any number of them", async () => {
    await run(["enqueue", "lines", "-"], '{"a":1}\n\n 2 \r\n"x"');
    expect((await json(["claim", "lines"])).claim.batches[0].payloads).toEqual([{ a: 1 }, 2, "x"]);

    const many = await run(
      ["enqueue", "many", "-", "--each"],
      Array.from({ length: 2500 }, (_, i) => `${i}\n`).join(""),
    );
    expect(many.stdout.trim().split("\n")).toHaveLength(2500);
    const { queues } = await json(["queues", "many"]);
    expect(queues[0].ready).toBe(2500);
    expect((await json(["claim", "many"])).claim.batches[0].payloads).toEqual([0]);
  });

  test("queue set and show have the settings of a queue, and enqueue those of a batch", async () => {
    expect((await run(["queue", "show", "set"])).stdout).toBe("set has no settings of its own.\n");
    const { stdout } = await run(["queue", "set", "set", "--retry-base", "10s", "--retry-factor", "1.5"]);
    expect(stdout).toBe(
      "What fails in set rests for 10 s, 1.5 times longer each time, up to 1 h, or a random part of it from half on.\n",
    );
    expect((await run(["queue", "set", "once", "--max-attempts", "1"])).stdout).toBe(
      "Batches of once are dead after 1 attempt.\n",
    );
    const retry = { baseMs: 10_000, factor: 1.5, maxMs: 3_600_000, jitter: true };
    expect(await json(["queue", "set", "set", "--max-attempts", "3"])).toMatchObject({
      settings: { retry, maxAttempts: 3 },
    });
    const own = ["--retry-base", "5", "--retry-max", "1m", "--retry-jitter", "off"];
    expect((await json(["enqueue", "set", "1", ...own])).batch).toMatchObject({
      maxAttempts: 3,
      retry: { baseMs: 5, factor: 2, maxMs: 60_000, jitter: false },
    });
    const back = await json(["queue", "set", "set", "--no-retry", "--max-attempts", "none"]);
    expect(back).toMatchObject({ settings: { retry: null, maxAttempts: null } });
    for (const wrong of [
      ["set", "set"],
      ["show", "set", "--no-retry"],
      ["set", "set", "--no-retry", "--retry-base", "1s"],
      ["set", "set", "--retry-factor", "two"],
      ["set", "set", "--max-attempts", "many"],
      ["put", "set"],
    ]) {
      expect((await run(["queue", ...wrong])).code).toBe(USAGE);
    }
  });

  test("queue set and show have limits, rates and the order of keys", async () => {
    const limits = ["--max-claimed", "8", "--max-claimed-per-key", "1", "--key-order", "strict"];
    const more = ["--rate", "50/s", "--max-waiting", "1000", "--ttl", "1h"];
    expect(await json(["queue", "set", "limits", ...limits, ...more])).toMatchObject({
      settings: {
        maxClaimed: 8,
        maxClaimedPerKey: 1,
        keyOrder: "strict",
        rate: { count: 50, perMs: 1000 },
        maxWaiting: 1000,
        ttlMs: 3_600_000,
      },
    });
    expect((await run(["queue", "show", "limits"])).stdout).toBe(
      [
        "8 claims of limits may be held at a time.",
        "1 claim of one key may be held at a time.",
        "A batch waits for every earlier one of its key.",
        "50 batches may be claimed per 1 s.",
        "1,000 batches may wait.",
        "What nobody claims within 1 h expires.",
        "",
      ].join("\n"),
    );
    const none = ["--max-claimed", "none", "--rate", "none", "--key-order", "none"];
    expect(await json(["queue", "set", "limits", ...none])).toMatchObject({
      settings: { maxClaimed: null, rate: null, keyOrder: null, maxClaimedPerKey: 1 },
    });
    expect((await run(["queue", "set", "limits", "--rate", "many"])).code).toBe(USAGE);
  });

  test("a queue is paused and resumed, and why says by whom and why", async () => {
    await run(["enqueue", "halted", "1", "--priority=7", "--key", "k", "--ttl", "1h"]);
    expect((await run(["pause", "halted", "--reason", "maintenance"])).stdout).toBe("halted is paused.\n");
    expect((await run(["claim", "halted"])).code).toBe(1);
    expect((await run(["why", "halted"])).stdout).toMatch(/^halted is paused by pid \d+: maintenance\. /);
    expect((await run(["queues", "halted"])).stdout).toContain("halted (paused)");
    expect((await run(["resume", "halted"])).stdout).toBe("halted is not paused.\n");
    const { claim } = await json(["claim", "halted"]);
    expect(claim.batches).toMatchObject([{ priority: 7, key: "k" }]);
    expect((await run(["pause", "halted", "--for", "1m", "--until", "2099-01-01"])).code).toBe(USAGE);
    const { settings } = await json(["pause", "halted", "--for", "1h"]);
    expect(settings.pausedUntilAt).toBeGreaterThan(0);
  });

  test("a claim looks into several queues, below a prefix too, or takes batches by their ids", async () => {
    await run(["enqueue", "sev/a", "1"]);
    const { batch } = await json(["enqueue", "sev/b", "2"]);
    await run(["enqueue", "sev/b", "3", "--priority=5"]);
    expect((await json(["claim", "none", "sev/*"])).claim.batches[0].payloads).toEqual([3]);
    expect((await json(["claim", batch.batchId])).claim.batches[0].payloads).toEqual([2]);
    const { code, stderr } = await run(["claim", batch.batchId]);
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining("pawl why qwb:") });
    expect((await json(["claim", "sev/b", "sev/a", "--order", "oldest"])).claim.queue).toBe("sev/a");
    expect((await run(["claim", "sev/a", batch.batchId])).code).toBe(USAGE);
  });

  test("batches lists those of a queue, of one state or key, and shows one whole", async () => {
    await run(["enqueue", "listed", '{"n": 1.0}', "--priority=3", "--key", "ada"]);
    const { batch } = await json(["enqueue", "listed", "1", "2", "3", "4"]);
    const { claim } = await json(["claim", "listed", "--owner", "me"]);
    const { stdout } = await run(["batches", "listed"]);
    expect(stdout).toMatch(
      /^qwb:[0-9a-f]{64}\n {2}claimed, by me for .* more, priority 3, key "ada", enqueued .*\n {2}\{"n": 1\.0\}\n/,
    );
    expect(stdout).toContain("  and 1 more payload\n");
    await run(["abandon", claim.claimId, claim.leaseToken, "--error", "no luck"]);
    expect((await run(["batches", "listed", "--key", "ada"])).stdout).toMatch(
      /scheduled, from .* on, .*1 attempt of 20, .*\n {2}no luck\n/,
    );
    expect((await json(["batches", "listed", "--state", "ready"])).batches).toMatchObject([
      { batchId: batch.batchId },
    ]);
    const one = await run(["batches", batch.batchId]);
    expect(one.stdout).toContain("  4\n");
    expect((await run(["batches", "listed", "--limit=1"])).stderr).toMatch(/--after \d+ goes on/);
    expect((await run(["batches", "listed", "--state", "lost"])).code).toBe(USAGE);
    expect((await run(["batches", "none"])).stderr).toBe("There is no such batch in none.\n");
  });

  test("batches are moved, cancelled by their source key and purged", async () => {
    for (const payload of ["1", "2", "3"]) await run(["enqueue", "from", payload]);
    await run(["enqueue", "from", "4", "--source-key", "k", "--delay", "1h"]);
    expect((await run(["move", "from", "to", "--state", "ready"])).stdout).toBe("3 batches moved to to.\n");
    expect((await run(["cancel", "from", "--source-key", "k"])).stdout).toBe("Cancelled.\n");
    expect((await run(["purge", "to", "ready", "--dry-run"])).stdout).toBe("3 batches would be removed.\n");
    expect((await run(["purge", "to", "ready"])).stdout).toBe("3 batches removed.\n");
    expect(await json(["purge", "from", "cancelled", "--older-than", "1h"])).toEqual({
      purged: 0,
      more: false,
    });
    const wrong = [
      ["purge", "to"],
      ["purge", "to", "claimed"],
      ["move", "to", "from"],
      ["cancel", "to"],
    ];
    for (const words of wrong) expect((await run(words)).code, words.join(" ")).toBe(USAGE);
  });

  test("what cancel leaves as it is is said on standard error", async () => {
    await run(["enqueue", "kept", "1", "--source-key", "k"]);
    const { claim } = await json(["claim", "kept"]);
    const cancel = ["cancel", "kept", "--source-key", "k"];
    expect(await run(cancel)).toEqual({ code: 1, stdout: "", stderr: "Already claimed.\n" });
    await run(["complete", claim.claimId, claim.leaseToken]);
    expect(await run(cancel)).toEqual({ code: 1, stdout: "", stderr: "Already completed.\n" });
    const forPrograms = { code: 1, stdout: '{"outcome":"already_completed"}\n', stderr: "" };
    expect(await run([...cancel, "--json"])).toEqual(forPrograms);
  });

  test("what becomes of a source key that is there is said", async () => {
    const again = [
      "enqueue",
      "debounced",
      "2",
      "--source-key",
      "k",
      "--on-existing",
      "replace",
      "--delay",
      "5s",
    ];
    await run(["enqueue", "debounced", "1", "--source-key", "k", "--delay", "5s"]);
    expect((await run([...again, "--max-delay", "1m"])).stderr).toContain(
      "took the place of the one that waited",
    );
    expect((await run(["enqueue", "debounced", "1", "--on-existing", "replace"])).code).toBe(USAGE);
  });

  test("why says that what failed rests", async () => {
    await run(["enqueue", "rests", "1"]);
    const [claimId, token] = (await json(["claim", "rests"]).then(({ claim }) => [
      claim.claimId,
      claim.leaseToken,
    ])) as [string, string];
    await run(["abandon", claimId, token, "--error", "no"]);
    expect((await run(["why", "rests"])).stdout).toMatch(/: qwb:[0-9a-f]{64} failed and rests, until /);
  });

  test("a source key makes it happen once", async () => {
    const first = await run(["enqueue", "once", "1", "--source-key", "k"]);
    const second = await run(["enqueue", "once", "1", "--source-key", "k"]);
    expect(second).toEqual({
      code: DONE,
      stdout: first.stdout,
      stderr: "It was there already, so nothing was added.\n",
    });
    const other = await run(["enqueue", "once", "2", "--source-key", "k"]);
    expect([other.code, other.stdout, other.stderr]).toEqual([
      REFUSED,
      "",
      expect.stringContaining("[conflict]"),
    ]);
  });

  test("enqueue says how a batch may be claimed", async () => {
    const { batch } = await json([
      ...[
        "enqueue",
        "shaped",
        "1",
        "--join",
        "--merge-key",
        "group:g",
        "--after-commit",
        "--max-attempts",
        "3",
      ],
      ...["--delay", "2h"],
    ]);
    expect(batch).toMatchObject({
      slotPolicy: "join",
      mergeKey: { group: "g" },
      deliveryPolicy: "after_current_turn_commit",
      maxAttempts: 3,
      state: "scheduled",
    });
    expect(batch.availableAt - batch.enqueuedAt).toBe(2 * 3_600_000);
    const at = await json(["enqueue", "shaped", "1", "--at", "2126-11-21T18:00:00Z"]);
    expect(at.batch.availableAt).toBe(Date.UTC(2126, 10, 21, 18));
  });

  test.each<[string[], string]>([
    [["enqueue", "q"], "There is nothing to enqueue."],
    [["enqueue", "q", "ada"], `PAYLOAD is not JSON: ada`],
    [["enqueue", "q", "1", "{"], "PAYLOAD 2 is not JSON: {"],
    [["enqueue", "q", "1", "--at", "soon"], "--at takes a time such as 2026-12-25, "],
    [["enqueue", "q", "1", "--at", "2026-02-30"], `2026-12-25T18:00:00Z, not "2026-02-30".`],
    [["enqueue", "q", "1", "--at", "2026-12-25T25:00"], "--at takes a time"],
    [
      ["enqueue", "q", "1", "--delay", "5 minutes"],
      `--delay takes milliseconds, or 90s, 5m, 2h, 1d; not "5 minutes".`,
    ],
    [["enqueue", "q", "1", "--merge-key", "group:g"], "--merge-key says with whom to --join; give both."],
    [
      ["enqueue", "q", "1", "--join"],
      "--join needs a --merge-key that says with whom: payload_default or group:NAME.",
    ],
    [["queue"], "Say what is to be done: set or show."],
    [["schedule"], "Say what is to be done: set, list, get, rm, delete, run or next."],
    [["queue", "set", "q", "--rate", "50"], "--rate takes COUNT/TIME, such as 50/s or 100/5m, not"],
    [
      ["enqueue", "q", "1", "--join", "--merge-key", "g"],
      `--merge-key takes never, payload_default or group:NAME, not "g".`,
    ],
    [["enqueue", "q", "1", "--each", "--source-key", "k"], "--source-key names one batch"],
    [["claim", "q", "--boundary", "now"], `--boundary takes idle or active_turn_checkpoint, not "now".`],
    [["complete", "qwc:1:1"], "TOKEN is missing."],
    [["work", "q"], "The command to run is missing. Put it after two dashes: -- COMMAND..."],
    [["work", "q", "--"], "The command to run is missing."],
    [["work", "q", "--", ""], "The command to run is missing."],
    [["work", "q", "cat"], "The command to run is missing. Put it after two dashes: -- COMMAND..."],
    [["work", "--", "cat"], "QUEUE is missing."],
  ])("bad usage: %j", async (args, message) => {
    const { stdout, stderr, code } = await run(args);
    expect(stderr).toContain(message);
    expect([code, stdout]).toEqual([USAGE, ""]);
  });

  test("a time is local time unless it names its zone, and is said", async () => {
    const at = (time: string): Promise<Ran> =>
      pawl(["enqueue", "zones", "1", "--at", time], {
        socket: daemon().place.socket,
        cwd: "/",
        env: { TZ: "Asia/Tokyo" },
      });
    for (const [time, said] of [
      ["2126-12-25", "2126-12-25 00:00:00"],
      ["2126-12-25T18:00", "2126-12-25 18:00:00"],
      ["2126-12-25 18:00:05", "2126-12-25 18:00:05"],
      ["2126-12-25T18:00:00Z", "2126-12-26 03:00:00"],
      ["2126-12-25T18:00:00+08:00", "2126-12-25 19:00:00"],
    ]) {
      const { code, stdout, stderr } = await at(time as string);
      expect([code, stderr]).toEqual([DONE, `It can be claimed from ${said} on, local time (UTC+09:00).\n`]);
      const { batch } = await json(["call", "queue.get", JSON.stringify({ batchId: stdout.trim() })]);
      expect(batch.availableAt).toBe(Date.parse(`${said}Z`) - 9 * 3_600_000);
    }
  });

  test("nothing of a payload changes on its way: every digit, the order of keys, spaces", async () => {
    const payloads = [
      '{"n":3889108265204450030,"b":1.0,"10":-0,"2":0.1000000000000000055511151231257827,"a":"\\u00e9\\/"}',
      "12345678901234567890",
      "-0",
      "1.50e+02",
      '{ "a" : [ 1,  2 ] }',
    ];
    const added = await run(["enqueue", "exact-shell", "--max-attempts", "1", "--json", "--", ...payloads]);
    expect(added.stdout).toContain(`"payloads":[${payloads.join(",")}]`);
    const claimed = await run(["claim", "exact-shell", "--json"]);
    expect(claimed.stdout).toContain(`"payloads":[${payloads.join(",")}]`);
    const { claimId, leaseToken } = JSON.parse(claimed.stdout).claim;
    await run(["abandon", claimId, leaseToken, "--error", "no"]);
    expect((await run(["dead", "exact-shell", "--json"])).stdout).toContain(
      `"payloads":[${payloads.join(",")}]`,
    );
    expect((await run(["dead", "exact-shell"])).stdout).toContain(`  ${payloads[0]?.slice(0, 77)}...`);
    const { batchId } = JSON.parse(added.stdout).batch;
    const got = await run(["call", "queue.get", JSON.stringify({ batchId })]);
    expect(got.stdout).toContain('"n": 3889108265204450030,\n        "b": 1.0,\n        "10": -0,\n');
  });

  test("nothing of payloads on standard input changes, nor in a call", async () => {
    const lines = ["1.0", "3889108265204450030", '{"b":1,"1":2}'];
    const each = await run(["enqueue", "exact-lines", "-", "--each", "--json"], lines.join("\n"));
    for (const line of lines) expect(each.stdout).toContain(`"payloads":[${line}]`);
    const params = `{"queue":"exact-call","payloads":[ ${lines.join(" ,\n ")} ]}`;
    await run(["call", "queue.enqueue", "-"], params);
    const worked = startPawl(["work", "exact-call", "--", "cat"], { socket: daemon().place.socket });
    await worked.printed(/"1":2/);
    expect((await worked.end("SIGTERM")).stdout).toBe(lines.map((line) => `${line}\n`).join(""));
  });

  test("a token that begins with a dash is no option", async () => {
    for (const start of ["-", "--", "-h"]) {
      const { stderr } = await run(["complete", "qwc:1:1", start.padEnd(43, "x")]);
      expect(stderr).toContain("[claim_lost]");
    }
  });

  test("standard input that is not UTF-8 is refused", async () => {
    const child = startPawl(["enqueue", "no-utf8", "-"], {
      socket: daemon().place.socket,
      input: Buffer.from('"a\xff"', "latin1"),
    });
    expect(await child.ended).toEqual({
      code: USAGE,
      stdout: "",
      stderr: expect.stringContaining("Standard input is not UTF-8."),
    });
  });

  test("standard input that is no JSON is refused by its line, and nothing is added", async () => {
    const { code, stderr } = await run(["enqueue", "bad-lines", "-", "--each"], "1\n2\nthree\n");
    expect([code, stderr]).toEqual([USAGE, expect.stringContaining("Line 3 is not JSON: three")]);
    expect((await json(["queues", "bad-lines"])).queues[0]?.ready ?? 0).toBe(0);
  });

  test("strings and numbers that look large inside strings are left alone", async () => {
    await run(["enqueue", "strings", '"12345678901234567890 \\" 1e999"', "[9007199254740991, 0.1]"]);
    expect((await json(["claim", "strings"])).claim.batches[0].payloads).toEqual([
      '12345678901234567890 " 1e999',
      [Number.MAX_SAFE_INTEGER, 0.1],
    ]);
  });

  test("claim, renew, abandon, claim again, complete", async () => {
    await run(["enqueue", "cycle", "1"]);
    const { claim } = await json(["claim", "cycle", "--owner", "me", "--lease", "1m"]);
    expect(claim.owner).toBe("me");
    expect(claim.remainingMs).toBe(60_000);
    expect((await run(["renew", claim.claimId, claim.leaseToken, "--lease", "5m"])).stdout).toBe(
      "It is held for 5 min more.\n",
    );
    expect(
      (await run(["abandon", claim.claimId, claim.leaseToken, "--error", "no disk", "--delay", "0"])).stdout,
    ).toBe("1 batch given back.\n");
    const again = await run(["claim", "cycle"]);
    expect(again.stdout).toMatch(
      /^claim {4}qwc:\d+:2\ntoken {4}\S+\nfencing {2}2\nends in {2}30 s\nbatch {4}qwb:\S+, attempt 2 of 20\n {9}1\n$/,
    );
    const [, token] = /^token +(\S+)$/m.exec(again.stdout) ?? [];
    const [, claimId] = /^claim +(\S+)$/m.exec(again.stdout) ?? [];
    const stale = await run(["complete", claim.claimId, claim.leaseToken]);
    expect([stale.code, stale.stdout, stale.stderr]).toEqual([
      REFUSED,
      "",
      expect.stringContaining("[claim_lost]"),
    ]);
    expect((await run(["complete", claimId as string, token as string])).stdout).toBe("1 batch completed.\n");
    expect((await run(["complete", claimId as string, token as string])).stdout).toBe("1 batch completed.\n");
  });

  test("nothing to claim exits with 1, and says so beside the output", async () => {
    const plain = await run(["claim", "nothing"]);
    expect(plain).toEqual({
      code: REFUSED,
      stdout: "",
      stderr: "There is nothing to claim in nothing. pawl why nothing says more.\n",
    });
    expect(await run(["claim", "nothing", "--wait", "5"])).toEqual({
      code: REFUSED,
      stdout: "",
      stderr: "There was nothing to claim in nothing within 5 ms. pawl why nothing says more.\n",
    });
    expect((await run(["claim", "--help"])).stdout).not.toContain("user and program");
    expect(await run(["claim", "nothing", "--json"])).toEqual({
      code: REFUSED,
      stdout: '{"claim":null}\n',
      stderr: "",
    });
  });

  test("claim --wait is woken by an enqueue", async () => {
    const waiting = startPawl(["claim", "woken", "--wait", "1m", "--json"], {
      socket: daemon().place.socket,
    });
    const client = await daemon().place.connect();
    await until(async () => (await client.call("queue.explain", { queue: "woken" })).waiting === 1);
    expect((await run(["why", "woken"])).stdout).toBe(
      "There is nothing to claim in woken.\n1 worker waits for it.\n",
    );
    await run(["enqueue", "woken", "1"]);
    const { code, stdout } = await waiting.ended;
    expect([code, JSON.parse(stdout).claim.batches[0].payloads]).toEqual([DONE, [1]]);
  });

  test("why says it in sentences", async () => {
    expect((await run(["why", "queue", "reasons"])).stdout).toBe(
      "There is no queue reasons. A queue exists by being used.\n",
    );
    // A program is told of a queue, whether there is one or not.
    expect((await json(["why", "reasons"])).reason).toBe("empty");
    const missing = await run(["queues", "reasons"]);
    expect([missing.stdout, missing.stderr]).toEqual([
      "",
      "There is no queue reasons. A queue exists by being used.\n",
    ]);
    await run(["queue", "set", "settings-only", "--max-waiting", "1"]);
    expect((await run(["why", "settings-only"])).stdout).toBe(
      "There is nothing to claim in settings-only.\n",
    );
    expect((await run(["queues", "settings-only"])).stdout).toContain("settings-only ");
    const later = (await run(["enqueue", "reasons", "1", "--delay", "1h"])).stdout.trim();
    expect((await run(["why", "reasons"])).stdout).toMatch(
      new RegExp(
        `^Nothing in reasons can be claimed now: ${later} can be, from \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d on\\.\\n$`,
      ),
    );
    expect((await json(["why", "reasons"])).reason).toBe("scheduled");

    const head = (await run(["enqueue", "held", "2", "--max-attempts", "1"])).stdout.trim();
    expect((await run(["why", "held"])).stdout).toBe(`held has work: ${head} can be claimed now.\n`);
    const client = await daemon().place.connect();
    const { claim } = await client.call("queue.claim", { queue: "held", owner: "a worker" });
    expect((await run(["why", "held"])).stdout).toMatch(
      new RegExp(
        `^Nothing in held can be claimed now: a worker \\(pid ${process.pid}\\) holds ${head} for [\\d.]+ s more, and longer if it renews\\.\\n$`,
      ),
    );
    await client.call("queue.abandon", {
      claimId: claim?.claimId as string,
      leaseToken: claim?.leaseToken as string,
      error: "no",
    });
    expect((await run(["why", "held"])).stdout).toContain(
      "1 batch is dead; pawl dead held shows them, pawl retry held brings them back.\n",
    );
  });

  test("queues is an aligned table", async () => {
    const own = await startDaemon();
    const table = (...args: string[]) => pawl(["queues", ...args], { socket: own.place.socket });
    expect(await table()).toEqual({
      code: DONE,
      stdout: "",
      stderr: "There are no queues. A queue exists by being used.\n",
    });
    await pawl(["enqueue", "mails", "1", "2", "--each"], { socket: own.place.socket });
    await pawl(["enqueue", "a-queue-with-a-long-name", "1", "--delay", "1h"], { socket: own.place.socket });
    const lines = (await table()).stdout.split("\n");
    expect(lines[0]).toBe(
      "QUEUE                     READY  SCHEDULED  CLAIMED  DEAD  COMPLETED  CANCELLED  OLDEST READY",
    );
    expect(lines[1]).toBe("a-queue-with-a-long-name      ·          1        ·     ·          ·          ·");
    expect(lines[2]).toMatch(/^mails {25}2 {10}· {8}· {5}· {10}· {10}· +[\d.]+ m?s$/);
    expect((await table("mails")).stdout.split("\n")).toHaveLength(3);
  });

  test("dead lists what failed too often, and retry brings it back", async () => {
    const enqueue = (payload: string) => run(["enqueue", "deadly", payload, "--max-attempts", "1"]);
    const first = (await enqueue('{"poison":true}')).stdout.trim();
    const second = (await enqueue(`"${"x".repeat(200)}"`)).stdout.trim();
    expect(await run(["dead", "deadly"])).toEqual({
      code: DONE,
      stdout: "",
      stderr: "Nothing in deadly is dead.\n",
    });
    for (const error of ["it has\na new line and \u001b[2J", "it is large"]) {
      const { claim } = await json(["claim", "deadly"]);
      expect((await run(["abandon", claim.claimId, claim.leaseToken, "--error", error])).stdout).toBe(
        "0 batches given back.\n1 batch dead: no attempts are left.\n",
      );
    }
    const { stdout } = await run(["dead", "deadly"]);
    const time = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d";
    expect(stdout).toMatch(
      new RegExp(
        `^${first}\\n  1 attempt, enqueued ${time}\\n  it has\\\\na new line and \\\\u001b\\[2J\\n  \\{"poison":true\\}\\n` +
          `${second}\\n  1 attempt, enqueued ${time}\\n  it is large\\n  "x+\\.\\.\\. \\(202 B\\)\\n$`,
      ),
    );
    expect((await run(["dead", "deadly", "--limit", "1"])).stderr).toContain("There are more");
    expect((await run(["retry", first])).stdout).toBe("1 batch is ready again.\n");
    expect((await run(["retry", "deadly", "--json"])).stdout).toBe('{"retried":1,"more":false}\n');
    expect((await run(["dead", "deadly", "--json"])).stdout).toBe('{"batches":[]}\n');
    expect(await run(["retry", "deadly"])).toEqual({
      code: DONE,
      stdout: "",
      stderr: "Nothing in deadly is dead.\n",
    });
    expect(await run(["retry", "nosuch"])).toEqual({
      code: DONE,
      stdout: "",
      stderr: "There is no queue nosuch. A queue exists by being used.\n",
    });
    expect((await run(["retry", "nosuch", "--json"])).stdout).toBe('{"retried":0,"more":false}\n');
    const missing = await run(["retry", `qwb:${"0".repeat(64)}`]);
    expect([missing.code, missing.stderr]).toEqual([REFUSED, expect.stringContaining("[not_found]")]);
  });
});

describe("work", () => {
  const daemon = sharedDaemon();
  const run = (args: string[], input?: string) =>
    pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });
  const work = (queue: string, args: string[], command: string[], cwd?: string): PawlProcess =>
    startPawl(["work", queue, ...args, "--", ...command], {
      socket: daemon().place.socket,
      ...(cwd === undefined ? {} : { cwd }),
    });
  const depths = async (queue: string) => {
    const { queues } = JSON.parse((await run(["queues", queue, "--json"])).stdout);
    const { ready, claimed, completed, dead } = queues[0];
    return { ready, claimed, completed, dead };
  };

  /** Waits until a queue is what it is to become; every look is answered by the daemon. */
  async function becomes(
    queue: string,
    expected: Partial<Awaited<ReturnType<typeof depths>>>,
  ): Promise<void> {
    const client = await daemon().place.connect();
    await until(async () => {
      const { queues } = await client.call("queue.stats", { queue });
      const found = queues[0] as unknown as Record<string, number> | undefined;
      return Object.entries(expected).every(([state, number]) => found?.[state] === number);
    });
  }

  test("runs the command for each batch, with the payloads as lines and the rest in its environment", async () => {
    const id = (await run(["enqueue", "lines", '{"to":"ada"}', "2"])).stdout.trim();
    const script =
      'cat; echo "$PAWL_QUEUE $PAWL_CLAIM_ID $PAWL_FENCING_TOKEN $PAWL_BATCH_IDS $PAWL_ATTEMPT"; pwd -P > /dev/null; echo end';
    const worker = work("lines", [], ["sh", "-c", script]);
    await worker.printed(/end/);
    await becomes("lines", { completed: 1 });
    const { code, stdout, stderr } = await worker.end("SIGTERM");
    expect([code, stderr]).toEqual([DONE, ""]);
    expect(stdout).toMatch(new RegExp(`^\\{"to":"ada"\\}\\n2\\nlines qwc:\\d+:1 1 ${id} 1\\nend\\n$`));
  });

  test("ends with the first claim, when there is nothing, or when too many failed in a row", async () => {
    const ended = async (args: string[], command: string) => {
      const socket = daemon().place.socket;
      const { code, stderr } = await startPawl(["work", ...args, "--", "sh", "-c", command], { socket })
        .ended;
      return { code, stderr };
    };
    for (const [queue, payload] of [
      ["below/1", "1"],
      ["urgent", "2"],
      ["below/2", "3"],
      ["below/2", "4"],
    ] as const) {
      await run(["enqueue", queue, payload]);
    }
    expect(await ended(["urgent", "below/*", "--once"], 'test "$(cat)" = 2')).toEqual({
      code: DONE,
      stderr: "",
    });
    expect(await ended(["urgent", "below/*", "--once", "--retry-delay", "1h"], "exit 1")).toMatchObject({
      code: 1,
    });
    const drained = await ended(["below/*", "--drain", "--jobs", "2"], "exit 0");
    expect(drained).toEqual({
      code: DONE,
      stderr: expect.stringMatching(
        /^1 batch of below\/1 is left: what failed rests until [\d :-]+\. pawl why below\/1 says more\.\n$/,
      ),
    });
    expect(await ended(["below/2", "--drain"], "exit 0")).toEqual({ code: DONE, stderr: "" });
    expect(await depths("below/2")).toMatchObject({ completed: 2 });
    for (const payload of ["1", "2", "3"]) await run(["enqueue", "failing", payload]);
    const { code, stderr } = await ended(
      ["failing", "--drain", "--max-failures", "2", "--retry-delay", "1h"],
      "exit 1",
    );
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("2 claims failed in a row"),
    });
    expect(await depths("failing")).toMatchObject({ ready: 1 });
  });

  test.each<[reason: string, settings: string[], said: RegExp]>([
    [
      "rate",
      ["queue", "set", "kept/rate", "--rate", "1/h"],
      /^1 batch of kept\/rate is left: its rate is used up until /,
    ],
    [
      "paused",
      ["pause", "kept/paused"],
      /^2 batches of kept\/paused are left: it is paused\. pawl why kept\/paused says/,
    ],
    [
      "full",
      ["queue", "set", "kept/full", "--max-claimed", "1"],
      /^1 batch of kept\/full is left: it has 1 of 1 claims\./,
    ],
  ])("--drain says what is left in a queue by its %s", async (reason, settings, said) => {
    const queue = `kept/${reason}`;
    await run(settings);
    await run(["enqueue", queue, "1", "2", "--each"]);
    if (reason === "full") await run(["claim", queue, "--lease", "1h"]);
    const { code, stderr } = await work(queue, ["--drain"], ["true"]).ended;
    expect([code, stderr]).toEqual([DONE, expect.stringMatching(said)]);
    const forPrograms = await work(queue, ["--drain", "--json"], ["true"]).ended;
    expect(forPrograms).toEqual({ code: DONE, stdout: "", stderr: "" });
  });

  test("--drain says of several queues that more than one is not empty, in one line", async () => {
    for (const queue of ["more/1", "more/2", "more/3"]) {
      await run(["enqueue", queue, "1"]);
      if (queue !== "more/3") await run(["pause", queue]);
    }
    const { code, stdout, stderr } = await work("more/*", ["--drain"], ["cat"]).ended;
    expect({ code, stdout, stderr }).toEqual({
      code: DONE,
      stdout: "1\n",
      stderr:
        "1 batch of more/1 is left: it is paused. pawl why more/1 says more. 1 other queue has some left, too.\n",
    });
  });

  test("loses nothing to a trouble that passes, and what always fails does not keep the others", async () => {
    const directory = privateDirectory();
    writeFileSync(join(directory, "down"), "");
    const lines = Array.from({ length: 30 }, (_, number) => `${number}\n`).join("");
    await run(["queue", "set", "trouble", "--retry-base", "100ms"]);
    await run(["enqueue", "trouble", '"bad"', "--max-attempts", "0"]);
    await run(["enqueue", "trouble", "-", "--each"], lines);
    const script = 'read -r p; test "$p" != \'"bad"\' -a ! -e down';
    const worker = work("trouble", ["--jobs", "2"], ["sh", "-c", script], directory);
    // All of them have failed.
    const client = await daemon().place.connect();
    await until(async () => {
      const { batches } = await client.call("queue.list", { queue: "trouble" });
      return batches.every(({ attempt }) => attempt > 0);
    });
    rmSync(join(directory, "down"));
    await becomes("trouble", { completed: 30, dead: 0 });
    await worker.end("SIGTERM");
  });

  test("payloads come byte for byte as they were enqueued, and claim and dead show them so", async () => {
    const texts = ["12345678901234567890", '{"b":1.0, "a":[1e400,"\\u0041\\/"],"b":-0}', '"text"'];
    const client = await daemon().place.connect();
    for (const queue of ["exact", "exact-claim"]) {
      const params = `{"queue":"${queue}","maxAttempts":1,"payloads":[${texts.join(" ,")}]}`;
      expect(
        (await client.ask(`{"jsonrpc":"2.0","id":"e","method":"queue.enqueue","params":${params}}`)).error,
      ).toBe(undefined);
    }
    const worker = work("exact", [], ["sh", "-c", "cat; echo end; exit 1"]);
    await worker.printed(/end/);
    await becomes("exact", { dead: 1 });
    expect((await worker.end("SIGTERM")).stdout).toBe(`${[...texts, "end"].join("\n")}\n`);
    expect((await run(["dead", "exact", "--json"])).stdout).toContain(`"payloads":[${texts.join(" ,")}]`);
    const list = await run(["call", "queue.list", '{"queue":"exact"}', "--json"]);
    expect(list.stdout).toContain(`"payloads":[${texts.join(" ,")}]`);
    const { stdout } = await run(["claim", "exact-claim"]);
    expect(stdout).toContain(texts.map((text) => `         ${text}\n`).join(""));
    await client.destroy();
  });

  test("the command reaches the same daemon, and can complete its claim together with its result", async () => {
    await run(["enqueue", "nested", "1"]);
    const script = `
      printf '{"calls":[{"method":"sequence.next","params":{"type":"NESTED"}},
        {"method":"queue.complete","params":{"claimId":"%s","leaseToken":"%s"}}],
        "guards":[{"claim":{"claimId":"%s","leaseToken":"%s"}}]}' \\
        "$PAWL_CLAIM_ID" "$PAWL_LEASE_TOKEN" "$PAWL_CLAIM_ID" "$PAWL_LEASE_TOKEN" | "$0" "$1" call transact - --json`;
    const { PAWL } = await import("../daemon.js");
    const worker = work("nested", [], ["sh", "-c", script, process.execPath, PAWL]);
    await worker.printed(/\n/);
    await becomes("nested", { completed: 1 });
    const { stderr } = await worker.end("SIGTERM");
    expect(stderr).toBe("");
    expect(JSON.parse(worker.stdout).results[0].id).toBe("NESTED-001");
  });

  test("a failure is kept with its exit code and last line, and counts; the batch is tried again", async () => {
    const directory = privateDirectory();
    await run(["enqueue", "falling", "1", "--max-attempts", "2"]);
    const worker = work(
      "falling",
      ["--json"],
      ["sh", "-c", "echo first >&2; echo 'no disk' >&2; echo >&2; exit 3"],
      directory,
    );
    await becomes("falling", { dead: 1 });
    const { code, stdout, stderr } = await worker.end("SIGTERM");
    expect([code, stderr]).toEqual([DONE, "first\nno disk\n\n".repeat(2)]);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toMatchObject([
      { outcome: "failed", attempt: 1, error: "exit code 3: no disk" },
      { outcome: "failed", attempt: 2, error: "exit code 3: no disk" },
    ]);
    expect((await run(["dead", "falling"])).stdout).toContain("\n  exit code 3: no disk\n");
  });

  test("a command ended by a signal has failed too", async () => {
    await run(["enqueue", "signalled", "1", "--max-attempts", "1"]);
    const worker = work("signalled", [], ["sh", "-c", "kill -SEGV $$"]);
    await becomes("signalled", { dead: 1 });
    await worker.end("SIGTERM");
    expect((await run(["dead", "signalled"])).stdout).toContain("\n  ended by SIGSEGV\n");
  });

  test("a command that does not read its input is no trouble", async () => {
    await run(["enqueue", "unread", "-"], `"${"x".repeat(500_000)}"\n`);
    const worker = work("unread", ["--json"], ["true"]);
    await becomes("unread", { completed: 1 });
    expect(await worker.end("SIGTERM")).toMatchObject({ code: DONE, stderr: "" });
  });

  test("processes that a command leaves running do not hold up the worker", async () => {
    await run(["enqueue", "leaving", "1", "2", "--each"]);
    const worker = work("leaving", [], ["sh", "-c", "sleep 600 & echo $!"]);
    await becomes("leaving", { completed: 2 });
    worker.child.kill("SIGTERM");
    await new Promise((resolve) => worker.child.once("exit", resolve));
    const left = worker.stdout.trim().split("\n").map(Number);
    expect(left).toHaveLength(2);
    // They have been left alone, and are ours to end.
    for (const pid of left) process.kill(pid, "SIGKILL");
  });

  test("--jobs N works on N at a time", async () => {
    const directory = privateDirectory();
    spawnSync("mkfifo", [join(directory, "go")]);
    await run(["enqueue", "jobs", "1", "2", "3", "--each"]);
    const worker = work("jobs", ["--jobs", "3"], ["sh", "-c", "echo begun; read -r line < go"], directory);
    await worker.printed(/(begun\n){3}/);
    expect(await depths("jobs")).toEqual({ ready: 0, claimed: 3, completed: 0, dead: 0 });
    spawnSync("sh", ["-c", "exec 3<>go; echo 1 >&3; echo 2 >&3; echo 3 >&3; sleep 0.3"], { cwd: directory });
    await becomes("jobs", { completed: 3 });
    await worker.end("SIGTERM");
  });

  test("--max-batches claims those that join together", async () => {
    await run(["enqueue", "joined", "1", "2", "3", "--each", "--join", "--merge-key", "payload_default"]);
    const worker = work("joined", ["--max-batches", "10", "--json"], ["sh", "-c", "cat >&2"]);
    await becomes("joined", { completed: 3 });
    const { stdout, stderr } = await worker.end("SIGTERM");
    expect(stderr).toBe("1\n2\n3\n");
    expect(JSON.parse(stdout)).toMatchObject({
      outcome: "done",
      batchIds: [{}, {}, {}].map(() => expect.any(String)),
    });
  });

  describe("SIGTERM", () => {
    test("gives back what cannot be finished, without counting an attempt", async () => {
      const id = (await run(["enqueue", "ended", "1", "--max-attempts", "1"])).stdout.trim();
      const worker = work("ended", ["--json"], ["sh", "-c", "sleep 600 & echo begun >&2; wait"]);
      await worker.complained(/begun/);
      const { code, stdout } = await worker.end("SIGTERM");
      expect([code, JSON.parse(stdout).outcome]).toEqual([DONE, "postponed"]);
      const { batches } = JSON.parse((await run(["call", "queue.list", '{"queue":"ended"}'])).stdout);
      expect(batches).toMatchObject([{ batchId: id, state: "ready", attempt: 0 }]);
    });

    test("completes what the command finishes in time", async () => {
      await run(["enqueue", "graceful", "1"]);
      const script = "trap 'echo finished; exit 0' TERM; echo begun; while :; do sleep 0.05; done";
      const worker = work("graceful", [], ["sh", "-c", script]);
      await worker.printed(/begun/);
      expect(await worker.end("SIGTERM")).toMatchObject({ code: DONE, stdout: "begun\nfinished\n" });
      expect((await depths("graceful")).completed).toBe(1);
    });

    test("kills a command that does not end within --grace", async () => {
      await run(["enqueue", "deaf", "1"]);
      const script = "trap '' TERM; echo begun; while :; do sleep 0.05; done";
      const worker = work("deaf", ["--grace", "200ms"], ["sh", "-c", script]);
      await worker.printed(/begun/);
      expect((await worker.end("SIGTERM")).code).toBe(DONE);
      expect(await depths("deaf")).toEqual({ ready: 1, claimed: 0, completed: 0, dead: 0 });
    });

    test("asked twice, it does not wait", async () => {
      await run(["enqueue", "twice", "1"]);
      const script = "trap 'echo told' TERM; echo begun; while :; do sleep 0.05; done";
      const worker = work("twice", ["--grace", "10m"], ["sh", "-c", script]);
      await worker.printed(/begun/);
      worker.child.kill("SIGTERM");
      await worker.printed(/told/);
      expect((await worker.end("SIGINT")).code).toBe(DONE);
      expect((await depths("twice")).ready).toBe(1);
    });

    test("while it waits for work ends it at once", async () => {
      const worker = work("idle", [], ["true"]);
      const client = await daemon().place.connect();
      await until(async () => (await client.call("queue.explain", { queue: "idle" })).waiting === 1);
      expect(await worker.end("SIGTERM")).toEqual({ code: DONE, stdout: "", stderr: "" });
    });
  });

  test("a lost claim ends the command, and the worker goes on", async () => {
    const directory = privateDirectory();
    await run(["enqueue", "lost", '"slow"']);
    const script =
      'trap "echo told; exit 1" TERM; read -r payload; echo "$payload"; [ "$payload" = \'"fast"\' ] && exit 0; sleep 60 & wait';
    const worker = work("lost", ["--json", "--lease", "1s"], ["sh", "-c", `{ ${script}; } >&2`], directory);
    await worker.complained(/slow/);
    // The batch is taken by another behind the back of the worker, as after a stop that was longer than its lease.
    worker.child.kill("SIGSTOP");
    const other = JSON.parse((await run(["claim", "lost", "--wait", "1m", "--json"])).stdout).claim;
    expect(other.fencingToken).toBe(2);
    worker.child.kill("SIGCONT");
    await worker.complained(/told/);
    await run(["complete", other.claimId, other.leaseToken]);
    await run(["enqueue", "lost", '"fast"']);
    await becomes("lost", { completed: 2 });
    const { code, stdout } = await worker.end("SIGTERM");
    expect(code).toBe(DONE);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).outcome),
    ).toEqual(["lost", "done"]);
  });

  test("killed, it takes the command and all it has started with it, and the next worker has the batch at once", async () => {
    await run(["enqueue", "killed", "1"]);
    const first = work("killed", ["--lease", "10m"], ["sh", "-c", "sleep 600 & echo begun; wait"]);
    await first.printed(/begun/);
    const second = work("killed", [], ["sh", "-c", 'echo "$PAWL_FENCING_TOKEN $PAWL_ATTEMPT"']);
    // Its output closes only when nobody is left who could write to it.
    expect((await first.end("SIGKILL")).code).toBe("SIGKILL");
    await second.printed(/^2 2\n$/);
    await becomes("killed", { completed: 1 });
    await second.end("SIGTERM");
  });

  test("a program that is not there ends the worker as in a shell, and blames no batch", async () => {
    await run(["enqueue", "missing", "1"]);
    const { code, stderr } = await work("missing", [], ["no-such-program"]).ended;
    expect([code, stderr]).toEqual([127, 'pawl: There is no program "no-such-program" to run.\n']);
    const { batches } = JSON.parse((await run(["call", "queue.list", '{"queue":"missing"}'])).stdout);
    expect(batches).toMatchObject([{ state: "ready", attempt: 0 }]);
  });

  test("a refusal for good ends it", async () => {
    const { code, stderr } = await work("x".repeat(129), [], ["true"]).ended;
    expect([code, stderr]).toEqual([USAGE, expect.stringContaining("[invalid_params]")]);
  });
});

test("work goes on through kill -9 of the daemon: every batch is completed once", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const log = join(place.directory, "log");
  writeFileSync(log, "");
  await pawl(["enqueue", "jobs", "-", "--each"], {
    socket: place.socket,
    input: Array.from({ length: 60 }, (_, index) => `${index}\n`).join(""),
  });
  const script =
    'read -r number; echo "begin $number $PAWL_FENCING_TOKEN" >> log; sleep 0.02; echo "end $number $PAWL_FENCING_TOKEN" >> log';
  const workers = [1, 2].map(() =>
    startPawl(["work", "jobs", "--jobs", "2", "--", "sh", "-c", script], {
      socket: place.socket,
      cwd: place.directory,
    }),
  );
  // One that is not there yet would be right to say that there is no daemon.
  const watching = await place.connect();
  await until(async () => (await watching.call("daemon.stats", {})).connections.open >= 1 + workers.length);
  let running = daemon;
  for (let round = 1; round <= 3; round++) {
    const ends = (): number =>
      readFileSync(log, "utf8")
        .split("\n")
        .filter((line) => line.startsWith("end")).length;
    await until(() => ends() >= round * 12);
    await running.end("SIGKILL");
    running = await place.start();
  }
  const client = await place.connect();
  await until(async () => (await client.call("queue.stats", { queue: "jobs" })).queues[0]?.completed === 60);
  for (const worker of workers) expect((await worker.end("SIGTERM")).code).toBe(DONE);

  // Nobody was in the middle of a batch when another began it.
  const open = new Map<string, string>();
  const finished = new Set<string>();
  for (const line of readFileSync(log, "utf8").trim().split("\n")) {
    const [what, number, token] = line.split(" ") as [string, string, string];
    if (what === "begin") {
      expect(Number(token)).toBeGreaterThan(Number(open.get(number) ?? 0));
      open.set(number, token);
    } else {
      expect(open.get(number)).toBe(token);
      finished.add(number);
    }
  }
  expect(finished.size).toBe(60);
  expect(existsSync(log)).toBe(true);
});
