// Agents that act only through MCP, each by a server of its own and in a work tree of its own of one git repository,
// finish a board of stories that depend on each other. They choose at random, and their servers are killed. Some die
// for good, in the middle of a story: it and its files go on to others. What they were answered is written down here,
// outside of pawl, and checked in the end. With PAWL_TORTURE=1 they are 12, and the stories 300.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { privateDirectory, startDaemon } from "../daemon.js";
import { Random } from "../history/random.js";
import { sized, TORTURE } from "../long-form.js";
import { Agent } from "../mcp-agent.js";

const AGENTS = sized(12, 3);
const STORIES = sized(300, 6);
/** Of the agents, those that die for good. */
const MORTALS = sized(4, 1);
/** Each dies in one of its first so many stories. */
const LAST_STORY = sized(8, 1);
const FILES = 8;
/** Out of a thousand steps so many are a crash of the server. */
const CRASHES = TORTURE ? 20 : 50;
/** A wait is short here: who finds nothing looks whether all is done. */
const WAIT_SECONDS = 1;

/** Of whom messages are that no agent has written. */
const SYSTEM = "(pawl)";

interface Written {
  readonly finished: string[];
  /** By story, who has finished it. */
  readonly finishers: Map<string, string>;
  /** Those that died for good, each with what it held. */
  readonly deaths: { readonly name: string; readonly id: string; readonly paths: readonly string[] }[];
  readonly ids: string[];
  /** By file, who has reserved it and goes on to write it. */
  readonly writing: Map<string, string>;
  readonly overlaps: string[];
  readonly sent: Map<string, string>;
  readonly wrongReceivers: string[];
  received: number;
  crashes: number;
}

class Worker {
  readonly name: string;
  readonly tree: string;
  readonly #socket: string;
  readonly #log: Written;
  readonly #random: Random;
  readonly #sessions: string[];
  #agent: Agent | undefined;
  /** After so many stories that it has begun to write it dies. */
  #storiesLeft = Number.POSITIVE_INFINITY;
  #dead = false;

  constructor(name: string, tree: string, socket: string, log: Written, random: Random, sessions: string[]) {
    this.name = name;
    this.tree = tree;
    this.#socket = socket;
    this.#log = log;
    this.#random = random;
    this.#sessions = sessions;
  }

  /** Has it die for good, in one of its first stories. */
  dieSoon(): void {
    this.#storiesLeft = this.#random.upTo(LAST_STORY);
  }

