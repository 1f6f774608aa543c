// `pawl mcp`: the official client against it, over a real daemon.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { PAWL, type Place, privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { Agent } from "../mcp-agent.js";
import { until } from "../until.js";

const daemon = sharedDaemon();
const socket = (): string => daemon().place.socket;
let names = 0;
const newName = (): string => `agent-${++names}`;

/** Two servers for the tests that end none. */
const servers: Agent[] = [];
let next = 0;
beforeAll(async () => {
  const actions: (() => void | Promise<void>)[] = [];
  const atEnd = (action: () => void | Promise<void>): void => void actions.push(action);
  for (let count = 0; count < 2; count += 1) {
    servers.push(await Agent.start({ socket: socket(), args: ["--tools", "full"], atEnd }));
  }
  return async () => {
    for (const action of actions) await action();
  };
});

interface OwnServer {
  args?: string[];
  at?: Place;
}

/** An agent with a session and a directory of its own; by one server after the other, unless it has its own. */
async function started(options: { name?: string; worktree?: string; server?: OwnServer } = {}) {
  const { server, worktree = privateDirectory(), name = newName() } = options;
  const { args = ["--tools", "full"], at } = server ?? {};
  const agent =
    server === undefined
      ? (servers[next++ % servers.length] as Agent).another()
      : await Agent.start({ socket: at?.socket ?? socket(), args });
  await agent.done("session_start", { name, worktree });
  return Object.assign(agent, { name, worktree });
}

/** An item that is ready, under a label that no other test has. */
async function newItem(
  agent: Agent,
  more: Record<string, unknown> = {},
): Promise<{ id: string; label: string }> {
  const { ids } = await agent.done("id_next", { type: "FR" });
  const label = `l-${ids[0]}`;
  await agent.done("item_edit", {
    id: ids[0],
    title: "A story",
    stage: "1_backlog",
    addLabels: [label],
    ...more,
  });
  return { id: ids[0], label };
}

describe("the protocol", () => {
  test.each([["2025-06-18"], ["2025-11-25"], ["2026-07-28"]])("revision %s", async (revision) => {
    const agent = await Agent.start({ socket: socket(), revision });
    expect(agent.client.getNegotiatedProtocolVersion()).toBe(revision);
    expect(agent.client.getServerVersion()?.name).toBe("pawl");
    const { tools } = await agent.client.listTools();
    expect(tools.map(({ name }) => name)).toEqual([
      "session_start",
      "work_next",
      "work_claim",
      "work_update",
      "work_finish",
      "paths_reserve",
      "paths_release",
      "message_send",
      "inbox",
    ]);
    const { held } = await agent.done("session_start", { name: newName(), worktree: privateDirectory() });
    expect(held).toEqual([]);
    const { resources } = await agent.client.listResources();
    expect(resources.map(({ uri }) => uri)).toEqual(["pawl://board", "pawl://agents", "pawl://paths"]);
    const { prompts } = await agent.client.listPrompts();
    expect(prompts.map(({ name }) => name)).toEqual(["coordinate"]);
    const { messages } = await agent.client.getPrompt({ name: "coordinate", arguments: { name: "ada" } });
    expect(JSON.stringify(messages)).toContain("the name ada");
  });

  test("the descriptions of the core set are within 4,000 tokens, and each tool says what it is", async () => {
    const { tools } = await (servers[0] as Agent).client.listTools();
    expect(tools).toHaveLength(16);
    const core = tools.slice(0, 9);
    const described = (schema: unknown): string[] =>
      typeof schema !== "object" || schema === null
        ? []
        : Object.entries(schema).flatMap(([name, value]) =>
            name === "description" && typeof value === "string" ? [value] : described(value),
          );
    const words = core.flatMap(({ description = "", inputSchema, outputSchema }) => [
      description,
      ...described(inputSchema),
      ...described(outputSchema),
    ]);
    // A token of English has four characters or more.
    expect(words.join("\n").length / 4).toBeLessThan(4000);
    // Each agent reads all of the list, schemas too.
    expect(JSON.stringify(core).length).toBeLessThan(18_000);
    const text = words.join("\n");
    expect(text).toContain("Waits so long until there is work; a message, or that none can come, ends it.");
    for (const until of ["it is free", "all are free", "the answer comes"])
      expect(text).toContain(`Waits so long until ${until}; any message ends it.`);
    expect(text).toContain("what you hold is kept for 30 s after this server ends");
    expect(text).toContain("what needs a person (a question: give_back)");
    for (const { name, outputSchema, annotations, description } of tools) {
      expect(description?.length, name).toBeGreaterThan(60);
      expect(outputSchema?.properties, name).toHaveProperty("lost");
      expect(annotations, name).toMatchObject({ openWorldHint: false });
      expect(typeof annotations?.readOnlyHint, name).toBe("boolean");
    }
  });

  test("it ends with its input, and when the process that started it has gone", async () => {
    const ended = spawnSync(process.execPath, [PAWL, "mcp", "--socket", socket()], {
      input: "",
      encoding: "utf8",
    });
    expect(ended).toMatchObject({ status: 0, stdout: "", stderr: "" });
    // The input stays open: this test holds it.
    const shell = spawn(
      "sh",
      ["-c", `"${process.execPath}" "${PAWL}" mcp --socket "${socket()}" <&0 & echo $!`],
      {
        stdio: ["pipe", "pipe", "inherit"],
      },
    );
    const pid = await new Promise<number>((resolve) => {
      shell.stdout.once("data", (chunk: Buffer) => resolve(Number(chunk.toString())));
    });
    await expect
      .poll(() => statSync(`/proc/${pid}`, { throwIfNoEntry: false }), { timeout: 10_000 })
      .toBeUndefined();
    shell.stdin.end();
  });
});

