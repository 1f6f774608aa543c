// A file system of a few bytes, for what happens when it is full.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Mounts a file system of so many bytes, or says why it cannot. */
export function mountDisk(directory: string, bytes: number): string | undefined {
  mkdirSync(directory, { recursive: true });
  const { status, stderr, error } = spawnSync(
    "mount",
    ["-t", "tmpfs", "-o", `size=${bytes},mode=0700`, "tmpfs", directory],
    { encoding: "utf8" },
  );
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** Why nothing can be mounted here, if that is so. */
export const noMount = (() => {
  const directory = mkdtempSync(join(tmpdir(), "pawl-mount-"));
  const reason = mountDisk(join(directory, "disk"), 64 * 1024);
  if (reason === undefined) spawnSync("umount", [join(directory, "disk")]);
  rmSync(directory, { recursive: true });
  return reason;
})();
if (noMount !== undefined) {
  console.warn(`The tests of a full disk are skipped: mounting is not permitted (${noMount}).`);
}
