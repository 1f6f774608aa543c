// JSON-RPC libraries of others, as they come: they call, are notified, and are asked.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { Client, RequestManager, StreamTransport } from "@open-rpc/client-js";
import jayson from "jayson";
import { JSONRPCClient, JSONRPCServer, JSONRPCServerAndClient } from "json-rpc-2.0";
import { expect, onTestFinished, test } from "vitest";
import {
  CancellationTokenSource,
  createMessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
} from "vscode-jsonrpc/node";
import { privateDirectory, sharedDaemon } from "../daemon.js";
import { until } from "../until.js";

const daemon = sharedDaemon();
const WORKERS = join(import.meta.dirname, "../workers");
/** The Python of Debian, for which Debian has the library. */
const PYTHON = "/usr/bin/python3";
const hasPylsp = spawnSync(PYTHON, ["-c", "import pylsp_jsonrpc"]).status === 0;
if (!hasPylsp) console.warn("python3-pylsp-jsonrpc is missing: it is not tested.");

/** Where Debian has the sources of Go's libraries. */
const GOPATH = "/usr/share/gocode";
const hasSourcegraph =
  existsSync(join(GOPATH, "src/github.com/sourcegraph/jsonrpc2")) &&
  spawnSync("go", ["version"]).status === 0;
if (!hasSourcegraph)
  console.warn(
    "golang-github-sourcegraph-jsonrpc2-dev or golang-go is missing: sourcegraph/jsonrpc2 is not tested.",
  );
const hasCpp = existsSync("/usr/include/jsonrpccpp/client.h") && spawnSync("g++", ["--version"]).status === 0;
if (!hasCpp) console.warn("libjsonrpccpp-dev or g++ is missing: libjson-rpc-cpp is not tested.");

/** A library, as far as the test needs it. */
interface Library {
  call(method: string, params?: object): PromiseLike<unknown>;
  /** Adds what comes by itself to `came`, and answers `command.execute` by the params of the command. */
  readonly came: unknown[];
}

/** Has a library do each thing that pawl's protocol asks of one. */
async function tryAll({ call, came }: Library, name: string): Promise<void> {
  expect(await call("daemon.ping")).toEqual({ now: expect.any(Number) });
  await call("lease.acquire", { name, owner: name });
  await call("lease.break", { name, reason: "test" });
  await call("command.serve", { deployment: name, owner: name });
  const created = await call("command.create", { deployment: name, command: "go", params: ["é"] });
  const { commandId } = created as { commandId: string };
  expect(await call("command.wait", { commandId, waitMs: 60_000 })).toMatchObject({ state: "SUCCEEDED" });
  expect(await call("command.response", { commandId })).toMatchObject({
    response: { status: "success", response: ["é"] },
  });
  expect(came).toEqual([
    ["lease.lost", name],
    ["command.execute", "go"],
  ]);
}

interface Execute {
  command: string;
  params: unknown;
}

test("vscode-jsonrpc", async () => {
  const socket = connect(daemon().place.socket);
  const connection = createMessageConnection(
    new SocketMessageReader(socket),
    new SocketMessageWriter(socket),
  );
  onTestFinished(() => {
    connection.dispose();
    socket.destroy();
  });
  const came: unknown[] = [];
  connection.onNotification(
    "lease.lost",
    ({ name }: { name: string }) => void came.push(["lease.lost", name]),
  );
  connection.onRequest("command.execute", ({ command, params }: Execute) => {
    came.push(["command.execute", command]);
    return params;
  });
  connection.listen();
  const call = (method: string, params?: object): Promise<unknown> =>
    params === undefined ? connection.sendRequest(method) : connection.sendRequest(method, params);
  await tryAll({ call, came }, "vscode-jsonrpc");

  // Its cancel is `$/cancelRequest`.
  const source = new CancellationTokenSource();
  const wait = connection.sendRequest(
    "queue.claim",
    { queue: "q", owner: "o", waitMs: 60_000 },
    source.token,
  );
  wait.catch(() => {});
  await until(
    async () => ((await call("queue.explain", { queue: "q" })) as { waiting: number }).waiting === 1,
  );
  source.cancel();
  await expect(wait).rejects.toMatchObject({ data: { kind: "cancelled" } });
});

