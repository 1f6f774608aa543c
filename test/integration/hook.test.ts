// `pawl hook` and `pawl guard`: the JSON that Claude Code documents for its hooks, over a real daemon.
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { PAWL, privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { Agent } from "../mcp-agent.js";
import { startPawl } from "./cli-program.js";

const daemon = sharedDaemon();
let server: Agent;
beforeAll(async () => {
  const actions: (() => void | Promise<void>)[] = [];
  server = await Agent.start({
    socket: daemon().place.socket,
    args: ["--tools", "full"],
    atEnd: (action) => void actions.push(action),
  });
  return async () => {
    for (const action of actions) await action();
  };
});

let names = 0;

/** An agent with a session in a git work tree. */
async function inTree(worktree: string, name = `worker-${++names}`): Promise<Agent & { name: string }> {
  const agent = server.another();
  await agent.done("session_start", { name, worktree });
  return Object.assign(agent, { name });
}

function newTree(): string {
  const tree = privateDirectory();
  mkdirSync(join(tree, ".git"));
  mkdirSync(join(tree, "src"));
  return tree;
}

interface Answer {
  code: number | null;
  // biome-ignore lint/suspicious/noExplicitAny: each event has another shape
  json: any;
  stderr: string;
}

/** Runs the hook as the host does: JSON on its standard input. */
async function hook(
  event: string,
  cwd: string,
  more: Record<string, unknown> = {},
  env: Record<string, string> = {},
): Promise<Answer> {
  return await program({
    input: JSON.stringify({
      session_id: `claude-${cwd}`,
      transcript_path: "/tmp/transcript.jsonl",
      cwd,
      permission_mode: "default",
      hook_event_name: event,
      ...more,
    }),
    env,
  });
}

async function program({
  input,
  env = {},
}: {
  input: string;
  env?: Record<string, string>;
}): Promise<Answer> {
  const { PAWL_SESSION: _, ...outer } = process.env;
  // As the shell of a host does, so that the server of an agent may answer.
  const child = spawn(PAWL, ["hook"], {
    env: { ...outer, PAWL_SOCKET: daemon().place.socket, ...env },
    stdio: "pipe",
  });
  child.stdin.end(input);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code, json: stdout === "" ? undefined : JSON.parse(stdout), stderr };
}

const edit = (file: string, tool = "Edit") => ({
  tool_name: tool,
  tool_use_id: "toolu_01",
  tool_input: { file_path: file, old_string: "a", new_string: "b" },
});

