// `pawl send`, `serve`, `answer` and `commands`, with receivers and daemons that are killed.
import { spawnSync } from "node:child_process";
import { connect } from "@pawl/client";
import { describe, expect, test } from "vitest";
import { sharedDaemon, startDaemon } from "../daemon.js";
import { until } from "../until.js";
import { type PawlProcess, pawl, startPawl } from "./cli-program.js";

const DONE = 0;
const REFUSED = 1;
const USAGE = 2;

const daemon = sharedDaemon();
const run = (args: string[], input?: string) =>
  pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });
const start = (args: string[]): PawlProcess => startPawl(args, { socket: daemon().place.socket });
const ID = /^cmd_[0-9a-f-]{36}$/;

/** A command that stays until it is told to end, and says so. */
const STAYING = ["sh", "-c", "echo begun >&2; sleep 600 & wait"];

async function stateOf(commandId: string): Promise<{ state: string; attempt: number }> {
  return JSON.parse((await run(["call", "command.get", JSON.stringify({ commandId })])).stdout);
}

describe("send and answer", () => {
  test("a command waits for its receiver; its id has the answer later", async () => {
    const sent = await run(["send", "later", "build", '{"ref":"main"}']);
    expect([sent.code, sent.stderr]).toEqual([DONE, ""]);
    const id = sent.stdout.trim();
    expect(id).toMatch(ID);
    expect(await run(["answer", id])).toEqual({
      code: REFUSED,
      stdout: "",
      stderr: `No answer yet: it waits for later. pawl answer ${id} has the answer later.\n`,
    });
    expect(await run(["answer", id, "--json"])).toEqual({
      code: REFUSED,
      stdout: `{"commandId":"${id}","state":"PENDING","response":null}\n`,
      stderr: "",
    });
    const receiver = start(["serve", "later", "--", "cat"]);
    const answered = await run(["answer", id, "--wait", "1m"]);
    expect(answered).toEqual({ code: DONE, stdout: '{\n  "ref": "main"\n}\n', stderr: "" });
    expect(await receiver.end("SIGTERM")).toEqual({ code: DONE, stdout: "", stderr: "" });
    expect((await run(["answer", id])).stdout).toBe(answered.stdout);
  });

  test("the answer is the output: JSON if it is JSON, else text, and nothing is null", async () => {
    const receiver = start(["serve", "outputs", "--", "sh", "-c", 'read -r name; eval "$PAWL_COMMAND"']);
    const answer = async (command: string) => {
      const { stdout, code } = await run(["send", "outputs", command, "null", "--wait", "1m", "--json"]);
      return [code, JSON.parse(stdout).response];
    };
    expect(await answer("true")).toEqual([DONE, { status: "success", response: null }]);
    expect(await answer("pwd")).toEqual([DONE, { status: "success", response: process.cwd() }]);
    expect((await run(["send", "outputs", "pwd", "--wait", "1m"])).stdout).toBe(`${process.cwd()}\n`);
    expect(await answer("false")).toEqual([
      REFUSED,
      { status: "error", code: "EXIT_1", message: "exit code 1", details: { exitCode: 1, stderr: "" } },
    ]);
    await receiver.end("SIGTERM");
  });

  test("an answer is printed with every digit it was given with", async () => {
    const client = await daemon().place.connect();
    const { commandId } = await client.call("command.create", { deployment: "digits", command: "c" });
    const { leases } = await client.call("command.lease", { deployment: "digits", owner: "o" });
    const text = '{"n":12345678901234567890,"one":1.0}';
    const params = `{"commandId":"${commandId}","leaseId":"${leases[0]?.leaseId}","response":{"status":"success","response":${text}}}`;
    await client.ask(`{"jsonrpc":"2.0","id":"r","method":"command.respond","params":${params}}`);
    expect((await run(["answer", commandId])).stdout).toBe(
      '{\n  "n": 12345678901234567890,\n  "one": 1.0\n}\n',
    );
    expect((await run(["answer", commandId, "--json"])).stdout).toBe(
      `{"commandId":"${commandId}","state":"SUCCEEDED","response":{"status":"success","response":${text}}}\n`,
    );
    await client.destroy();
  });

  test("nothing of params or an answer changes on its way, by push and by pull", async () => {
    const text = '{"n":3889108265204450030,"b":1.0,"10":-0,"2":[1.50e+02,{}],"big":1e400}';
    for (const how of [[], ["--pull"]]) {
      const receiver = start(["serve", "exact", ...how, "--", "cat"]);
      const { stdout } = await run(["send", "exact", "echo", text, "--wait", "1m", "--json"]);
      expect(stdout).toContain(`"response":{"status":"success","response":${text}}}`);
      await receiver.end("SIGTERM");
    }
  });

  test("an answer on several lines is one value, and a printed number of any size is one", async () => {
    const receiver = start(["serve", "lines", "--", "sh", "-c", 'read -r text; printf "$PAWL_COMMAND"']);
    const answer = async (command: string) =>
      (await run(["send", "lines", command, "--wait", "1m", "--json"])).stdout;
    expect(await answer("12345678901234567890")).toContain('"response":12345678901234567890}}');
    await receiver.end("SIGTERM");
    const pretty = start(["serve", "pretty", "--", "printf", '{\n  "a": 1.0\n}\n']);
    const { stdout } = await run(["send", "pretty", "c", "--wait", "1m"]);
    expect(stdout).toBe('{\n  "a": 1.0\n}\n');
    await pretty.end("SIGTERM");
  });

  test("an answer longer than a line succeeds, by push and by pull, as text or as JSON", async () => {
    const numbers = `[${"12345678901234567890,".repeat(100_000)}1.0]`;
    for (const how of [[], ["--pull"]]) {
      const program = 'read -r times; printf "%0${times}d" 0 | tr 0 x';
      const receiver = start(["serve", "long", ...how, "--", "sh", "-c", program]);
      const text = await run(["send", "long", "c", "2000000", "--wait", "1m"]);
      expect([text.code, text.stdout.length, text.stdout.slice(-2)]).toEqual([DONE, 2_000_001, "x\n"]);
      await receiver.end("SIGTERM");
      const echo = start(["serve", "long-json", ...how, "--", "cat"]);
      const { stdout } = await run(["send", "long-json", "c", "-", "--wait", "1m", "--json"], numbers);
      expect(stdout.includes(`"response":{"status":"success","response":${numbers}}}`)).toBe(true);
      await echo.end("SIGTERM");
    }
  });

  test("an answer that is not UTF-8 is an error that says so", async () => {
    const receiver = start(["serve", "bytes", "--", "printf", "a\\377\\376b"]);
    const { code, stderr } = await run(["send", "bytes", "c", "--wait", "1m"]);
    expect([code, stderr]).toEqual([
      REFUSED,
      "pawl: c of bytes: The program printed what is not UTF-8. [ANSWER_NOT_UTF8]\n",
    ]);
    await receiver.end("SIGTERM");
  });

  test("an answer that is an error exits with 1", async () => {
    const receiver = start([
      "serve",
      "failing",
      "--",
      "sh",
      "-c",
      "echo first >&2; echo no disk >&2; exit 3",
    ]);
    const { code, stdout, stderr } = await run(["send", "failing", "build", "--wait", "1m"]);
    expect([code, stdout]).toEqual([REFUSED, ""]);
    expect(stderr).toBe("pawl: build of failing: exit code 3: no disk [EXIT_3]\n");
    const json = await run(["send", "failing", "build", "--wait", "1m", "--json"]);
    expect([json.code, json.stderr]).toEqual([REFUSED, ""]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      state: "FAILED",
      response: { status: "error", code: "EXIT_3", details: { exitCode: 3, stderr: "first\nno disk\n" } },
    });
    const { stderr: passedOn } = await receiver.end("SIGTERM");
    expect(passedOn).toBe("first\nno disk\n".repeat(2));
  });

  test("no answer in time, and a deadline that passes", async () => {
    const slow = await run(["send", "nobody", "build", "--wait", "50ms"]);
    expect([slow.code, slow.stdout]).toEqual([REFUSED, ""]);
    expect(slow.stderr).toMatch(
      /^No answer yet: it waits for nobody\. pawl answer cmd_\S+ has the answer later\.\n$/,
    );
    const expired = await run(["send", "nobody", "build", "--ttl", "50ms", "--wait", "1m"]);
    expect([expired.code, expired.stdout]).toEqual([REFUSED, ""]);
    expect(expired.stderr).toMatch(/^pawl: build of nobody: .* \[EXPIRED\]\n$/);
  });

  test("a key makes it happen once", async () => {
    const first = await run(["send", "once", "digest", "1", "--key", "k"]);
    expect(await run(["send", "once", "digest", "1", "--key", "k"])).toEqual({
      code: DONE,
      stdout: first.stdout,
      stderr: "It was sent before under this key, so nothing was sent.\n",
    });
    const other = await run(["send", "once", "digest", "2", "--key", "k"]);
    expect([other.code, other.stderr]).toEqual([REFUSED, expect.stringContaining("[conflict]")]);
  });

  test("with a --retry option a command that is given back rests", async () => {
    await run(["send", "resting", "build", "--retry-base", "10m", "--max-attempts", "3"]);
    const client = await connect({ socket: daemon().place.socket });
    const [leased] = (await client.command.lease({ deployment: "resting", owner: "o" })).leases;
    await client.command.release({ leaseId: leased?.leaseId as string });
    expect(await client.command.lease({ deployment: "resting", owner: "o" })).toEqual({ leases: [] });
    await client.close();
    expect((await run(["send", "resting", "build", "--retry-factor", "x"])).code).toBe(USAGE);
  });

  test("params of any size, from standard input", async () => {
    const receiver = start(["serve", "large", "--pull", "--", "wc", "-c"]);
    const params = JSON.stringify("x".repeat(3_000_000));
    const { code, stdout } = await run(["send", "large", "count", "-", "--wait", "1m"], params);
    expect([code, stdout]).toEqual([DONE, `${params.length + 1}\n`]);
    await receiver.end("SIGTERM");
  });

  test("bad usage", async () => {
    const noJson = await run(["send", "d", "c", "{ref: main}"]);
    expect([noJson.code, noJson.stderr]).toEqual([
      USAGE,
      expect.stringContaining("PARAMS is not JSON: {ref: main}"),
    ]);
    const noCommand = await run(["send", "d"]);
    expect([noCommand.code, noCommand.stderr]).toEqual([
      USAGE,
      expect.stringContaining("COMMAND is missing."),
    ]);
    const badName = await run(["send", "a:b", "c"]);
    expect([badName.code, badName.stderr]).toEqual([
      USAGE,
      expect.stringContaining(`not "a:b". [invalid_params]`),
    ]);
    const unknown = await run(["answer", "cmd_1"]);
    expect([unknown.code, unknown.stderr]).toEqual([REFUSED, expect.stringContaining("[not_found]")]);
  });
});

