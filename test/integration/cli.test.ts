import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { COMMANDS, commandNamed } from "../../client/dist/cli/command-list.js";
import { SAME_AS } from "../../client/dist/cli/shell-words.js";
import {
  madeForTests,
  NAMES_ARE_SHARED,
  PAWL,
  Place,
  privateDirectory,
  REPOSITORY,
  sharedDaemon,
  startDaemon,
} from "../daemon.js";
import { hasTerminals, onTerminal as onTypedTerminal } from "../terminal.js";
import { until } from "../until.js";
import { mayBeOther, pawl, pawlAsOther, startPawl } from "./cli-program.js";

/** The numbers that scripts rely on (spec: operations.md). */
const DONE = 0;
const REFUSED = 1;
const USAGE = 2;
const NO_DAEMON = 3;
const TROUBLE = 4;

describe("help", () => {
  test("of the program: every command under its heading, the options, the exit codes", async () => {
    const { code, stdout, stderr } = await pawl(["--help"]);
    expect([code, stderr]).toEqual([DONE, ""]);
    for (const { name, heading, load } of COMMANDS) {
      const section = stdout.slice(stdout.indexOf(heading)).replaceAll(/\s+/g, " ");
      expect(section).toContain(` ${name} `);
      expect(section).toContain((await load()).summary);
    }
    expect(stdout).toContain("\nDURATION is a number with ms, s, m, h or d, such as 10s or 5m");
    expect(stdout).toContain("Exit codes: 0 done, 1 refused, 2 bad usage, 3 no daemon, 4 daemon trouble.");
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
    expect((await pawl(["help"])).stdout).toBe(stdout);
    expect((await pawl(["-h"])).stdout).toBe(stdout);
  });

  test("of each command has a summary, its options and examples that name it", async () => {
    for (const { name, load } of COMMANDS) {
      const { code, stdout } = await pawl([name, "--help"]);
      expect(code).toBe(DONE);
      const { summary, options, examples } = await load();
      expect(stdout.replaceAll(/\s+/g, " ")).toContain(`${summary}.`);
      for (const option of Object.keys(options)) expect(stdout).toContain(`--${option}`);
      expect(examples.length).toBeGreaterThan(0);
      for (const [line] of examples) {
        expect(line).toMatch(new RegExp(`\\bpawl (--\\S+ \\S+ )*${name}\\b`));
        expect(stdout).toContain(line);
      }
      for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(110);
    }
  });

  test("is asked for before or after the command, and not with a command's own arguments", async () => {
    const expected = (await pawl(["next", "--help"])).stdout;
    expect((await pawl(["help", "next"])).stdout).toBe(expected);
    expect((await pawl(["--socket", "/x", "next", "FR", "-h"])).stdout).toBe(expected);
  });

  test("nothing at all is bad usage, and the help goes to stderr", async () => {
    const { code, stdout, stderr } = await pawl([]);
    expect([code, stdout]).toEqual([USAGE, ""]);
    expect(stderr).toBe((await pawl(["--help"])).stdout);
  });

  test("--version", async () => {
    const { version } = JSON.parse(readFileSync(join(PAWL, "../../package.json"), "utf8"));
    expect(await pawl(["--version"])).toEqual({ code: DONE, stdout: `pawl ${version}\n`, stderr: "" });
  });
});

describe("bad usage exits with 2, names what was typed and says where help is", () => {
  test.each<[string[], string]>([
    [["frobnicate"], `There is no command "frobnicate". See pawl --help.`],
    [["nxt", "FR"], `There is no command "nxt". Did you mean next? See pawl --help.`],
    [["help", "nxt"], `There is no command "nxt". Did you mean next? See pawl --help.`],
    [["nxt", "--help"], `There is no command "nxt". Did you mean next? See pawl --help.`],
    [["--json=1"], "Name a command. See pawl --help."],
    [["next"], "TYPE is missing. See pawl next --help."],
    [["next", "FR", "BUG"], `"BUG" is one argument too many. See pawl next --help.`],
    [["next", "FR", "--cuont", "3"], "There is no option --cuont here. See pawl next --help."],
    [["next", "FR", "--cuont=3"], "There is no option --cuont here. See pawl next --help."],
    [["next", "FR", "-z"], "There is no option -z here. See pawl next --help."],
    [
      ["next", "-5"],
      "There is no option -5 here. To give -5 as an argument, put -- before it. See pawl next --help.",
    ],
    [["next", "FR", "--count"], "--count needs a value: --count=COUNT. See pawl next --help."],
    [["next", "FR", "-n"], "--count needs a value: --count=COUNT. See pawl next --help."],
    [["next", "FR", "--count="], "--count must not be empty. See pawl next --help."],
    [["next", "FR", "-n", "1e3"], `--count takes a whole number, not "1e3". See pawl next --help.`],
    [
      ["next", "FR", "-n", "9007199254740993"],
      `--count takes a whole number, not "9007199254740993". See pawl next --help.`,
    ],
    [["next", "FR", "--json=yes"], "--json takes no value. See pawl next --help."],
    [["state", "--dry-run"], "There is no option --dry-run here. See pawl state --help."],
    [["completion", "tcsh"], `SHELL is bash, zsh or fish, not "tcsh". See pawl completion --help.`],
    [["call", "daemon.ping", "{"], "PARAMS is not JSON: {"],
    [["call", "daemon.ping", "abc"], `A JSON string needs quotes of its own: '"abc"'. See pawl call --help.`],
    [
      ["call", "daemon.ping", "[1]"],
      `PARAMS is a JSON object, such as '{"type": "FR"}', not [1]. See pawl call --help.`,
    ],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await pawl(args);
    expect([code, stdout]).toEqual([USAGE, ""]);
    expect(stderr.startsWith("pawl: ")).toBe(true);
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });

  test("with --json the error is the JSON-RPC error object, in one line", async () => {
    const { code, stdout, stderr } = await pawl(["next", "FR", "--cuont", "--json"]);
    expect([code, stdout]).toEqual([USAGE, ""]);
    expect(JSON.parse(stderr)).toEqual({
      code: -32602,
      message: "There is no option --cuont here. See pawl next --help.",
      data: { kind: "invalid_params", retryable: false },
    });
    expect(stderr.indexOf("\n")).toBe(stderr.length - 1);
  });
});

