import { basename } from "node:path";
import { MAX_NAME_LENGTH } from "@pawl/protocol/limits";

/** The name under which this process asks, for people: the program and its pid. */
export function defaultOwner(): string {
  const program = basename(process.argv[1] ?? "node").replace(/[\0\p{Surrogate}]/gu, "?");
  return `${program.slice(0, MAX_NAME_LENGTH / 2)}:${process.pid}`;
}