describe("before an edit", () => {
  test("a holder that is no agent is not to be asked", async () => {
    const tree = newTree();
    const held = startPawl(
      ["reserve", "src/", "--owner", "a script", "--", "sh", "-c", "echo held; exec sleep 600"],
      {
        socket: daemon().place.socket,
        cwd: tree,
      },
    );
    await held.printed(/held/);
    const { json } = await hook("PreToolUse", tree, edit(join(tree, "src/a.ts")), { PAWL_SESSION: "ben" });
    const { permissionDecision, permissionDecisionReason } = json.hookSpecificOutput;
    expect(permissionDecision).toBe("deny");
    expect(permissionDecisionReason).toContain("src/a.ts is reserved by a script (");
    expect(permissionDecisionReason).not.toContain("message_send");
    await held.end("SIGTERM");
  });

  test("what another has reserved is denied, with the holder, its note and since when", async () => {
    const [tree, elsewhere] = [newTree(), newTree()];
    const ada = await inTree(tree);
    await ada.done("paths_reserve", { paths: ["src/"], note: "the cart's totals" });
    const { code, json } = await hook("PreToolUse", tree, edit(join(tree, "src/new/total.ts"), "Write"), {
      PAWL_SESSION: "ben",
    });
    expect(code).toBe(0);
    const { hookEventName, permissionDecision, permissionDecisionReason } = json.hookSpecificOutput;
    expect([hookEventName, permissionDecision]).toEqual(["PreToolUse", "deny"]);
    for (const part of [ada.name, "the cart's totals", "src/", `process ${ada.pid}`]) {
      expect(permissionDecisionReason).toContain(part);
    }
    expect(permissionDecisionReason).toMatch(/since \d\d:\d\d:\d\d/);
    expect(permissionDecisionReason).toContain(`, or ask ${ada.name} with message_send.`);
    // A relative path, a notebook, and a way round by a link are the same file.
    symlinkSync(tree, join(elsewhere, "link"));
    for (const input of [
      { file_path: "src/a.ts" },
      { notebook_path: join(tree, "src/a.ipynb") },
      { file_path: join(elsewhere, "link/src/a.ts") },
    ]) {
      const other = await hook(
        "PreToolUse",
        tree,
        { tool_name: "Edit", tool_input: input },
        { PAWL_SESSION: "ben" },
      );
      expect([input, other.json?.hookSpecificOutput.permissionDecision]).toEqual([input, "deny"]);
    }
    // All else goes on without a word.
    for (const input of [
      edit(join(tree, "docs/a.md")),
      edit("/etc/hosts"),
      { tool_input: { command: "ls" } },
    ]) {
      expect(await hook("PreToolUse", tree, input, { PAWL_SESSION: "ben" })).toMatchObject({
        code: 0,
        json: undefined,
      });
    }
  });

  test("one's own go on: by the name, or by the work tree", async () => {
    const tree = newTree();
    const ada = await inTree(tree);
    await ada.done("paths_reserve", { paths: ["src/"] });
    const file = edit(join(tree, "src/a.ts"));
    expect((await hook("PreToolUse", tree, file, { PAWL_SESSION: ada.name })).json).toBeUndefined();
    expect((await hook("PreToolUse", join(tree, "src"), file)).json).toBeUndefined();
  });

  test("of another work tree of the same repository is denied, too", async () => {
    const directory = privateDirectory();
    const main = join(directory, "main");
    mkdirSync(main);
    const git = (...args: string[]) => spawnSync("git", args, { cwd: main, stdio: "ignore" });
    git("init", "-q");
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x");
    git("worktree", "add", "-q", "../other");
    const ada = await inTree(main);
    await inTree(join(directory, "other"));
    await ada.done("paths_reserve", { paths: ["src/"] });
    const denied = await hook(
      "PreToolUse",
      join(directory, "other"),
      edit(join(directory, "other/src/a.ts")),
    );
    expect(denied.json.hookSpecificOutput.permissionDecisionReason).toContain(ada.name);
  });
});

