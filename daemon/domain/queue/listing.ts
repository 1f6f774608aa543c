// The list of queues that offer something, by the beginnings of their names that claims ask for: a claim of `build/*`
// finds the one to claim from at once, however many others match and offer nothing.
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";

/** The columns of a queue by which it is listed; all null for a queue that no claim has asked for by a beginning. */
export interface Listed {
  readonly queue_id: number;
  /** The beginnings of its name that claims ask for, as a JSON array. */
  prefixes: string | null;
  /** Its offer as it is listed; null for nothing to offer. */
  offer_lane: number | null;
  offer_seq: number | null;
  offer_checkpoint: number | null;
}

/** The first candidate of a queue that is not closed. */
export interface Offer {
  readonly lane: number;
  readonly enqueue_seq: number;
  /** 1 if it may be claimed at an active turn checkpoint. */
  readonly at_checkpoint: number;
}

const insertOffer = sql(`
  INSERT INTO pawl_queue_offer (prefix, at_checkpoint, lane, enqueue_seq, queue_id)
  VALUES (:prefix, :atCheckpoint, :lane, :seq, :queueId)`);

const deleteOffer = sql(`
  DELETE FROM pawl_queue_offer
  WHERE prefix = :prefix AND at_checkpoint = :atCheckpoint AND lane = :lane AND enqueue_seq = :seq
    AND queue_id = :queueId`);

const updateListed = sql(`
  UPDATE pawl_queue SET prefixes = :prefixes, offer_lane = :lane, offer_seq = :seq, offer_checkpoint = :atCheckpoint
  WHERE queue_id = :queueId`);

const selectPrefix = sql<{ listed_to: string | null; asked_at: number; unlisted_to: string | null }>(
  "SELECT listed_to, asked_at, unlisted_to FROM pawl_queue_prefix WHERE prefix = :prefix",
);

const setListedTo = sql(`
  INSERT INTO pawl_queue_prefix (prefix, listed_to, asked_at) VALUES (:prefix, :listedTo, :now)
  ON CONFLICT (prefix) DO UPDATE
    SET listed_to = excluded.listed_to, asked_at = excluded.asked_at, unlisted_to = NULL`);

const setAskedAt = sql("UPDATE pawl_queue_prefix SET asked_at = :now WHERE prefix = :prefix");

const setUnlistedTo = sql("UPDATE pawl_queue_prefix SET unlisted_to = :unlistedTo WHERE prefix = :prefix");

const deletePrefix = sql("DELETE FROM pawl_queue_prefix WHERE prefix = :prefix");

const earliestAsked = sql<{ at: number | null }>("SELECT min(asked_at) AS at FROM pawl_queue_prefix");

const selectUnasked = sql<{ prefix: string; unlisted_to: string | null }>(`
  SELECT prefix, unlisted_to FROM pawl_queue_prefix WHERE asked_at <= :until ORDER BY asked_at LIMIT 1`);

const selectUnlisted = sql<{ queue_id: number; queue: string }>(`
  SELECT queue_id, queue FROM pawl_queue WHERE queue > :after AND queue < :end ORDER BY queue LIMIT :rows`);

const selectNamed = sql<{ queue_id: number }>("SELECT queue_id FROM pawl_queue WHERE queue = :queue");

const nextOffer = (atCheckpoint: 0 | 1): string => `
  SELECT lane, enqueue_seq, queue_id FROM
    (SELECT lane, enqueue_seq, queue_id FROM pawl_queue_offer
     WHERE prefix = :prefix AND at_checkpoint = ${atCheckpoint} AND (lane, enqueue_seq) > (:lane, :seq)
     ORDER BY lane, enqueue_seq LIMIT 1) AS next${atCheckpoint}`;

const selectNextAtCheckpoint = sql<ListedOffer>(nextOffer(1));

const selectNext = sql<ListedOffer>(`
  ${nextOffer(0)} UNION ALL ${nextOffer(1)} ORDER BY lane, enqueue_seq LIMIT 1`);

/** Queues that one step lists, or takes from the list: some 4 ms of work. */
const LISTED_PER_STEP = 150;
/** A prefix that no claim has asked for in this time is forgotten. Calls that wait are woken all the same. */
export const PREFIX_KEPT_MS = 600_000;
/** Claims that ask for a prefix are noted at most so often. */
const ASKED_NOTED_MS = 60_000;

interface ListedOffer {
  readonly lane: number;
  readonly enqueue_seq: number;
  readonly queue_id: number;
}

/** The beginnings under which a queue is listed. */
export function listedUnder({ prefixes }: Listed): string[] {
  return prefixes === null ? [] : (JSON.parse(prefixes) as string[]);
}

/** Lists a queue that is listed with nothing under these beginnings of its name; under none it is not listed. */
export function* listUnder(row: Listed, prefixes: readonly string[]): Operation<void> {
  if (prefixes.length === 0 && row.prefixes === null) return;
  row.prefixes = prefixes.length === 0 ? null : JSON.stringify(prefixes);
  yield* writeListed(row);
}

