// `pawl metrics`: OpenMetrics text, by the grammar of its specification.
import { expect, test } from "vitest";
import { startDaemon } from "../daemon.js";
import { pawl } from "./cli-program.js";

/** What a line may be (OpenMetrics 1.0, section 5.1). */
const NAME = "[a-z_]+";
const LABELS = String.raw`(?:\{${NAME}="(?:[^"\\\n]|\\["\\n])*"(?:,${NAME}="(?:[^"\\\n]|\\["\\n])*")*\})?`;
const LINE = new RegExp(
  `^(?:# TYPE ${NAME} (?:counter|gauge|summary)|# UNIT ${NAME} (?:bytes|seconds)|# HELP ${NAME} .+|${NAME}${LABELS} [0-9.e+-]+)$`,
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
  const ready = lines.filter((line) => line.startsWith("pawl_batches{") && line.includes('state="ready"'));
  expect(ready).toHaveLength(201);
  expect(ready).toContain(
    String.raw`pawl_batches{queue="a \"quoted\" \\ name\nof two lines",state="ready"} 2`,
  );
  expect(ready.at(-1)).toBe('pawl_batches{queue="other",state="ready"} 20');
  expect(lines).toContain('pawl_errors_total{method="lease.heartbeat",kind="lease_lost"} 1');
});
