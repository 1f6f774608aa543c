import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import type { Output } from "../terminal/output.js";

type SharedNoun = Result<"daemon.info">["shared"][number]["noun"];

/**
 * What is to be said of a list that has nothing. A list without a name is of this node alone, so where daemons share
 * names of this noun there may be more.
 */
export async function saidOfNone(
  none: string,
  noun: SharedNoun,
  { client, output }: { client: PawlClient; output: Output },
): Promise<string> {
  if (output.json) return none;
  const { shared } = await client.daemon.info({});
  const patterns = shared.flatMap((each) => (each.noun === null || each.noun === noun ? [each.pattern] : []));
  if (patterns.length === 0) return none;
  return `${none} That is so on this node: what is kept in PostgreSQL (${patterns.join(", ")}) is found by its name.`;
}