/** The beginnings of a name that claims have asked for. */
export function* knownPrefixesOf(queue: string): Operation<string[]> {
  const known: string[] = [];
  for (let at = queue.indexOf("/"); at >= 0; at = queue.indexOf("/", at + 1)) {
    const prefix = queue.slice(0, at + 1);
    const found = yield* one(selectPrefix, { prefix });
    if (found !== undefined && found.unlisted_to === null) known.push(prefix);
  }
  return known;
}

/** Writes down what a queue offers from now on; undefined for nothing. */
export function* showOffer(row: Listed, offer: Offer | undefined): Operation<void> {
  const { queue_id: queueId, offer_lane: lane, offer_seq: seq, offer_checkpoint: atCheckpoint } = row;
  const isSame = offer?.lane === (lane ?? undefined) && offer?.at_checkpoint === (atCheckpoint ?? undefined);
  if (isSame && offer?.enqueue_seq === (seq ?? undefined)) return;
  const prefixes = listedUnder(row);
  for (const prefix of prefixes) {
    if (seq !== null) yield* run(deleteOffer, { prefix, atCheckpoint, lane, seq, queueId });
    if (offer === undefined) continue;
    const { at_checkpoint, enqueue_seq } = offer;
    yield* run(insertOffer, {
      prefix,
      atCheckpoint: at_checkpoint,
      lane: offer.lane,
      seq: enqueue_seq,
      queueId,
    });
  }
  row.offer_lane = offer?.lane ?? null;
  row.offer_seq = offer?.enqueue_seq ?? null;
  row.offer_checkpoint = offer?.at_checkpoint ?? null;
  yield* writeListed(row);
}

function* writeListed(row: Listed): Operation<void> {
  const { queue_id: queueId, prefixes } = row;
  const { offer_lane: lane, offer_seq: seq, offer_checkpoint: atCheckpoint } = row;
  yield* run(updateListed, { queueId, prefixes, lane, seq, atCheckpoint });
}

/** The first offer under a beginning of names that comes after another, in the order in which batches are claimed. */
export function* offerAfter(
  prefix: string,
  after: Pick<ListedOffer, "lane" | "enqueue_seq"> | undefined,
  atCheckpoint: boolean,
): Operation<ListedOffer | undefined> {
  const place = { prefix, lane: after?.lane ?? BEFORE_ALL_LANES, seq: after?.enqueue_seq ?? 0 };
  return yield* one(atCheckpoint ? selectNextAtCheckpoint : selectNext, place);
}

const BEFORE_ALL_LANES = -1000;

/**
 * The queues that are to be listed next under a beginning that a claim asks for; undefined if all are. Those that come
 * later are listed when they are made.
 */
export function* nextToList(prefix: string, { now, effects }: Env): Operation<number[] | undefined> {
  const known = yield* one(selectPrefix, { prefix });
  const isListed = known !== undefined && known.unlisted_to === null;
  if (isListed && known.listed_to === null) {
    if (known.asked_at <= now - ASKED_NOTED_MS) yield* run(setAskedAt, { prefix, now });
    return undefined;
  }
  const after = isListed ? (known.listed_to ?? prefix) : prefix;
  const found = yield* pageUnder(prefix, after);
  const last = found.length < LISTED_PER_STEP ? null : (found.at(-1)?.queue ?? null);
  yield* run(setListedTo, { prefix, listedTo: last, now });
  effects.deadline(now + PREFIX_KEPT_MS);
  const first = isListed ? [] : yield* all(selectNamed, { queue: prefix });
  return [...first, ...found].map(({ queue_id }) => queue_id);
}

function* pageUnder(prefix: string, after: string): Operation<{ queue_id: number; queue: string }[]> {
  const end = `${prefix.slice(0, -1)}${AFTER_SLASH}`;
  return yield* all(selectUnlisted, { after, end, rows: LISTED_PER_STEP });
}

/** When the first prefix is forgotten, in elapsed time; undefined if there is none. */
export function* earliestForgotten(): Operation<number | undefined> {
  const at = (yield* one(earliestAsked))?.at ?? null;
  return at === null ? undefined : at + PREFIX_KEPT_MS;
}

/**
 * A prefix that nobody asks for any more, and the queues that are to be taken from its list next; undefined if there is
 * none. It is forgotten with the last of them.
 */
export function* nextToUnlist({
  now,
}: Pick<Env, "now">): Operation<{ prefix: string; queueIds: number[] } | undefined> {
  const unasked = yield* one(selectUnasked, { until: now - PREFIX_KEPT_MS });
  if (unasked === undefined) return undefined;
  const { prefix, unlisted_to: unlistedTo } = unasked;
  const found = yield* pageUnder(prefix, unlistedTo ?? prefix);
  const first = unlistedTo === null ? yield* all(selectNamed, { queue: prefix }) : [];
  const last = found.length < LISTED_PER_STEP ? undefined : found.at(-1)?.queue;
  if (last === undefined) yield* run(deletePrefix, { prefix });
  else yield* run(setUnlistedTo, { prefix, unlistedTo: last });
  return { prefix, queueIds: [...first, ...found].map(({ queue_id }) => queue_id) };
}

/** The character that follows the slash. */
const AFTER_SLASH = "0";
