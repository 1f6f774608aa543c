// The board at the terminal: pawl board, item, peers and sync.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import Database from "better-sqlite3";
import { describe, expect, onTestFinished, test } from "vitest";
import { BoardNode, trustEachOther } from "../board-nodes.js";
import { PAWL, Place, privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { Author } from "../property/board-author.js";
import { pawl, type Ran, startPawl } from "./cli-program.js";

const daemon = sharedDaemon();
const run = (...args: string[]): Promise<Ran> => pawl(args, { socket: daemon().place.socket });

async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(...args);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}

describe("pawl item", () => {
  test("set, show and rm: what was given, how it stands, what was done", async () => {
    const made = await done(
      "item",
      "set",
      "FR-1",
      "--stage",
      "1_backlog",
      "--name",
      "Sign in",
      "--depends-on",
      "FR-2, FR-3",
    );
    expect(made).toMatch(
      /^FR-1 {2}Sign in\n {2}Stage {4}1_backlog, rank a\w+\n {2}After {4}FR-2, FR-3\n {2}Updated {2}2\d{3}-/,
    );
    await done("item", "set", "FR-1", "--retry", "--block", "--agent", "coder");
    await done("item", "set", "FR-1", "--retry", "--unblock", "--clear", "name,agent");
    await done("item", "set", "FR-1", "--add-dependency", "FR-4", "--remove-dependency", "FR-2,FR-3");
    const shown = await done("item", "show", "FR-1");
    expect(shown).toContain("Retries  2\n");
    expect(shown).toContain("It depends on what does not exist: FR-4");
    expect(shown).toContain("blocked true, retryCount +1");
    expect(shown).not.toContain("Blocked");
    const { item, changes, missing } = JSON.parse(await done("item", "show", "FR-1", "--json"));
    expect(item).toMatchObject({ name: null, agent: null, retryCount: 2, dependsOn: ["FR-4"] });
    expect([changes.length, missing]).toEqual([4, ["FR-4"]]);
    await done("item", "set", "FR-4", "--stage", "1_backlog", "--depends-on", "FR-1");
    expect(await done("item", "show", "FR-1")).toContain("It depends on itself: FR-1 → FR-4 → FR-1");
    await done("item", "set", "FR-1", "--clear", "dependencies", "--retries", "9");
    expect(JSON.parse(await done("item", "set", "FR-1", "--rank", "a5", "--json")).item).toMatchObject({
      retryCount: 9,
      dependsOn: [],
      rank: "a5",
    });
    expect(await done("item", "rm", "FR-1")).toBe("FR-1 is deleted.\n");
    expect(await done("item", "show", "FR-1")).toMatch(/^FR-1 was deleted\.\n\n.* deleted\n/);
    for (const action of ["rm", "show"]) {
      const { code, stdout, stderr } = await run("item", action, "NONE");
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toBe('pawl: There is no item "NONE". See pawl board. [not_found]\n');
    }
  });

  test("has labels, fields and notes, which are shown, and by which a board can be asked", async () => {
    const at = { socket: (await startDaemon()).place.socket };
    const ran = async (...args: string[]) => {
      const { code, stdout, stderr } = await pawl(args, at);
      expect([code, stderr]).toEqual([0, ""]);
      return stdout;
    };
    await ran("item", "set", "F-1", "--stage", "1_backlog", "--labels", "web, api", "--priority", "1");
    await ran("item", "set", "F-1", "--description", "First line\nsecond", "--fields", '{"estimate": [3]}');
    await ran("item", "set", "F-1", "--add-label", "db", "--remove-label", "api");
    await ran("item", "set", "F-2", "--stage", "1_backlog");
    expect(await ran("item", "note", "F-1", "Cookies", "crumble.", "--agent", "ana")).toBe(
      "F-1 has 1 note.\n",
    );
    const shown = await ran("item", "show", "F-1");
    expect(shown).toContain("  Labels   db, web\n");
    expect(shown).toMatch(/ {2}priority {2}1\n[\s\S]* {2}Notes {4}1\n/);
    expect(shown).toContain("\n\n  First line\n  second\n");
    expect(shown).toMatch(/\n {2}2\d{3}-[^\n]* @ana\n {4}Cookies crumble\.\n/);
    const { item, notes } = JSON.parse(await ran("item", "show", "F-1", "--json"));
    expect(item.fields).toEqual({ priority: 1, description: "First line\nsecond", estimate: [3] });
    expect(notes).toMatchObject([{ agent: "ana", text: "Cookies crumble." }]);
    expect(await ran("board")).toContain("F-1 ✎1\n  #db #web\nF-2\n");
    for (const filter of [
      ["--label", "web"],
      ["--text", "second"],
      ["--text", "cookie"],
    ]) {
      const { stages } = JSON.parse(await ran("board", ...filter, "--json"));
      expect(stages["1_backlog"].map(({ storyId }: { storyId: string }) => storyId)).toEqual(["F-1"]);
    }
    await ran("item", "set", "F-1", "--clear", "labels,description,priority");
    expect(JSON.parse(await ran("item", "show", "F-1", "--json")).item).toMatchObject({
      labels: [],
      fields: { estimate: [3] },
    });
  });

  test.each<[string[], string]>([
    [["item", "put", "A"], `What to do is set, note, show or rm, not "put".`],
    [["item", "show", "A", "B"], `"B" is one argument too many.`],
    [["item", "note", "A"], "Say what to note: pawl item note A TEXT."],
    [["item", "note", "A", "x", "--stage", "x"], "--stage belongs to `pawl item set`."],
    [["item", "set", "A", "--fields", "[1]"], `--fields takes an object as JSON`],
    [["item", "set", "A", "--labels", "a", "--add-label", "b"], "More than one of --labels"],
    [
      ["item", "set", "A", "--priority", "1", "--clear", "priority"],
      "--priority and --clear priority cannot",
    ],
    [["item", "set"], "ITEM is missing."],
    [["item", "set", "A"], "Say what to set"],
    [["item", "show", "A", "--stage", "x"], "--stage belongs to `pawl item set`."],
    [["item", "rm", "A", "--block"], "--block belongs to `pawl item set`."],
    [["item", "set", "A", "--block", "--unblock"], "--block and --unblock cannot go together."],
    [["item", "set", "A", "--retry", "--retries", "3"], "--retry and --retries cannot go together."],
    [
      ["item", "set", "A", "--clear", "stage"],
      `--clear takes name, agent, dependencies, labels, description, priority, not "stage".`,
    ],
    [
      ["item", "set", "A", "--depends-on", "a,,b"],
      `--depends-on takes names with commas between, not "a,,b".`,
    ],
    [["item", "set", "A", "--name", "x"], "give the stage in which to create it"],
    [["item", "set", "a b", "--stage", "x"], "pawl: ITEM must be letters,"],
    [["board", "paint"], `"paint" is nothing that a board does.`],
    [["board", "--verify"], "--verify belongs to `pawl board rebuild`."],
    [["peers", "hug"], `What to do is self, trust, revoke or list, not "hug".`],
    [["peers", "list", "all"], `"all" is one argument too many.`],
    [["peers", "trust", "nonsense"], "A peer is the line that `pawl peers self` prints there"],
    [["peers", "revoke"], "Name the peer, or give its key."],
    [["sync", "ssh:"], `PEER is a path, ssh:HOST or ssh:HOST:/SOCKET, not "ssh:".`],
    [["sync", "ssh:-oProxyCommand=x:relative"], "PEER is a path, ssh:HOST or ssh:HOST:/SOCKET"],
  ])("%j is bad usage", async (args, message) => {
    const { code, stdout, stderr } = await pawl(args, { socket: daemon().place.socket });
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(message);
  });
});