describe.each([
  ["push", []],
  ["pull", ["--pull"]],
] as const)("serve by %s", (model, how) => {
  const serve = (deployment: string, args: string[], command: readonly string[]): PawlProcess =>
    start(["serve", `${model}-${deployment}`, ...how, ...args, "--", ...command]);
  const send = async (deployment: string, ...args: string[]): Promise<string> =>
    (await run(["send", `${model}-${deployment}`, "build", ...args])).stdout.trim();

  test("the program knows what it is run for, and reaches the same daemon", async () => {
    const script =
      'echo "[\\"$PAWL_DEPLOYMENT\\", \\"$PAWL_COMMAND\\", \\"$PAWL_COMMAND_ID\\", $PAWL_ATTEMPT, \\"$PAWL_DEADLINE\\", \\"$PAWL_SOCKET\\"]"';
    const receiver = serve("env", ["--json"], ["sh", "-c", script]);
    const id = await send("env", "null", "--ttl", "1h");
    const answer = JSON.parse((await run(["answer", id, "--wait", "1m"])).stdout);
    expect(answer).toEqual([
      `${model}-env`,
      "build",
      id,
      1,
      expect.stringMatching(/^\d{13}$/),
      daemon().place.socket,
    ]);
    const { stdout } = await receiver.end("SIGTERM");
    expect(JSON.parse(stdout)).toEqual({
      outcome: "done",
      commandId: id,
      command: "build",
      attempt: 1,
      tookMs: expect.any(Number),
    });
  });

  test("the params come byte for byte as they were sent, by a request or uploaded", async () => {
    const receiver = serve("exact", [], ["cksum"]);
    const client = await daemon().place.connect();
    const exact = '{"b":1.0, "a":[12345678901234567890,1e400,"\\u0041\\/"],"b":-0}';
    const large = `[${exact},\n"${"x".repeat(200_000)}"]`;
    const create = async (params: string): Promise<string> => {
      const line = `{"jsonrpc":"2.0","id":"c","method":"command.create","params":{"deployment":"${model}-exact","command":"sum",${params}}}`;
      return ((await client.ask(line)).result as { commandId: string }).commandId;
    };
    const small = await create(`"params": ${exact} `);
    const uploaded = await create(`"upload":{"sizeBytes":${large.length}}`);
    const chunk = Buffer.from(large).toString("base64");
    await client.call("command.upload", { commandId: uploaded, offset: 0, chunk, final: true });
    for (const [id, text] of [
      [small, exact],
      [uploaded, large],
    ] as const) {
      const sum = spawnSync("cksum", { input: `${text}\n`, encoding: "utf8" }).stdout.trim();
      expect((await run(["answer", id, "--wait", "1m"])).stdout).toBe(`${sum}\n`);
    }
    await client.destroy();
    await receiver.end("SIGTERM");
  });

  test("--jobs N carries out N at a time", async () => {
    const receiver = serve("jobs", ["--jobs", "3"], STAYING);
    const ids = await Promise.all([1, 2, 3].map((number) => send("jobs", String(number))));
    await receiver.complained(/(begun\n){3}/);
    for (const id of ids) expect((await stateOf(id)).state).toBe("DISPATCHED");
    await receiver.end("SIGTERM");
  });

  test("a cancelled command is ended, and the receiver goes on", async () => {
    const script =
      'trap "echo told >&2; exit 1" TERM; read -r params; [ "$params" = 2 ] && echo two && exit; echo begun >&2; while :; do sleep 0.05; done';
    const receiver = serve("cancelled", ["--lease", "1s", "--json"], ["sh", "-c", script]);
    const id = await send("cancelled", "1");
    await receiver.complained(/begun/);
    await run(["call", "command.cancel", JSON.stringify({ commandId: id, reason: "not needed" })]);
    await receiver.complained(/told/);
    expect((await run(["answer", id])).stderr).toContain("[CANCELLED]");
    expect((await run(["answer", await send("cancelled", "2"), "--wait", "1m"])).stdout).toBe("two\n");
    const { code, stdout } = await receiver.end("SIGTERM");
    expect(code).toBe(DONE);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).outcome),
    ).toEqual(["stopped", "done"]);
  });

  test("SIGTERM: what is finished in time is answered", async () => {
    const script = 'trap "echo finished; exit 0" TERM; echo begun >&2; while :; do sleep 0.05; done';
    const receiver = serve("graceful", [], ["sh", "-c", script]);
    const id = await send("graceful");
    await receiver.complained(/begun/);
    expect((await receiver.end("SIGTERM")).code).toBe(DONE);
    expect((await run(["answer", id])).stdout).toBe("finished\n");
  });

  test("SIGTERM: what is not is delivered anew", async () => {
    const receiver = serve(
      "ended",
      ["--grace", "200ms", "--json"],
      ["sh", "-c", "trap '' TERM; echo begun >&2; sleep 600"],
    );
    const id = await send("ended");
    await receiver.complained(/begun/);
    const { code, stdout } = await receiver.end("SIGTERM");
    expect([code, JSON.parse(stdout).outcome]).toEqual([DONE, "given back"]);
    const next = serve("ended", [], ["sh", "-c", 'echo "attempt $PAWL_ATTEMPT"']);
    expect((await run(["answer", id, "--wait", "1m"])).stdout).toBe("attempt 2\n");
    await next.end("SIGTERM");
  });

  test("killed, it takes the program with it, and the next receiver has the command at once", async () => {
    const first = serve("killed", ["--lease", "10m"], STAYING);
    const id = await send("killed");
    await first.complained(/begun/);
    expect((await first.end("SIGKILL")).code).toBe("SIGKILL");
    const next = serve("killed", [], ["sh", "-c", 'echo "attempt $PAWL_ATTEMPT"']);
    expect((await run(["answer", id, "--wait", "1m"])).stdout).toBe("attempt 2\n");
    await next.end("SIGTERM");
  });

  test("a program that is not there ends the receiver, and answers nothing", async () => {
    const id = await send("missing");
    const { code, stderr } = await serve("missing", [], ["no-such-program"]).ended;
    expect([code, stderr]).toEqual([127, 'pawl: There is no program "no-such-program" to run.\n']);
    const client = await daemon().place.connect();
    await until(async () => (await client.call("command.get", { commandId: id })).state === "PENDING");
  });

  test("goes on through kill -9 of the daemon: every command is answered once", async () => {
    const own = await startDaemon();
    const { place } = own;
    const receivers = [1, 2].map(() =>
      startPawl(
        ["serve", "d", ...how, "--jobs", "2", "--", "sh", "-c", "read -r params; sleep 0.02; echo $params"],
        {
          socket: place.socket,
        },
      ),
    );
    let running = own;
    let client = await place.connect();
    // One that is not there yet would be right to say that there is no daemon.
    await until(async () => (await client.call("daemon.stats", {})).connections.open >= 1 + receivers.length);
    const ids: string[] = [];
    for (let round = 0; round < 3; round++) {
      for (let number = 0; number < 10; number++) {
        const { commandId } = await client.call("command.create", {
          deployment: "d",
          command: "c",
          params: ids.length,
        });
        ids.push(commandId);
      }
      await client.call("command.wait", { commandId: ids.at(-5) as string, waitMs: 60_000 });
      await running.end("SIGKILL");
      running = await place.start();
      client = await place.connect();
    }
    for (const [index, commandId] of ids.entries()) {
      const { state } = await client.call("command.wait", { commandId, waitMs: 60_000 });
      expect(state).toBe("SUCCEEDED");
      const { response } = await client.call("command.response", { commandId });
      expect(response).toEqual({ status: "success", response: index });
    }
    for (const receiver of receivers) expect((await receiver.end("SIGTERM")).code).toBe(DONE);
  });
});

