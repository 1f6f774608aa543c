// The row of a queue: its last fencing token, how many of its batches are in which state, and its settings. A turn
// reads it once and writes it once.
import type { BatchState } from "@pawl/protocol";
import { all, insert, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { KeptRows, TurnMemory } from "../../turns/turn-memory.js";
import { LAST_CANDIDATE_LANE } from "./lanes.js";
import { layLine, layLinesAfter } from "./lines.js";
import { knownPrefixesOf, type Listed, listedUnder, listUnder, type Offer, showOffer } from "./listing.js";
import { type BatchRow, namedKey, OWN_COLUMNS, roomKey, scopeOf, waitKey, wakeQueue } from "./row.js";
import {
  fullAfter,
  isPaused,
  isThrottled,
  NO_SETTINGS,
  nextTokenAt,
  type Settings,
  type Time,
  tokensOf,
} from "./settings.js";

/**
 * Heads that are read at once where one turn claims many batches of a queue. The first read is of one, each further
 * one of twice as many: a head costs 3 us, also where nobody claims it.
 */
const MAX_HEADS_PER_READ = 16;

export interface QueueRow extends Record<BatchState, number>, Listed {
  readonly queue_id: number;
  readonly queue: string;
  fencing_token: number;
  /** How many claims are held, each of one batch or more. */
  claims: number;
  /** What it is configured to, as JSON; null for nothing. */
  settings: string | null;
  /** When its bucket is full again, in elapsed time; null for full. */
  rate_full_at: number | null;
  /** When something may be claimed that may not now: in elapsed time, and by the wall clock. */
  opens_at: number | null;
  opens_at_wall: number | null;
  /** While the lines of its keys are laid anew: the last key that was. */
  lay_after: string | null;
}

/** A negative number takes away. `claims`: of those that are held. */
type Counts = { readonly [State in BatchState | "claims"]?: number };

export const NO_COUNTS = {
  ready: 0,
  scheduled: 0,
  blocked: 0,
  claimed: 0,
  completed: 0,
  dead: 0,
  cancelled: 0,
  expired: 0,
};

/** The gauge of each state: a name that is put together each time takes longer than the counting. */
const GAUGES = {
  ready: "readyBatches",
  scheduled: "scheduledBatches",
  blocked: "blockedBatches",
  claimed: "claimedBatches",
  completed: "completedBatches",
  dead: "deadBatches",
  cancelled: "cancelledBatches",
  expired: "expiredBatches",
} as const satisfies { [State in BatchState]: `${State}Batches` };

export const selectQueue = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue = :queue");

const selectQueueById = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue_id = :queueId");

const insertQueue = sql(`
  INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
  VALUES (:queue,
    coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'queue_fencing_floor'), 0), 0, 0, 0, 0, 0, 0)`);

const updateQueue = sql(
  `UPDATE pawl_queue SET fencing_token = :fencingToken, ready = :ready, scheduled = :scheduled, claimed = :claimed,
    completed = :completed, dead = :dead, cancelled = :cancelled, blocked = :blocked, expired = :expired,
    claims = :claims
  WHERE queue_id = :queueId`,
  { writes: "queueId" },
);

/** What only a queue with settings has. */
const updateOpening = sql(`
  UPDATE pawl_queue SET settings = :settings, rate_full_at = :rateFullAt, opens_at = :opensAt,
    opens_at_wall = :opensAtWall, lay_after = :layAfter
  WHERE queue_id = :queueId`);

const deleteQueue = sql("DELETE FROM pawl_queue WHERE queue_id = :queueId");

/** A queue that comes again begins with this fencing token, so that the tokens of a name never come down. */
const raiseFloor = sql(`
  INSERT INTO pawl_meta (key, value) VALUES ('queue_fencing_floor', :fencingToken)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value
    WHERE CAST(pawl_meta.value AS BIGINT) < CAST(excluded.value AS BIGINT)`);

/** Without payloads that are not in the row itself: they may be large, and only the first batch is sure to go. */
export function selectsHeads(queueId: string): string {
  return `
  SELECT ${OWN_COLUMNS}, b.payloads
  FROM pawl_batch b WHERE b.queue_id = ${queueId} AND b.lane <= ${LAST_CANDIDATE_LANE}
  ORDER BY b.lane, b.enqueue_seq LIMIT :rows`;
}

const selectHeads = sql<Head>(selectsHeads(":queueId"));

/** The first candidate of a queue, as far as its own row says. */
export type Head = Omit<BatchRow, "payloads"> & { payloads: string | null };

/** A queue as the turn has it. */
interface KeptQueue {
  readonly row: QueueRow;
  changed: boolean;
  /** Whether what only a queue with settings has is to be written. */
  openingChanged: boolean;
  /** Its settings, and the text that they were read from. */
  settings: Settings;
  settingsText: string | null;
  /** The first of its candidates, in order: one at first, more once that is not enough. */
  heads: Head[];
  /** True if it has no others. */
  areAllHeads: boolean;
  /** Heads that the next read takes. */
  nextRead: number;
  /** The keys of batches that have come, gone or changed, whose lines have to be laid. */
  readonly keys: Set<string>;
  /** True if it may offer something else than it is listed with. */
  offersElse: boolean;
}

class KeptQueues implements KeptRows {
  readonly byName = new Map<string, KeptQueue>();
  readonly byId = new Map<number, KeptQueue>();
  time: Time = { now: 0, wallMs: 0 };

  keep(row: QueueRow): KeptQueue {
    const kept: KeptQueue = {
      row,
      changed: false,
      openingChanged: false,
      settings: NO_SETTINGS,
      settingsText: null,
      heads: [],
      areAllHeads: false,
      nextRead: 1,
      keys: new Set(),
      offersElse: false,
    };
    this.byName.set(row.queue, kept);
    this.byId.set(row.queue_id, kept);
    return kept;
  }

  drop({ queue, queue_id }: QueueRow): void {
    this.byName.delete(queue);
    this.byId.delete(queue_id);
  }

  *writeBack(): Operation<void> {
    for (const kept of this.byId.values()) {
      if (kept.keys.size > 0) yield* layLines(kept);
      if (kept.changed) yield* writeCounts(kept.row);
      if (kept.openingChanged) {
        const { settings, rate_full_at, opens_at, opens_at_wall, lay_after } = kept.row;
        yield* write(updateOpening, {
          queueId: kept.row.queue_id,
          settings,
          rateFullAt: rate_full_at,
          opensAt: opens_at,
          opensAtWall: opens_at_wall,
          layAfter: lay_after,
        });
      }
      kept.changed = false;
      kept.openingChanged = false;
      if (kept.offersElse && kept.row.prefixes !== null) yield* relist(kept, this.time);
    }
  }
}

/** Writes down what a listed queue offers now, for those who claim by the beginnings of names. */
function* relist(kept: KeptQueue, time: Time): Operation<void> {
  if (kept.keys.size > 0) yield* layLines(kept);
  kept.offersElse = false;
  const closed = closureNow(kept, time) !== undefined;
  const head = closed ? undefined : yield* headOfKept(kept);
  yield* showOffer(kept.row, head === undefined ? undefined : offerOf(head));
}

function offerOf({ priority, enqueue_seq, delivery_policy }: Head): Offer {
  return {
    lane: -priority,
    enqueue_seq,
    at_checkpoint: delivery_policy === "earliest_safe_boundary" ? 1 : 0,
  };
}

/** Each by its name: to gather the rest of a row takes longer than the statement. */
function* writeCounts(row: QueueRow): Operation<void> {
  const { queue_id: queueId, fencing_token: fencingToken, claims, ready, scheduled, blocked, claimed } = row;
  const { completed, dead, cancelled, expired } = row;
  yield* write(updateQueue, {
    queueId,
    fencingToken,
    claims,
    ready,
    scheduled,
    blocked,
    claimed,
    completed,
    dead,
    cancelled,
    expired,
  });
}

function settingsOf(kept: KeptQueue): Settings {
  const { settings: text } = kept.row;
  if (text !== kept.settingsText) {
    kept.settings = text === null ? NO_SETTINGS : (JSON.parse(text) as Settings);
    kept.settingsText = text;
  }
  return kept.settings;
}

function* layLines(kept: KeptQueue): Operation<void> {
  const settings = settingsOf(kept);
  for (const key of kept.keys) yield* layLine(kept.row.queue_id, key, settings);
  kept.keys.clear();
  forgetHeadsOf(kept);
  kept.offersElse = true;
}

function* keptByName(queue: string, env: Env): Operation<KeptQueue | undefined> {
  const queues = knownQueues(env);
  const known = queues.byName.get(queue);
  if (known !== undefined) return known;
  env.reach?.(scopeOf(queue));
  const row = yield* one(selectQueue, { queue });
  return row && queues.keep(row);
}

function* keptById(queueId: number, env: Env): Operation<KeptQueue> {
  const queues = knownQueues(env);
  const known = queues.byId.get(queueId);
  if (known !== undefined) return known;
  const row = yield* one(selectQueueById, { queueId });
  if (row === undefined) throw new Error(`there are batches of a queue ${queueId}, which is not there`);
  env.reach?.(scopeOf(row.queue));
  return queues.keep(row);
}

/** The queues that the turn has read: to look here first saves a generator, which takes longer than the look. */
function knownQueues(env: Env): KeptQueues {
  const queues = env.turn.of(KeptQueues);
  queues.time = env;
  return queues;
}

/** How many heads of a queue the turn knows; infinity where it has no others, undefined for one that was not read. */
export function headsKnown(queue: string, turn: TurnMemory): number | undefined {
  const kept = turn.known(KeptQueues)?.byName.get(queue);
  return kept?.areAllHeads ? Number.POSITIVE_INFINITY : kept?.heads.length;
}

/**
 * Has the turn know a queue that was read before its first operation.
 *
 * @param row undefined for one that the turn has read, or that is not there.
 * @param wanted how many heads were to be read; 0 for none.
 */
export function keepAhead(
  queue: string,
  row: QueueRow | undefined,
  { wanted, heads }: { readonly wanted: number; readonly heads: Head[] },
  turn: TurnMemory,
): void {
  const queues = turn.of(KeptQueues);
  const kept = row === undefined ? queues.byName.get(queue) : queues.keep(row);
  if (kept === undefined || wanted === 0) return;
  kept.heads = heads;
  kept.areAllHeads = heads.length < wanted;
}

/** True if the turn has read the queue, and nothing is set of it. */
export function isKnownPlain(queue: string, env: Env): boolean {
  return knownQueues(env).byName.get(queue)?.row.settings === null;
}

/** Undefined for a queue that has no batches. */
export function* findQueue(queue: string, env: Env): Operation<Readonly<QueueRow> | undefined> {
  return (knownQueues(env).byName.get(queue) ?? (yield* keptByName(queue, env)))?.row;
}

export function* queueOf(queueId: number, env: Env): Operation<Readonly<QueueRow>> {
  return (yield* keptById(queueId, env)).row;
}

/** The name of a queue that the turn has read. */
export function knownName(queueId: number, env: Env): string {
  return (knownQueues(env).byId.get(queueId) as KeptQueue).row.queue;
}

/** What a queue is configured to. */
export function* settingsOfQueue(queueId: number, env: Env): Operation<Settings> {
  return settingsOf(yield* keptById(queueId, env));
}

/** What a queue is configured to, also one that is not there. */
export function* settingsByName(queue: string, env: Env): Operation<Settings> {
  const kept = yield* keptByName(queue, env);
  return kept === undefined ? NO_SETTINGS : settingsOf(kept);
}

/** Counts a batch that comes behind all others of its priority, and gives the queue; the first one makes it. */
export function* addTo(
  queue: string,
  state: "ready" | "scheduled" | "blocked",
  priority: number,
  env: Env,
): Operation<Readonly<QueueRow>> {
  const kept = knownQueues(env).byName.get(queue) ?? (yield* keptOrMade(queue, env));
  kept.row[state] += 1;
  kept.changed = true;
  // Those that were read are the first ones still, unless it comes before one of them.
  if (kept.heads.some((head) => head.priority < priority)) kept.heads = [];
  kept.areAllHeads = false;
  kept.offersElse = true;
  env.effects.count(GAUGES[state], 1);
  return kept.row;
}

function* keptOrMade(queue: string, env: Env): Operation<KeptQueue> {
  const kept = yield* keptByName(queue, env);
  if (kept !== undefined) return kept;
  const made = yield* keptById(yield* insert(insertQueue, { queue }), env);
  if (queue.includes("/")) yield* listUnder(made.row, yield* knownPrefixesOf(queue));
  return made;
}

/** The queue that batches are moved to, which the first one makes. */
export function* queueToFill(queue: string, env: Env): Operation<number> {
  return (yield* keptOrMade(queue, env)).row.queue_id;
}

/** Sees to it that the fencing tokens of a queue go on above those of another. */
export function* raiseToken(queueId: number, other: number, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  const { fencing_token: least } = (yield* keptById(other, env)).row;
  if (kept.row.fencing_token >= least) return;
  kept.row.fencing_token = least;
  kept.changed = true;
}

/** Sets what a queue is configured to; one without batches is there for its settings alone. */
export function* configureQueue(queue: string, settings: Settings, env: Env): Operation<void> {
  const kept = yield* keptOrMade(queue, env);
  const before = settingsOf(kept);
  const { row } = kept;
  const { rate } = settings;
  if (rate === undefined) row.rate_full_at = null;
  else if (before.rate !== undefined && row.rate_full_at !== null) {
    // As many tokens are missing as before, if there is room for so many.
    const { count, perMs } = before.rate;
    const missing = Math.min(rate.count, (Math.max(0, row.rate_full_at - env.now) * count) / perMs);
    row.rate_full_at = env.now + (missing * rate.perMs) / rate.count;
  }
  row.settings = Object.keys(settings).length === 0 ? null : JSON.stringify(settings);
  kept.openingChanged = true;
  setOpening(kept, env);
  const { maxClaimedPerKey, keyOrder } = settings;
  if (maxClaimedPerKey !== before.maxClaimedPerKey || keyOrder !== before.keyOrder) {
    row.lay_after = "";
    yield* layMore(row.queue_id, env);
  }
  yield* removeIfEmpty(row.queue_id, env);
}

/** Lines of keys that one step lays: some 4 ms of work. */
const LINES_PER_STEP = 150;

/** Lays some more lines of a queue whose rules about keys have changed. */
export function* layMore(queueId: number, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  const { row } = kept;
  if (row.lay_after === null) return;
  row.lay_after = yield* layLinesAfter(queueId, row.lay_after, settingsOf(kept), LINES_PER_STEP);
  kept.openingChanged = true;
  forgetHeadsOf(kept);
  kept.offersElse = true;
  if (row.lay_after !== null) env.effects.deadline(env.now);
}

/** Takes back what was set until a time that has come, and says when the next such time comes. */
export function* openQueue(queueId: number, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  const { pause, throttle, ...rest } = settingsOf(kept);
  const settings: Settings = {
    ...rest,
    ...(pause !== undefined && isPaused({ pause }, env) ? { pause } : {}),
    ...(throttle !== undefined && isThrottled({ throttle }, env) ? { throttle } : {}),
  };
  kept.row.settings = Object.keys(settings).length === 0 ? null : JSON.stringify(settings);
  kept.openingChanged = true;
  setOpening(kept, env);
}

/** Keeps when a queue opens that is closed now, so that whoever waits for it is woken then. */
function setOpening(kept: KeptQueue, env: Env): void {
  const { row } = kept;
  kept.offersElse = true;
  const { pause, throttle, rate } = settingsOf(kept);
  const at: number[] = [];
  const atWall: number[] = [];
  if (pause !== undefined && pause.untilAt !== null) atWall.push(pause.untilAt);
  if (throttle !== undefined && throttle.untilAt !== null) atWall.push(throttle.untilAt);
  if (throttle !== undefined && throttle.until !== null) at.push(throttle.until);
  if (rate !== undefined && tokensOf(rate, row.rate_full_at, env.now) === 0) {
    at.push(nextTokenAt(rate, row.rate_full_at, env.now));
  }
  const opensAt = at.length === 0 ? null : Math.min(...at);
  const opensAtWall = atWall.length === 0 ? null : Math.min(...atWall);
  if (opensAt !== row.opens_at || opensAtWall !== row.opens_at_wall) kept.openingChanged = true;
  row.opens_at = opensAt;
  row.opens_at_wall = opensAtWall;
  if (opensAt !== null) env.effects.deadline(opensAt);
  if (opensAtWall !== null) env.effects.wallDeadline(opensAtWall);
}

/** Counts batches that go from state to state. */
export function* move(queueId: number, counts: Counts, env: Env): Operation<void> {
  const kept = knownQueues(env).byId.get(queueId) ?? (yield* keptById(queueId, env));
  for (const what in counts) {
    const by = counts[what as keyof Counts] as number;
    if (by === 0) continue;
    kept.row[what as keyof Counts] += by;
    if (what !== "claims") env.effects.count(GAUGES[what as BatchState], by);
  }
  kept.changed = true;
  kept.offersElse = true;
  const { ready = 0 } = counts;
  if (ready !== 0) forgetHeadsOf(kept);
  // It may have been the head that a claim at a checkpoint has to wait behind.
  if (ready < 0) env.effects.wake(waitKey(kept.row.queue));
  if (ready > 0) env.effects.wake(namedKey(kept.row.queue));
  if (kept.row.settings !== null) wakeByLimits(kept, counts, env);
}

/** Wakes those that may have waited for a claim to end, or for room in the queue. */
function wakeByLimits({ row }: KeptQueue, counts: Counts, env: Env): void {
  const { ready = 0, scheduled = 0, blocked = 0, claims = 0 } = counts;
  if (claims < 0) wakeQueue(row.queue, env);
  if (ready + scheduled + blocked < 0) env.effects.wake(roomKey(row.queue));
}

/** Something about batches of this key has changed: sees to it that its next one is a candidate. */
export function* touchKey(queueId: number, key: string | null, env: Env): Operation<void> {
  if (key === null) return;
  const kept = yield* keptById(queueId, env);
  kept.keys.add(key);
  kept.offersElse = true;
  if (kept.row.settings === null) env.effects.wake(waitKey(kept.row.queue));
  else wakeQueue(kept.row.queue, env);
}

/** The first candidate of a queue, and whether the queue has settings. */
export interface Found {
  readonly queueId: number;
  readonly head: Head;
  readonly hasSettings: boolean;
}

/** The first batch of a queue that is a candidate, by what the queue's row and the lines of its keys say. */
export function* headOf(queue: string, env: Env): Operation<Found | undefined> {
  const kept = knownQueues(env).byName.get(queue) ?? (yield* keptByName(queue, env));
  if (kept === undefined) return undefined;
  if (kept.keys.size > 0) yield* layLines(kept);
  const head = kept.heads[0] ?? (yield* headOfKept(kept));
  return head && { queueId: kept.row.queue_id, head, hasSettings: kept.row.settings !== null };
}

function* headOfKept(kept: KeptQueue): Operation<Head | undefined> {
  if (kept.heads.length === 0 && !kept.areAllHeads) {
    const rows = kept.nextRead;
    kept.heads = yield* all(selectHeads, { queueId: kept.row.queue_id, rows });
    kept.areAllHeads = kept.heads.length < rows;
    kept.nextRead = Math.min(2 * kept.nextRead, MAX_HEADS_PER_READ);
  }
  return kept.heads[0];
}

/**
 * The same, for a claim: while the lines of keys are laid anew, that of its head is laid first, so that no claim is
 * made by rules of before.
 */
export function* headToClaim(queue: string, env: Env): Operation<Found | undefined> {
  let found = yield* headOf(queue, env);
  while (found !== undefined && found.head.key !== null && found.hasSettings) {
    const kept = yield* keptById(found.queueId, env);
    if (kept.row.lay_after === null) break;
    const { enqueue_seq: seq, key } = found.head;
    kept.keys.add(key as string);
    found = yield* headOf(queue, env);
    if (found?.head.enqueue_seq === seq) break;
  }
  return found;
}

/** Why nothing of a queue may be claimed now, whatever is in it. */
export type Closure = "paused" | "throttled" | "full" | "rate";

/** Why nothing of a queue may be claimed now, whatever is in it; undefined if something may. */
export function* closureOf(queueId: number, env: Env): Operation<Closure | undefined> {
  return closureNow(yield* keptById(queueId, env), env);
}

function closureNow(kept: KeptQueue, time: Time): Closure | undefined {
  const { row } = kept;
  if (row.settings === null) return undefined;
  const settings = settingsOf(kept);
  if (isPaused(settings, time)) return "paused";
  if (isThrottled(settings, time)) return "throttled";
  if (settings.maxClaimed !== undefined && row.claims >= settings.maxClaimed) return "full";
  if (settings.rate !== undefined && tokensOf(settings.rate, row.rate_full_at, time.now) === 0) return "rate";
  return undefined;
}

/** The heads of a queue are not what they were read as. */
export function* forgetHeads(queueId: number, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  forgetHeadsOf(kept);
  kept.offersElse = true;
}

function forgetHeadsOf(kept: KeptQueue): void {
  kept.heads = [];
  kept.areAllHeads = false;
}

/** Writes down what listed queues offer, so that it can be read by SQL. */
export function* listOffers(env: Env): Operation<void> {
  const queues = env.turn.of(KeptQueues);
  for (const kept of queues.byId.values()) {
    if (kept.offersElse && kept.row.prefixes !== null) yield* relist(kept, env);
  }
}

/** From now on a queue is listed under a beginning of its name, with what it offers. */
export function* listQueue(queueId: number, prefix: string, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  const prefixes = listedUnder(kept.row);
  if (prefixes.includes(prefix)) return;
  // What it offers is written anew under all of them.
  yield* showOffer(kept.row, undefined);
  yield* listUnder(kept.row, [...prefixes, prefix]);
  yield* relist(kept, env);
}

/** A queue is not listed under a beginning of its name any more. */
export function* unlistQueue(queueId: number, prefix: string, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  const prefixes = listedUnder(kept.row);
  if (!prefixes.includes(prefix)) return;
  yield* showOffer(kept.row, undefined);
  yield* listUnder(
    kept.row,
    prefixes.filter((each) => each !== prefix),
  );
  if (kept.row.prefixes !== null) yield* relist(kept, env);
}

/** How many batches one claim may take, by the rate of their queue. */
export function* mostByRate(queueId: number, env: Env): Operation<number> {
  const kept = yield* keptById(queueId, env);
  const { rate } = settingsOf(kept);
  return rate === undefined ? Number.POSITIVE_INFINITY : tokensOf(rate, kept.row.rate_full_at, env.now);
}

/**
 * Counts the claim of the head, and of those that join it: of `size` batches together. Returns its fencing token.
 *
 * @param key of any of its batches.
 */
export function* countClaim(queueId: number, size: number, key: string | null, env: Env): Operation<number> {
  const kept = knownQueues(env).byId.get(queueId) ?? (yield* keptById(queueId, env));
  const { row } = kept;
  row.fencing_token += 1;
  row.ready -= size;
  row.claimed += size;
  row.claims += 1;
  env.effects.count("readyBatches", -size);
  env.effects.count("claimedBatches", size);
  kept.changed = true;
  kept.offersElse = true;
  if (key === null) kept.heads.splice(0, size);
  else {
    forgetHeadsOf(kept);
    kept.keys.add(key);
  }
  if (row.settings !== null) {
    const { rate, maxWaiting } = settingsOf(kept);
    if (rate !== undefined) {
      row.rate_full_at = fullAfter(rate, row.rate_full_at, size, env.now);
      kept.openingChanged = true;
      setOpening(kept, env);
    }
    if (maxWaiting !== undefined) env.effects.wake(roomKey(row.queue));
  }
  env.effects.reached("queueToken", row.fencing_token);
  return row.fencing_token;
}

/** Removes a queue that has no batches and no settings any more. */
export function* removeIfEmpty(queueId: number, env: Env): Operation<void> {
  const { row } = yield* keptById(queueId, env);
  const { ready, scheduled, blocked, claimed, completed, dead, cancelled, expired } = row;
  if (ready + scheduled + blocked + claimed + completed + dead + cancelled + expired > 0) return;
  if (row.settings !== null) return;
  if (row.prefixes !== null) yield* showOffer(row, undefined);
  env.turn.of(KeptQueues).drop(row);
  yield* run(deleteQueue, { queueId });
  yield* run(raiseFloor, { fencingToken: String(row.fencing_token) });
}
