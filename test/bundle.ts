import { execFileSync } from "node:child_process";

/** The tests start the bundle, which after a `tsc -b` alone would still be that of the code before. */
export default function bundle(): void {
  execFileSync("npm", ["run", "--silent", "bundle"], { stdio: "inherit" });
}
