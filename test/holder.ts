// Real processes that hold something at a daemon, and what becomes of them when they lose it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { PYTHON } from "./python.js";

const HOLDER = join(import.meta.dirname, "workers/holder.py");

export type Kind = "obeys" | "ignores" | "stopped" | "forks" | "unreaped" | "leaves";

export interface Holding {
  readonly pid: number;
  readonly child?: number;
  readonly grant: { readonly fencingToken: number };
}

/** Starts a holder and resolves once it holds the name. */
export async function hold(
  socket: string,
  name: string,
  kind: Kind,
  params: object,
): Promise<Holding & { process: ChildProcess }> {
  const process = spawn(PYTHON[0], [...PYTHON.slice(1), HOLDER, socket, name, kind, JSON.stringify(params)], {
    // The last one is for children that outlive it: Node closes its standard input when it has ended.
    stdio: ["pipe", "pipe", "inherit", "pipe"],
  });
  onTestFinished(() => void process.kill("SIGKILL"));
  const [line] = (await once(
    createInterface({ input: process.stdout as NodeJS.ReadableStream }),
    "line",
  )) as [string];
  return { ...(JSON.parse(line) as Holding), process };
}

/** True if a process has ended: there is none, or nobody has waited for it yet. */
export function hasEnded(pid: number | undefined): boolean {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return /[ZX]/.test(text[text.lastIndexOf(")") + 2] as string);
  } catch {
    return true;
  }
}