describe("pawl board", () => {
  /** A board with three stages, one of which a person or a program called __proto__. */
  async function example(): Promise<Place> {
    const { place } = await startDaemon();
    const client = await place.connect();
    const write = (storyId: string, stage: string, fields: object = {}) =>
      client.call("pipeline.write", { storyId, stage, ...fields });
    await write("FR-1", "1_backlog", {
      name: "A name that is longer than any column is wide, by far",
      agent: "ada",
    });
    await write("FR-2", "1_backlog", { blocked: true, retryCount: 3, dependsOn: ["FR-1"] });
    await write("FR-3", "1_backlog");
    await write("FR-4", "2_current", { name: "\x1b[31mred\u202e and 日本語", agent: "ada" });
    await write("FR-5", "__proto__");
    return place;
  }

  test("has a column for each stage, as many beside each other as fit", async () => {
    const { socket } = await example();
    const at = async (columns: number, ...args: string[]) =>
      (await pawl(["board", ...args], { socket, env: { COLUMNS: String(columns) } })).stdout;
    expect(await at(66)).toBe(
      [
        "1_backlog 3           2_current 1           __proto__ 1",
        "────────────────────  ────────────────────  ────────────────────",
        "FR-1 @ada             FR-4 @ada             FR-5",
        "  A name that is lo…    \\u001b[31mred\\u20…",
        "FR-2 blocked ×3",
        "  after FR-1",
        "FR-3",
        "",
      ].join("\n"),
    );
    const narrow = await at(40, "-n", "1");
    expect(narrow).toContain("1_backlog 3          2_current 1\n");
    expect(narrow).toContain("\nand 2 others\n");
    expect(narrow).toContain("\n\n__proto__ 1\n");
    for (const line of narrow.split("\n")) expect(line.length).toBeLessThanOrEqual(40);
    expect((await at(100, "--agent", "ada")).match(/FR-\d/g)).toEqual(["FR-1", "FR-4"]);
    expect((await at(100, "--blocked")).match(/FR-\d/g)).toEqual(["FR-2", "FR-1"]);
    expect((await at(100, "--stage", "2_current")).match(/FR-\d/g)).toEqual(["FR-4"]);
    const { stages } = JSON.parse(await at(10, "--json"));
    expect(Object.keys(stages)).toEqual(["1_backlog", "2_current", "__proto__"]);
    expect(Object.values(stages).flat()).toHaveLength(5);
  });

  test("on a terminal is as wide as that, and in colour", async () => {
    const { socket } = await example();
    const child = spawn(
      "script",
      ["-qec", `stty cols 45; "${process.execPath}" "${PAWL}" --socket "${socket}" board`, "/dev/null"],
      {
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...process.env, CI: undefined, TERM: "xterm-256color" },
      },
    );
    let shown = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      shown += text;
    });
    await once(child, "close");
    expect(shown).toContain("\x1b[1m1_backlog\x1b[");
    expect(shown).toContain("\x1b[31mblocked\x1b[");
    // Colours of ours, none of an item's.
    const plain = stripVTControlCharacters(shown);
    expect(plain).not.toContain("\x1b");
    for (const line of plain.split("\r\n")) expect(line.length).toBeLessThanOrEqual(45);
  });

  test("without items says how to make one", async () => {
    const { place } = await startDaemon();
    const { code, stdout, stderr } = await pawl(["board"], { socket: place.socket });
    expect([code, stdout, stderr]).toEqual([0, "", "There are no items. Make one with pawl item set.\n"]);
    const filtered = await pawl(["board", "--text", "nosuch"], { socket: place.socket });
    expect(filtered.stderr).toBe("No item matches.\n");
  });

  test("--watch shows it again after each change, until it is ended", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    await client.call("pipeline.write", { storyId: "ONE", stage: "1_backlog" });
    const watching = startPawl(["board", "--watch", "--json"], { socket: place.socket });
    await watching.printed(/"ONE"/);
    expect(watching.stdout.match(/\n/g)).toHaveLength(1);
    await client.call("pipeline.write", { storyId: "TWO", stage: "2_current" });
    await watching.printed(/"TWO"/);
    await client.call("pipeline.delete", { storyId: "ONE" });
    await watching.printed(/\n\{"stages":\{"2_current":\[[^\]]*"TWO"[^\n]*\}\n$/);
    expect((await watching.end("SIGTERM")).code).toBe("SIGTERM");
  });

  test("rebuild says what differs from the log, and puts it right", async () => {
    const place = await example();
    const file = join(place.stateDir, "pawl.db");
    const { socket } = place;
    const rebuild = (...args: string[]) => pawl(["board", "rebuild", ...args], { socket });
    expect((await rebuild("--verify")).stdout).toBe("Replayed 5 changes on 5 items: nothing differs.\n");
    const database = new Database(file);
    database.exec("UPDATE pawl_item SET agent = 'eve' WHERE story_id = 'FR-3'");
    database.close();
    const found = await rebuild("--verify");
    expect(found.code).toBe(1);
    expect(found.stdout).toMatch(
      /^FR-3: item: the table has .*\nReplayed 5 changes on 5 items: 1 difference\.\n$/,
    );
    expect((await rebuild()).stdout).toMatch(/: 1 difference, put right\.\n$/);
    const { code, stdout } = await rebuild("--verify", "--json");
    expect([code, JSON.parse(stdout)]).toEqual([0, { changes: 5, items: 5, differences: [] }]);
  });
});

