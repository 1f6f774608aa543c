// `pawl hook` without options, which runs before each edit of an agent: without the command line's parser and the
// client, and as one file (mcp/rolldown.config.js), because to load them takes longer than the hook takes to answer.
import { readFileSync } from "node:fs";
import { runHook } from "@pawl/mcp/hook";
import { defaultSocketPaths } from "../connection/socket-path.js";
import { EXIT_REFUSED } from "./exit-codes.js";

const STDIN = 0;

/** Answers one hook on the streams of this process, whose exit code it sets. */
export async function runHookAlone(process: NodeJS.Process): Promise<void> {
  try {
    const input = await all(process);
    const { env } = process;
    const answer = await runHook({ socketPaths: defaultSocketPaths(undefined, env), env, input });
    // To make a stream takes 1.5 ms, and most hooks say nothing.
    if (answer.stdout !== "") process.stdout.write(answer.stdout);
    if (answer.stderr !== "") process.stderr.write(answer.stderr);
    process.exitCode = answer.code;
  } catch (error) {
    process.stderr.write(`pawl hook: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = EXIT_REFUSED;
  }
}

/** All of standard input; the stream, which takes milliseconds to load, is used where the descriptor does not block. */
async function all(process: NodeJS.Process): Promise<string> {
  try {
    return readFileSync(STDIN, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}
