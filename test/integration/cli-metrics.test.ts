// `pawl metrics`: OpenMetrics text, by the grammar of its specification, and what a real Prometheus makes of it.
// PAWL_TORTURE=1 has Prometheus scrape for a minute instead of some seconds.
import { spawn, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { connect as connectClient } from "@pawl/client";
import { CONTENT_TYPES, metricsText, readFigures } from "@pawl/client/metrics";
import { expect, onTestFinished, test } from "vitest";
import { privateDirectory, startDaemon } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { accepts, freePorts } from "../ports.js";
import { pawl } from "./cli-program.js";

/** What a line may be (OpenMetrics 1.0, section 5.1). */
const NAME = "[a-z_]+";
const LABELS = String.raw`(?:\{${NAME}="(?:[^"\\\n]|\\["\\n])*"(?:,${NAME}="(?:[^"\\\n]|\\["\\n])*")*\})?`;
const LINE = new RegExp(
  `^(?:# TYPE ${NAME} (?:counter|gauge|histogram)|# UNIT ${NAME} (?:bytes|seconds)|# HELP ${NAME} .+|${NAME}${LABELS} [0-9.e+-]+)$`,
  "u",
);

test("each line is one of OpenMetrics, each family stands together, and 200 queues are named", async () => {
  const { place } = await startDaemon();
  const client = await place.connect();
  const names = [
    'a "quoted" \\ name\nof two lines',
    "größe",
    ...Array.from({ length: 218 }, (_, n) => `q${n}`),
  ];
  const batches = names.map((queue) => ({ queue, payloads: [1] }));
  await client.call("queue.enqueueMany", { batches: [...batches, ...batches.slice(0, 2)] });
  await client.refusal("lease.heartbeat", { leaseId: "x" });
  const { code, stdout } = await pawl(["metrics"], { socket: place.socket });
  expect(code).toBe(0);
  const lines = stdout.split("\n");
  expect(lines.slice(-2)).toEqual(["# EOF", ""]);
  expect(lines.slice(0, -2).filter((line) => !LINE.test(line))).toEqual([]);
  const families = lines.flatMap((line) => /^# TYPE (\S+)/.exec(line)?.[1] ?? []);
  expect(new Set(families).size).toBe(families.length);
  let family = "";
  for (const line of lines.slice(0, -2)) {
    family = /^# TYPE (\S+)/.exec(line)?.[1] ?? family;
    expect(line.replace(/^# \w+ /, "").startsWith(family)).toBe(true);
  }
  const counted = lines.filter((line) => line.includes('kind="enqueued"'));
  expect(counted).toHaveLength(201);
  expect(counted.at(-1)).toBe('pawl_queue_events_total{queue="other",kind="enqueued"} 20');
  const ready = lines.filter((line) => line.startsWith("pawl_batches{") && line.includes('state="ready"'));
  expect(ready).toHaveLength(201);
  expect(ready).toContain(
    String.raw`pawl_batches{queue="a \"quoted\" \\ name\nof two lines",state="ready"} 2`,
  );
  expect(ready.at(-1)).toBe('pawl_batches{queue="other",state="ready"} 20');
  expect(lines).toContain('pawl_errors_total{method="lease.heartbeat",kind="lease_lost"} 1');
});

test("a counter knows what was committed, and nothing of what was refused, tried or undone", async () => {
  const { place } = await startDaemon();
  const client = await place.connect();
  const before = await client.call("daemon.stats", { queues: true });
  expect(before.byQueue?.map(({ queue }) => queue)).toEqual([null]);
  const ids: string[] = [];
  for (let n = 0; n < 6; n++) {
    const { batch } = await client.call("queue.enqueue", { queue: "mail", payloads: [n], maxAttempts: 2 });
    ids.push(batch.batchId);
  }
  const claim = async () => {
    const { claim: held } = await client.call("queue.claim", { queue: "mail", owner: "w" });
    return { claimId: held?.claimId as string, leaseToken: held?.leaseToken as string };
  };
  await client.call("queue.complete", await claim());
  await client.call("queue.abandon", { ...(await claim()), error: "no", delayMs: 0 });
  await client.call("queue.abandon", { ...(await claim()), error: "no", delayMs: 0 });
  await client.call("queue.abandon", { ...(await claim()), error: "no", dead: true });
  await client.call("queue.retry", { queue: "mail" });
  await client.call("queue.abandon", await claim());
  await client.call("queue.cancel", { batchId: ids[5] as string });
  await client.call("transact", {
    dryRun: true,
    calls: [{ method: "queue.enqueue", params: { queue: "mail", payloads: [7] } }],
  });
  await client.refusal("transact", {
    calls: [
      { method: "queue.enqueue", params: { queue: "mail", payloads: [7] } },
      { method: "queue.enqueue", params: { queue: "never", payloads: [7] } },
      { method: "queue.complete", params: { claimId: "qwc:1:1", leaseToken: "x" } },
    ],
  });
  const lease = { name: "deploy", owner: "w", ttlMs: 60_000 };
  const { lease: held } = await client.call("lease.acquire", lease);
  await client.refusal("lease.acquire", lease);
  await client.call("lease.release", { leaseId: held?.leaseId as string });
  const { events, byQueue } = await client.call("daemon.stats", { queues: true });
  const [mail, rest] = byQueue ?? [];
  expect(byQueue?.map(({ queue }) => queue)).toEqual(["mail", null]);
  expect(mail).toMatchObject({
    queue: "mail",
    events: { enqueued: 6, claimed: 5, completed: 1, failed: 1, dead: 2, released: 1, cancelled: 1 },
  });
  expect(mail?.events.retried).toBe(2);
  expect(events.queue).toEqual(mail?.events);
  expect(events.lease).toEqual({ acquired: 1, released: 1, lost: 0, broken: 0 });
  expect(Object.values(rest?.events ?? {}).some((times) => times > 0)).toBe(false);
  const total = (counts: number[] | undefined) => counts?.reduce((sum, count) => sum + count, 0);
  expect(total(mail?.waitMs.counts)).toBe(5);
  expect(total(mail?.runMs.counts)).toBe(5);
  expect((await client.call("daemon.stats", {})).byQueue).toBeUndefined();
});

/** True if a program is not installed, which is said: a test is skipped then. */
function isMissing(program: string): boolean {
  const missing = spawnSync(program, ["--version"]).error !== undefined;
  if (missing)
    console.warn(`${program} is not installed (package prometheus): it is not asked for its opinion.`);
  return missing;
}

test.skipIf(isMissing("promtool"))("promtool finds nothing to say against the older text", async () => {
  const { place } = await startDaemon();
  const client = await place.connect();
  await client.call("queue.enqueue", { queue: "mail", payloads: [1] });
  await client.call("queue.claim", { queue: "mail", owner: "w" });
  const { stdout } = await pawl(["metrics", "--prometheus"], { socket: place.socket });
  const { status, stdout: said, stderr } = spawnSync("promtool", ["check", "metrics"], { input: stdout });
  expect([said.toString(), stderr.toString()]).toEqual(["", ""]);
  expect(status).toBe(0);
});

test.skipIf(isMissing("prometheus"))(
  "a Prometheus scrapes it under load without a warning, in both forms, and its counters only go up",
  async () => {
    const { place } = await startDaemon();
    const client = await connectClient({ socket: place.socket });
    onTestFinished(() => client.close());
    const scrapes = { openmetrics: 0, prometheus: 0 };
    const wanted = sized(20, 3);
    let enough = (): void => {};
    const scraped = new Promise<void>((resolve) => {
      enough = resolve;
    });
    const server = createServer(async ({ url }, answer) => {
      const format = url === "/openmetrics" ? "openmetrics" : "prometheus";
      answer.setHeader("content-type", CONTENT_TYPES[format]);
      answer.end(metricsText(await readFigures(client), format));
      scrapes[format] += 1;
      if (Math.min(...Object.values(scrapes)) === wanted) enough();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const [own] = (await freePorts(1)) as [number];
    const directory = privateDirectory();
    const job = (name: string) =>
      `  - {job_name: ${name}, metrics_path: /${name}, static_configs: [{targets: ["127.0.0.1:${port}"]}]}\n`;
    writeFileSync(
      join(directory, "prometheus.yml"),
      `global: {scrape_interval: 3s, scrape_timeout: 3s}\nscrape_configs:\n${job("openmetrics")}${job("prometheus")}`,
    );
    let isLoading = true;
    const load = (async () => {
      for (let n = 0; isLoading; n++) {
        await client.queue.enqueue({ queue: `q${n % 250}`, payloads: [n] });
        const { claim } = await client.queue.claim({ queue: `q${n % 250}`, owner: "w" });
        if (claim === null) continue;
        const { claimId, leaseToken } = claim;
        await client.queue.complete({ claimId, leaseToken });
      }
    })();
    const prometheus = spawn(
      "prometheus",
      [
        `--config.file=${directory}/prometheus.yml`,
        `--storage.tsdb.path=${directory}/data`,
        `--web.listen-address=127.0.0.1:${own}`,
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let log = "";
    for (const stream of [prometheus.stdout, prometheus.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        log += text;
      });
    const ended = new Promise((resolve) => prometheus.once("close", resolve));
    onTestFinished(() => void prometheus.kill("SIGKILL"));
    await accepts(own, () => prometheus.exitCode);
    await scraped;
    const ask = async (path: string) =>
      (await (await fetch(`http://127.0.0.1:${own}/api/v1/${path}`)).json()) as {
        data: {
          activeTargets: { lastError: string; health: string }[];
          result: { value: [number, string] }[];
        };
      };
    const { data: targets } = await ask("targets");
    expect(targets.activeTargets.map(({ lastError, health }) => [health, lastError])).toEqual([
      ["up", ""],
      ["up", ""],
    ]);
    for (const name of ["pawl_queue_events_total", "pawl_queue_wait_seconds_bucket", "pawl_requests_total"]) {
      const resets = encodeURIComponent(`sum(resets(${name}[5m]))`);
      expect((await ask(`query?query=${resets}`)).data.result.map(({ value }) => value[1])).toEqual(["0"]);
    }
    const done = encodeURIComponent('sum(pawl_queue_events_total{kind="completed",job="openmetrics"}) > 0');
    expect((await ask(`query?query=${done}`)).data.result).toHaveLength(1);
    isLoading = false;
    await load;
    prometheus.kill("SIGTERM");
    await ended;
    const troubled = log.split("\n").filter((line) => /level=(?:warn|error)/u.test(line));
    // It stops when it is told to, and says so as a warning.
    expect(troubled.filter((line) => !line.includes("Received SIGTERM"))).toEqual([]);
  },
  TORTURE ? 180_000 : 60_000,
);
