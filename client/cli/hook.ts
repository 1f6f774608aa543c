// `pawl hook` without options, which runs before each edit of an agent: without the command line's parser and the
// client, which take longer to load than the hook takes to answer.
import { text } from "node:stream/consumers";
import { packageOfHooks } from "../commands/agents/packages.js";
import { defaultSocketPaths } from "../connection/socket-path.js";
import { EXIT_REFUSED } from "./exit-codes.js";

/** Answers one hook on the streams of this process, and resolves with the exit code. */
export async function runHookAlone({ stdin, stdout, stderr, env }: NodeJS.Process): Promise<number> {
  try {
    const [{ runHook }, input] = await Promise.all([packageOfHooks(), text(stdin)]);
    const answer = await runHook({ socketPaths: defaultSocketPaths(undefined, env), env, input });
    stdout.write(answer.stdout);
    stderr.write(answer.stderr);
    return answer.code;
  } catch (error) {
    stderr.write(`pawl hook: ${error instanceof Error ? error.message : String(error)}\n`);
    return EXIT_REFUSED;
  }
}
