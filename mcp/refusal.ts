// The room of refusals: errors of the daemon and of this server, as an agent is told them.
import type { ErrorKind } from "@pawl/protocol/errors";

/** A refusal of this server itself, by a kind of the daemon's. */
export class Refusal extends Error {
  readonly kind: string;
  readonly details: Readonly<Record<string, unknown>>;
  /** The way out, in words of the tools, where it is not that of the kind. */
  readonly advice: string | undefined;

  constructor(
    kind: string,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
    advice?: string,
  ) {
    super(message);
    this.kind = kind;
    this.details = details;
    this.advice = advice;
  }
}

/** Why a wait was short. */
export const MESSAGE_CAME = "A message came, which ended the wait: read inbox, then ask again.";

/** A refusal at the end of a wait that a message made short. */
export class Interrupted extends Error {
  readonly refused: unknown;

  constructor(refused: unknown) {
    super(MESSAGE_CAME);
    this.refused = refused;
  }
}

const LOST =
  "Stop that work and leave its files alone: another may have it by now. Then take other work with work_next.";

const CORRECT = "Correct what is named above and call again; nothing was changed.";
const DEFECT = "This is a defect of pawl; tell the user.";
const BOARD_TROUBLE =
  "The board of this machine needs its user: tell them what this says. Other tools may still work.";

/** By kind, what an agent can do. */
const ADVICE: Readonly<Record<ErrorKind, string>> = {
  lease_held:
    "Do something else meanwhile, wait for it with waitSeconds, or write to the holder with message_send. Do not work around it.",
  would_deadlock:
    "The holder waits for something of yours. Give back what you hold (paths_release, unlock, or work_finish with give_back), then ask for all that you need in one call.",
  lease_lost: LOST,
  claim_lost: LOST,
  not_found: "Check the name or id; nothing was changed.",
  invalid_params: CORRECT,
  invalid_state: "Choose one of the allowed stages; nothing was changed.",
  conflict: "Read it again, then decide anew; nothing was changed.",
  exhausted: "Wait, or ask for less; nothing was changed.",
  too_large: "Make it shorter; put long texts in a file and name the file.",
  message_too_large: "Make it shorter; put long texts in a file and name the file.",
  unavailable: "Call again in a few seconds. If that does not help, tell the user that pawld is not running.",
  provider_unavailable:
    "What keeps this lock outside the machine does not answer. Call again in a minute; if that does not help, tell the user.",
  read_only: "Tell the user: this pawl daemon only reads.",
  forbidden:
    "Tell the user: whoever runs pawld has not allowed this to your account. Do not try to get round it.",
  cancelled: "Nothing was taken.",
  bad_value: CORRECT,
  bad_story_id: CORRECT,
  bad_field: CORRECT,
  // What a request of this server's own can only meet by a defect, of it or of the daemon.
  internal: DEFECT,
  parse_error: DEFECT,
  invalid_request: DEFECT,
  not_json: DEFECT,
  not_canonical: DEFECT,
  bad_shape: DEFECT,
  bad_generation: DEFECT,
  method_not_found: "The pawl daemon is of another version than this server: tell the user to update both.",
  unsupported_version:
    "The pawl daemon is of another version than this server: tell the user to update both.",
  // The key and the log of this node, and changes of others.
  wrong_board: BOARD_TROUBLE,
  unknown_author: BOARD_TROUBLE,
  revoked_author: BOARD_TROUBLE,
  bad_signature: BOARD_TROUBLE,
  missing_prev: BOARD_TROUBLE,
  bad_chain: BOARD_TROUBLE,
  clock_not_monotonic: BOARD_TROUBLE,
  clock_ahead: BOARD_TROUBLE,
  weak_key: BOARD_TROUBLE,
  duplicate_key: BOARD_TROUBLE,
  key_mode: BOARD_TROUBLE,
  key_unreadable: BOARD_TROUBLE,
  log_corrupt: BOARD_TROUBLE,
};
const WAITED_LONG =
  "You have waited for it already. Do something else meanwhile, or write to the holder with message_send. Do not work around it.";
const GONE =
  "That session has ended. Its successor does not know of this: see who is there, and send it to a name.";
const UNKNOWN = "Tell the user what this says; nothing is known of how to go on.";

/** What can be done about a kind. A daemon of a later version may refuse by kinds that are not known here. */
function adviceFor(kind: string): string {
  if (kind === "gone") return GONE;
  return Object.hasOwn(ADVICE, kind) ? ADVICE[kind as ErrorKind] : UNKNOWN;
}

/** What went wrong, as it is told: the sentence of the daemon, the holder where there is one, and the way out. */
export interface Told {
  readonly kind: string;
  readonly message: string;
  readonly holder?: unknown;
  readonly holders?: unknown;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly whatToDo: string;
}

/** The kind of an error of the daemon, of the connection, or of this server; `internal` for a defect. */
export function kindOf(error: unknown): string {
  const { kind, mayHaveTakenEffect, name } = (error ?? {}) as {
    kind?: unknown;
    mayHaveTakenEffect?: unknown;
    name?: unknown;
  };
  if (typeof kind === "string") return kind;
  if (name === "AbortError") return "cancelled";
  return typeof mayHaveTakenEffect === "boolean" ? "unavailable" : "internal";
}

/** Figures of time in a sentence of the daemon: what they say is renewed for its holder, again and again. */
const FIGURES = / for \d+ ms more(?: unless (?:that is )?renewed)?/g;
const ASK_AGAIN = / Ask again, or wait for it with waitMs\./g;

/** A sentence of the daemon, as it is true for agents. */
export function inAgentsWords(sentence: string): string {
  // The param of the socket is an argument of the tools by another name.
  return sentence.replace(FIGURES, "").replace(ASK_AGAIN, "").replaceAll("waitMs", "waitSeconds");
}

/** A holder as the daemon names it, without what an agent has no use for. */
function shownHolder(holder: object): object {
  const { expiresAt: _, remainingMs: _left, pid: _pid, ...shown } = holder as Record<string, unknown>;
  return shown;
}

/**
 * Words an error for an agent.
 *
 * @param waited true if it was waited for.
 */
export function told(error: unknown, waited = false): Told {
  if (error instanceof Interrupted) return { ...told(error.refused), whatToDo: MESSAGE_CAME };
  const kind = kindOf(error);
  const { message, details, advice, mayHaveTakenEffect } = error as {
    message: string;
    details?: Record<string, unknown>;
    advice?: string;
    mayHaveTakenEffect?: boolean;
  };
  const { holder, holders: all, ...rest } = details ?? {};
  // A refusal of this server names what is of use.
  const show = error instanceof Refusal ? (each: object) => each : shownHolder;
  const holders = Array.isArray(all) ? (all as object[]).map(show) : undefined;
  // Of several holders the first is named with its note and pattern, too.
  const [first] = holders ?? [];
  const effect = mayHaveTakenEffect ? " It may have taken effect: look before you repeat it." : "";
  return {
    kind,
    message: `${inAgentsWords(message)}${effect}`,
    ...(holder === undefined && first === undefined
      ? {}
      : { holder: { ...show((holder ?? {}) as object), ...first } }),
    ...(holders !== undefined && holders.length > 1 ? { holders } : {}),
    ...(Object.keys(rest).length === 0 ? {} : { details: rest }),
    whatToDo: advice ?? (waited && kind === "lease_held" ? WAITED_LONG : adviceFor(kind)),
  };
}

/** True if what was held is not held any more. */
export function isLoss(error: unknown): boolean {
  return ["lease_lost", "claim_lost", "not_found"].includes(kindOf(error));
}