describe("a message is in the words of the command line", () => {
  const daemonOfWords = sharedDaemon();
  test.each([
    [["lease", "show", ""], `NAME must have at least 1 character, not "".`],
    [["lease", "set", "x", "--slots", "0"], "--slots must be at least 1, not 0."],
    [["events", "a b"], 'TOPIC must be `daemon`, `*`, or as `queue:NAME` or `lease:PREFIX*`, not "a b".'],
    [
      ["schedule", "get", "schedule.list"],
      'There is no schedule "schedule.list". pawl schedule list names those that are there.',
    ],
    [["board", "claim", "NIX-1"], "There is no item NIX-1. Create it with pawl item set."],
    [["board", "finish", "FR-001", "7"], "Say where the item goes: --to 5_done. See pawl board --help."],
    [
      ["schedule", "set", "a"],
      "set takes a name, a queue and payloads: pawl schedule set NAME QUEUE JSON --cron CRON. See",
    ],
  ])("%j", async (args, message) => {
    const { code, stderr } = await pawl(args, { socket: daemonOfWords().place.socket });
    expect(code).not.toBe(0);
    expect(stderr.slice("pawl: ".length)).toContain(message);
    expect(stderr.startsWith(`pawl: ${message}`)).toBe(true);
  });

  const readOnlySocket = madeForTests(async (atEnd) => {
    const place = new Place(undefined, atEnd);
    const socket = join(place.directory, "reading.sock");
    await place.start({ args: ["--read-only-socket", socket] });
    return socket;
  });
  test.each([
    [["next", "FR"], "pawl next"],
    [["next", "FR", "-n", "2"], "pawl next"],
    [["enqueue", "q", "1"], "pawl enqueue"],
    [["pause", "q"], "pawl pause"],
    [["queue", "set", "q", "--max-waiting", "1"], "pawl queue set"],
    [["schedule", "rm", "s"], "pawl schedule rm"],
    [["item", "rm", "FR-001"], "pawl item rm"],
    [["item", "note", "FR-001", "done"], "pawl item note"],
    [["board", "claim", "--agent", "a"], "pawl board claim"],
    [["lease", "set", "x", "--slots", "2"], "pawl lease set"],
  ])("what only reads refuses it by the command that was typed: %j", async (args, typed) => {
    const { code, stderr } = await pawl(args, { socket: readOnlySocket() });
    expect(code).toBe(1);
    expect(stderr).toBe(
      `pawl: ${typed} writes, and this socket serves only reads. Use the daemon's main socket. [read_only]\n`,
    );
  });

  test("as an option of the command, but not within a value", async () => {
    const { socket } = daemonOfWords().place;
    await pawl(["queue", "set", "waitMs", "--max-waiting", "1"], { socket });
    await pawl(["enqueue", "waitMs", "1"], { socket });
    const { stderr } = await pawl(["enqueue", "waitMs", "2"], { socket });
    expect(stderr).toBe(
      'pawl: The queue "waitMs" has 1 batch that waits, and may have 1. Try again once some are claimed, or wait for it with --wait. [exhausted]\n',
    );
  });

  test("for programs, and for pawl call, it stays as the daemon said it", async () => {
    const { socket } = daemonOfWords().place;
    const message = `lease.get: /name must have at least 1 character, not "".`;
    const json = await pawl(["lease", "show", "", "--json"], { socket });
    expect(JSON.parse(json.stderr)).toMatchObject({ message });
    const call = await pawl(["call", "lease.get", '{"name":""}'], { socket });
    expect(call.stderr).toBe(`pawl: ${message} [invalid_params]\n`);
  });

  test("by commands that there are", async () => {
    for (const line of Object.values(SAME_AS)) {
      const [name = "", word] = line.split(" ");
      const command = await commandNamed(name)?.load();
      expect([line, command === undefined]).toEqual([line, false]);
      if (word !== undefined)
        expect(JSON.stringify([command?.args, command?.words, command?.details])).toContain(word);
    }
  });
});

