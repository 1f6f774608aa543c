// What `pawl mcp` makes of calls: results that are never lost, refusals with a way out, processes that are alive.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { ERRORS, type ErrorKind, PawlError } from "@pawl/protocol/errors";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import type { Link } from "../../mcp/dist/link.js";
import { Interrupted, told } from "../../mcp/dist/refusal.js";
import { Following } from "../../mcp/dist/resources/resources.js";
import { isAlive, markOf } from "../../mcp/dist/sessions/process-mark.js";
import { Session } from "../../mcp/dist/sessions/session.js";
import { perform } from "../../mcp/dist/tools/perform.js";
import { ADDS, tool } from "../../mcp/dist/tools/tool.js";
import { privateDirectory } from "../daemon.js";

/** A link of which only the calls are used. */
function linkOf(call: (method: string, params: Record<string, unknown>) => Promise<unknown>): Link {
  return { call } as unknown as Link;
}

function sessionOn(link: Link): Session {
  const identity = { session: "ada~1", name: "ada", role: null, worktree: "/w", leaseId: "l" };
  const lock = { kind: "lock", id: "port", leaseId: "x", fencingToken: 1 } as const;
  return new Session(link, privateDirectory(), identity, [lock], {
    open: [{ id: "cmd_1", to: "ben", text: "?" }],
  });
}

const paint = tool({
  name: "paint",
  title: "Paint",
  description: "",
  annotations: ADDS,
  input: {},
  output: { painted: z.boolean() },
  run: async () => ({ painted: true }),
});

async function performed(link: Link, session: Session) {
  const call = { sessions: { get: () => session }, signal: new AbortController().signal, link };
  return await perform(paint, { session: session.id }, call as never);
}

test("the result of a tool is given although its news cannot be had, with what is known and a word on the rest", async () => {
  const link = linkOf(async () => {
    throw new PawlError("unavailable", "The storage is full.");
  });
  const session = sessionOn(link);
  session.lose(session.holds[0] as never, "broken");
  const { isError, structuredContent, content } = await performed(link, session);
  expect(isError).toBeUndefined();
  expect(structuredContent).toEqual({
    painted: true,
    unread: null,
    lost: [{ kind: "lock", id: "port", cause: "broken" }],
  });
  const { text } = content[0] as { text: string };
  expect(text).toMatch(
    /^LOST, stop working on it: lock port \(broken\)\.\nHow many messages wait .*storage is full\./,
  );
  expect(text).toContain("The call itself is done.");
  expect(JSON.parse(text.split("\n").at(-1) as string)).toEqual(structuredContent);
  paint.output.parse(structuredContent);
});

test("a request that the daemon has forgotten keeps no result from the agent, and counts as unread", async () => {
  const link = linkOf(async (method) => {
    if (method === "command.get") throw new PawlError("not_found", "There is no command cmd_1.");
    return { queues: [{ ready: 2 }], commands: [] };
  });
  const { structuredContent } = await performed(link, sessionOn(link));
  expect(structuredContent).toEqual({ painted: true, unread: 3, lost: [] });
});

test("each kind of error has advice; only of defects it is said that they are defects", () => {
  const advice = Object.fromEntries(
    Object.keys(ERRORS).map((kind) => [kind, told(new PawlError(kind as ErrorKind, "No.")).whatToDo]),
  );
  const defects = Object.keys(advice).filter((kind) => advice[kind]?.includes("defect"));
  const expected = [
    "bad_generation",
    "bad_shape",
    "internal",
    "invalid_request",
    "not_canonical",
    "not_json",
  ];
  expect(defects.sort()).toEqual([...expected, "parse_error"].sort());
  expect(advice.forbidden).toContain("not allowed");
  expect(advice.provider_unavailable).toContain("does not answer");
  expect(
    Object.values(advice).filter((text) => text === told({ kind: "of_later", message: "" }).whatToDo),
  ).toEqual([]);
  for (const text of Object.values(advice)) expect(text.length).toBeGreaterThan(10);
});