describe("pawl peers and pawl sync", () => {
  test("two nodes that trust each other's lines agree after a sync", async () => {
    const [a, b] = [new Place(), new Place()];
    for (const place of [a, b]) await place.start();
    const at = (place: Place, ...args: string[]) => pawl(args, { socket: place.socket });
    await at(a, "item", "set", "A", "--stage", "1_backlog");
    const lineOfA = (await at(a, "peers", "self", "--name", "the first")).stdout;
    const lineOfB = (await at(b, "peers", "self")).stdout;
    expect(lineOfA).toMatch(/^[0-9a-f]{32} [0-9a-f]{64} the first\n$/);
    expect(lineOfB).toMatch(/^- [0-9a-f]{64} \S+\n$/);
    expect((await pawl(["peers", "trust", "-"], { socket: b.socket, input: lineOfA })).stdout).toBe(
      "Changes of the first are accepted from now on.\n",
    );
    expect((await at(a, "peers", "trust", ...lineOfB.trim().split(" "), "--name", "b")).code).toBe(0);
    expect((await at(b, "peers", "self")).stdout.split(" ")[0]).toBe(lineOfA.split(" ")[0]);

    await at(b, "item", "set", "B", "--stage", "2_current");
    expect(await at(b, "sync", a.socket)).toEqual({
      code: 0,
      stdout: "Pulled 1 change, pushed 1.\n",
      stderr: "",
    });
    expect(await at(b, "sync", a.socket)).toMatchObject({ code: 0, stdout: "Pulled 0 changes, pushed 0.\n" });
    expect(JSON.parse((await at(a, "sync", b.socket, "--json")).stdout)).toEqual({
      pulled: 0,
      pushed: 0,
      refused: [],
    });
    expect((await at(a, "item", "show", "B")).stdout).toMatch(/ b {2}stage "2_current"/);

    expect((await at(a, "peers", "list")).stdout).toMatch(
      /^NAME +TRUSTED +REVOKED +KEY\nb +2\d{3}.* [0-9a-f]{64}\n$/,
    );
    expect((await at(a, "peers", "revoke", "b")).stdout).toBe("Changes of b are accepted no more.\n");
    expect((await at(a, "peers", "revoke", "b")).code).toBe(1);
    await at(b, "item", "set", "B", "--block");
    // Wanted: a revoked author is no reason to fail.
    const revoked = await at(b, "sync", a.socket);
    expect(revoked).toMatchObject({ code: 0, stdout: "Pulled 0 changes, pushed 0.\n" });
    expect(revoked.stderr).toMatch(
      /^The peer refused the log of [0-9a-f]{64} from change 2 on: revoked_author\.\n$/,
    );
  });

  test("an author whom one does not trust is refused, by name of the kind, and the exit code is 1", async () => {
    const [a, b] = [new Place(), new Place()];
    for (const place of [a, b]) await place.start();
    const at = (place: Place, ...args: string[]) => pawl(args, { socket: place.socket });
    await at(a, "item", "set", "A", "--stage", "1_backlog");
    const refused = await at(b, "sync", a.socket);
    expect(refused).toMatchObject({ code: 1, stdout: "Pulled 0 changes, pushed 0.\n" });
    expect(refused.stderr).toMatch(
      /^This node refused the log of [0-9a-f]{64} from change 1 on: unknown_author\. Trust it with pawl peers trust\.\n$/,
    );
    expect(await at(b, "sync", join(a.directory, "nowhere.sock"))).toMatchObject({ code: 3, stdout: "" });
    expect((await at(a, "sync", a.socket)).stderr).toContain("[duplicate_key]");
  });

  test("trust takes one line, also as one argument; names are shown and not obeyed", async () => {
    const place = new Place();
    await place.start();
    const [one, other] = [new Author(1).id, new Author(2).id];
    const at = (input: string | undefined, ...args: string[]) =>
      pawl(["peers", ...args], { socket: place.socket, ...(input === undefined ? {} : { input }) });
    // Without a board it begins with a dash, and is no option all the same.
    expect(await at(undefined, "trust", `- ${one} a\u001b[2J b`)).toEqual({
      code: 0,
      stdout: "Changes of a\\u001b[2J b are accepted from now on.\n",
      stderr: "",
    });
    const two = await at(`- ${other} c\n- ${one} d\n`, "trust", "-");
    expect(two).toMatchObject({ code: 2, stdout: "" });
    expect(two.stderr).toContain("One peer at a time, in one line; not 2 lines.");
    expect((await at(undefined, "revoke", one)).stdout).toBe(
      "Changes of a\\u001b[2J b are accepted no more.\n",
    );
    expect(JSON.parse((await at(undefined, "list", "--json")).stdout).peers).toHaveLength(1);
  });

  test("on a terminal the progress is shown, and gone at the end", async () => {
    const [a, b] = [await BoardNode.start(), await BoardNode.start()];
    const ids = Array.from({ length: 100 }, (_, index) => `S-${index}`);
    await Promise.all(ids.map((storyId) => a.client.pipeline.write({ storyId, stage: "1_backlog" })));
    await trustEachOther(a, b);
    const line = `"${process.execPath}" "${PAWL}" --socket "${b.place.socket}" sync "${a.place.socket}"`;
    const { stdout } = spawnSync("script", ["-qec", line, "/dev/null"], { encoding: "utf8" });
    expect(stdout).toContain("Pulling: 64 of 100 changes");
    expect(stdout).toContain("Pulling: 100 of 100 changes");
    expect(stdout.replaceAll("\r\n", "\n").split("\x1b[K").at(-1)).toBe("Pulled 100 changes, pushed 0.\n");
  });

  test("--watch goes on with each change of either, also when the peer was away", async () => {
    const [a, b] = [await BoardNode.start(), await BoardNode.start()];
    await a.client.pipeline.write({ storyId: "ONE", stage: "1_backlog" });
    await trustEachOther(a, b);
    const watching = startPawl(["sync", a.place.socket, "--watch"], { socket: b.place.socket });
    await watching.printed(/^Pulled 1 change, pushed 0\.\n$/);
    await a.client.pipeline.write({ storyId: "TWO", stage: "1_backlog" });
    await watching.printed(/Pulled 1 change, pushed 0\.\n.*Pulled 1 change, pushed 0\.\n$/s);
    await b.client.pipeline.write({ storyId: "THREE", stage: "1_backlog" });
    await watching.printed(/Pulled 0 changes, pushed 1\.\n$/);
    await a.daemon.end();
    await watching.complained(/Trying again in 1 s\./);
    await a.startAgain();
    await a.client.pipeline.write({ storyId: "FOUR", stage: "1_backlog" });
    await watching.printed(/pushed 1\.\nPulled 1 change, pushed 0\.\n$/);
    expect(await a.content()).toEqual(await b.content());
    expect((await watching.end("SIGTERM")).code).toBe("SIGTERM");
  });
});