describe("without a daemon", () => {
  test("exit code 3, and what to do", async () => {
    const socket = join(privateDirectory(), "nobody.sock");
    const { code, stdout, stderr } = await pawl(["next", "FR"], { socket });
    expect([code, stdout]).toEqual([NO_DAEMON, ""]);
    expect(stderr).toBe(
      `pawl: No daemon listens on ${socket}. Start one with pawld, or with npm start in ${REPOSITORY}.\n`,
    );
  });

  test("a socket that a killed daemon left is no daemon either", async () => {
    const daemon = await startDaemon();
    await daemon.end("SIGKILL");
    const { code, stderr } = await pawl(["state", "--json"], { socket: daemon.place.socket });
    expect(code).toBe(NO_DAEMON);
    expect(JSON.parse(stderr)).toMatchObject({
      code: -32000,
      data: { kind: "unavailable", retryable: true, reason: "no_daemon" },
    });
  });

  test("--timeout ends what a daemon that is stopped does not answer", async () => {
    const own = await startDaemon();
    own.child.kill("SIGSTOP");
    const { socket } = own.place;
    const { code, stderr } = await pawl(["next", "FR", "--timeout", "300ms"], { socket });
    expect([code, stderr]).toEqual([
      TROUBLE,
      `pawl: The daemon on ${socket} has not answered sequence.next within 0.3 s: it is stopped or busy; it may have taken effect.\n`,
    ]);
    const peeked = await pawl(["peek", "FR", "--timeout=200", "--json"], { socket });
    expect([peeked.code, JSON.parse(peeked.stderr).data]).toEqual([
      TROUBLE,
      { kind: "unavailable", retryable: true, reason: "connection_lost", mayHaveTakenEffect: true },
    ]);
    own.child.kill("SIGCONT");
    expect(await pawl(["peek", "XX", "--timeout", "1m"], { socket })).toMatchObject({ code: DONE });
  });

  test("a daemon that was started with other variables is found all the same, as under cron", async () => {
    const directory = privateDirectory();
    const elsewhere = `${directory}/pawl-${process.getuid?.()}`;
    mkdirSync(elsewhere, { mode: 0o700 });
    const place = new Place();
    await place.start({ args: ["--socket", `${elsewhere}/cron14.sock`] });
    const env = { TMPDIR: directory, XDG_RUNTIME_DIR: `${directory}/run`, PAWL_INSTANCE: "cron14" };
    const found = await startPawl(["socket-path"], { env }).ended;
    expect([found.code, found.stdout]).toEqual([DONE, `${elsewhere}/cron14.sock\n`]);
    expect(await startPawl(["next", "CR"], { env }).ended).toMatchObject({ code: DONE, stdout: "CR-001\n" });
    const none = await startPawl(["next", "CR", "--instance", "nobody14"], { env }).ended;
    expect(none.code).toBe(NO_DAEMON);
    expect(none.stderr).toContain(`No daemon listens on ${directory}/run/pawl/nobody14.sock or `);
    chmodSync(elsewhere, 0o755);
    const open = await startPawl(["socket-path"], { env }).ended;
    expect(open.stdout).toBe(`${directory}/run/pawl/cron14.sock\n`);
  });

  test("socket-path prints the path by the rule, whether or not anything is there", async () => {
    const directory = privateDirectory();
    const env = { XDG_RUNTIME_DIR: directory };
    expect((await pawl(["socket-path"], { env })).stdout).toBe(`${directory}/pawl/default.sock\n`);
    expect((await pawl(["socket-path", "--instance", "ci"], { env })).stdout).toBe(
      `${directory}/pawl/ci.sock\n`,
    );
    expect((await pawl(["socket-path"], { env: { ...env, PAWL_INSTANCE: "ci" } })).stdout).toBe(
      `${directory}/pawl/ci.sock\n`,
    );
    expect((await pawl(["socket-path"], { env: { ...env, PAWL_SOCKET: "/a/b" } })).stdout).toBe("/a/b\n");
    expect((await pawl(["socket-path", "--socket", "/c", "--json"], { env })).stdout).toBe(
      '{"socket":"/c"}\n',
    );
  });

  test("an instance or a path that cannot be is bad usage", async () => {
    const bad = await pawl(["state", "--instance", "a/b"]);
    expect([bad.code, bad.stderr]).toEqual([USAGE, expect.stringContaining(`"a/b"`)]);
    const long = `/tmp/${"x".repeat(110)}`;
    const refused = await pawl(["state"], { socket: long });
    expect([refused.code, refused.stderr]).toEqual([USAGE, expect.stringContaining("107")]);
    // Its output goes into the command lines of other programs, which would cut it off.
    const printed = await pawl(["socket-path"], { socket: long });
    expect(printed).toEqual({ code: USAGE, stdout: "", stderr: expect.stringContaining("107") });
  });
});

describe("daemon trouble exits with 4", () => {
  test("something that is no daemon answers", async () => {
    const socket = join(privateDirectory(), "other.sock");
    const server = createServer((peer) => peer.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    server.listen(socket);
    await once(server, "listening");
    const { code, stderr } = await pawl(["next", "FR"], { socket });
    server.close();
    expect(code).toBe(TROUBLE);
    expect(stderr).toContain(socket);
  });

  test("the daemon is killed before it answers: it is said that nobody knows", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    const claiming = startPawl(["claim", "q", "--wait", "1m", "--json"], { socket: daemon.place.socket });
    await until(async () => (await client.call("queue.explain", { queue: "q" })).waiting === 1);
    await daemon.end("SIGKILL");
    const { code, stdout, stderr } = await claiming.ended;
    expect([code, stdout]).toEqual([TROUBLE, ""]);
    expect(JSON.parse(stderr)).toMatchObject({
      code: -32000,
      message: expect.stringContaining("may have taken effect"),
      data: { kind: "unavailable", reason: "connection_lost", mayHaveTakenEffect: true },
    });
  });

  test.skipIf(!mayBeOther)("the socket may not be used", async () => {
    const daemon = await startDaemon();
    chmodSync(daemon.place.directory, 0o755);
    const { status, stderr } = pawlAsOther(["state"], daemon.place.socket);
    expect([status, stderr]).toEqual([TROUBLE, expect.stringContaining("EACCES")]);
  });
});

