import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** The daemon program and its first arguments: `$PAWLD`, `@pawl/daemon` if installed, or `pawld`. */
export function daemonCommand(): string[] {
  if (process.env.PAWLD) return [process.env.PAWLD];
  const directory = daemonPackage();
  return directory === undefined ? ["pawld"] : [process.execPath, join(directory, "bin/pawld.js")];
}

/** The directory of `@pawl/daemon` beside us, in a clone or in an application that has both packages. */
export function daemonPackage(): string | undefined {
  try {
    return dirname(createRequire(import.meta.url).resolve("@pawl/daemon/package.json"));
  } catch {
    return undefined;
  }
}

/** The clone of the repository that we are in; undefined where the packages were installed, which have no sources. */
export function cloneOfProject(): string | undefined {
  const directory = daemonPackage();
  return directory !== undefined && existsSync(join(directory, "tsconfig.json"))
    ? dirname(directory)
    : undefined;
}