test("commands is a table, newest first, by deployment and state", async () => {
  const own = await startDaemon();
  const table = (...args: string[]) => pawl(["commands", ...args], { socket: own.place.socket });
  expect(await table()).toEqual({ code: DONE, stdout: "", stderr: "There are no such commands.\n" });
  const send = async (...args: string[]) =>
    (await pawl(["send", ...args], { socket: own.place.socket })).stdout.trim();
  const first = await send("builder", "build");
  const second = await send("mailer", "digest", "null", "--ttl", "1");
  const client = await own.place.connect();
  await client.call("command.wait", { commandId: second, waitMs: 60_000 });
  await client.call("command.lease", { deployment: "builder", owner: "a builder" });

  const lines = (await table()).stdout.split("\n");
  expect(lines[0]?.split(/ {2,}/)).toEqual([
    "COMMAND ID",
    "DEPLOYMENT",
    "COMMAND",
    "STATE",
    "TRY",
    "CREATED",
    "TOOK",
    "BY, OR WHY NOT",
  ]);
  const time = "(?:\\d\\d:\\d\\d:\\d\\d|\\d{4}-\\d\\d-\\d\\d)";
  expect(lines[1]).toMatch(
    new RegExp(`^${second}  mailer      digest   EXPIRED       1  ${time} +[\\d.]+ m?s  EXPIRED: .+$`),
  );
  expect(lines[2]).toMatch(
    new RegExp(`^${first}  builder     build    DISPATCHED    1  ${time} +a builder$`),
  );
  expect((await table("builder")).stdout.split("\n")).toHaveLength(3);
  expect((await table("--state", "EXPIRED", "--json")).stdout).toContain(second);
  expect((await table("--limit", "1")).stderr).toContain("There are more");
  const bad = await table("--state", "expired");
  expect([bad.code, bad.stderr]).toEqual([USAGE, expect.stringContaining(`EXPIRED, not "expired"`)]);
});

test.each([3, 500_000])(
  "an answer of %d bytes that is given while the client closes still goes out",
  async (bytes) => {
    // What `pawl serve` does at SIGTERM: the last program ends, the deployment is closed, then the client.
    const client = await connect({ socket: daemon().place.socket });
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const deployment = `closing-${bytes}`;
    const serving = client.commands.serve(deployment, {
      build: async () => {
        begin();
        await finished;
        return "x".repeat(bytes);
      },
    });
    const { commandId } = await client.commands.create(deployment, "build");
    await begun;
    const closed = serving.close();
    finish();
    await closed;
    client.close();

    const other = await daemon().place.connect();
    await other.call("command.wait", { commandId, waitMs: 60_000 });
    const { response } = await other.call("command.response", { commandId });
    expect(response).toEqual({ status: "success", response: "x".repeat(bytes) });
  },
);