describe("sequences", () => {
  const daemon = sharedDaemon();
  const run = (args: string[], input?: string) =>
    pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });

  test("next prints an id, peek what comes next, in text and in JSON", async () => {
    expect(await run(["next", "one"])).toEqual({ code: DONE, stdout: "ONE-001\n", stderr: "" });
    expect((await run(["peek", "ONE"])).stdout).toBe("ONE-002\n");
    expect((await run(["peek", "ONE", "--json"])).stdout).toBe('{"type":"ONE","seq":2,"id":"ONE-002"}\n');
    expect((await run(["next", "ONE", "--json"])).stdout).toBe('{"type":"ONE","seq":2,"id":"ONE-002"}\n');
  });

  test("next -n reserves a block and prints every id of it", async () => {
    expect((await run(["next", "BLOCK", "-n", "998"])).stdout.split("\n")).toHaveLength(999);
    expect((await run(["next", "BLOCK", "-n3"])).stdout).toBe("BLOCK-999\nBLOCK-1000\nBLOCK-1001\n");
    expect(JSON.parse((await run(["next", "BLOCK", "--count=2", "--json"])).stdout)).toEqual({
      type: "BLOCK",
      first: 1002,
      last: 1003,
      firstId: "BLOCK-1002",
      lastId: "BLOCK-1003",
    });
    const many = (await run(["next", "MANY", "-n", "1000000"])).stdout.split("\n");
    expect([many.length, many[0], many[999_999]]).toEqual([1_000_001, "MANY-001", "MANY-1000000"]);
  });

  test("a repeated request id takes one number; with another request it is refused", async () => {
    expect((await run(["next", "REQ", "--request-id", "a"])).stdout).toBe("REQ-001\n");
    expect((await run(["next", "REQ", "--request-id", "a"])).stdout).toBe("REQ-001\n");
    const { code, stdout, stderr } = await run(["next", "REQ", "-n", "2", "--request-id", "a"]);
    expect([code, stdout]).toEqual([REFUSED, ""]);
    expect(stderr).toMatch(/^pawl: The --request-id "a" was used .* \[conflict\]\n$/);
  });

  test("params that the daemon calls invalid are bad usage, with the whole error in JSON", async () => {
    const plain = await run(["next", "1FR"]);
    expect([plain.code, plain.stdout]).toEqual([USAGE, ""]);
    expect(plain.stderr).toContain(`not "1FR". [invalid_params]`);
    const json = await run(["next", "FR", "-n", "1000001", "--json"]);
    expect(json.code).toBe(USAGE);
    expect(JSON.parse(json.stderr)).toMatchObject({
      code: -32602,
      data: { kind: "invalid_params", retryable: false, issues: [{ path: "/count" }] },
    });
  });

  test("the output can be cut off", async () => {
    const { stdout, status } = spawnSync(
      "bash",
      [
        "-c",
        `set -o pipefail; "$0" "$1" --socket "$2" next CUT -n 300000 | head -1`,
        process.execPath,
        PAWL,
        daemon().place.socket,
      ],
      { encoding: "utf8" },
    );
    expect([stdout, status]).toEqual(["CUT-001\n", DONE]);
  });

  test("output that cannot be written is an error", async () => {
    const { stderr, status } = spawnSync(
      "bash",
      ["-c", `"$0" "$1" --socket "$2" state > /dev/full`, process.execPath, PAWL, daemon().place.socket],
      { encoding: "utf8" },
    );
    expect(status).toBe(TROUBLE);
    expect(stderr).toContain("ENOSPC");
  });
});

test("state is an aligned table without trailing spaces, and empty of types it says so beside the output", async () => {
  const daemon = await startDaemon();
  const run = (...args: string[]) => pawl(args, { socket: daemon.place.socket });
  expect(await run("state")).toEqual({ code: DONE, stdout: "", stderr: "No numbers have been taken yet.\n" });
  await run("next", "FR", "-n", "1200");
  await run("next", "FEATURE");
  expect((await run("state")).stdout).toBe(
    "TYPE     LAST  LAST ID\nFEATURE     1  FEATURE-001\nFR       1200  FR-1200\n",
  );
  expect((await run("state", "--json")).stdout).toBe(
    '{"mode":{"kind":"centralized"},"sequences":{"FEATURE":1,"FR":1200},"granted":{}}\n',
  );
});