describe("a session of the host", () => {
  test("begins with what is held and unread, is asked once to end it, and ends with all given back", async () => {
    const tree = newTree();
    const [ada, ben] = [await inTree(tree), await inTree(newTree())];
    const { ids } = await ada.done("id_next", { type: "HK" });
    await ada.done("item_edit", { id: ids[0], stage: "1_backlog", title: "x" });
    await ada.done("work_claim", { id: ids[0] });
    await ada.done("paths_reserve", { paths: ["src/"] });
    await ben.done("message_send", { to: ada.name, text: "hello" });
    const start = await hook("SessionStart", tree, { source: "startup" });
    const { hookEventName, additionalContext } = start.json.hookSpecificOutput;
    expect(hookEventName).toBe("SessionStart");
    for (const part of [ada.name, ids[0], "src/", "1 unread"]) expect(additionalContext).toContain(part);
    expect((await hook("Stop", tree, { stop_hook_active: true })).json).toBeUndefined();
    const stop = await hook("Stop", tree, { stop_hook_active: false });
    expect(stop.json.decision).toBe("block");
    expect(stop.json.reason).toContain(ids[0]);
    expect((await hook("Stop", tree, { stop_hook_active: false })).json).toBeUndefined();
    expect(await hook("SessionEnd", tree, { reason: "prompt_input_exit" })).toMatchObject({
      code: 0,
      json: undefined,
    });
    const { item } = await ben.done("board", { id: ids[0] });
    expect(item).toMatchObject({ stage: "1_backlog", agent: null });
    expect(item.failedTries).toBeUndefined();
    const client = await daemon().place.connect();
    expect((await client.call("path.list", { root: tree })).reservations).toEqual([]);
    await client.destroy();
    expect(existsSync(join(daemon().place.directory, "pawl.sessions", `${ada.name}.json`))).toBe(false);
  });

  test("of another host in the same work tree gives back nothing of this one", async () => {
    const tree = newTree();
    const ada = await inTree(tree);
    await ada.done("paths_reserve", { paths: ["src/"] });
    // A session of its own makes the hook nobody's child (setsid), as one of another terminal is.
    const { PAWL_SESSION: _, ...outer } = process.env;
    const input = JSON.stringify({
      session_id: "y",
      cwd: tree,
      hook_event_name: "SessionEnd",
      reason: "other",
    });
    const line = `setsid sh -c 'while [ -d /proc/$1 ]; do sleep 0.01; done; node "$0" hook < input; touch done' "${PAWL}" $$ > /dev/null 2>&1 &`;
    writeFileSync(join(tree, "input"), input);
    const env = { ...outer, PAWL_SOCKET: daemon().place.socket };
    spawnSync("sh", ["-c", line], { cwd: tree, env, stdio: "ignore" });
    await expect.poll(() => existsSync(join(tree, "done")), { timeout: 20_000 }).toBe(true);
    expect((await ada.done("paths_release")).released).toEqual(["src/"]);
  });

  test("that is nobody's here is told nothing", async () => {
    for (const event of ["SessionStart", "Stop", "SessionEnd", "PostToolUse", "UserPromptSubmit"]) {
      expect(await hook(event, newTree())).toMatchObject({ code: 0, json: undefined, stderr: "" });
    }
  });
});

const hasPerl = spawnSync("perl", ["-e", "0"]).status === 0;
if (!hasPerl) console.warn("hooks that are answered without Node are not tested: perl is not installed");

/** A directory for PATH in which there are these programs alone. */
function onlyWith(programs: Readonly<Record<string, string>>): string {
  const directory = privateDirectory();
  for (const [name, path] of Object.entries(programs)) symlinkSync(path, join(directory, name));
  return directory;
}