  #below(limit: number): number {
    return this.#random.upTo(limit) - 1;
  }

  /** Begins, or goes on after a crash, and resolves with the work that is still held. */
  async #join(): Promise<string[]> {
    this.#agent = await Agent.start({ socket: this.#socket, args: ["--tools", "full"], cwd: this.tree });
    const { session, held } = await this.#agent.done("session_start", {
      name: this.name,
      worktree: this.tree,
    });
    this.#sessions.push(session);
    return held.filter(({ kind }: { kind: string }) => kind === "item").map(({ id }: { id: string }) => id);
  }

  /** At times, or surely, the server is killed, and another one takes the session up. */
  async #step(dies = this.#below(1000) < CRASHES): Promise<void> {
    if (!dies) return;
    this.#log.crashes += 1;
    await this.#agent?.kill();
    await this.#join();
  }

  #call(tool: string, args: Record<string, unknown> = {}) {
    return (this.#agent as Agent).call(tool, args);
  }

  async work(total: number): Promise<void> {
    await this.#join();
    await this.#write();
    while (this.#log.finished.length < total) {
      await this.#step();
      const { value } = await this.#call("work_next", { waitSeconds: WAIT_SECONDS });
      const work = value.work ?? (await this.#again(value.passedOver));
      if (work !== null) await this.#perform(work.id);
      if (this.#dead) return;
      // Some message there always is, and somebody who reads it.
      if (this.#log.received === 0 || this.#below(4) === 0) await this.#write();
      await this.#read();
    }
    await this.#read();
    await this.#agent?.close();
  }

  /** Takes again one of those that it gave away, if nothing else is left. */
  async #again([id]: readonly string[] = []): Promise<{ id: string } | null> {
    if (id === undefined) return null;
    const { isError, value } = await this.#call("work_claim", { id });
    if (isError) expect(value.kind).toBe("lease_held");
    return isError ? null : value.work;
  }

  async #perform(id: string): Promise<void> {
    const paths = [`src/${this.#below(FILES)}.ts`, `src/${this.#below(FILES)}.ts`];
    await this.#step();
    const reserved = await this.#call("paths_reserve", { paths, note: id, waitSeconds: WAIT_SECONDS });
    if (reserved.isError) {
      expect(reserved.value.kind).toBe("lease_held");
      await this.#end(id, "give_back");
      return;
    }
    for (const path of paths) {
      const other = this.#log.writing.get(path);
      if (other !== undefined && other !== this.name)
        this.#log.overlaps.push(`${path}: ${other} and ${this.name}`);
      this.#log.writing.set(path, this.name);
    }
    this.#storiesLeft -= 1;
    if (this.#storiesLeft === 0) return await this.#die(id, paths);
    // Crashes in here are survived: the reservation and the item are taken up again. One there always is.
    await this.#step(this.#log.crashes === 0 || undefined);
    this.#commit(id, paths);
    await this.#step();
    for (const path of paths) this.#log.writing.delete(path);
    if (this.#log.ids.length < 2 || this.#below(10) === 0) {
      const { value } = await this.#call("id_next", { type: "NEW" });
      this.#log.ids.push(...value.ids);
    }
    await this.#end(id, this.#below(8) === 0 ? "failed" : "done");
  }

  /** Its server ends in the middle of a story, and nobody takes its session up. */
  async #die(id: string, paths: readonly string[]): Promise<void> {
    this.#dead = true;
    writeFileSync(join(this.tree, "half"), id);
    await this.#agent?.kill();
    for (const path of paths) this.#log.writing.delete(path);
    this.#log.deaths.push({ name: this.name, id, paths });
  }

  /** Reserves what somebody who died had, once it is free. */
  async inherit(paths: readonly string[]): Promise<readonly string[]> {
    await this.#join();
    const { text, value } = await this.#call("paths_reserve", { paths: [...paths], waitSeconds: 45 });
    await this.#agent?.close();
    return value.reserved ?? [text];
  }

  async #end(id: string, outcome: "done" | "failed" | "give_back"): Promise<void> {
    const { isError, text } = await this.#call("work_finish", {
      id,
      outcome,
      note: `${outcome} by ${this.name}`,
    });
    if (isError) throw new Error(text);
    if (outcome !== "done") return;
    this.#log.finished.push(id);
    this.#log.finishers.set(id, this.name);
  }

  #commit(id: string, paths: readonly string[]): void {
    mkdirSync(join(this.tree, "src"), { recursive: true });
    for (const path of paths) writeFileSync(join(this.tree, path), id);
    const who = ["-c", "user.name=a", "-c", "user.email=a@b"];
    const { status } = spawnSync("git", [...who, "commit", "-q", "--allow-empty", "-m", id], {
      cwd: this.tree,
    });
    expect(status).toBe(0);
  }

  /** Writes to one session, which may have ended. */
  async #write(): Promise<void> {
    const to = this.#sessions[this.#below(this.#sessions.length)] as string;
    const text = `${this.name}-${this.#log.sent.size}`;
    this.#log.sent.set(text, to);
    const { isError, value } = await this.#call("message_send", { to, text });
    if (isError) expect(value.kind).toBe("gone");
  }

  async #read(): Promise<void> {
    const { value } = await this.#call("inbox");
    for (const { from, text } of value.messages) {
      // That somebody wants what it holds.
      if (from === SYSTEM) continue;
      this.#log.received += 1;
      const to = this.#log.sent.get(text);
      if (to !== this.#agent?.session)
        this.#log.wrongReceivers.push(`${text} for ${to} at ${this.#agent?.session}`);
    }
  }
}