describe("import and export", () => {
  async function node(args: string[] = []) {
    const daemon = await startDaemon({ args });
    const directory = daemon.place.directory;
    const file = (name: string, text: string): string => {
      writeFileSync(join(directory, name), text);
      return join(directory, name);
    };
    const run = (args: string[], input?: string) =>
      pawl(args, { socket: daemon.place.socket, ...(input === undefined ? {} : { input }) });
    const state = async () => JSON.parse((await run(["state", "--json"])).stdout).sequences;
    return { run, state, file, directory };
  }

  test("--toml raises what is lower, leaves what is higher, and says both; a dry run changes nothing", async () => {
    const { run, state, file } = await node();
    await run(["next", "FR", "-n", "40"]);
    const toml = file("a.toml", 'mode = "Centralized"\n[sequences]\nFR = 17\nbug = 3\nADR = 120\n');

    const dry = await run(["import", "--toml", toml, "--dry-run"]);
    expect(dry).toEqual({
      code: DONE,
      stdout: "ADR  0 -> 120\nBUG  0 -> 3\nFR   already at 40, above 17\n",
      stderr: "2 counters would be raised, 1 left as it is.\n",
    });
    expect(await state()).toEqual({ FR: 40 });

    const real = await run(["import", "--toml", toml]);
    expect(real).toEqual({ ...dry, stderr: "2 counters raised, 1 left as it is.\n" });
    expect(await state()).toEqual({ ADR: 120, BUG: 3, FR: 40 });
    expect((await run(["next", "ADR"])).stdout).toBe("ADR-121\n");

    const again = await run(["import", "--toml", toml, "--json"]);
    expect(JSON.parse(again.stdout)).toEqual({
      raised: [],
      skipped: [
        { type: "ADR", at: 121, given: 120 },
        { type: "BUG", at: 3, given: 3 },
        { type: "FR", at: 40, given: 17 },
      ],
      dryRun: false,
    });
    expect(again.stderr).toBe("");
  });

  test("more counters than one transaction takes", async () => {
    const { run, state, file } = await node();
    const types = Array.from({ length: 150 }, (_, index) => `T${index}`);
    const toml = file(
      "many.toml",
      `[sequences]\n${types.map((type, index) => `${type} = ${index + 1}`).join("\n")}\n`,
    );
    expect((await run(["import", "--toml", toml])).stderr).toBe("150 counters raised.\n");
    expect(await state()).toEqual(Object.fromEntries(types.map((type, index) => [type, index + 1])));
  });

  test("export writes what import reads, in both modes", async () => {
    const centralized = await node();
    await centralized.run(["next", "FR", "-n", "7"]);
    const exported = await centralized.run(["export", "--toml"]);
    expect(exported).toEqual({
      code: DONE,
      stdout: 'mode = "Centralized"\n\n[sequences]\nFR = 7\n',
      stderr: "",
    });
    const other = await node();
    await other.run(["import", "--toml", other.file("e.toml", exported.stdout)]);
    expect(await other.state()).toEqual({ FR: 7 });

    const seventh = await node(["--mode", "distributed", "--node-id", "7"]);
    await seventh.run(["next", "FR", "-n", "2"]);
    const { stdout } = await seventh.run(["export"]);
    expect(stdout).toContain("[mode.Distributed]\nnode_id = 7\n");
    const alsoSeventh = await node(["--mode", "distributed", "--node-id", "7"]);
    await alsoSeventh.run(["import", "--toml", alsoSeventh.file("e.toml", stdout)]);
    expect(await alsoSeventh.state()).toEqual({ FR: 2 });
  });

  test("nodes with names are read from each source, in whatever case, and written", async () => {
    const { run, state, file } = await node(["--mode", "distributed", "--node-id", "JM"]);
    const toml = file("n.toml", '[sequences]\nFR = 3\n[mode.Distributed]\nnode_id = "jm"\n');
    expect((await run(["import", "--toml", toml])).stdout).toBe("FR  0 -> 3\n");
    expect((await run(["import", "--ids", "-"], "FR-JM-017\nfr-jm-4\n")).stdout).toBe("FR  3 -> 17\n");
    expect((await run(["next", "FR"])).stdout).toBe("FR-JM-018\n");
    expect((await run(["state"])).stdout).toContain("FR      18  FR-JM-018");
    const { stdout } = await run(["export"]);
    expect(stdout).toContain('[mode.Distributed]\nnode_id = "JM"\n');
    const same = await node(["--mode", "distributed", "--node-id", "JM"]);
    await same.run(["import", "--toml", same.file("e.toml", stdout)]);
    expect(await same.state()).toEqual({ FR: 18 });
    const refused = await run(["import", "--ids", "-"], "FR-AB-017\n");
    expect([refused.code, refused.stderr]).toEqual([
      REFUSED,
      expect.stringMatching(/This daemon is node JM, .*line 1 \(FR of node AB\)/),
    ]);
    const wrong = file("w.toml", '[sequences]\nFR = 3\n[mode.Distributed]\nnode_id = "j-m"\n');
    expect((await run(["import", "--toml", wrong])).code).toBe(USAGE);
    expect(await state()).toEqual({ FR: 18 });
  });

  test("grant has numbers come from another node's block, by numbers or ids", async () => {
    const { run } = await node();
    expect((await run(["grant", "fr", "FR-1001", "1100"])).stdout).toBe("FR: 100 granted numbers are left\n");
    expect((await run(["next", "FR"])).stdout).toBe("FR-1001\n");
    expect((await run(["state"])).stdout).toBe(
      "TYPE  LAST  LAST ID  GRANTED, LEFT\nFR    1001  FR-1001             99\n",
    );
    expect((await run(["grant", "FR", "BUG-1", "7"])).code).toBe(USAGE);
    const refused = await run(["grant", "FR", "1", "7"]);
    expect([refused.code, refused.stderr]).toEqual([REFUSED, expect.stringContaining("up to 1100")]);
  });

  test("counters of another node are refused, and nothing is imported", async () => {
    const centralized = await node();
    const toml = centralized.file("d.toml", "[sequences]\nFR = 17\n[mode.Distributed]\nnode_id = 7\n");
    const refused = await centralized.run(["import", "--toml", toml]);
    expect(refused.code).toBe(REFUSED);
    expect(refused.stderr).toContain("This daemon is centralized");
    expect(refused.stderr).toContain("sequences.FR (FR of node 7)");
    const mixed = await centralized.run(["import", "--ids", "-"], "BUG-1\nFR-7-017\n");
    expect([mixed.code, mixed.stderr]).toEqual([REFUSED, expect.stringContaining("line 2 (FR of node 7)")]);
    expect(await centralized.state()).toEqual({});

    const seventh = await node(["--mode", "distributed", "--node-id", "7"]);
    expect((await seventh.run(["import", "--ids", "-"], "FR-017\n")).stderr).toContain(
      "line 1 (FR of no node (centralized))",
    );
    expect((await seventh.run(["import", "--ids", "-"], "FR-7-017\n")).code).toBe(DONE);
    // Without a mode the file says nothing of nodes, so the counters are this node's.
    expect(
      (await seventh.run(["import", "--toml", seventh.file("n.toml", "[sequences]\nBUG = 4\n")])).code,
    ).toBe(DONE);
    expect(await seventh.state()).toEqual({ BUG: 4, FR: 17 });
  });

  test("--ids takes any padding, blank lines and comments, from a file, standard input or a pipe", async () => {
    const { run, state, file } = await node();
    const text = "\ufeffFR-017\r\n# a comment\r\n\r\n  FR-3  \nfr-00018\nBUG-1000\nBUG-999\n";
    expect((await run(["import", "--ids", file("ids", text)])).stdout).toBe("BUG  0 -> 1000\nFR   0 -> 18\n");
    expect((await run(["import", "--ids", "-"], "FR-20")).stdout).toBe("FR  18 -> 20\n");
    expect(await state()).toEqual({ BUG: 1000, FR: 20 });
    expect((await run(["import", "--ids", "-"], "# nothing\n")).code).toBe(DONE);
  });

  test("bad lines are refused by number and value, and nothing is imported", async () => {
    const { run, state } = await node();
    const bad = ["FR", "FR-", "FR-x", "1FR-2", "FR-0", "FR-000", "FR-0-3", "FR-1-2-3", "FR-9007199254740992"];
    const { code, stdout, stderr } = await run(["import", "--ids", "-"], `FR-1\n${bad.join("\n")}\n`);
    expect([code, stdout]).toEqual([USAGE, ""]);
    expect(stderr).toContain("standard input has 9 entries");
    for (const [index, line] of bad.entries()) expect(stderr).toContain(`line ${index + 2}: "${line}"`);
    const many = await run(["import", "--ids", "-"], "?\n".repeat(500));
    expect(many.stderr).toContain("; and 490 more");
    expect(await state()).toEqual({});
  });

  test.each<[string, string]>([
    ["[sequences]\nFR = -1\n", "FR = -1"],
    ["[sequences]\nFR = 1.5\n", "FR = 1.5"],
    ['[sequences]\nFR = "7"\n', 'FR = "7"'],
    ["[sequences]\nFR = 9007199254740993\n", "FR = 9007199254740993"],
    ["[sequences]\n'F-R' = 7\n", "F-R = 7"],
    ["[sequences]\nA = 1\n[mode.Distributed]\nnode_id = 0\n", "node_id"],
    ['mode = "Sometimes"\n[sequences]\nA = 1\n', '"Sometimes"'],
    ["FR = 7\n", "no table [sequences]"],
    ["sequences = 7\n", "no table [sequences]"],
    ["[sequences\n", "is not TOML"],
  ])("TOML that cannot be: %j", async (text, named) => {
    const directory = privateDirectory();
    writeFileSync(join(directory, "bad.toml"), text);
    const { code, stderr } = await pawl(["import", "--toml", join(directory, "bad.toml")]);
    expect([code, stderr]).toEqual([USAGE, expect.stringContaining(named)]);
  });

  describe("--sqlite", () => {
    function table(directory: string, rows: string, path = join(directory, "old.db")): string {
      const sql = `CREATE TABLE dispenser_sequences (node_id, type_prefix, next_val); ${rows === "" ? "" : `INSERT INTO dispenser_sequences VALUES ${rows};`}`;
      const { status, stderr } = spawnSync(
        process.execPath,
        ["--input-type=module", "-e", MAKE_TABLE, path, sql],
        {
          cwd: import.meta.dirname,
          encoding: "utf8",
        },
      );
      if (status !== 0) throw new Error(stderr);
      return path;
    }
    const MAKE_TABLE = `
      import Database from "better-sqlite3";
      new Database(process.argv[1]).exec(process.argv[2]).close();
    `;

    test("next_val holds the last number, despite its name", async () => {
      const { run, state, directory } = await node();
      const file = table(directory, "(0, 'FR', 17), ('0', 'bug', '3')");
      const before = readFileSync(file);
      expect((await run(["import", "--sqlite", file])).stdout).toBe("BUG  0 -> 3\nFR   0 -> 17\n");
      expect((await run(["next", "FR"])).stdout).toBe("FR-018\n");
      expect(await state()).toEqual({ BUG: 3, FR: 18 });
      expect(readFileSync(file).equals(before)).toBe(true);
    });

    test("a node may have a name there", async () => {
      const { run, directory } = await node(["--mode", "distributed", "--node-id", "JM"]);
      const file = table(directory, "('jm', 'FR', 17), ('JM', 'BUG', 2)");
      expect((await run(["import", "--sqlite", file])).stdout).toBe("BUG  0 -> 2\nFR   0 -> 17\n");
      const foreign = table(directory, "('AB', 'FR', 99)", join(directory, "foreign.db"));
      expect((await run(["import", "--sqlite", foreign])).stderr).toContain("row 1 (FR of node AB)");
    });

    test("a row of another node, or one that is no counter, is refused by its place", async () => {
      const { run, state, directory } = await node(["--mode", "distributed", "--node-id", "7"]);
      const foreign = table(directory, "(7, 'FR', 17), (8, 'FR', 3)");
      const refused = await run(["import", "--sqlite", foreign]);
      expect([refused.code, refused.stderr]).toEqual([
        REFUSED,
        expect.stringContaining("row 2 (FR of node 8)"),
      ]);
      const bad = table(
        directory,
        "(7, 'FR', 9007199254740993), (7, 'A', NULL), (NULL, 'B', 1)",
        join(directory, "bad.db"),
      );
      const wrong = await run(["import", "--sqlite", bad]);
      expect(wrong.code).toBe(USAGE);
      expect(wrong.stderr).toContain(
        "row 1: (7, FR, 9007199254740993); row 2: (7, A, NULL); row 3: (NULL, B, 1)",
      );
      expect(await state()).toEqual({});
    });

    test("a file that is no such database is named with its fault", async () => {
      const directory = privateDirectory();
      const run = (file: string) => pawl(["import", "--sqlite", file]);
      writeFileSync(
        join(directory, "text"),
        "no database at all, but long enough to be looked at as one\n".repeat(50),
      );
      expect((await run(join(directory, "text"))).stderr).toMatch(
        /Cannot read dispenser_sequences.*not a database/,
      );
      table(directory, "", join(directory, "empty.db"));
      spawnSync("true");
      expect((await run(join(directory, "nothing.db"))).stderr).toContain("There is no file");
    });

    test("without the daemon's package: by the program sqlite3, and without that with what to install", async () => {
      // The client as it is installed alone: beside its two dependencies, and nothing of the daemon.
      const daemon = await startDaemon();
      const directory = privateDirectory();
      const modules = join(directory, "node_modules");
      mkdirSync(join(modules, "@pawl"), { recursive: true });
      const root = join(import.meta.dirname, "../..");
      const copied = spawnSync("cp", ["-r", join(root, "client"), join(modules, "@pawl/client")]);
      expect(copied.status).toBe(0);
      spawnSync("cp", ["-r", join(root, "protocol"), join(modules, "@pawl/protocol")]);
      symlinkSync(join(root, "node_modules/smol-toml"), join(modules, "smol-toml"));
      const program = join(modules, "@pawl/client/bin/pawl.js");
      const file = table(directory, "(0, 'FR', 17)");
      const run = (path: string) =>
        spawnSync(process.execPath, [program, "--socket", daemon.place.socket, "import", "--sqlite", file], {
          encoding: "utf8",
          env: { PATH: path },
        });

      const without = run("/nowhere");
      expect([without.status, without.stdout]).toEqual([USAGE, ""]);
      expect(without.stderr).toContain("npm install @pawl/daemon");
      expect(without.stderr).toContain("apt install sqlite3");

      // A stand-in that does what the program does, so that the test does not depend on its being installed.
      const bin = join(directory, "bin");
      mkdirSync(bin);
      writeFileSync(
        join(bin, "sqlite3"),
        `#!${process.execPath}
const Database = require(${JSON.stringify(join(root, "node_modules/better-sqlite3"))});
const [path, sql] = process.argv.slice(-2);
for (const row of new Database(path, { readonly: true }).prepare(sql).pluck().all()) console.log(row);
`,
        { mode: 0o755 },
      );
      const by = run(bin);
      expect([by.status, by.stdout]).toEqual([DONE, "FR  0 -> 17\n"]);
    });
  });

  test("from exactly one place", async () => {
    const none = await pawl(["import"]);
    expect([none.code, none.stderr]).toEqual([USAGE, expect.stringContaining("exactly one of --toml FILE")]);
    const two = await pawl(["import", "--toml", "a", "--ids", "b"]);
    expect([two.code, two.stderr]).toEqual([USAGE, expect.stringContaining("exactly one of --toml FILE")]);
    const absent = await pawl(["import", "--toml", "/nowhere/at-all.toml"]);
    expect([absent.code, absent.stderr]).toEqual([
      USAGE,
      expect.stringContaining("There is no file /nowhere/at-all.toml"),
    ]);
  });
});

