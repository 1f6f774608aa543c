// What is to be said beside what this node has, where daemons share names in PostgreSQL.
import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import type { Output } from "../terminal/output.js";

type Shared = Result<"daemon.info">["shared"];
type SharedNoun = NonNullable<Shared[number]["noun"]>;

/** A pattern that all names fit: then a list without a name is of what is kept there. */
const ALL = /^\*+$/;

/** The patterns of the names of these nouns that are kept in PostgreSQL, as within a sentence; empty for none. */
export function patternsOf(shared: Shared, nouns: readonly SharedNoun[]): string {
  const patterns = shared.filter(({ noun }) => noun === null || nouns.includes(noun));
  return [...new Set(patterns.map(({ pattern }) => pattern))].join(", ");
}

/** The sentence that a list without a name is of this node alone; empty where all of the noun is in it. */
export function saidOfList(shared: Shared, noun: SharedNoun): string {
  const first = shared.find((each) => each.noun === null || each.noun === noun);
  if (first === undefined || ALL.test(first.pattern)) return "";
  return `That is so on this node: what is kept in PostgreSQL (${patternsOf(shared, [noun])}) is found by its name.`;
}

/** What is to be said of a list without a name that has nothing. */
export async function saidOfNone(
  none: string,
  noun: SharedNoun,
  { client, output }: { client: PawlClient; output: Output },
): Promise<string> {
  if (output.json) return none;
  const { shared } = await client.daemon.info({});
  return `${none} ${saidOfList(shared, noun)}`.trimEnd();
}