describe("work", () => {
  test("is taken by one, told of to others, and finished with a note", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada, { description: "Do it" });
    const { work } = await ada.done("work_next", { labels: [label] });
    expect(work).toMatchObject({
      kind: "item",
      id,
      title: "A story",
      description: "Do it",
      stage: "2_current",
    });
    expect((await ben.done("work_next", { labels: [label] })).work).toBeNull();
    const refusal = await ben.refused("work_claim", { id });
    expect(refusal.kind).toBe("lease_held");
    expect(refusal.text).toContain(ada.name);
    expect(refusal.text).toContain("What to do:");
    await ada.done("work_update", { id, note: "half of it", percent: 50 });
    expect((await ben.refused("work_finish", { id, outcome: "done" })).kind).toBe("lease_lost");
    await ada.done("paths_reserve", { paths: ["src/"] });
    const finished = await ada.done("work_finish", { id, outcome: "done", note: "all of it" });
    expect(finished).toEqual({ id, stage: "5_done", releasedPaths: ["src/"], unread: 1, lost: [] });
    const { item } = await ben.done("board", { id });
    expect(item.notes.map(({ text }: { text: string }) => text)).toEqual(["half of it", "all of it"]);
    expect((await ada.refused("work_finish", { id, outcome: "done" })).kind).toBe("lease_lost");
  });

  test("goes back: counted when it failed, uncounted when it was given back, marked when handed on", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    expect((await ada.refused("work_finish", { id, outcome: "failed" })).kind).toBe("invalid_params");
    const failed = await ada.done("work_finish", { id, outcome: "failed", note: "no compiler" });
    expect(failed).toMatchObject({ stage: "1_backlog", free: true, failedTries: 1, lost: [] });
    expect(failed.hint).toContain("Try 1 of 5 failed");
    // That its own failure ended the claim is no loss.
    expect(await ada.done("board", { id })).toMatchObject({
      item: { stage: "1_backlog", agent: null, failedTries: 1 },
      lost: [],
    });
    await ada.done("work_claim", { id });
    const back = await ada.done("work_finish", { id, outcome: "give_back", note: "no time" });
    expect(back).toMatchObject({ stage: "1_backlog", free: true });
    expect((await ada.done("board", { id })).item).toMatchObject({ stage: "1_backlog", failedTries: 1 });
    await ada.done("work_claim", { id });
    expect((await ada.refused("work_finish", { id, outcome: "handoff" })).kind).toBe("invalid_params");
    const own = await ada.refused("work_finish", { id, outcome: "handoff", to: ada.name });
    expect(own.kind).toBe("invalid_params");
    const handed = { id, outcome: "handoff", to: ben.name, note: "the tests are left" };
    expect(await ada.done("work_finish", handed)).toMatchObject({
      there: true,
      free: true,
      hint: `${ben.name} was told; leave it to ${ben.name}.`,
    });
    const none = await ada.done("work_next", { labels: [label] });
    expect(none.reason).toContain(`${id} (handed by you to ${ben.name}, not yet taken)`);
    const { messages } = await ben.done("inbox");
    expect(messages[0].text).toBe(
      `${ada.name} would like you to take ${id}: work_claim it; it is free for anybody. Note: the tests are left`,
    );
    // What was handed to one comes before all else.
    expect((await ben.done("work_next")).work.id).toBe(id);
    const nobody = await ben.done("work_finish", { id, outcome: "handoff", to: newName() });
    expect(nobody).toMatchObject({ there: false });
    expect(nobody.hint).toContain("Nobody is named");
    await ada.done("work_claim", { id });
    await ada.done("work_finish", { id, outcome: "failed", note: "no" });
    expect((await ada.done("work_next", { labels: [label] })).reason).toContain(`${id} (failed by you)`);
  });

  test("is not offered to whoever has just given it away, while others get it", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada);
    const wanted = { labels: [label] };
    await ada.done("work_next", wanted);
    await ada.done("work_finish", { id, outcome: "give_back" });
    const none = await ada.done("work_next", { ...wanted, waitSeconds: 1 });
    expect(none).toMatchObject({ work: null, passedOver: [id] });
    expect(none.reason).toContain(`${id} (given back by you)`);
    // What comes meanwhile is taken.
    const waiting = ada.done("work_next", { ...wanted, waitSeconds: 45 });
    const other = await newItem(ben, { addLabels: [label] });
    expect((await waiting).work.id).toBe(other.id);
    expect((await ben.done("work_next", wanted)).work.id).toBe(id);
    await ben.done("work_finish", { id, outcome: "give_back" });
    expect((await ada.done("work_claim", { id })).work.id).toBe(id);
  });

  test("that needs a person is parked with its note until somebody unblocks it", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    for (const wrong of [{ outcome: "done", note: "x" }, { outcome: "failed" }, { outcome: "give_back" }]) {
      const { kind } = await ada.refused("work_finish", { id, blocked: true, ...wrong });
      expect(kind).toBe("invalid_params");
    }
    const parked = { id, outcome: "give_back", blocked: true, note: "needs the password of the shop" };
    expect(await ada.done("work_finish", parked)).toMatchObject({
      free: false,
      blocked: true,
      hint: expect.stringContaining("it stays in 1_backlog, but nobody is offered it"),
    });
    const { item } = await ada.done("board", { id });
    expect(item).toMatchObject({ blocked: true, offered: false, agent: null });
    for (const agent of [ada, ben]) {
      const { work, reason } = await agent.done("work_next", { labels: [label] });
      expect([work, reason]).toEqual([null, expect.stringContaining(`unblocks, 1: ${id}`)]);
    }
    const { work, reason } = await ben.done("work_claim", { id });
    expect([work, reason]).toEqual([null, expect.stringContaining("needs the password of the shop")]);
    expect(reason).toContain("Nobody is offered it until a person unblocks it");
    await ben.done("item_edit", { id, blocked: false });
    expect((await ada.done("work_next", { labels: [label] })).work.id).toBe(id);
    const failed = await ada.done("work_finish", { id, outcome: "failed", blocked: true, note: "no" });
    expect(failed).toMatchObject({ free: false, blocked: true, failedTries: 1 });
  });

  test("that there is none of is explained by what there is", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada);
    const common = { addLabels: [label] };
    const later = await newItem(ada, { ...common, dependsOn: [id] });
    const aside = await newItem(ada, { ...common, stage: "4_merge" });
    await ada.done("work_next", { labels: [label] });
    const { reason } = await ben.done("work_next", { labels: [label] });
    for (const part of [
      `${id} (${ada.name})`,
      `1: ${later.id} depends on ${id}, which is in`,
      `${aside.id} (4_merge)`,
    ])
      expect(reason).toContain(part);
    expect((await ada.done("work_next", { labels: [label] })).reason).toContain(`You hold ${id}`);
    await ada.done("work_finish", { id, outcome: "done", note: "on the branch cart, commit 1a2b" });
    // Whoever goes on from it finds where it is.
    const { work } = await ben.done("work_claim", { id: later.id });
    expect(work.dependsOn).toMatchObject([
      { id, stage: "5_done", note: { by: ada.name, text: "on the branch cart, commit 1a2b" } },
    ]);
    await ben.done("work_finish", { id: later.id, outcome: "done" });
    await ben.done("item_edit", { id: aside.id, stage: "5_done" });
    expect((await ben.done("work_next", { labels: [label] })).reason).toContain("All is done");
    const { reason: nothing } = await ben.done("work_next", { labels: [newName()] });
    expect(nothing).toContain("There are no items");
  });

  test("that is held already is given again, and known by its title", async () => {
    const ada = await started();
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    await ada.done("work_update", { id, note: "half of it" });
    const { work } = await ada.done("work_claim", { id });
    expect(work).toMatchObject({ id, agent: ada.name, notes: [{ by: ada.name, text: "half of it" }] });
    expect(work).not.toHaveProperty("claimedBy");
    const { held } = await ada.done("session_start", { name: ada.name, worktree: ada.worktree });
    expect(held).toEqual([{ kind: "item", id, title: "A story" }]);
    const client = await daemon().place.connect();
    const queue = `jobs-${ada.name}`;
    const { batch } = await client.call("queue.enqueue", { queue, payloads: ["a"] });
    const first = await ada.done("work_next", { queue });
    expect((await ada.done("work_claim", { id: batch.batchId })).work).toEqual(first.work);
    await client.destroy();
  });

  test("that is done takes a note of whoever has done it, and is not said to be taken again", async () => {
    const ada = await started({ server: {} });
    const ben = await started();
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    await ada.done("work_finish", { id, outcome: "done" });
    await ada.done("work_update", { id, note: "merged as 1a2b" });
    expect((await ben.done("board", { id })).item.notes).toEqual([{ by: ada.name, text: "merged as 1a2b" }]);
    for (const [agent, words] of [
      [ada, "You have done it"],
      [ben, "It is done"],
    ] as const) {
      const { kind, text } = await agent.refused("work_update", { id, note: "x", percent: 99 });
      expect([kind, text]).toEqual(["lease_lost", expect.stringContaining(words)]);
      expect(text).not.toContain("work_claim");
    }
    expect((await ben.refused("work_update", { id, note: "x" })).kind).toBe("lease_lost");
    // A server that goes on knows it, too.
    await ada.kill();
    const again = await started({ name: ada.name, worktree: ada.worktree });
    await again.done("work_update", { id, note: "released" });
  });

  test("that nobody can make ready is not waited for", async () => {
    const own = await startDaemon();
    const [ada, ben] = [
      await started({ server: { at: own.place } }),
      await started({ server: { at: own.place } }),
    ];
    const { id, label } = await newItem(ada);
    const later = await newItem(ada, { dependsOn: [id] });
    await ada.done("paths_reserve", { paths: ["src/"] });
    await ben.done("work_claim", { id });
    let waits = 0;
    const ask = () =>
      ada.done("work_next", { labels: [later.label], waitSeconds: 45 }, { onprogress: () => (waits += 1) });
    const worked = await ada.done("work_next", { labels: [label] });
    expect(worked.reason).not.toContain("Nobody works");
    expect(worked.hint).toBe("You hold src/ and have no work: paths_release.");
    await ben.done("work_finish", { id, outcome: "give_back", blocked: true, note: "which shop?" });
    const { work, reason } = await ask();
    expect([work, reason, waits]).toEqual([
      null,
      expect.stringContaining("Nobody works on anything: you may stop, unless stories are added."),
      0,
    ]);
    await ada.done("paths_release");
    expect(await ask()).not.toHaveProperty("hint");
    // Nor for longer than somebody works.
    await ada.done("item_edit", { id, blocked: false });
    await ben.done("work_claim", { id });
    const told: number[] = [];
    const waited = ada.done(
      "work_next",
      { labels: [later.label], waitSeconds: 45 },
      {
        onprogress({ progress }: { progress: number }) {
          told.push(progress);
          if (told.length > 1) return;
          void ben.done("work_finish", { id, outcome: "failed", blocked: true, note: "no such shop" });
        },
      },
    );
    expect((await waited).reason).toContain("Nobody works on anything");
    expect(told).toEqual([...new Set(told)].sort((a, b) => a - b));
    expect(Math.max(...told)).toBeLessThan(40);
    // What another may take may become more.
    await ada.done("item_edit", { id, blocked: false });
    await ada.done("work_claim", { id });
    await ada.done("work_finish", { id, outcome: "handoff", to: ben.name });
    const waiting = ada.done(
      "work_next",
      { waitSeconds: 45 },
      {
        onprogress: () =>
          void ben.done("work_claim", { id }).then(() => ben.done("work_finish", { id, outcome: "done" })),
      },
    );
    expect((await waiting).work.id).toBe(later.id);
  });

  test("comes from queues, too, with its checkpoint and its result", async () => {
    const ada = await started();
    const client = await daemon().place.connect();
    const queue = `jobs-${ada.name}`;
    const { batch } = await client.call("queue.enqueue", { queue, payloads: [{ file: "a" }] });
    const { work } = await ada.done("work_next", { queue });
    expect(work).toMatchObject({ kind: "batch", id: batch.batchId, payloads: [{ file: "a" }] });
    await ada.done("work_update", { id: batch.batchId, percent: 10, checkpoint: { line: 7 } });
    expect((await ada.refused("work_finish", { id: batch.batchId, outcome: "handoff", to: "x" })).kind).toBe(
      "invalid_params",
    );
    await ada.done("work_finish", { id: batch.batchId, outcome: "failed", note: "no disk" });
    await client.call("queue.update", { batchId: batch.batchId, availableAt: 0 });
    const again = await ada.done("work_claim", { id: batch.batchId });
    expect(again.work).toMatchObject({ checkpoint: { line: 7 }, lastError: "no disk", failedTries: 1 });
    await ada.done("work_finish", { id: batch.batchId, outcome: "done", result: { lines: 9 } });
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch).toMatchObject({
      state: "completed",
      result: { lines: 9 },
    });
    expect((await ada.done("work_claim", { id: batch.batchId })).work).toBeNull();
    await client.destroy();
  });

  test("is waited for, with progress, and a wait that is cancelled takes nothing", async () => {
    const [ada, ben] = [await started(), await started()];
    const told: string[] = [];
    const cancelling = new AbortController();
    const label = `wait-${ada.name}`;
    // Where nobody works nobody waits.
    const begun = await newItem(ben);
    await ben.done("work_claim", { id: begun.id });
    const waiting = ada.client
      .callTool(
        { name: "work_next", arguments: { session: ada.session, labels: [label], waitSeconds: 45 } },
        {
          signal: cancelling.signal,
          onprogress: ({ message = "" }) => {
            told.push(message);
            cancelling.abort(new Error("enough"));
          },
        },
      )
      .catch((error: Error) => error);
    expect(String(await waiting)).toContain("enough");
    expect(told[0]).toContain("waiting for work");
    // The server reads one message after the other: with the answer the end of the wait has gone to the daemon, too.
    await ada.done("board", {});
    const { id } = await newItem(ben, { addLabels: [label] });
    expect((await ada.done("board", { id })).item.stage).toBe("1_backlog");
    const { work } = await ben.done("work_next", { labels: [label], waitSeconds: 5 });
    expect(work.id).toBe(id);
  });

  test("that is taken away is said first, once", async () => {
    const [ada, ben] = [await started(), await started()];
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    await ben.done("force_release", { kind: "item", id, reason: "it hangs" });
    const next = await ada.call("board", { id });
    expect(next.text).toMatch(
      new RegExp(`^LOST, stop working on it: item ${id} \\(broken: ${ben.name}: it hangs\\)`),
    );
    expect(next.value.lost).toMatchObject([{ kind: "item", id }]);
    expect((await ada.done("board", { id })).lost).toEqual([]);
  });
});

