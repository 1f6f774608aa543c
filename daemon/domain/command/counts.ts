// How many commands are in which state.
import { COMMAND_STATES, type CommandState } from "@pawl/protocol";
import { all, type Operation, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";

const countStates = sql<{ state: CommandState; commands: number }>(
  "SELECT state, count(*) AS commands FROM pawl_command GROUP BY state",
);

/** How many commands there are in each state. */
export function* countCommands(): Operation<Record<CommandState, number>> {
  const none = COMMAND_STATES.map((state) => [state, 0]);
  const found = (yield* all(countStates)).map(({ state, commands }) => [state, commands]);
  return Object.fromEntries([...none, ...found]);
}

/** Counts what is there when the daemon starts; from then on every move of a command counts. */
export function* countAtStart(env: Env): Operation<void> {
  for (const { state, commands } of yield* all(countStates)) env.effects.count(`commands${state}`, commands);
}
