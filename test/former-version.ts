// pawld as it was at a commit, built from the history of the repository.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { type AtEnd, privateDirectory } from "./daemon.js";

const REPOSITORY = join(import.meta.dirname, "..");
const BUILT_FROM = ["protocol", "daemon", "tsconfig.base.json", "package.json"];

/** Why a commit cannot be built; undefined if it can. */
export function whyNoCommit(commit: string): string | undefined {
  try {
    execFileSync("git", ["cat-file", "-e", `${commit}^{commit}`], { cwd: REPOSITORY, stdio: "ignore" });
    return undefined;
  } catch {
    return `the history of the repository, with commit ${commit}, is not here`;
  }
}

/** Builds pawld of a commit, with the packages that are installed, and gives the path of its program. */
export function formerPawld(commit: string, atEnd?: AtEnd): string {
  const directory = atEnd === undefined ? privateDirectory() : privateDirectory(atEnd);
  const archive = execFileSync("git", ["archive", commit, ...BUILT_FROM], {
    cwd: REPOSITORY,
    maxBuffer: 256 * 1024 * 1024,
  });
  execFileSync("tar", ["-x", "-C", directory], { input: archive });
  const modules = join(directory, "node_modules");
  mkdirSync(join(modules, "@pawl"), { recursive: true });
  for (const name of readdirSync(join(REPOSITORY, "node_modules"))) {
    if (name !== "@pawl") symlinkSync(join(REPOSITORY, "node_modules", name), join(modules, name));
  }
  for (const name of ["protocol", "daemon"]) symlinkSync(join(directory, name), join(modules, "@pawl", name));
  const run = (...args: string[]): unknown =>
    execFileSync(process.execPath, args, { cwd: directory, stdio: ["ignore", "ignore", "pipe"] });
  // Its types were checked when it was made.
  const scriptsAlone = [
    "--noCheck",
    "--composite",
    "false",
    "--incremental",
    "false",
    "--declaration",
    "false",
  ];
  for (const project of ["protocol", "daemon"])
    run(join(REPOSITORY, "node_modules/typescript/bin/tsc"), "-p", project, ...scriptsAlone);
  run(join(REPOSITORY, "node_modules/rolldown/bin/cli.mjs"), "--config", "daemon/rolldown.config.js");
  return join(directory, "daemon/bin/pawld.js");
}