describe("the daemon", () => {
  const daemon = sharedDaemon();
  const run = (args: string[], input?: string) =>
    pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });

  test("status shows what the daemon is and does", async () => {
    await run(["next", "FR"]);
    const { code, stdout } = await run(["status"]);
    expect(code).toBe(DONE);
    expect(stdout).toMatch(/^pawld \d+\.\d+\.\d+ is up for \d/);
    expect(stdout).toContain(`Socket    ${daemon().place.socket}\n`);
    expect(stdout).toContain(`pid ${daemon().pid}\n`);
    expect(stdout).toMatch(/sequence\.next +1\n/);
    expect(stdout).not.toMatch(/ $|undefined|NaN|null/m);
    const json = JSON.parse((await run(["status", "--json"])).stdout);
    expect(json.info.pid).toBe(daemon().pid);
    expect(json.stats.requests["sequence.next"]).toBe(1);
  });

  test("call calls any method, with params from the line or from standard input", async () => {
    const plain = await run(["call", "sequence.format", '{"type":"FR","seq":7}']);
    expect(plain).toEqual({ code: DONE, stdout: '{\n  "id": "FR-007"\n}\n', stderr: "" });
    const piped = await run(["call", "sequence.format", "-", "--json"], '{"type":\n"FR","seq":8}\n');
    expect(piped.stdout).toBe('{"id":"FR-008"}\n');
    expect(JSON.parse((await run(["call", "daemon.ping"])).stdout)).toEqual({ now: expect.any(Number) });
  });

  test("call: a method that is not there is bad usage and names the closest", async () => {
    const { code, stderr } = await run(["call", "sequence.nxt"]);
    expect([code, stderr]).toEqual([USAGE, expect.stringContaining("The closest is sequence.next")]);
  });

  test("a refusal exits with 1", async () => {
    await run(["call", "sequence.advance", JSON.stringify({ type: "FULL", to: Number.MAX_SAFE_INTEGER })]);
    const { code, stdout, stderr } = await run(["next", "FULL", "--json"]);
    expect([code, stdout]).toEqual([REFUSED, ""]);
    expect(JSON.parse(stderr)).toMatchObject({ code: -32016, data: { kind: "exhausted", retryable: false } });
  });

  test("text from others cannot steer the terminal", async () => {
    const { stderr } = await run(["call", "\u001b[2J\u202e\r\nx"]);
    expect(stderr).toContain("\\u001b[2J");
    expect([...stderr.trimEnd()].filter((character) => character < " " || character === "\u202e")).toEqual(
      [],
    );
  });
});