/** Resolves once somebody waits for what a pattern holds. */
async function isWaitedFor(pattern: string): Promise<void> {
  const client = await daemon().place.connect();
  await until(async () => {
    const { nodes, edges } = await client.call("daemon.graph", {});
    const wanted = new Set(nodes.filter((node) => node.pattern === pattern).map(({ id }) => id));
    return edges.some(({ to, what }) => what === "waits" && wanted.has(to));
  });
  await client.destroy();
}

describe("paths", () => {
  test("are all or none, with the holder and its note in the refusal", async () => {
    const worktree = privateDirectory();
    mkdirSync(join(worktree, ".git"));
    mkdirSync(join(worktree, "src"));
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    const { reserved } = await ada.done("paths_reserve", {
      paths: ["src", join(worktree, "package.json")],
      note: "the cart",
    });
    expect(reserved).toEqual(["src/", "package.json"]);
    const refusal = await ben.refused("paths_reserve", { paths: ["docs/", "src/a.ts"] });
    expect(refusal.kind).toBe("lease_held");
    expect(refusal.text).toMatch(
      new RegExp(`src/a.ts is held by ${ada.name} as src/ since \\d\\d:\\d\\d \\(the cart\\)`),
    );
    for (const part of [
      "Free are docs/",
      "Call again with docs/ alone: you get it at once",
      "wait with waitSeconds",
      `ask ${ada.name} by message_send (told already that you want it)`,
    ])
      expect(refusal.text).toContain(part);
    // Neither figures of time nor processes: it stays until it is given back.
    expect(refusal.text).not.toMatch(/ ms|pid|expiresAt|\d{6}/);
    const late = await ben.refused("paths_reserve", { paths: ["src/a.ts"], waitSeconds: 1 });
    expect(late.text).not.toContain("waitSeconds");
    expect((await ada.done("paths_reserve", { paths: ["docs/"] })).reserved).toHaveLength(3);
    expect((await ada.refused("paths_reserve", { paths: ["../x"] })).kind).toBe("invalid_params");
    expect((await ada.refused("paths_release", { paths: ["nothing"] })).kind).toBe("not_found");
    expect((await ada.done("paths_release", { paths: ["src"] })).reserved).toEqual(["package.json", "docs/"]);
    const waiting = ben.done("paths_reserve", { paths: ["docs/x.md"], waitSeconds: 20 });
    await isWaitedFor("docs/");
    await ada.done("paths_release");
    expect((await waiting).reserved).toEqual(["docs/x.md"]);
  });

  test("are for a piece of work each, with a note of its own, and end with it", async () => {
    const worktree = privateDirectory();
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    const [one, two] = [await newItem(ada), await newItem(ada)];
    for (const { id } of [one, two]) await ada.done("work_claim", { id });
    const first = await ada.done("paths_reserve", { paths: ["src/pay/"], for: one.id, note: "the till" });
    expect(first).toMatchObject({ for: one.id, reserved: ["src/pay/"] });
    // The latest, if none is named.
    const second = await ada.done("paths_reserve", { paths: ["src/mail/"], note: "the letters" });
    expect(second).toMatchObject({ for: two.id, reserved: ["src/mail/"] });
    expect((await ada.refused("paths_reserve", { paths: ["x"], for: "FR-404" })).kind).toBe("invalid_params");
    const { text } = await ben.refused("paths_reserve", { paths: ["src/pay/a.ts", "src/mail/a.ts"] });
    for (const [{ id }, note] of [
      [one, "the till"],
      [two, "the letters"],
    ] as const)
      expect(text).toMatch(new RegExp(`since \\d\\d:\\d\\d for ${id} \\(${note}\\)\\.`));
    expect(text).not.toContain("any more");
    const { held } = await ada.done("session_start", { name: ada.name, worktree });
    expect(held).toContainEqual({ kind: "paths", id: worktree, patterns: ["src/pay/"], for: one.id });
    const finished = await ada.done("work_finish", { id: one.id, outcome: "done" });
    expect(finished).toMatchObject({
      releasedPaths: ["src/pay/"],
      stillReserved: [{ paths: ["src/mail/"], for: two.id }],
      hint: `You still have src/mail/ (for ${two.id}): paths_release what you need no more.`,
    });
    const back = { id: two.id, outcome: "give_back", keepPaths: true };
    const kept = await ada.done("work_finish", back);
    expect(kept.stillReserved).toEqual([{ paths: ["src/mail/"], for: two.id }]);
    expect(kept.hint).toContain(`though ${two.id} is not yours any more: paths_release`);
    const late = await ben.refused("paths_reserve", { paths: ["src/mail/a.ts"] });
    expect(late.text).toContain(`${ada.name} does not work on ${two.id} any more.`);
    // Asked for again, they are for what they are asked for.
    expect(await ada.done("paths_reserve", { paths: ["src/mail/"] })).toMatchObject({ for: null });
    expect((await ben.refused("paths_reserve", { paths: ["src/mail/a.ts"] })).text).not.toContain(two.id);
  });

  test("that are for two pieces of work end with the last of them", async () => {
    const worktree = privateDirectory();
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    const [one, two] = [await newItem(ada), await newItem(ada)];
    for (const { id } of [one, two]) await ada.done("work_claim", { id });
    await ada.done("paths_reserve", { paths: ["src/"], for: one.id, note: "all" });
    const both = await ada.done("paths_reserve", { paths: ["src/a.ts", "lib/"], for: two.id });
    expect(both.reserved.sort()).toEqual(["lib/", "src/"]);
    expect(both.hint).toBe(`You keep src/ until ${one.id} and ${two.id} have ended.`);
    expect((await ben.refused("paths_reserve", { paths: ["src/"] })).text).toContain(
      `for ${one.id}, ${two.id} (all)`,
    );
    const again = await ada.done("paths_reserve", { paths: ["lib/b.ts", "src/b.ts"], for: two.id });
    expect(again.reserved.sort()).toEqual(["lib/", "lib/b.ts", "src/"]);
    const read = { paths: ["src/b.ts", "lib/"], mode: "read", for: two.id };
    expect((await ada.done("paths_reserve", read)).reserved.sort()).toEqual(again.reserved);
    // What is more than one has is not to be had beside it.
    const around = await ada.refused("paths_reserve", { paths: ["**/a.ts"], for: two.id });
    expect(around.text).toContain(`You have reserved some of that yourself: **/a.ts meets src/`);
    const first = await ada.done("work_finish", { id: one.id, outcome: "done" });
    expect(first).not.toHaveProperty("releasedPaths");
    expect((await ben.refused("paths_reserve", { paths: ["src/"] })).text).toContain(`for ${two.id} (all)`);
    const last = await ada.done("work_finish", { id: two.id, outcome: "done" });
    expect(last.releasedPaths.sort()).toEqual(["lib/", "lib/b.ts", "src/"]);
    expect((await ben.done("paths_reserve", { paths: ["src/"] })).reserved).toEqual(["src/"]);
  });

  test("that are wanted end a wait of the holder, who is told once", async () => {
    const worktree = privateDirectory();
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    const { id } = await newItem(ada);
    await ada.done("work_claim", { id });
    await ada.done("paths_reserve", { paths: ["src/pay/"] });
    let waiting: Promise<{ reserved: string[] }> | undefined;
    const none = await ada.done(
      "work_next",
      { labels: [newName()], waitSeconds: 45 },
      {
        onprogress: () => {
          waiting ??= ben.done("paths_reserve", { paths: ["src/pay/a.ts"], waitSeconds: 45 });
        },
      },
    );
    expect(none.hint).toContain("read inbox");
    const { messages } = await ada.done("inbox");
    expect(messages).toMatchObject([
      {
        from: "(pawl)",
        text: `${ben.name} waits for src/pay/a.ts, which you have reserved as src/pay/ for ${id}. paths_release src/pay/ when you do not need it. This needs no answer.`,
      },
    ]);
    expect((await ada.refused("message_send", { to: "(pawl)", text: "no" })).kind).toBe("invalid_params");
    // Neither what is added nor what is asked for again tells it again; of another reservation it does.
    await ada.done("paths_reserve", { paths: ["src/mail/"] });
    await ben.refused("paths_reserve", { paths: ["src/mail/"] });
    expect((await ada.done("inbox")).messages).toEqual([]);
    await ada.done("paths_release");
    expect((await waiting)?.reserved).toEqual(["src/pay/a.ts"]);
    await ada.done("paths_reserve", { paths: ["src/mail/"] });
    await ben.refused("paths_reserve", { paths: ["src/mail/"] });
    const { messages: more } = await ada.done("inbox");
    expect(more[0].text).toContain(`${ben.name} wants src/mail/, which you have reserved for ${id}.`);
  });

  test.each([
    ["work_claim", "which you work on"],
    ["lock", "which you have by lock"],
  ])("and what %s is refused are told of alike", async (tool, words) => {
    const [ada, ben] = [await started(), await started()];
    const { id } = await newItem(ada);
    await ada.done("work_claim", { id });
    await ada.done("lock", { name: `port/${ada.name}` });
    const args = tool === "work_claim" ? { id } : { name: `port/${ada.name}` };
    for (let times = 0; times < 2; times += 1) await ben.refused(tool, args);
    await ben.call(tool, { ...args, waitSeconds: 1 });
    const { messages } = await ada.done("inbox");
    expect(messages).toHaveLength(1);
    expect(messages[0].text).toContain(`${ben.name} wants ${Object.values(args)[0]}, ${words}. `);
    expect(messages[0].from).toBe("(pawl)");
  });

  test("for which two would wait for each other are refused to the second one", async () => {
    const worktree = privateDirectory();
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    await ada.done("paths_reserve", { paths: ["a"] });
    await ben.done("paths_reserve", { paths: ["b"] });
    const waiting = ada.done("paths_reserve", { paths: ["b"], waitSeconds: 20 });
    await isWaitedFor("b");
    const refusal = await ben.refused("paths_reserve", { paths: ["a"], waitSeconds: 20 });
    expect(refusal.kind).toBe("would_deadlock");
    expect(refusal.text).toContain("Give back what you hold");
    await ben.done("paths_release");
    expect((await waiting).reserved).toEqual(["a", "b"]);
  });

  test("that a person holds are refused without advice to write to them", async () => {
    const ada = await started();
    const client = await daemon().place.connect();
    await client.call("path.reserve", { root: ada.worktree, patterns: ["a"], owner: "eva", ttlMs: 60_000 });
    const { text } = await ada.refused("paths_reserve", { paths: ["a"] });
    expect(text).toContain("tell your user, since eva cannot be asked");
    await client.destroy();
  });

  test("of the work trees of one repository meet", async () => {
    const directory = privateDirectory();
    const git = (...args: string[]) =>
      spawnSync("git", args, { cwd: join(directory, "main"), stdio: "ignore" });
    mkdirSync(join(directory, "main"));
    git("init", "-q");
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x");
    git("worktree", "add", "-q", "../other");
    const ada = await started({ worktree: join(directory, "main") });
    const ben = await started({ worktree: join(directory, "other") });
    await ada.done("paths_reserve", { paths: ["src/"] });
    expect((await ben.refused("paths_reserve", { paths: ["src/a.ts"] })).kind).toBe("lease_held");
  });
});

