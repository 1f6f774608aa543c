// What this node says of stages (`rules.ts`).
import type { Parsed, Result } from "@pawl/protocol";
import { type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { configurationOf, loadRules, NO_RULES, type Rules, type RulesRow, rulesOf } from "./rules.js";
import { layStages, RULES_KEY, tellTurned } from "./work-state.js";

/** Items that one step looks at anew. */
const ITEMS_PER_STEP = 150;

const selectRules = sql<RulesRow>("SELECT stages, transitions, max_retries, laying FROM pawl_board_rules");

const upsertRules = sql(`
  INSERT INTO pawl_board_rules (id, stages, transitions, max_retries) VALUES (1, :stages, :transitions, :maxRetries)
  ON CONFLICT (id) DO UPDATE SET stages = excluded.stages, transitions = excluded.transitions,
    max_retries = excluded.max_retries`);

export function* configuration(): Operation<Result<"pipeline.configuration">> {
  return configurationOf(yield* loadRules());
}

export function* configure(
  params: Parsed<"pipeline.configure">,
  env: Env,
): Operation<Outcome<Result<"pipeline.configure">>> {
  const before = (yield* one(selectRules)) ?? NO_RULES;
  const after: RulesRow = {
    stages: changed(params.stages, before.stages, JSON.stringify),
    transitions: changed(params.transitions, before.transitions, JSON.stringify),
    max_retries: changed(params.maxRetries, before.max_retries, (most) => most),
    laying: before.laying,
  };
  const { stages, transitions, max_retries: maxRetries } = after;
  yield* run(upsertRules, { stages, transitions, maxRetries });
  const others = differing(rulesOf(before), rulesOf(after));
  if (others.length > 0) yield* layStages(others, env);
  env.effects.wake(RULES_KEY);
  return yield* untilAllAreLaid(env);
}

function changed<T, V>(given: T | null | undefined, before: V | null, keep: (value: T) => V): V | null {
  if (given === undefined) return before;
  return given === null ? null : keep(given);
}

/** The stages of which work is, or is no longer, taken, and those that end it or do so no more. */
function differing(a: Rules, b: Rules): string[] {
  const stages = new Set([...a.ready, ...b.ready, ...a.done, ...b.done]);
  return [...stages].filter(
    (stage) => a.ready.has(stage) !== b.ready.has(stage) || a.done.has(stage) !== b.done.has(stage),
  );
}

/** One step of looking at the items of other stages anew, and those that follow it. */
function* untilAllAreLaid(env: Env): Operation<Outcome<Result<"pipeline.configure">>> {
  const told = yield* tellTurned(env, ITEMS_PER_STEP);
  if (told > 0 && env.mayGoOn) return new Unfinished(untilAllAreLaid);
  return yield* configuration();
}
