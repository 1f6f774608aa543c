// A schedule (spec: queue.md, Schedules): its occurrences are enqueued in their order, each once, none left out but
// where its rules say so.
import { type Call, WALL_SLACK_MS, wallOf } from "../history.js";
import { type Answer, type CallModel, type Circumstances, type Json, modelOf } from "./calls.js";

/** What a schedule enqueues on its own; the name of the call that the checker makes of each (occurrences.ts). */
export const OCCURRENCE = "occurrence";

interface Schedule {
  everyMs: number;
  /** The text of all else that was set. */
  rest: string;
  /** Some may be left out: what was missed, or came while the one before was not finished. */
  mayLeaveOut: boolean;
  /** The time of the next one, by the wall clock, lies between these. */
  next: { least: number; most: number };
  lastAt: number | null;
}

type State = Schedule | null;

const model: CallModel<State> = {
  initial: null,
  call: (state, call, answer, when) => {
    switch (call.method) {
      case "schedule.set":
        return set(state, call, answer, when);
      case "schedule.get":
        return answer === "unknown" ? [state] : get(state, answer);
      case "schedule.delete":
        if (answer !== "unknown" && ("error" in answer || answer.result.deleted !== (state !== null)))
          return [];
        return [null];
      case "schedule.run":
        return answer === "unknown" || isThere(answer) === (state !== null) ? [state] : [];
      case OCCURRENCE:
        return occur(state, call.params.at as number);
    }
    throw new Error(`no model of ${call.method}`);
  },
};

export const scheduleModel = modelOf(model);

/** False of a schedule that is said not to be there; undefined for any other refusal. */
function isThere(answer: Exclude<Answer, "unknown">): boolean | undefined {
  if ("result" in answer) return true;
  return answer.error.data.kind === "not_found" ? false : undefined;
}

function set(state: State, { params }: Call, answer: Answer, when: Circumstances): State[] {
  if (answer !== "unknown" && "error" in answer) return [];
  const { everyMs, ...others } = params as { everyMs: number; overlap: string; missed: string };
  const rest = JSON.stringify(others);
  // The same definition changes nothing.
  const isSame = state !== null && state.everyMs === everyMs && state.rest === rest;
  const after: Schedule = isSame
    ? state
    : {
        everyMs,
        rest,
        mayLeaveOut: others.overlap !== "all" || others.missed !== "all",
        next: {
          least: wallOf(when.sentMs) - WALL_SLACK_MS + everyMs,
          most: wallOf(when.beforeMs) + WALL_SLACK_MS + everyMs,
        },
        lastAt: state?.lastAt ?? null,
      };
  return answer === "unknown" ? [after] : shown(after, answer.result.schedule);
}

function get(state: State, answer: Exclude<Answer, "unknown">): State[] {
  if (state === null) return isThere(answer) === false ? [null] : [];
  return "error" in answer ? [] : shown(state, answer.result.schedule);
}

/** The state as an answer shows it; none if it cannot be so. */
function shown(state: Schedule, { everyMs, nextAt, lastAt }: Json): State[] {
  if (everyMs !== state.everyMs || lastAt !== state.lastAt || !mayBeNext(state, nextAt)) return [];
  return [nextFrom(state, nextAt)];
}

/** Each comes once, in its turn. */
function occur(state: State, at: number): State[] {
  if (state === null || !mayBeNext(state, at)) return [];
  return [{ ...nextFrom(state, at + state.everyMs), lastAt: at }];
}

function nextFrom(state: Schedule, at: number): Schedule {
  const { least, most } = state.next;
  return least === at && most === at ? state : { ...state, next: { least: at, most: at } };
}

/** True if what comes next may come at this time. */
function mayBeNext({ everyMs, mayLeaveOut, next: { least, most } }: Schedule, at: number): boolean {
  if (at < least) return false;
  if (at <= most) return true;
  return mayLeaveOut && (least < most || (at - most) % everyMs === 0);
}
