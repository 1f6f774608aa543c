// Starts the bundle of pawld once, and keeps what the engine made of it by then: see bin/compiled.js.
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import compiled from "./bin/compiled.js";

const LOOK_EVERY_MS = 10;
const MOST_MS = 10_000;

const { codeCacheOf, digestOf, loadCompiled } = compiled;
const directory = mkdtempSync(join(tmpdir(), "pawl-build-"));
const socket = join(directory, "pawl.sock");
const { loaded, exports } = loadCompiled();
void exports.main(["--socket", socket, "--state-dir", join(directory, "state"), "--log-level", "error"]);
// What a first request needs is a part of each start, too.
const end = performance.now() + MOST_MS;
while (!(await isAnswered()) && performance.now() < end) await pause(LOOK_EVERY_MS);
for (const { file, source, script } of loaded.values()) {
  const cache = codeCacheOf(file);
  const code = script.createCachedData();
  writeFileSync(`${cache}.new`, Buffer.concat([digestOf(Buffer.from(source, "latin1"), code), code]));
  // A daemon makes its files for itself alone; this one is a part of the program.
  chmodSync(`${cache}.new`, 0o644);
  renameSync(`${cache}.new`, cache);
}
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
