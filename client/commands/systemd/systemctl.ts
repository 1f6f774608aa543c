import { spawnSync } from "node:child_process";
import { PawlError } from "@pawl/protocol/errors";
import type { UnitLayout } from "./layout.js";

export function scopeOf({ image, user }: UnitLayout): string[] {
  return image === undefined ? (user ? ["--user"] : []) : [`--root=${image}`];
}

export function isActive(layout: UnitLayout, unit: string): boolean {
  return show(layout, unit, ["ActiveState"]).ActiveState === "active";
}

/** Properties of a unit as systemd has them; of one that is not there too. */
export function show<P extends string>(
  layout: UnitLayout,
  unit: string,
  properties: readonly P[],
): Record<P, string> {
  const args = [...scopeOf(layout), "show", unit, `--property=${properties.join(",")}`];
  const found = run("systemctl", args)
    .split("\n")
    .flatMap((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    });
  return Object.fromEntries([...properties.map((name) => [name, ""]), ...found]) as Record<P, string>;
}

/** Runs a program of systemd and returns what it printed. Rejects with `unavailable` and its own words. */
export function run(program: string, args: readonly string[], expected = [0]): string {
  const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
  if (error !== undefined) {
    throw new PawlError(
      "unavailable",
      `${program} cannot be run: ${error.message}. Is there a systemd here?`,
    );
  }
  if (status === null || !expected.includes(status)) {
    const said = stderr.trim().replaceAll(/\s*\n\s*/g, " ");
    throw new PawlError("unavailable", `${program} ${args.join(" ")} failed (${status}): ${said}`);
  }
  return stdout;
}
