import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const REPOSITORY = join(import.meta.dirname, "..");
/** The packages that tsc alone builds, but for a bundle, which is made anew each time. */
const BUILT = ["protocol", "daemon", "client"];

/** The tests start the bundle, which after a `tsc -b` alone would still be that of the code before. */
export default function bundle(): void {
  for (const name of BUILT) removeStale(join(REPOSITORY, name));
  // A command that has built all, or runs many of vitest, has done it.
  if (process.env.PAWL_BUNDLED === undefined)
    execFileSync("npm", ["run", "--silent", "bundle"], { stdio: "inherit" });
}

/**
 * Removes what a build has left of sources that are gone. A test that names such a file would pass here, and fail
 * wherever the repository was just cloned.
 */
function removeStale(directory: string): void {
  const dist = join(directory, "dist");
  for (const file of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
    if (file.startsWith("bundle/") || !/\.(js|d\.ts)(\.map)?$/.test(file)) continue;
    const source = file.replace(/\.(js|d\.ts)(\.map)?$/, ".ts");
    if (!existsSync(join(directory, source))) rmSync(join(dist, file));
  }
}