describe.runIf(hasPerl)("the server of an agent", () => {
  const perl = spawnSync("sh", ["-c", "command -v perl"], { encoding: "utf8" }).stdout.trim();

  test("answers hooks, so that none has to wait for Node to start; without Perl Node does", async () => {
    const tree = newTree();
    const ada = await inTree(tree);
    await ada.done("paths_reserve", { paths: ["src/"], note: "the cart" });
    for (const PATH of [onlyWith({ perl }), onlyWith({ node: process.execPath })]) {
      const denied = await hook("PreToolUse", tree, edit(join(tree, "src/a.ts")), {
        PATH,
        PAWL_SESSION: "ben",
      });
      expect(denied.json.hookSpecificOutput.permissionDecisionReason).toContain(`${ada.name} ("the cart"`);
      // What is written may be longer than a pipe is.
      const long = {
        tool_input: { file_path: join(tree, "src/b.ts"), content: `${"ü".repeat(200_000)}\n\n` },
      };
      const also = await hook("PreToolUse", tree, long, { PATH, PAWL_SESSION: "ben" });
      expect(also.json.hookSpecificOutput.permissionDecision).toBe("deny");
      // The agent is known by the process that has started both its server and its hooks.
      expect(await hook("PreToolUse", tree, edit(join(tree, "src/a.ts")), { PATH })).toEqual({
        code: 0,
        json: undefined,
        stderr: "",
      });
      const start = await hook("SessionStart", tree, { source: "startup" }, { PATH });
      expect(start.json.hookSpecificOutput.additionalContext).toContain(ada.name);
    }
  });

  test("that is stopped, killed, or asked what it cannot know leaves the answer to Node", async () => {
    const own = await startDaemon();
    const tree = newTree();
    const agent = await Agent.start({ socket: own.place.socket });
    await agent.done("session_start", { name: "ada", worktree: tree });
    await agent.done("paths_reserve", { paths: ["src/"] });
    const env = { PAWL_SOCKET: own.place.socket, PAWL_SESSION: "ben" };
    const denied = async (more: Record<string, string> = {}) => {
      const { json } = await hook("PreToolUse", tree, edit(join(tree, "src/a.ts")), { ...env, ...more });
      return json?.hookSpecificOutput.permissionDecision;
    };
    const PATH = onlyWith({ perl });
    expect(await denied({ PATH })).toBe("deny");
    expect((await program({ input: "{", env })).stderr).toContain("not the JSON of a hook");
    const named = await program({ input: '{"hook_event_name":"Stop"}', env });
    expect(named).toMatchObject({ code: 0, stderr: "" });
    const left = `${agent.pid}.hooks`;
    process.kill(agent.pid, "SIGSTOP");
    expect(await denied()).toBe("deny");
    await agent.kill();
    const sessions = join(own.place.directory, "pawl.sessions");
    expect(readdirSync(sessions)).toContain(left);
    expect(await denied()).toBe("deny");
    const next = await Agent.start({ socket: own.place.socket });
    await next.done("session_start", { name: "ada", worktree: tree });
    expect(readdirSync(sessions).sort()).toEqual([`${next.pid}.hooks`, "ada.json"]);
    expect(await denied({ PATH })).toBe("deny");
  });
});

describe("nothing stops an agent", () => {
  test("without a daemon it goes on, and is told once", async () => {
    const tree = newTree();
    const env = { PAWL_SOCKET: join(privateDirectory(), "none.sock") };
    const first = await hook("PreToolUse", tree, edit(join(tree, "a")), env);
    expect(first.code).toBe(0);
    expect(first.json.systemMessage).toContain("no daemon answers");
    expect(first.json.hookSpecificOutput).toBeUndefined();
    for (const event of ["PreToolUse", "Stop", "SessionEnd"]) {
      expect(await hook(event, tree, edit(join(tree, "a")), env)).toMatchObject({ code: 0, json: undefined });
    }
  });

  test("what is no hook is a failure that stops nothing", async () => {
    for (const input of ["", "{", "[]", '{"session_id":"x"}']) {
      const { code, stderr } = await program({ input });
      // Of Claude Code's exit codes only 2 blocks.
      expect([input, code]).toEqual([input, 1]);
      expect(stderr).toContain("not the JSON of a hook");
    }
  });
});

test("pawl guard refuses a commit of what another has reserved, and names who", async () => {
  const tree = privateDirectory();
  const git = (...args: string[]) => spawnSync("git", args, { cwd: tree, stdio: "ignore" });
  git("init", "-q");
  const ada = await inTree(tree);
  await ada.done("paths_reserve", { paths: ["src/"], note: "the cart" });
  mkdirSync(join(tree, "src"));
  for (const name of ["src/a ü.ts", "b.ts"]) writeFileSync(join(tree, name), "x");
  git("add", ".");
  const guard = (env: Record<string, string>) =>
    spawnSync(process.execPath, [PAWL, "guard"], {
      cwd: tree,
      encoding: "utf8",
      env: { ...process.env, PAWL_SOCKET: daemon().place.socket, ...env },
    });
  const refused = guard({ PAWL_SESSION: "ben" });
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain(`src/a ü.ts is reserved by ${ada.name}`);
  expect(refused.stderr).not.toContain("b.ts");
  expect(guard({ PAWL_SESSION: ada.name })).toMatchObject({ status: 0, stderr: "" });
  expect(guard({ PAWL_SESSION: "", PAWL_SOCKET: "/nowhere/x.sock" })).toMatchObject({ status: 0 });
});

