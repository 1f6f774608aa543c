// The values that some params and members may have: for schemas, and for clients, which load no schemas.

/**
 * The states of a batch. `completed`, `dead`, `cancelled` and `expired` are final; `queue.retry` brings back the last
 * three.
 */
export const BATCH_STATES = [
  "ready",
  "scheduled",
  "blocked",
  "claimed",
  "completed",
  "dead",
  "cancelled",
  "expired",
] as const;
export type BatchState = (typeof BATCH_STATES)[number];

/** Batches in these states may be moved: nobody holds them, and they have not been completed. */
export const MOVED_STATES = ["ready", "scheduled", "blocked", "dead", "cancelled", "expired"] as const;
/** Batches in these states may be purged: nobody holds them. */
export const PURGED_STATES = [
  "ready",
  "scheduled",
  "blocked",
  "completed",
  "dead",
  "cancelled",
  "expired",
] as const;

/** At which boundary a batch is handed out. */
export const DELIVERY_POLICIES = ["earliest_safe_boundary", "after_current_turn_commit"] as const;
export type DeliveryPolicy = (typeof DELIVERY_POLICIES)[number];

/** Which end of the batches before it a batch waits for. */
export const WHENS = ["success", "failure", "finished"] as const;

/** Whether a batch may be claimed together with others. */
export const SLOT_POLICIES = ["exclusive", "join"] as const;
export type SlotPolicy = (typeof SLOT_POLICIES)[number];

/** What becomes of an enqueue whose key is there already. */
export const ON_EXISTING = ["refuse", "return", "replace", "keepTime", "append", "rerun"] as const;

/** Where a worker stands when it claims. */
export const BOUNDARIES = ["idle", "active_turn_checkpoint"] as const;
export type Boundary = (typeof BOUNDARIES)[number];

/** Of several queues, which is claimed from first. */
export const CLAIM_ORDERS = ["listed", "oldest"] as const;
export type ClaimOrder = (typeof CLAIM_ORDERS)[number];

/** Whether batches of one key wait for each other. */
export const KEY_ORDERS = ["free", "strict"] as const;

/** How many of a schedule's batches there may be at a time. */
export const OVERLAPS = ["skip", "one", "all"] as const;
export type Overlap = (typeof OVERLAPS)[number];
/** Which occurrences of a schedule are made up for. */
export const MISSED = ["none", "last", "all"] as const;
export type Missed = (typeof MISSED)[number];

/** The states of a command. The last three are final. */
export const COMMAND_STATES = [
  "PENDING_UPLOAD",
  "PENDING",
  "DISPATCHED",
  "SUCCEEDED",
  "FAILED",
  "EXPIRED",
] as const;
export type CommandState = (typeof COMMAND_STATES)[number];

/** Together with others, or alone. */
export const LEASE_MODES = ["exclusive", "shared"] as const;

/** Signals by which a holder that has lost what it held may ask to be ended. */
export const LOSS_SIGNALS = [
  "SIGTERM",
  "SIGINT",
  "SIGHUP",
  "SIGQUIT",
  "SIGABRT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGKILL",
] as const;