describe("backup", () => {
  // It is a copy of the daemon's own file.
  test.skipIf(NAMES_ARE_SHARED)(
    "is a whole database of its own, private, with every number in it",
    async () => {
      const daemon = await startDaemon();
      const { socket, directory } = daemon.place;
      await pawl(["next", "FR", "-n", "41"], { socket });
      const made = await pawl(["backup", "copy.db"], { socket, cwd: directory });
      expect(made.code).toBe(DONE);
      expect(made.stdout).toMatch(
        new RegExp(`^${join(directory, "copy.db")}: \\d+(\\.\\d)? [kM]?B, \\d+ pages\\n$`),
      );
      expect(statSync(join(directory, "copy.db")).mode & 0o777).toBe(0o600);

      const other = new Place();
      mkdirSync(other.stateDir, { mode: 0o700 });
      spawnSync("mv", [join(directory, "copy.db"), join(other.stateDir, "pawl.db")]);
      await other.start();
      expect((await pawl(["next", "FR"], { socket: other.socket })).stdout).toBe("FR-042\n");
    },
  );

  test("replaces nothing, and needs a directory", async () => {
    const daemon = await startDaemon();
    const { socket, directory } = daemon.place;
    writeFileSync(join(directory, "precious"), "x");
    const refused = await pawl(["backup", join(directory, "precious")], { socket });
    expect([refused.code, refused.stderr]).toEqual([REFUSED, expect.stringContaining("[conflict]")]);
    expect(readFileSync(join(directory, "precious"), "utf8")).toBe("x");
    const nowhere = await pawl(["backup", join(directory, "no/where.db"), "--json"], { socket });
    expect(nowhere.code).toBe(REFUSED);
    expect(JSON.parse(nowhere.stderr).data).toMatchObject({ kind: "not_found", what: "directory" });
  });
});