describe("messages", () => {
  test("wait for a name, are read once, and come again if nobody confirmed them", async () => {
    const ada = await started();
    const name = newName();
    expect((await ada.done("message_send", { to: name, text: "one" })).there).toBe(false);
    await ada.done("message_send", { to: name, text: "two" });
    const worktree = privateDirectory();
    const ben = await started({ name, worktree, server: {} });
    const { messages, unread } = await ben.done("inbox");
    expect(messages.map(({ text }: { text: string }) => text)).toEqual(["one", "two"]);
    expect(unread).toBe(0);
    // The server ends before the agent has called again: nobody knows that it has read them.
    await ben.kill();
    const again = await started({ name, worktree });
    expect((await again.done("inbox")).messages).toHaveLength(2);
    expect((await again.done("inbox")).messages).toEqual([]);
  });

  test("that ask are answered once, and one for a session alone never comes to its successor", async () => {
    const [ada, ben] = [await started(), await started({ server: {} })];
    const { requestId } = await ada.done("message_send", { to: ben.session, text: "done?", request: true });
    const { requests } = await ben.done("inbox", { waitSeconds: 10 });
    expect(requests).toEqual([
      { id: requestId, from: ada.name, text: "done?", at: expect.stringMatching(/^\d{4}-/) },
    ]);
    expect((await ada.done("inbox")).openRequests).toBe(1);
    await ben.done("message_send", { answers: requestId, text: "yes" });
    expect((await ben.refused("message_send", { answers: requestId, text: "yes" })).kind).toBe("not_found");
    const { answers, openRequests } = await ada.done("inbox", { waitSeconds: 10 });
    expect(answers).toEqual([{ id: requestId, asked: "done?", from: ben.name, text: "yes" }]);
    expect(openRequests).toBe(0);
    const waiting = ada.done("message_send", {
      to: ben.name,
      text: "again?",
      request: true,
      waitSeconds: 20,
    });
    const { requests: more } = await ben.done("inbox", { waitSeconds: 10 });
    await ben.done("message_send", { answers: more[0].id, text: "again" });
    expect((await waiting).answer).toBe("again");
    const former = ben.session;
    await ben.kill();
    const next = await started({ name: ben.name, worktree: ben.worktree });
    expect(next.session).not.toBe(former);
    const gone = await ada.refused("message_send", { to: former, text: "secret" });
    expect(gone.kind).toBe("gone");
    expect((await next.done("inbox")).messages).toEqual([]);
  });

  test("for a session that never was are refused, and a request to nobody is not waited for", async () => {
    const [ada, ben] = [await started(), await started()];
    for (const to of [`${newName()}~00000000`, `${ben.name}~00000000`]) {
      const { kind } = await ada.refused("message_send", { to, text: "x", request: true, waitSeconds: 45 });
      expect(kind).toBe("gone");
    }
    const name = newName();
    const sent = await ada.done("message_send", { to: name, text: "who?", request: true, waitSeconds: 45 });
    expect(sent).toMatchObject({ sent: true, there: false, requestId: expect.any(String) });
    expect(sent.hint).toContain("kept for whoever takes that name");
    const late = await started({ name });
    expect((await late.done("inbox")).requests).toMatchObject([{ id: sent.requestId, text: "who?" }]);
  });

  test.each<[string, (worktree: string) => Record<string, unknown>]>([
    ["work_next", () => ({ labels: [newName()] })],
    ["work_claim", () => ({})],
    ["paths_reserve", () => ({ paths: ["held"] })],
    ["lock", (worktree) => ({ name: worktree })],
  ])("end a wait of %s", async (tool, argsOf) => {
    const worktree = privateDirectory();
    const [ada, ben] = [await started({ worktree }), await started({ worktree })];
    await ben.done("paths_reserve", { paths: ["held"] });
    await ben.done("lock", { name: worktree });
    const { id, label } = await newItem(ben);
    await ben.done("work_next", { labels: [label] });
    const args = { ...(tool === "work_claim" ? { id } : argsOf(worktree)), waitSeconds: 45 };
    let call: ReturnType<Agent["call"]> | undefined;
    await new Promise<void>((resolve) => {
      call = ada.call(tool, args, { onprogress: () => resolve() });
    });
    await ben.done("message_send", { to: ada.name, text: "let go" });
    const { text, value } = await (call as ReturnType<Agent["call"]>);
    expect(text).toContain("A message came, which ended the wait: read inbox");
    expect(value.unread).toBe(1);
    // The same for those who have passed something over; what has come before ends a wait, too.
    if (tool !== "work_next") return;
    await ben.done("work_finish", { id, outcome: "give_back" });
    await ada.done("work_claim", { id });
    await ada.done("work_finish", { id, outcome: "give_back" });
    await ben.done("message_send", { to: ada.name, text: "again" });
    expect((await ada.done(tool, args)).hint).toContain("read inbox");
  });

  test("that ask end a wait for an answer, and both are answered in the inbox", async () => {
    const [ada, ben] = [await started(), await started()];
    const asking = (from: Agent, to: string) =>
      from.done("message_send", { to, text: "yours first?", request: true, waitSeconds: 45 });
    const sent = await Promise.all([asking(ada, ben.name), asking(ben, ada.name)]);
    for (const { hint, answer } of sent) {
      expect(answer).toBeUndefined();
      expect(hint).toContain("The request stays open");
    }
    for (const agent of [ada, ben]) {
      const { requests } = await agent.done("inbox");
      await agent.done("message_send", { answers: requests[0].id, text: `yes, ${agent.name}` });
      if (agent === ben) expect(requests).toHaveLength(1);
    }
    // Ben's came with the request of Ada.
    expect((await ada.done("inbox")).answers).toMatchObject([
      { asked: "yours first?", text: `yes, ${ben.name}` },
    ]);
  });
});