test("a refusal of the daemon has no figures that mislead an agent, and advice that fits what it did", () => {
  const holder = { owner: "ben", expiresAt: 1_750_000_000_000, remainingMs: 46_101 };
  const refused = new PawlError(
    "lease_held",
    'The lease "port" is held by "ben" for 46101 ms more unless renewed. Ask again, or wait for it with waitMs.',
    { holder, holders: [{ ...holder, pid: 77 }] },
  );
  expect(told(refused)).toMatchObject({
    message: 'The lease "port" is held by "ben".',
    holder: { owner: "ben" },
    whatToDo: expect.stringContaining("waitSeconds"),
  });
  expect(JSON.stringify(told(refused))).not.toMatch(/46101|1750|pid/);
  expect(told(refused, true).whatToDo).not.toContain("waitSeconds");
  expect(told(new Interrupted(refused))).toMatchObject({
    kind: "lease_held",
    whatToDo: expect.stringContaining("read inbox"),
  });
});

test("a process is alive by its pid and its start; one that may not be looked at is", async () => {
  expect(isAlive(markOf())).toBe(true);
  // The pid was used again.
  expect(isAlive({ ...markOf(), startTicks: markOf().startTicks - 1 })).toBe(false);
  // Where the start was not known, the pid alone counts.
  expect(isAlive({ ...markOf(), startTicks: 0 })).toBe(true);
  expect(isAlive({ ...markOf(), pidSpace: "pid:[1]" })).toBe(true);
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child, "spawn");
  const mark = markOf(child.pid);
  expect(isAlive(mark)).toBe(true);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(isAlive(mark)).toBe(false);
  expect(isAlive({ ...mark, startTicks: 0 })).toBe(false);
});

// proc(5): with hidepid a process of another user has no file, and kill(2) says EPERM. The mount is one of its own: to
// remount /proc would hide the processes of the whole machine.
const hides = (script: string): string[] => [
  "--mount",
  "--propagation",
  "private",
  "sh",
  "-c",
  `mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups ${script}`,
];
const canHide = spawnSync("unshare", hides("true")).status === 0;
if (!canHide) console.warn("processes that may not be looked at are not tested: only root can hide them");
test.runIf(canHide)("a process of somebody else that is hidden counts as alive", () => {
  const module = JSON.stringify(new URL("../../mcp/dist/sessions/process-mark.js", import.meta.url).href);
  const mark = JSON.stringify(markOf());
  const script = `import(${module}).then((m) => console.log(m.isAlive(${mark})))`;
  const { stdout } = spawnSync("unshare", hides(`"$NODE" -e '${script}'`), {
    encoding: "utf8",
    env: { ...process.env, NODE: process.execPath },
  });
  expect(stdout).toBe("true\n");
});

test("a change between two watches is told: the second one begins where the first one was", async () => {
  const happened: string[] = [];
  const waiting = new Set<() => void>();
  const happen = (topic: string): void => {
    happened.push(topic);
    for (const wake of waiting) wake();
  };
  const answer = (topics: string[], from: number) => ({
    events: happened.slice(from).flatMap((topic) => (topics.includes(topic) ? [{ topic }] : [])),
    cursor: String(happened.length),
    gap: false,
  });
  let second: Promise<void> = Promise.resolve();
  const link = {
    call: async (_: string, params: { topics: string[]; since?: string; waitMs?: number }, options = {}) => {
      const { signal } = options as { signal?: AbortSignal };
      const from = params.since === undefined ? happened.length : Number(params.since);
      while (params.waitMs !== undefined && answer(params.topics, from).events.length === 0) {
        await new Promise<void>((resolve, reject) => {
          waiting.add(resolve);
          signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
        });
      }
      return answer(params.topics, from);
    },
  };
  const changed: string[] = [];
  let told = (): void => {};
  const late = {
    get: async () => {
      await second;
      return link;
    },
  };
  const following = new Following(late as never, (uri) => {
    changed.push(uri);
    told();
  });
  await following.follow(["pawl://item/A"]);
  let go = (): void => {};
  second = new Promise((resolve) => {
    go = resolve;
  });
  const both = following.follow(["pawl://item/B"]);
  // The first watch has ended, and the second one has not begun.
  happen("item:A");
  const wasTold = new Promise<void>((resolve) => {
    told = resolve;
  });
  go();
  await both;
  await wasTold;
  expect(changed).toEqual(["pawl://item/A"]);
  following.close();
});
