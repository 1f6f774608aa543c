// @ts-check
/** Another process that uploads large params and reads them back, so that its work is not in the driver's way. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const WORKER = fileURLToPath(new URL("transfer-worker.js", import.meta.url));

/**
 * @typedef {object} Transfer
 * @property {(direction: "up" | "down") => Promise<void>} prepare makes the requests; "up" comes before "down".
 * @property {() => Promise<void>} go sends them, and resolves when the last is answered.
 * @property {() => Promise<void>} checked resolves once the answers have been found right.
 * @property {() => void} end
 */

/**
 * @param {string} socket of a pawld.
 * @param {number} bytes of the params.
 * @returns {Promise<Transfer>} once it is connected.
 */
export async function startTransfer(socket, bytes) {
  const worker = fork(WORKER, [socket, String(bytes)], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  /** @type {Promise<never>} */
  const failed = new Promise((_, reject) => {
    worker.once("exit", (code, signal) => reject(new Error(`the transfer ended with ${signal ?? code}`)));
  });
  // It is expected in the end.
  failed.catch(() => {});
  /** @param {string} what is what it says next. */
  const says = async (what) => {
    const [said] = await Promise.race([once(worker, "message"), failed]);
    if (said !== what) throw new Error(`the transfer said ${said}, not ${what}`);
  };
  await says("connected");
  return {
    async prepare(direction) {
      worker.send(direction);
      await says("ready");
    },
    async go() {
      worker.send("go");
      await says("done");
    },
    async checked() {
      worker.send("check");
      await says("checked");
    },
    end: () => void worker.kill("SIGKILL"),
  };
}
