// What this node says of stages: which of them work is taken from and which end it, and which follows which. Nodes need
// not agree on it: what others write is always taken.
import type { Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { DEFAULT_BOARD_RETRIES } from "@pawl/protocol/limits";
import { type Operation, one, sql } from "../../store/statement.js";

const DEFAULT_STAGES: Rules["stages"] = [
  { stage: "1_backlog", ready: true },
  { stage: "5_done", done: true },
];

const selectRules = sql<RulesRow>("SELECT stages, transitions, max_retries, laying FROM pawl_board_rules");

/** The row of what was configured; null for what was not. */
export interface RulesRow {
  stages: string | null;
  transitions: string | null;
  max_retries: number | null;
  laying: string | null;
}

type Configuration = Result<"pipeline.configuration">;

/** What holds on this node: as configured, or as it is by default. */
export interface Rules {
  readonly stages: Configuration["stages"];
  /** The stages that work is taken from. */
  readonly ready: ReadonlySet<string>;
  /** The stages in which an item is done, for those that depend on it. */
  readonly done: ReadonlySet<string>;
  readonly transitions: Configuration["transitions"];
  /** At how many retries an item is blocked; 0 for never. */
  readonly maxRetries: number;
  /** True while items are looked at anew after a change of the stages (`work-state.ts`). */
  readonly isLaying: boolean;
}

/** What was read last, so that it is not parsed for each write. */
let last: { readonly row: RulesRow; readonly rules: Rules } | undefined;

export function rulesOf(row: RulesRow): Rules {
  const { stages, transitions, max_retries: maxRetries, laying } = row;
  if (
    last !== undefined &&
    last.row.stages === stages &&
    last.row.transitions === transitions &&
    last.row.max_retries === maxRetries &&
    last.row.laying === laying
  ) {
    return last.rules;
  }
  const all = stages === null ? DEFAULT_STAGES : (JSON.parse(stages) as Rules["stages"]);
  const rules: Rules = {
    stages: all,
    ready: new Set(all.filter(({ ready }) => ready).map(({ stage }) => stage)),
    done: new Set(all.filter(({ done }) => done).map(({ stage }) => stage)),
    transitions: transitions === null ? null : (JSON.parse(transitions) as Rules["transitions"]),
    maxRetries: maxRetries ?? DEFAULT_BOARD_RETRIES,
    isLaying: laying !== null,
  };
  last = { row: { stages, transitions, max_retries: maxRetries, laying }, rules };
  return rules;
}

export const NO_RULES: RulesRow = { stages: null, transitions: null, max_retries: null, laying: null };

/** Where the node is loaded anyway, its row has the rules, too (`tables.ts`). */
export function* loadRules(): Operation<Rules> {
  return rulesOf((yield* one(selectRules)) ?? NO_RULES);
}

export function configurationOf({ stages, transitions, maxRetries }: Rules): Configuration {
  return { stages, transitions, maxRetries };
}

/** The stages that may follow one; undefined where all may. */
export function allowedAfter(stage: string, { transitions }: Rules): readonly string[] | undefined {
  if (transitions === null) return undefined;
  return Object.hasOwn(transitions, stage) ? (transitions[stage] as string[]) : [];
}

/** `invalid_state` for a move that the transitions do not have; undefined for one that they have, or for none. */
export function refuseMove(
  storyId: string,
  from: string | null,
  to: string | undefined,
  rules: Rules,
): PawlError | undefined {
  if (from === null || to === undefined || from === to) return undefined;
  const allowed = allowedAfter(from, rules);
  if (allowed === undefined || allowed.includes(to)) return undefined;
  const follow =
    allowed.length === 0
      ? "no stage may follow it"
      : `${allowed.map((each) => shown(each)).join(", ")} may follow it`;
  return refuse(
    "invalid_state",
    `${storyId} cannot go from ${shown(from)} to ${shown(to)}: by the transitions of this node ${follow}. Move it there, or change them with pipeline.configure.`,
    { from, to, allowed: [...allowed] },
  );
}