describe("a session", () => {
  test("is taken up by a server that is started again, with all that it held", async () => {
    const ada = await started({ server: {} });
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    await ada.done("paths_reserve", { paths: ["src/"] });
    await ada.done("lock", { name: `port/${ada.name}` });
    const file = join(daemon().place.directory, "pawl.sessions", `${ada.name}.json`);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(file, "..")).mode & 0o777).toBe(0o700);
    await ada.kill();
    const again = await Agent.start({ socket: socket() });
    const former = await again.refused("inbox", { session: ada.session });
    expect(former.text).toContain("started again");
    expect(former.text).toContain("kept for you for 30 s");
    const { resumed, held } = await again.done("session_start", { name: ada.name, worktree: ada.worktree });
    expect(resumed).toBe(true);
    expect(held.map(({ kind }: { kind: string }) => kind)).toEqual(["item", "paths", "lock"]);
    await again.done("work_finish", { id, outcome: "done" });
  });

  test("is refused while it is alive elsewhere, naming the process", async () => {
    const ada = await started();
    const other = await Agent.start({ socket: socket() });
    const refusal = await other.refused("session_start", { name: ada.name, worktree: ada.worktree });
    expect(refusal.kind).toBe("lease_held");
    expect(refusal.text).toContain(`process ${ada.pid}`);
    // The same server gives it again: a model may have forgotten it.
    const { session, resumed } = await ada.done("session_start", { name: ada.name, worktree: ada.worktree });
    expect([session, resumed]).toEqual([ada.session, true]);
  });

  test("ends when it is idle, and gives all back", async () => {
    const ben = await started();
    const { id, label } = await newItem(ben);
    const ada = await started({ server: { args: ["--tools", "full", "--idle", "300ms"] } });
    // On a busy machine it may be idle for so long between two calls.
    while ((await ada.call("work_next", { labels: [label] })).isError) {
      await ada.done("session_start", { name: ada.name, worktree: ada.worktree });
    }
    expect((await ben.done("work_next", { labels: [label], waitSeconds: 20 })).work.id).toBe(id);
    const refusal = await ada.refused("work_next");
    expect(refusal.kind).toBe("gone");
    expect(refusal.text).toContain("session_start");
  });

  test("goes on over a daemon that is killed", async () => {
    const own = await startDaemon();
    const ada = await started({ server: { at: own.place } });
    const { id, label } = await newItem(ada);
    await ada.done("work_next", { labels: [label] });
    await own.end("SIGKILL");
    await own.place.start();
    await ada.done("work_finish", { id, outcome: "done" });
  });

  test("without a daemon is refused with what to do; with --spawn one is started, and again when it has gone", async () => {
    const directory = privateDirectory();
    const nowhere = join(directory, "pawl.sock");
    const agent = await Agent.start({ socket: nowhere });
    const refusal = await agent.refused("session_start", { name: "ada" });
    expect(refusal.kind).toBe("unavailable");
    expect(refusal.text).toContain("pawld");
    const env = { XDG_STATE_HOME: directory };
    const spawning = await Agent.start({ socket: nowhere, args: ["--spawn", "--tools", "full"], env });
    await spawning.done("session_start", { name: "ada", worktree: directory });
    const pidOf = async (): Promise<number> => {
      const { stdout } = spawnSync(process.execPath, [PAWL, "--socket", nowhere, "status", "--json"], {
        encoding: "utf8",
      });
      return JSON.parse(stdout).info.pid;
    };
    const pid = await pidOf();
    process.kill(pid, "SIGKILL");
    // This one may be asked again where nobody knows what came of it.
    await spawning.done("who");
    await spawning.done("lock", { name: "x" });
    const later = await pidOf();
    expect(later).not.toBe(pid);
    process.kill(later, "SIGTERM");
    await until(() => !existsSync(`/proc/${later}`));
  });
});

