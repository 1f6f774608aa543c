import { readFile } from "node:fs/promises";
import { MAX_NODE_ID } from "@pawl/protocol/limits";
import { UsageError } from "../../terminal/command.js";
import { shorten } from "../../terminal/values.js";
import { type Counter, type NodeId, nodeNamed, Problems } from "./counter.js";

export async function readToml(file: string): Promise<Counter[]> {
  const { parse } = await import("smol-toml");
  let content: Record<string, unknown>;
  try {
    // Numbers beyond 2^53 then arrive whole and are refused by their value, not rounded.
    content = parse(await readFile(file, "utf8"), { integersAsBigInt: true });
  } catch (error) {
    throw new UsageError(`${file} is not TOML: ${(error as Error).message.trim()}`);
  }
  if (!isTable(content.sequences)) {
    throw new UsageError(`${file} has no table [sequences] of types and last numbers.`);
  }
  const nodeId = nodeOfToml(file, content.mode);
  const problems = new Problems(file);
  const counters = Object.entries(content.sequences).flatMap(([type, last]) => {
    const place = `sequences.${type}`;
    return problems.counterOf(
      type,
      typeof last === "bigint" ? String(last) : undefined,
      nodeId,
      place,
      `${type} = ${shownToml(last)}`,
    );
  });
  problems.refuseIfAny();
  return counters;
}

/** `mode = "Centralized"`, or a table `Distributed` with `node_id`: the two spellings of a Rust enum. */
function nodeOfToml(file: string, mode: unknown): NodeId | undefined {
  if (mode === undefined) return undefined;
  if (mode === "Centralized") return 0;
  const nodeId = isTable(mode) && isTable(mode.Distributed) ? mode.Distributed.node_id : undefined;
  const named = typeof nodeId === "bigint" || typeof nodeId === "string" ? nodeNamed(String(nodeId)) : 0;
  // Node 0 is what counters without a node have; it is never spelled out.
  if (named !== 0 && !Number.isNaN(named)) return named;
  throw new UsageError(
    `The mode in ${file} is ${shownToml(mode)}; it is "Centralized", or a table Distributed with a node_id: a number from 1 to ${MAX_NODE_ID}, or a name of letters and digits.`,
  );
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A TOML value as a message shows it; JSON has no numbers as large as these may be. */
function shownToml(value: unknown): string {
  if (typeof value === "bigint") return shorten(String(value));
  return shorten(JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? String(each) : each)));
}
