// Starts the bundle of pawld once, and keeps what the engine made of it by then: see bin/compiled.js.
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { CODE_CACHE, digestOf, loadCompiled } from "./bin/compiled.js";

const LOOK_EVERY_MS = 10;
const MOST_MS = 10_000;

const directory = mkdtempSync(join(tmpdir(), "pawl-build-"));
const socket = join(directory, "pawl.sock");
const { script, source, exports } = loadCompiled();
void exports.main(["--socket", socket, "--state-dir", join(directory, "state"), "--log-level", "error"]);
// What a first request needs is a part of each start, too.
const end = performance.now() + MOST_MS;
while (!(await isAnswered()) && performance.now() < end) await pause(LOOK_EVERY_MS);
const code = script.createCachedData();
writeFileSync(`${CODE_CACHE}.new`, Buffer.concat([digestOf(source, code), code]));
// A daemon makes its files for itself alone; this one is a part of the program.
chmodSync(`${CODE_CACHE}.new`, 0o644);
renameSync(`${CODE_CACHE}.new`, CODE_CACHE);
rmSync(directory, { recursive: true, force: true });
process.exit();

/** @returns {Promise<boolean>} whether a daemon answers on the socket. */
function isAnswered() {
  return new Promise((resolve) => {
    const client = connect(socket, () => {
      client.write('{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"A"}}\n');
    });
    client.once("error", () => resolve(false));
    client.once("data", () => {
      client.destroy();
      resolve(true);
    });
  });
}
