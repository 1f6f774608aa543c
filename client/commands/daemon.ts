import { resolve } from "node:path";
import type { Result } from "@pawl/protocol";
import { checkSocketPath } from "@pawl/protocol/paths";
import { membersOf } from "../connection/json-text.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { bytes, count, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { checkedJson, indented, readAll, shorten } from "../terminal/values.js";

const call = command({
  args: "<method> [params]",
  endsBySignal: true,
  summary: "Call any method",
  options: {},
  details: "PARAMS is a JSON object, or - to read it from standard input.",
  examples: [
    ["pawl call daemon.ping", "A method without params"],
    [`pawl call sequence.advance '{"type": "FR", "to": 120}'`, "With params"],
    ["pawl call rpc.discover | jq -r '.methods[].name'", "The names of all methods"],
    ["pawl call transact - < calls.json", "Params from a file"],
  ],
  async run({ method, params = "{}" }, { connect, output, stdin }) {
    const text = checkedJson("PARAMS", params === "-" ? await readAll(stdin) : params);
    if (!text.trim().startsWith("{")) {
      throw new UsageError(`PARAMS is a JSON object, such as '{"type": "FR"}', not ${shorten(text)}.`);
    }
    const { result, text: json } = await (await connect()).callForText(method, membersOf(text));
    output.result(result, () => indented(json), json);
    return undefined;
  },
});

const socketPath = command({
  args: "",
  summary: "Print where the daemon listens",
  options: {},
  details:
    "It need not be running. Of the places where a daemon of this user may listen, the first at which one answers is printed, or else the first.",
  examples: [
    ["pawl socket-path", "/run/user/1000/pawl/default.sock"],
    ["socat - UNIX-CONNECT:$(pawl socket-path)", "Speak JSON-RPC to it by hand"],
  ],
  async run(_args, { connect, output, socketPaths }) {
    const [first] = socketPaths();
    checkSocketPath(first, Buffer.byteLength(first));
    const path = await connect().then(
      (client) => client.socketPath,
      () => first,
    );
    output.result({ socket: path }, () => path);
    return undefined;
  },
});

const backup = command({
  args: "<file>",
  patient: () => true,
  summary: "Copy the database while it is in use",
  options: {},
  details:
    "FILE must not exist yet. It can be opened by pawld, in a state directory of its own. The key that signs changes of the board, identity.key in the state directory, is not in it: keep a copy of that too.",
  examples: [
    ["pawl backup /backup/pawl-$(date +%F).db", "A copy of one moment; calls go on meanwhile"],
    ["pawl backup copy.db && sqlite3 copy.db 'PRAGMA integrity_check'", "And a look at it"],
  ],
  async run({ file }, { connect, output }) {
    const client = await connect();
    const stop = client.on("daemon.backupProgress", (progress) => showProgress(progress, output));
    try {
      const path = resolve(file);
      const done = await client.call("daemon.backup", { path });
      output.progress(undefined);
      output.result(done, () => `${path}: ${bytes(done.bytes)}, ${plural(done.pages, "page")}`);
    } finally {
      stop();
      output.progress(undefined);
    }
    return undefined;
  },
});

function showProgress(progress: Record<string, unknown>, output: Output): void {
  const { pages, totalPages } = progress as { pages: number; totalPages: number };
  const percent = totalPages === 0 ? 100 : Math.floor((pages / totalPages) * 100);
  output.progress(`${count(pages)} of ${count(totalPages)} pages, ${percent} %`);
}

/** For a script, a database that is not sound is no failure of the program, but not the same as a sound one. */
const EXIT_PROBLEMS = 1;

const check = command({
  args: "",
  patient: () => true,
  summary: "Look whether the database is sound, while it is in use",
  options: {},
  details:
    "Reads every row and every index, compares counts with the rows that they count, and replays the log of the board with its hashes and signatures. Nothing is changed, and others are served meanwhile. Exits with 1 if there are problems. Free pages are not looked at; sqlite3 does that too (PRAGMA integrity_check) in a copy made by `pawl backup`.",
  examples: [
    ["pawl check", "A line for each problem, and how much was looked at"],
    ["pawl check --json | jq -r '.problems[].where'", "The places of the problems"],
    ["pawl check || mail -s 'pawl is damaged' root", "In a timer"],
  ],
  async run(_args, { connect, output }) {
    const client = await connect();
    const problems: Result<"daemon.check">["problems"] = [];
    let checked = 0;
    let after: string | undefined;
    try {
      do {
        const part: Result<"daemon.check"> = await client.daemon.check(after === undefined ? {} : { after });
        problems.push(...part.problems);
        checked += part.checked;
        after = part.next;
        output.progress(`Checked ${plural(checked, "row")}: ${plural(problems.length, "problem")}`);
      } while (after !== undefined);
    } finally {
      output.progress(undefined);
    }
    output.result({ problems, checked }, () => [
      ...problems.map(({ where, message }) => printable(`${where} ${message}`)),
      `Checked ${plural(checked, "row")}: ${problems.length === 0 ? "no problems." : `${plural(problems.length, "problem")}.`}`,
    ]);
    return problems.length === 0 ? undefined : EXIT_PROBLEMS;
  },
});

export const commands = { call, backup, check, "socket-path": socketPath };