const SSHD = ["/usr/sbin/sshd", "/usr/bin/sshd"].find((path) => spawnSync(path, ["-V"]).error === undefined);

describe.skipIf(SSHD === undefined)("pawl sync over ssh (skipped where there is no sshd)", () => {
  /** An ssh server of our own, for us alone, and what makes `ssh` use it. */
  async function ownServer(): Promise<{ env: Record<string, string>; log: () => string }> {
    const directory = privateDirectory();
    const file = (name: string) => join(directory, name);
    for (const key of ["host", "user"]) {
      spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file(key)]);
    }
    const probe = createServer().listen(0, "127.0.0.1");
    await once(probe, "listening");
    const { port } = probe.address() as { port: number };
    await new Promise((resolve) => probe.close(resolve));
    const path = join(directory, "bin");
    mkdirSync(path);
    writeFileSync(
      file("sshd_config"),
      `ListenAddress 127.0.0.1:${port}\nHostKey ${file("host")}\nAuthorizedKeysFile ${file("user.pub")}\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nSetEnv PATH=${path}:${process.env.PATH}\n`,
    );
    writeFileSync(
      file("ssh_config"),
      `Host board\n  HostName 127.0.0.1\n  Port ${port}\n  User ${userInfo().username}\n  IdentityFile ${file("user")}\n  IdentitiesOnly yes\n  BatchMode yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n`,
    );
    // The real ssh, with this configuration.
    writeFileSync(join(path, "ssh"), `#!/bin/sh\nexec /usr/bin/ssh -F ${file("ssh_config")} "$@"\n`);
    chmodSync(join(path, "ssh"), 0o755);
    // As root it wants a directory that init makes.
    if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
    const server = spawn(SSHD as string, ["-D", "-e", "-f", file("sshd_config")], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let log = "";
    onTestFinished(() => void server.kill());
    await new Promise<void>((resolve, reject) => {
      server.stderr.setEncoding("utf8").on("data", (text) => {
        log += text;
        if (log.includes("Server listening")) resolve();
      });
      server.once("close", () => reject(new Error(`sshd ended: ${log}`)));
    });
    return { env: { PATH: `${path}:${process.env.PATH}` }, log: () => log };
  }

  test("forwards the socket by itself, and leaves nothing behind", async () => {
    const [a, b] = [await BoardNode.start(), await BoardNode.start()];
    await a.client.pipeline.write({ storyId: "ONE", stage: "1_backlog" });
    await trustEachOther(a, b);
    const { env } = await ownServer();
    const temporary = privateDirectory();
    const sync = (peer: string, ...args: string[]) =>
      startPawl(["sync", peer, ...args], { socket: b.place.socket, env: { ...env, TMPDIR: temporary } });
    expect(await sync(`ssh:board:${a.place.socket}`).ended).toEqual({
      code: 0,
      stdout: "Pulled 1 change, pushed 0.\n",
      stderr: "",
    });
    expect(spawnSync("ls", ["-A", temporary], { encoding: "utf8" }).stdout).toBe("");

    // Without a socket, the program there says where it is.
    const program = join(env.PATH?.split(":")[0] as string, "pawl");
    writeFileSync(program, `#!/bin/sh\n[ "$*" = socket-path ] && echo ${a.place.socket}\n`);
    chmodSync(program, 0o755);
    const watching = sync("ssh:board", "--watch");
    await b.client.pipeline.write({ storyId: "TWO", stage: "1_backlog" });
    await watching.printed(/pushed 1\.\n$/);
    await a.client.pipeline.write({ storyId: "THREE", stage: "1_backlog" });
    await watching.printed(/Pulled 1 change, pushed 0\.\n$/);
    expect(await a.content()).toEqual(await b.content());
    expect((await watching.end("SIGTERM")).code).toBe("SIGTERM");
    expect(spawnSync("ls", ["-A", temporary], { encoding: "utf8" }).stdout).toBe("");

    const nowhere = await sync("ssh:board:/nowhere/pawl.sock").ended;
    expect(nowhere.code).not.toBe(0);
    const unknown = await sync("ssh:nobody@board.invalid").ended;
    expect(unknown.code).toBe(4);
    expect(unknown.stderr).toMatch(/See that `ssh nobody@board\.invalid` works.* \[unavailable\]\n$/);
  });
});