test(`${AGENTS} agents, of which ${MORTALS} die, finish ${STORIES} stories, each once, and never in each other's way`, async () => {
  const seed = Date.now() % 1_000_000;
  const random = new Random(seed);
  const daemon = await startDaemon();
  const { socket } = daemon.place;
  const directory = privateDirectory();
  const main = join(directory, "main");
  mkdirSync(main);
  const git = (...args: string[]) => spawnSync("git", args, { cwd: main, encoding: "utf8" });
  git("init", "-q");
  git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "start");
  const client = await daemon.place.connect();
  await client.call("pipeline.configure", { maxRetries: 0 });
  const stories: { id: string; dependsOn: string[] }[] = [];
  for (let index = 0; index < STORIES; index += 1) {
    const { id } = await client.call("sequence.next", { type: "FR" });
    const before = stories.filter(() => random.chance(2 / (stories.length + 1))).map((each) => each.id);
    stories.push({ id, dependsOn: before });
    await client.call("pipeline.write", { storyId: id, stage: "1_backlog", dependsOn: before });
  }
  const log: Written = {
    finished: [],
    finishers: new Map(),
    deaths: [],
    ids: [],
    writing: new Map(),
    overlaps: [],
    sent: new Map(),
    wrongReceivers: [],
    received: 0,
    crashes: 0,
  };
  const sessions: string[] = [];
  const workers = Array.from({ length: AGENTS }, (_, index) => {
    const tree = join(directory, `tree-${index}`);
    git("worktree", "add", "-q", "-b", `tree-${index}`, tree);
    return new Worker(`worker-${index}`, tree, socket, log, random, sessions);
  });
  const [mortals, others] = [workers.slice(0, MORTALS), workers.slice(MORTALS)];
  for (const mortal of mortals) mortal.dieSoon();
  const dying = Promise.all(mortals.map((worker) => worker.work(STORIES)));
  // Of few stories the others would leave none to die in.
  if (!TORTURE) await dying;
  await Promise.all([dying, ...others.map((worker) => worker.work(STORIES))]);
  const said = `seed ${seed}, ${log.crashes} crashes, ${log.received} messages`;
  expect([said, log.overlaps, log.wrongReceivers]).toEqual([said, [], []]);
  expect([said, [...log.finished].sort()]).toEqual([said, stories.map(({ id }) => id).sort()]);
  expect([said, log.deaths.map(({ name }) => name).sort()]).toEqual([
    said,
    mortals.map(({ name }) => name).sort(),
  ]);
  for (const { name, id, paths } of log.deaths) {
    expect([said, id, log.finishers.get(id)]).not.toEqual([said, id, name]);
    expect([said, name, await (others[0] as Worker).inherit(paths)]).toEqual([
      said,
      name,
      expect.arrayContaining([...paths]),
    ]);
  }
  expect(new Set(log.ids).size).toBe(log.ids.length);
  // Of all that has to hold there was some.
  expect([said, log.crashes > 0, log.received > 0, log.ids.length > 1]).toEqual([said, true, true, true]);
  for (const { id, dependsOn } of stories) {
    const place = log.finished.indexOf(id);
    for (const each of dependsOn)
      expect([said, each, log.finished.indexOf(each) < place]).toEqual([said, each, true]);
    const { item } = await client.call("pipeline.read", { storyId: id });
    expect([said, item?.stage, item?.claim]).toEqual([said, "5_done", undefined]);
  }
  const committed = new Set(git("log", "--all", "--format=%s").stdout.split("\n"));
  expect(stories.filter(({ id }) => !committed.has(id))).toEqual([]);
  await client.destroy();
}, 600_000);