describe("resources", () => {
  test.each([["2025-11-25"], ["2026-07-28"]])(
    "are read, and told of when they change: %s",
    async (revision) => {
      const ada = await started();
      const { id, label } = await newItem(ada);
      const agent = await Agent.start({ socket: socket(), revision });
      const uris = [`pawl://item/${id}`, "pawl://board"];
      const changed = new Set<string>();
      const all = new Promise<void>((resolve) => {
        agent.client.setNotificationHandler("notifications/resources/updated", ({ params }) => {
          changed.add(params.uri);
          if (changed.size === uris.length) resolve();
        });
      });
      if (revision.startsWith("2025")) for (const uri of uris) await agent.client.subscribeResource({ uri });
      else await agent.client.listen({ resourceSubscriptions: uris });
      await ada.done("work_next", { labels: [label] });
      await all;
      const { contents } = await agent.client.readResource({ uri: `pawl://item/${id}` });
      expect(JSON.parse((contents[0] as { text: string }).text).item).toMatchObject({
        storyId: id,
        stage: "2_current",
      });
      for (const uri of ["pawl://board", "pawl://agents", "pawl://paths", `pawl://queue/inbox/${ada.name}`]) {
        const read = await agent.client.readResource({ uri });
        expect(JSON.parse((read.contents[0] as { text: string }).text), uri).toBeTruthy();
      }
      await expect(agent.client.readResource({ uri: "pawl://item/none" })).rejects.toThrow(
        "There is no pawl://item/none",
      );
    },
  );
});