test("json-rpc-2.0", async () => {
  const socket = connect(daemon().place.socket);
  onTestFinished(() => void socket.destroy());
  const both = new JSONRPCServerAndClient(
    new JSONRPCServer(),
    new JSONRPCClient((message) => void socket.write(`${JSON.stringify(message)}\n`)),
  );
  const came: unknown[] = [];
  both.addMethod("lease.lost", ({ name }: { name: string }) => void came.push(["lease.lost", name]));
  both.addMethod("command.execute", ({ command, params }: Execute) => {
    came.push(["command.execute", command]);
    return params;
  });
  let partial = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (partial + chunk).split("\n");
    partial = lines.pop() as string;
    for (const line of lines) void both.receiveAndSend(JSON.parse(line));
  });
  await tryAll({ call: (method, params) => both.request(method, params), came }, "json-rpc-2.0");
});

test("@open-rpc/client-js", async () => {
  const socket = connect(daemon().place.socket);
  const transport = new StreamTransport({ provider: () => Duplex.toWeb(socket) });
  onTestFinished(() => transport.close());
  const client = new Client(new RequestManager([transport]));
  const told = new Promise((resolve) => client.onNotification(resolve));
  const call = (method: string, params: object): Promise<unknown> => client.request({ method, params });
  expect(await call("daemon.ping", {})).toEqual({ now: expect.any(Number) });
  await call("lease.acquire", { name: "client-js", owner: "o" });
  await call("lease.break", { name: "client-js", reason: "test" });
  expect(await told).toMatchObject({ method: "lease.lost", params: { name: "client-js" } });
  await expect(call("lease.get", {})).rejects.toMatchObject({ data: { kind: "invalid_params" } });
});

test("jayson", async () => {
  // What it hands on to Node's `connect` is more than its types say.
  const client = jayson.client.tcp({ path: daemon().place.socket } as never);
  const call = (method: string, params: object): Promise<unknown> =>
    new Promise((resolve, reject) => {
      client.request(method, params, (error: unknown, response: unknown) =>
        error ? reject(error) : resolve(response),
      );
    });
  expect(await call("sequence.next", { type: "JAYSON" })).toMatchObject({ result: { id: "JAYSON-001" } });
  expect(await call("lease.get", {})).toMatchObject({ error: { data: { kind: "invalid_params" } } });
});

test.skipIf(!hasPylsp)("python3-pylsp-jsonrpc", () => {
  const { stdout, stderr } = spawnSync(PYTHON, [join(WORKERS, "pylsp.py"), daemon().place.socket], {
    encoding: "utf8",
  });
  expect(JSON.parse(stdout || JSON.stringify(stderr))).toEqual([
    ["lease.lost", "pylsp"],
    ["command.execute", "go"],
    "SUCCEEDED",
  ]);
});

test.skipIf(!hasSourcegraph)("github.com/sourcegraph/jsonrpc2", () => {
  const { stdout, stderr } = spawnSync(
    "go",
    ["run", join(WORKERS, "sourcegraph.go"), daemon().place.socket],
    {
      encoding: "utf8",
      env: { ...process.env, GO111MODULE: "off", GOPATH, CGO_ENABLED: "0", GOTOOLCHAIN: "local" },
    },
  );
  expect(JSON.parse(stdout || JSON.stringify(stderr))).toEqual([
    ["lease.lost", "sourcegraph"],
    ["command.execute", "go"],
    "SUCCEEDED",
  ]);
});

// It knows no notifications, and no requests of a server: it is only heard.
test.skipIf(!hasCpp)("libjson-rpc-cpp", () => {
  const program = join(privateDirectory(), "client");
  const source = ["-I/usr/include/jsoncpp", join(WORKERS, "libjsonrpccpp.cc"), "-o", program];
  const libraries = ["-ljsonrpccpp-client", "-ljsonrpccpp-common", "-ljsoncpp"];
  // Its headers are of a C++ before 17.
  const built = spawnSync("g++", ["-std=c++14", ...source, ...libraries], { encoding: "utf8" });
  expect([built.status, built.stderr]).toEqual([0, ""]);
  const { stdout } = spawnSync(program, [daemon().place.socket], { encoding: "utf8" });
  expect(stdout).toBe("CPP-001\ninvalid_params\n");
});

test("the documentation has a row for each of them", () => {
  const table = readFileSync(join(import.meta.dirname, "../../docs/libraries.md"), "utf8");
  const rows = [...table.matchAll(/^\| `([^`]+)` \|/gm)].map(([, library]) => library);
  const tests = readFileSync(import.meta.filename, "utf8").matchAll(
    /^test(?:\.skipIf\(\w*!?\w+\))?\("([\w@./-]+)"/gm,
  );
  const tested = [...tests].map(([, library]) => library);
  expect(rows.toSorted()).toEqual(tested.toSorted());
  expect(rows).toHaveLength(7);
});
