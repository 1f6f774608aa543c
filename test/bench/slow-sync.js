// @ts-check
/** Makes the disk of everything that is started from now on a slower one. */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("slow-sync.c", import.meta.url));

/**
 * Lets each fsync and fdatasync of the programs started from now on take so much longer. Throws when there is no C
 * compiler.
 *
 * @param {number} delayMs
 * @param {string} directory that all users may enter; the library is put there.
 */
export function slowSync(delayMs, directory) {
  const library = path.join(directory, "slow-sync.so");
  execFileSync("cc", ["-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], { stdio: "inherit" });
  process.env.LD_PRELOAD = library;
  process.env.SYNC_DELAY_US = String(Math.round(delayMs * 1000));
}