describe("completion", () => {
  const daemon = sharedDaemon();

  async function complete(shell: string, ...words: string[]): Promise<string[]> {
    // yargs completes as the shell wants it in whose environment the process is.
    vi.stubEnv("SHELL", shell);
    vi.stubEnv("ZSH_NAME", undefined);
    const env = { PAWL_SOCKET: daemon().place.socket };
    const { stdout } = await pawl(["--get-yargs-completions", "pawl", ...words], { env });
    vi.unstubAllEnvs();
    return stdout.split("\n").filter((line) => line !== "");
  }

  test("commands, options of the command on the line, and names that the daemon knows", async () => {
    expect(await complete("/bin/bash", "")).toEqual(COMMANDS.map(({ name }) => name));
    expect(await complete("/bin/bash", "next", "FR", "--")).toEqual(
      expect.arrayContaining(["--count", "--request-id", "--json"]),
    );
    expect(await complete("/bin/bash", "state", "--")).not.toContain("--count");
    expect(await complete("/bin/zsh", "next", "FR", "--")).toContain(
      "--count:Take a block of so many, without gaps",
    );
    expect(await complete("/bin/bash", "completion", "")).toEqual(["bash", "zsh", "fish"]);
    await pawl(["next", "FR"], { socket: daemon().place.socket });
    expect(await complete("/bin/bash", "next", "")).toEqual(["FR"]);
    expect(await complete("/bin/bash", "call", "daemon.p")).toContain("daemon.ping");
    await pawl(["enqueue", "mails", "1"], { socket: daemon().place.socket });
    for (const command of ["enqueue", "work", "queues", "retry"]) {
      expect(await complete("/bin/bash", command, "")).toEqual(["mails"]);
    }
    await pawl(["send", "builder", "build"], { socket: daemon().place.socket });
    expect(await complete("/bin/bash", "serve", "--jobs", "")).toEqual([]);
    expect(await complete("/bin/bash", "serve", "--jobs", "2", "--pull", "-j", "3", "")).toEqual(["builder"]);
    expect(await complete("/bin/bash", "commands", "")).toEqual(["builder"]);
    expect(await complete("/bin/bash", "commands", "--state", "")).toContain("PENDING");
    expect(await complete("/bin/bash", "commands", "builder", "--st")).toContain("--state");
    // The words after two dashes are somebody else's to complete.
    expect(await complete("/bin/bash", "work", "mails", "--", "")).toEqual([]);
  });

  test("without a daemon nothing is completed, and nothing is said", async () => {
    const line = ["--get-yargs-completions", "pawl", "--socket", "/nowhere", "next", ""];
    expect(await pawl(line)).toEqual({ code: DONE, stdout: "", stderr: "" });
  });

  test("bash completes with the script", () => {
    const { stdout } = spawnSync(
      "bash",
      [
        "--norc",
        "-c",
        `PATH="$1:$PATH"; source <(pawl completion bash); COMP_WORDS=(pawl st); COMP_CWORD=1
         _pawl_yargs_completions; echo "\${COMPREPLY[@]}"`,
        "bash",
        binDirectory(),
      ],
      { encoding: "utf8", env: { ...process.env, SHELL: "/bin/zsh" } },
    );
    expect(stdout).toBe("state status\n");
  });

  const hasShell = (shell: string): boolean => {
    const found = spawnSync(shell, ["--version"]).status === 0;
    if (!found) console.warn(`${shell} is missing: its completion is not tested.`);
    return found;
  };

  test.skipIf(!hasShell("fish"))(
    "fish completes options, names that the daemon knows, and files",
    async () => {
      await pawl(["next", "FISH"], { socket: daemon().place.socket });
      const directory = privateDirectory();
      writeFileSync(join(directory, "counters.toml"), "");
      const lines = ["pawl ne", "pawl next ", "pawl next --", "pawl import coun", "pawl commands --state "];
      const complete = lines.map((line) => `complete -C '${line}'; echo`);
      const { stdout } = spawnSync(
        "fish",
        ["--no-config", "-c", `pawl completion fish | source; ${complete.join("; ")}`],
        {
          encoding: "utf8",
          cwd: directory,
          env: {
            ...process.env,
            PATH: `${binDirectory()}:${process.env.PATH}`,
            PAWL_SOCKET: daemon().place.socket,
            HOME: directory,
            SHELL: "/bin/bash",
          },
        },
      );
      // An empty line ends what there is for each.
      const completions = stdout.split(/^\n/m).map((found) =>
        found
          .trimEnd()
          .split("\n")
          .map((line) => line.split("\t")[0]),
      );
      const [commands, types, options, files, states] = completions;
      expect(commands).toEqual(["next"]);
      expect(types).toContain("FISH");
      expect(options).toEqual(expect.arrayContaining(["--count", "--request-id", "--json"]));
      expect(files).toContain("counters.toml");
      expect(states).toContain("PENDING");
    },
  );

  test.skipIf(!hasShell("zsh") || !hasTerminals)("zsh completes as it is typed", async () => {
    await pawl(["next", "ZSHTYPE"], { socket: daemon().place.socket });
    const shell = onTypedTerminal(["zsh", "-f", "-i"], {
      PATH: `${binDirectory()}:${process.env.PATH}`,
      PAWL_SOCKET: daemon().place.socket,
      HOME: privateDirectory(),
      TERM: "dumb",
    });
    shell.type("autoload -U compinit; compinit -u; source <(pawl completion zsh); echo sour''ced\r");
    await shell.printed(/sourced/);
    shell.type("pawl next ZSHT\t");
    await shell.printed(/pawl next ZSHTYPE/);
    shell.type("--cou\t");
    await shell.printed(/--count/);
    shell.type("\x15exit\r");
    await shell.ended;
  });

  function binDirectory(): string {
    const directory = privateDirectory();
    symlinkSync(PAWL, join(directory, "pawl"));
    return directory;
  }
});

describe("on a terminal", () => {
  const daemon = sharedDaemon();

  /** Runs a shell line on a terminal of its own, `columns` wide, and gives what it showed. */
  async function onTerminal(
    line: string,
    columns: number,
    env: Record<string, string> = {},
  ): Promise<string> {
    const child = spawn("script", ["-qec", `stty cols ${columns}; ${line}`, "/dev/null"], {
      stdio: ["ignore", "pipe", "inherit"],
      // CI is taken away: under it Node finds no terminal able to show colours.
      env: { ...process.env, CI: undefined, NO_COLOR: undefined, TERM: "xterm-256color", ...env },
    });
    let shown = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      shown += text;
    });
    await once(child, "close");
    return shown.replaceAll("\r\n", "\n");
  }

  const state = () => `"${process.execPath}" "${PAWL}" --socket "${daemon().place.socket}" state`;

  test("titles stand out, and with NO_COLOR they do not", async () => {
    await pawl(["next", "FR"], { socket: daemon().place.socket });
    expect(await onTerminal(state(), 80)).toContain("\x1b[1mTYPE\x1b[");
    expect(await onTerminal(state(), 80, { NO_COLOR: "1" })).toBe(
      "TYPE  LAST  LAST ID\nFR       1  FR-001\n",
    );
    expect((await pawl(["state"], { socket: daemon().place.socket })).stdout).not.toContain("\x1b");
  });
});
