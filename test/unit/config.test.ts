// Where pawld takes its options from, and what it says of those that it cannot take.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_SOCKET_PATH_BYTES } from "@pawl/protocol/limits";
import {
  checkInstance,
  type Surroundings,
  socketPath,
  socketPaths,
  stateDirectory,
} from "@pawl/protocol/paths";
import { afterAll, describe, expect, test } from "vitest";
import { type Config, isReloadable, readConfig } from "../../daemon/dist/config/config.js";
import { helpText } from "../../daemon/dist/config/help.js";
import { OPTIONS } from "../../daemon/dist/config/options.js";
import { PAWLD } from "../daemon.js";

const EXIT_USAGE = 2;

const directory = mkdtempSync(join(tmpdir(), "pawl-config-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** The configuration from flags, variables and the text of a config file. */
function read(args: string[], env: Record<string, string> = {}, file?: string): Config {
  const path = join(directory, "pawld.toml");
  if (file !== undefined) writeFileSync(path, file);
  const config = readConfig(file === undefined ? args : [...args, "--config", path], {
    HOME: "/home/x",
    ...env,
  });
  if (typeof config === "string") throw new Error("that was no configuration");
  return config;
}

function refusal(args: string[], env: Record<string, string> = {}, file?: string): string {
  try {
    read(args, env, file);
  } catch (error) {
    if (!(error instanceof PawlError)) throw error;
    expect(error.kind).toBe("invalid_params");
    return error.message;
  }
  throw new Error("that was not refused");
}

describe("layers", () => {
  test("a flag wins over the environment, which wins over the file", () => {
    const file = 'socket = "/f/s"\nstate-dir = "/f/d"\nidle-exit = 3\nlog-level = "debug"\n';
    const env = { PAWL_SOCKET: "/e/s", PAWL_STATE_DIR: "/e/d", PAWL_IDLE_EXIT: "2" };
    const config = read(["--socket", "/a/s"], env, file);
    expect(config).toMatchObject({ socket: "/a/s", stateDir: "/e/d", idleExit: 2, logLevel: "debug" });
  });

  test("the file may be named by PAWL_CONFIG, and a flag names another", () => {
    const [one, other] = [join(directory, "one.toml"), join(directory, "other.toml")];
    writeFileSync(one, "idle-exit = 1");
    writeFileSync(other, "idle-exit = 2");
    expect(read([], { PAWL_CONFIG: one }).idleExit).toBe(1);
    expect(read(["--config", other], { PAWL_CONFIG: one }).idleExit).toBe(2);
  });

  test("a unit of systemd has a directory with a file for each instance, which need not be there", () => {
    const env = { CONFIGURATION_DIRECTORY: directory };
    writeFileSync(join(directory, "ci.toml"), "idle-exit = 7");
    expect(read(["--instance", "ci"], env).idleExit).toBe(7);
    expect(read([], { ...env, PAWL_INSTANCE: "ci" }).idleExit).toBe(7);
    expect(read(["--instance", "none"], env).idleExit).toBeUndefined();
    expect(read(["--instance", "ci"], env, "idle-exit = 8").idleExit).toBe(8);
    expect(refusal(["--instance", "../ci"], env)).toContain("The instance name");
    // A unit may have several; the first is its own.
    const several = { CONFIGURATION_DIRECTORY: `${directory}:/etc/other` };
    expect(read(["--instance", "ci"], several).idleExit).toBe(7);
    expect(
      read(["--instance", "ci"], { CONFIGURATION_DIRECTORY: `/nowhere:${directory}` }).idleExit,
    ).toBeUndefined();
  });

  test("an empty variable is as good as none", () => {
    expect(read([], { PAWL_SOCKET: "", PAWL_MODE: "", XDG_RUNTIME_DIR: "/run/x" }).socket).toBe(
      "/run/x/pawl/default.sock",
    );
  });

  test("variables of other programs of pawl mean nothing here", () => {
    expect(read([], { PAWL_FENCING_TOKEN: "5", PAWL_WHATEVER: "x" }).instance).toBe("default");
  });

  test("defaults", () => {
    expect(read(["--socket", "/s", "--state-dir", "/d"])).toMatchObject({
      instance: "default",
      socket: "/s",
      stateDir: "/d",
      socketMode: 0o600,
      mode: undefined,
      acceptModeChange: false,
      idleExit: undefined,
      maxMessageBytes: 1024 * 1024,
      logLevel: "info",
    });
  });

  test("a value that another layer wins over is read all the same, and refused if it cannot be", () => {
    const args = ["--idle-exit", "5", "--log-level", "info", "--socket", "/s", "--mode", "centralized"];
    expect(refusal(args, { PAWL_IDLE_EXIT: "soon" })).toMatch(/^PAWL_IDLE_EXIT must be .*"soon"/);
    expect(refusal(args, {}, "idle-exit = '5s'")).toMatch(/^idle-exit in .*pawld\.toml must be .*"5s"/);
    expect(refusal([], { PAWL_LOG_LEVEL: "warn" }, "log-level = 'loud'")).toMatch(/^log-level in .*"loud"/);
    expect(refusal(args, { PAWL_SOCKET: `/${"s".repeat(200)}` })).toMatch(
      /^PAWL_SOCKET: The socket path .* 201 bytes/,
    );
    expect(refusal(["--instance", "ci"], { PAWL_INSTANCE: "../x" })).toMatch(/^PAWL_INSTANCE: .*"\.\.\/x"/);
    expect(refusal(args, {}, "mode = 'both'")).toMatch(/^mode in .*"both"/);
    expect(refusal(["--allow-uid", "1"], { PAWL_ALLOW_UID: "1,x" })).toMatch(/^PAWL_ALLOW_UID .*"x"/);
    expect(refusal(["--lease-provider", "*=local"], {}, "lease-provider = ['a']")).toMatch(
      /^lease-provider in /,
    );
    // Options that belong together are judged as they come out in the end.
    const env = { PAWL_MODE: "distributed", PAWL_NODE_ID: "7" };
    expect(read(["--node-id", "8"], env).mode).toEqual({ kind: "distributed", nodeId: 8 });
  });

  test("every option can be given in every layer", () => {
    const expected = {
      instance: "ci",
      socketMode: 0o660,
      socketGroup: "staff",
      mode: { kind: "distributed", nodeId: 7 },
      acceptModeChange: true,
      acceptIdentityChange: true,
      idleExit: 60,
      maxMessageBytes: 4096,
      logLevel: "warn",
    };
    const flags =
      "--instance ci --socket-mode 0660 --socket-group staff --mode distributed --node-id 7 --accept-mode-change " +
      "--accept-identity-change --idle-exit 60 --max-message-bytes 4096 --log-level warn";
    expect(read(flags.split(" "))).toMatchObject(expected);
    const env = {
      PAWL_INSTANCE: "ci",
      PAWL_SOCKET_MODE: "0660",
      PAWL_SOCKET_GROUP: "staff",
      PAWL_MODE: "distributed",
      PAWL_NODE_ID: "7",
      PAWL_ACCEPT_MODE_CHANGE: "true",
      PAWL_ACCEPT_IDENTITY_CHANGE: "true",
      PAWL_IDLE_EXIT: "60",
      PAWL_MAX_MESSAGE_BYTES: "4096",
      PAWL_LOG_LEVEL: "warn",
    };
    expect(read([], env)).toMatchObject(expected);
    const file =
      'instance = "ci"\nsocket-mode = "0660"\nsocket-group = "staff"\nmode = "distributed"\nnode-id = 7\n' +
      'accept-mode-change = true\naccept-identity-change = true\nidle-exit = 60\nmax-message-bytes = 4096\nlog-level = "warn"\n';
    expect(read([], {}, file)).toMatchObject(expected);
  });
});

test("a value may begin with a dash", () => {
  const { socket, instance } = read(["--socket", "-s", "--instance=ci", "--read-only"]);
  expect([socket, instance]).toEqual([resolve("-s"), "ci"]);
});

describe("values that cannot be taken are named", () => {
  test.each<[string, string[], string[]]>([
    ["an unknown flag", ["--sockett", "/s"], ["--sockett"]],
    ["a word", ["serve"], ["serve"]],
    ["a flag without its value", ["--socket"], ["--socket"]],
    ["a value for a flag that takes none", ["--accept-mode-change=maybe"], ["--accept-mode-change"]],
    ["an empty value", ["--socket="], ["--socket", '""']],
    ["a mode of sequences", ["--mode", "both"], ["--mode", "both", "centralized, distributed"]],
    ["a node id that is none", ["--mode", "distributed", "--node-id", "x-1"], ["--node-id", "x-1"]],
    ["the node id 0", ["--mode", "distributed", "--node-id", "0"], ["--node-id", "0"]],
    [
      "a node id beyond 2^32 - 1",
      ["--mode", "distributed", "--node-id", "4294967296"],
      ["4294967296", "4294967295"],
    ],
    ["a negative node id", ["--mode", "distributed", "--node-id=-1"], ["--node-id", "-1"]],
    ["distributed without a node id", ["--mode", "distributed"], ["--node-id"]],
    ["a node id without distributed", ["--node-id", "5"], ["--node-id 5", "distributed"]],
    ["a node id with centralized", ["--mode", "centralized", "--node-id", "5"], ["--node-id 5"]],
    ["a socket mode in letters", ["--socket-mode", "rw-rw----"], ["--socket-mode", "rw-rw----"]],
    ["a socket mode with other digits", ["--socket-mode", "0680"], ["--socket-mode", "0680"]],
    ["a socket mode that is too long", ["--socket-mode", "01777"], ["--socket-mode", "01777"]],
    ["an idle exit of 0", ["--idle-exit", "0"], ["--idle-exit", "0"]],
    ["a negative idle exit", ["--idle-exit", "-1"], ["--idle-exit must be a whole number", '"-1"']],
    ["a negative retention", ["--retention-days", "-1"], ["--retention-days must be a whole number", '"-1"']],
    ["a value in letters behind a dash", ["--log-level", "-v"], ["--log-level must be", '"-v"']],
    [
      "an option in the place of a value",
      ["--idle-exit", "--read-only"],
      ['--idle-exit takes a value, not "--read-only"', "--idle-exit=--read-only"],
    ],
    ["two dashes in the place of a value", ["--socket", "--", "x"], ['--socket takes a value, not "--"']],
    ["an idle exit in words", ["--idle-exit", "10s"], ["--idle-exit", "10s"]],
    ["messages of a few bytes", ["--max-message-bytes", "10"], ["--max-message-bytes", "10", "1024"]],
    ["messages of a gigabyte", ["--max-message-bytes", "1073741824"], ["--max-message-bytes"]],
    ["a log level", ["--log-level", "loud"], ["--log-level", "loud", "info"]],
    ["an instance with a slash", ["--instance", "../x"], ["../x"]],
    ["an instance that is hidden", ["--instance", ".x"], [".x"]],
    ["an instance that is too long", ["--instance", "x".repeat(65)], ["x".repeat(65)]],
    ["a config file that is not there", ["--config", "/no/such.toml"], ["/no/such.toml"]],
  ])("%s", (_, args, named) => {
    const message = refusal(args);
    for (const text of named) expect(message).toContain(text);
  });

  test("a variable", () => {
    expect(refusal([], { PAWL_IDLE_EXIT: "soon" })).toMatch(/PAWL_IDLE_EXIT.*"soon"/);
    expect(refusal([], { PAWL_ACCEPT_MODE_CHANGE: "perhaps" })).toMatch(/PAWL_ACCEPT_MODE_CHANGE.*"perhaps"/);
  });

  test("a key of the file", () => {
    const path = join(directory, "pawld.toml");
    expect(refusal([], {}, "idle_exit = 5")).toMatch(new RegExp(`${path}.*"idle_exit"`));
    expect(refusal([], {}, "config = 'x'")).toContain('"config"');
    expect(refusal([], {}, "help = true")).toContain('"help"');
    expect(refusal([], {}, "__proto__ = 1")).toContain("__proto__");
    expect(refusal([], {}, "idle-exit = '5s'")).toMatch(/idle-exit in .*"5s"/);
    expect(refusal([], {}, "socket = 5")).toMatch(/socket in .*5/);
    expect(refusal([], {}, "socket = [")).toContain(path);
  });

  test("a socket path that the kernel would cut off", () => {
    const path = (bytes: number): string => `/${"ä".repeat((bytes - 2) / 2)}s`;
    expect(Buffer.byteLength(path(MAX_SOCKET_PATH_BYTES + 1))).toBe(MAX_SOCKET_PATH_BYTES + 1);
    const message = refusal(["--socket", path(MAX_SOCKET_PATH_BYTES + 1)]);
    expect(message).toContain(path(MAX_SOCKET_PATH_BYTES + 1));
    expect(message).toContain(String(MAX_SOCKET_PATH_BYTES));
    const fits = `/${"s".repeat(MAX_SOCKET_PATH_BYTES - 1)}`;
    expect(read(["--socket", fits]).socket).toBe(fits);
    expect(refusal([], { XDG_RUNTIME_DIR: `/${"r".repeat(100)}` })).toContain("pawl/default.sock");
  });

  test("the program says it on stderr and ends with 2", async () => {
    const run = promisify(execFile)(process.execPath, [PAWLD, "--idle-exit", "never"]);
    await expect(run).rejects.toMatchObject({
      code: EXIT_USAGE,
      stdout: "",
      stderr: expect.stringMatching(/^pawld: --idle-exit must be .*"never".*\n$/),
    });
  });
});

describe("help", () => {
  test("names every option with its value and its default", () => {
    const help = readConfig(["--help"], {});
    expect(help).toBe(helpText());
    for (const { flag } of Object.values(OPTIONS)) expect(help).toMatch(new RegExp(`^  --${flag}( |$)`, "m"));
    expect(help).toMatch(/--socket-mode MODE +Who may connect, in octal \[0600\]$/m);
    expect(help).toMatch(/--max-message-bytes N +Longest request line \[1048576\]$/m);
    expect(help).toMatch(/--config FILE/);
    expect(readConfig(["--version"], {})).toMatch(/^pawld \d+\.\d+\.\d+\n$/);
  });

  test("names those options that change in a running daemon", () => {
    const [, list = ""] = /these change at once:\n(.*)\.\n/.exec(helpText()) ?? [];
    expect(list.split(", ")).toEqual(
      Object.values(OPTIONS)
        .filter(({ reloadable }) => reloadable)
        .map(({ flag }) => flag),
    );
    expect(isReloadable("idleExit")).toBe(true);
    expect(isReloadable("mode")).toBe(false);
    expect(isReloadable("credentialsDirectory")).toBe(false);
  });

  test("wins over what is wrong elsewhere", () => {
    expect(readConfig(["--help", "--idle-exit", "x"], { PAWL_NODE_ID: "x" })).toBe(helpText());
  });
});

describe("paths, the same for daemon and client", () => {
  const around = (env: Record<string, string>, uid = 1000, ours: string[] = []): Surroundings => ({
    env,
    uid,
    isOurs: (directory) => ours.includes(directory),
    temporaryDirectory: "/tmp",
    homeDirectory: () => "/home/x",
  });

  test.each<[string, Record<string, string>, number, string]>([
    ["PAWL_SOCKET", { PAWL_SOCKET: "/a/b.sock", XDG_RUNTIME_DIR: "/run/user/1000" }, 1000, "/a/b.sock"],
    ["XDG_RUNTIME_DIR", { XDG_RUNTIME_DIR: "/run/user/1000" }, 1000, "/run/user/1000/pawl/work.sock"],
    ["XDG_RUNTIME_DIR for root too", { XDG_RUNTIME_DIR: "/run/user/0" }, 0, "/run/user/0/pawl/work.sock"],
    ["nothing, for root", {}, 0, "/run/pawl/work.sock"],
    ["nothing, for others", {}, 1000, "/tmp/pawl-1000/work.sock"],
    ["empty variables", { PAWL_SOCKET: "", XDG_RUNTIME_DIR: "" }, 1000, "/tmp/pawl-1000/work.sock"],
    [
      "a relative XDG_RUNTIME_DIR, which is to be ignored",
      { XDG_RUNTIME_DIR: "run" },
      1000,
      "/tmp/pawl-1000/work.sock",
    ],
  ])("the socket, from %s", (_, env, uid, path) => {
    expect(socketPath(around(env, uid), "work")).toBe(path);
  });

  test("a client tries all places of its user, in order", () => {
    const ours = ["/run/user/1000", "/run/user/0"];
    expect(socketPaths(around({}, 1000, ours), "w")).toEqual([
      "/run/user/1000/pawl/w.sock",
      "/tmp/pawl-1000/w.sock",
    ]);
    expect(socketPaths(around({ XDG_RUNTIME_DIR: "/run/user/1000" }, 1000, ours), "w")).toEqual([
      "/run/user/1000/pawl/w.sock",
      "/tmp/pawl-1000/w.sock",
    ]);
    expect(socketPaths(around({ XDG_RUNTIME_DIR: "/x" }, 0, ours), "w")).toEqual([
      "/x/pawl/w.sock",
      "/run/pawl/w.sock",
      "/run/user/0/pawl/w.sock",
      "/tmp/pawl-0/w.sock",
    ]);
    expect(socketPaths(around({ PAWL_SOCKET: "/a" }, 1000, ours), "w")).toEqual(["/a"]);
  });

  test.each<[string, Record<string, string>, number, string]>([
    ["STATE_DIRECTORY", { STATE_DIRECTORY: "/var/lib/x", XDG_STATE_HOME: "/s" }, 1000, "/var/lib/x"],
    ["the first STATE_DIRECTORY", { STATE_DIRECTORY: "/var/lib/x:/var/lib/y" }, 1000, "/var/lib/x"],
    ["XDG_STATE_HOME", { XDG_STATE_HOME: "/s" }, 1000, "/s/pawl/work"],
    ["XDG_STATE_HOME for root too", { XDG_STATE_HOME: "/s" }, 0, "/s/pawl/work"],
    ["nothing, for root", {}, 0, "/var/lib/pawl/work"],
    ["nothing, for others", {}, 1000, "/home/x/.local/state/pawl/work"],
    ["a relative XDG_STATE_HOME, which is to be ignored", { XDG_STATE_HOME: "s" }, 0, "/var/lib/pawl/work"],
  ])("the state, from %s", (_, env, uid, path) => {
    expect(stateDirectory(around(env, uid), "work")).toBe(path);
  });

  test("no home directory is needed for a socket, and refused by name for a state", () => {
    const homeless: Surroundings = {
      ...around({}),
      homeDirectory: () => {
        throw new Error("uv_os_homedir returned ENOENT");
      },
    };
    expect(socketPath(homeless, "work")).toBe("/tmp/pawl-1000/work.sock");
    expect(stateDirectory({ ...homeless, uid: 0 }, "work")).toBe("/var/lib/pawl/work");
    expect(() => stateDirectory(homeless, "work")).toThrow(/uid 1000 has no home directory.*--state-dir/);
  });

  test("relative paths become those of this directory", () => {
    expect(read(["--socket", "x.sock", "--state-dir", "state"])).toMatchObject({
      socket: join(process.cwd(), "x.sock"),
      stateDir: join(process.cwd(), "state"),
    });
  });

  test("names of instances", () => {
    for (const name of ["default", "a", "7", "A.b_c-d", "x".repeat(64)]) checkInstance(name);
    for (const name of ["", ".", "..", "-x", "a/b", "a b", "ä", "a\n", "x".repeat(65)]) {
      expect(() => checkInstance(name), name).toThrow(PawlError);
    }
  });
});

test("lease providers come from flags, from the environment with spaces between, and from a list in a file", () => {
  const texts = (config: Config | string): string[] =>
    (config as Config).leaseRules.map(({ pattern, provider }) => `${pattern}=${provider.text}`);
  const rules = ["a/*=etcd:endpoints=http://a:1,http://b:1", "*=dynamodb:table=t"];
  expect(
    texts(
      readConfig(
        rules.flatMap((rule) => ["--lease-provider", rule]),
        {},
      ),
    ),
  ).toEqual(rules);
  expect(texts(readConfig([], { PAWL_LEASE_PROVIDER: rules.join(" ") }))).toEqual(rules);
  const file = join(directory, "providers.toml");
  writeFileSync(file, `lease-provider = ${JSON.stringify(rules)}`);
  expect(texts(readConfig(["--config", file], {}))).toEqual(rules);
  expect(texts(readConfig([], {}))).toEqual([]);
});

test("the example of a config file has every option, and each value in it is taken", () => {
  const example = readFileSync(join(import.meta.dirname, "../../docs/pawld.example.toml"), "utf8");
  const settings = [...example.matchAll(/^#([a-z][a-z-]*) = .*$/gm)];
  expect(settings.map(([, flag]) => flag)).toEqual(Object.values(OPTIONS).map(({ flag }) => flag));
  const all = read([], {}, settings.map(([line]) => line.slice(1)).join("\n"));
  expect(all).toMatchObject({ stateDir: "/var/lib/pawl/default", allowUids: [1000], idleExit: 600 });
});