test("each tool refuses what does not fit, in words and with its kind", async () => {
  const ada = await started();
  const { tools } = await ada.client.listTools();
  for (const { name } of tools) {
    const { kind, text } = await ada.refused(name, { nonsense: 1 });
    expect(kind, name).toBe("invalid_params");
    expect(text, name).toContain("What to do:");
  }
  const wrong: [string, Record<string, unknown>, string][] = [
    ["work_next", { waitSeconds: 46 }, "invalid_params"],
    ["work_next", { queue: "q", labels: ["a"] }, "invalid_params"],
    ["work_claim", { id: "FR-404" }, "not_found"],
    ["work_claim", { id: `qwb:${"0".repeat(64)}` }, "not_found"],
    ["work_update", { id: "FR-404", note: "x" }, "lease_lost"],
    ["message_send", { text: "x" }, "invalid_params"],
    ["message_send", { to: "a b", text: "x" }, "invalid_params"],
    ["lock", { name: "item/FR-1" }, "invalid_params"],
    ["unlock", { name: "none" }, "not_found"],
    ["item_edit", { id: "new", title: "without a stage" }, "invalid_params"],
    ["force_release", { kind: "lock", id: "none", reason: "x" }, "not_found"],
    ["id_next", { type: "F-R" }, "invalid_params"],
  ];
  for (const [name, args, kind] of wrong) {
    expect([name, args, (await ada.refused(name, args)).kind]).toEqual([name, args, kind]);
  }
  expect((await ada.done("who")).agents.map(({ name }: { name: string }) => name)).toContain(ada.name);
});

test("files of sessions hold what hooks need, and nothing is left of one that ended", async () => {
  const ada = await started({ server: { args: ["--idle", "200ms"] } });
  const directory = join(daemon().place.directory, "pawl.sessions");
  const state = JSON.parse(readFileSync(join(directory, `${ada.name}.json`), "utf8"));
  expect(state).toMatchObject({ version: 1, name: ada.name, process: { pid: ada.pid }, holds: [] });
  await expect.poll(() => readdirSync(directory), { timeout: 10_000 }).not.toContain(`${ada.name}.json`);
  // A file of another version, or a damaged one, is as if it were not there.
  writeFileSync(join(directory, "broken.json"), "{");
  await started({ name: "broken" });
});