test("a daemon that does not answer keeps nobody from editing or committing", async () => {
  const stopped = await startDaemon();
  const tree = privateDirectory();
  const git = (...args: string[]) => spawnSync("git", args, { cwd: tree, stdio: "ignore" });
  git("init", "-q");
  writeFileSync(join(tree, "a.ts"), "x");
  git("add", ".");
  const env = { PAWL_SOCKET: stopped.place.socket };
  process.kill(stopped.pid, "SIGSTOP");
  onTestFinished(() => void process.kill(stopped.pid, "SIGCONT"));
  const [commit, answer] = await Promise.all([
    startPawl(["guard"], { cwd: tree, env }).ended,
    hook("PreToolUse", tree, edit(join(tree, "a.ts")), env),
  ]);
  expect(commit).toMatchObject({ code: 0, stdout: "" });
  expect(commit.stderr).toContain("does not answer. What is staged was not checked.");
  expect(answer).toMatchObject({ json: undefined });
  expect([0, 1]).toContain(answer.code);
  expect(answer.stderr).toContain("does not answer. Nothing was checked.");
});

test("pawl hook install adds to the settings what is not there, and keeps all else", () => {
  const home = privateDirectory();
  const file = join(home, ".claude/settings.json");
  const bin = join(home, "bin");
  mkdirSync(bin);
  symlinkSync(PAWL, join(bin, "pawl"));
  let path = `${bin}:/nowhere`;
  const install = (...args: string[]) =>
    spawnSync(process.execPath, [PAWL, "hook", "install", ...args], {
      cwd: home,
      encoding: "utf8",
      env: { ...process.env, HOME: home, PATH: path },
    });
  expect(install("--dry-run").stdout).toContain('"command": "pawl hook"');
  expect(existsSync(file)).toBe(false);
  mkdirSync(join(home, ".claude"));
  const own = { matcher: "Bash", hooks: [{ type: "command", command: "mine" }] };
  writeFileSync(file, JSON.stringify({ model: "x", hooks: { PreToolUse: [own] } }), { mode: 0o640 });
  expect(install()).toMatchObject({ status: 0 });
  const { model, hooks } = JSON.parse(readFileSync(file, "utf8"));
  expect(model).toBe("x");
  expect(Object.keys(hooks).sort()).toEqual(["PreToolUse", "SessionEnd", "SessionStart", "Stop"]);
  expect(hooks.PreToolUse).toEqual([
    own,
    {
      matcher: "Edit|MultiEdit|Write|NotebookEdit",
      hooks: [{ type: "command", command: "pawl hook", timeout: 10 }],
    },
  ]);
  expect(statSync(file).mode & 0o777).toBe(0o640);
  const before = readFileSync(file, "utf8");
  expect(install("--project").stdout).toContain("already");
  expect(readFileSync(file, "utf8")).toBe(before);
  // Without a pawl on the PATH the hooks are called by the path of this one, and what stands there is put right.
  path = "/nowhere";
  expect(install("--project").stdout).not.toContain("already");
  const own2 = JSON.parse(readFileSync(file, "utf8")).hooks;
  expect(own2.PreToolUse).toEqual([
    own,
    { ...hooks.PreToolUse[1], hooks: [{ ...hooks.PreToolUse[1].hooks[0], command: `${PAWL} hook` }] },
  ]);
  expect(own2.Stop).toHaveLength(1);
  expect(install("--project").stdout).toContain("already");
  path = `${bin}:/nowhere`;
  expect(install("--project").stdout).toContain("already");
  writeFileSync(file, "{ not json");
  const broken = install();
  expect(broken.status).toBe(2);
  expect(broken.stderr).toContain("is not JSON");
  expect(readFileSync(file, "utf8")).toBe("{ not json");
});
