// Leases that providers keep, as this database records them.
import type { Parsed, Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import { dueWallAt, type Ending } from "../../grants/ending.js";
import { remainingOf } from "../../grants/on-loss.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import type { Holder, Inspected } from "./holder.js";
import { breakLease, check as checkHere, get as getHere } from "./lease.js";
import { kindOf, tooLate } from "./refusals.js";
import {
  type Asked,
  acquiredTtlOf,
  drop,
  type Granted,
  giveBack,
  gone,
  held,
  isHeld,
  keep,
  type Lasting,
  type Lease,
  type LeaseRow,
  logBroken,
  OWED_KEY,
  renew,
  selectHeldById,
  selectHeldByName,
  selectHighest,
  selectTakenByName,
  shownHolder,
  tell,
  tellLost,
  toldHolder,
  waitKey,
} from "./row.js";

/** Owed leases are given back in steps of so many. */
const OWED_ROWS = 200;

/** A row may be past its end and not yet removed: ends come in bounded steps. */
const selectByName = sql<LeaseRow>("SELECT * FROM pawl_lease WHERE name = :name ORDER BY fencing_token");

const owe = sql(`
  INSERT INTO pawl_lease_owed (lease_id, name, provider, fencing_token, until)
  VALUES (:leaseId, :name, :provider, NULL, :until)
  ON CONFLICT (lease_id) DO NOTHING`);

const deleteOwed = sql<{ name: string }>(
  "DELETE FROM pawl_lease_owed WHERE lease_id = :leaseId RETURNING name",
);

const forgetEnded = sql("DELETE FROM pawl_lease_owed WHERE until <= :now");

const selectAllOwed = sql<OwedRow>("SELECT * FROM pawl_lease_owed ORDER BY lease_id");

const selectOwed = sql<OwedRow>("SELECT * FROM pawl_lease_owed WHERE lease_id = :leaseId");

const selectOwedToken = sql<{ lease_id: string }>(
  "SELECT lease_id FROM pawl_lease_owed WHERE name = :name AND fencing_token = :fencingToken",
);

/** Not what may still be granted by a request that is on its way. */
const selectEnded = sql<OwedRow>(
  "SELECT * FROM pawl_lease_owed WHERE fencing_token IS NOT NULL AND until > :now ORDER BY lease_id LIMIT :rows",
);

const raiseTo = sql(`
  INSERT INTO pawl_lease_token (name, highest) VALUES (:name, :fencingToken)
  ON CONFLICT (name) DO UPDATE SET highest = excluded.highest WHERE pawl_lease_token.highest < excluded.highest`);

/** A lease of another boot of the machine, or of one that the kernel does not name, has ended. */
const followBoottime = sql(`
  UPDATE pawl_lease SET
    expires_at = CASE WHEN boot = :boot THEN :now + ends_boottime_ms - :boottimeMs ELSE :now END
  WHERE provider IS NOT NULL`);

const selectAnyRemote = sql<{ name: string }>(
  "SELECT name FROM pawl_lease WHERE provider IS NOT NULL LIMIT 1",
);

interface OwedRow {
  lease_id: string;
  name: string;
  provider: string;
  fencing_token: number | null;
  until: number;
}

/**
 * Before a provider is asked for a name: refuses, or waits, while it is held through this daemon, and
 * keeps in mind that the leaseId may have been granted, until that is known. Gives the highest token so far.
 */
export function* begin(
  { name, leaseId, provider, forMs }: { name: string; leaseId: string; provider: string; forMs: number },
  env: Env,
): Operation<Outcome<{ highest: number }>> {
  const { now } = env;
  const row = yield* one(selectTakenByName, { name, now });
  if (row !== undefined)
    return env.mayWait ? new Wait(waitKey(name)) : held(name, [toldHolder(row, env)], env.wallMs);
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  yield* run(owe, { leaseId, name, provider, until: now + forMs });
  return { highest };
}

/** After a provider has granted a name: from here on it is a lease like others. */
export function* record(
  asked: Asked,
  granted: Granted & { readonly provider: string },
  lasting: Lasting,
  env: Env,
): Operation<{ lease: Lease } | PawlError> {
  const { name, leaseId, provider, fencingToken } = granted;
  if (lasting.remainingMs <= 0) return tooLate(kindOf(provider), asked.ttlMs);
  const former = yield* all(selectByName, { name });
  yield* run(raiseTo, { name, fencingToken });
  yield* all(deleteOwed, { leaseId });
  for (const row of former) {
    for (const each of yield* drop(row, env)) tellLost(each, "expired", null, env);
    yield* giveBack(row, env);
  }
  return { lease: yield* keep(asked, granted, lasting, env) };
}

/**
 * Before a provider is asked to renew a lease that is held through this daemon: says where it is kept, for
 * which ttl, and how long it lasts still; `lease_lost` if it is not held.
 *
 * A holder that comes back after a restart has it again for all that remained, whether its provider can be asked now
 * or not: the end of the grace would be that of a holder that has not come back. A lease that is to last shorter than
 * it would does so from now on, since the provider may do that without our getting its answer.
 *
 * @param lasting how long a lease of this ttl lasts for its holder that is renewed now.
 */
export function* beginRenewal(
  { leaseId, ttlMs: wanted }: Parsed<"lease.heartbeat">,
  lasting: (ttlMs: number) => Lasting,
  env: Env,
): Operation<
  { name: string; provider: string; ttlMs: number; lastTtlMs: number; remainingMs: number } | PawlError
> {
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row === undefined) return gone();
  const { name, provider, ttl_ms: lastTtlMs } = row;
  const ttlMs = wanted ?? acquiredTtlOf(row);
  const { remainingMs: wantedMs, boottime } = lasting(ttlMs);
  const lastsMs = row.expires_at - env.now;
  const remainingMs = Math.min(lastsMs, Math.max(wantedMs, 0));
  if (row.grace_ends_at !== null || remainingMs < lastsMs) {
    // A ttl that has become shorter is warned of by that.
    const warnedTtlMs = Math.min(ttlMs, lastTtlMs);
    yield* renew(row, { ttlMs: lastTtlMs, warnedTtlMs }, { remainingMs, boottime }, env);
  }
  return { name, provider: provider as string, ttlMs, lastTtlMs, remainingMs };
}

/** After a provider has renewed a lease. One that has ended here meanwhile stays lost: its holder was told. */
export function* renewed(
  { leaseId, ttlMs }: { leaseId: string; ttlMs: number },
  lasting: Lasting,
  env: Env,
): Operation<Result<"lease.heartbeat"> | PawlError> {
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row === undefined) return gone();
  if (lasting.remainingMs <= 0) return tooLate(kindOf(row.provider as string), ttlMs);
  return yield* renew(row, { ttlMs }, lasting, env);
}

/** A provider says that a lease is not held, before it has ended here: somebody has ended it by force. */
export function* foundEnded(leaseId: string, env: Env): Operation<void> {
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row === undefined) return;
  yield* drop(row, env);
  tellLost(row, "broken", null, env);
}

/**
 * Before a provider is asked to release a lease: nobody holds it here any more, whatever comes of that.
 * Gives where it is kept, or null if there is nothing to be given back.
 */
export function* letGo(leaseId: string, env: Env): Operation<{ name: string; provider: string } | null> {
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row !== undefined) {
    yield* drop(row, env, true);
    tell(row, "released", env);
    yield* giveBack(row, env);
    return { name: row.name, provider: row.provider as string };
  }
  const owed = yield* one(selectOwed, { leaseId });
  return owed === undefined ? null : { name: owed.name, provider: owed.provider };
}

/** Nothing is owed any more for a leaseId: it was given back, or never granted. Its name's waiters try again. */
export function* forgetOwed(leaseId: string, env: Env): Operation<void> {
  const forgotten = yield* one(deleteOwed, { leaseId });
  if (forgotten !== undefined) env.effects.wake(waitKey(forgotten.name));
}

/** Takes leases that are to be given back, or waits for some; none that `skips` names. */
export function* takeOwed(
  skips: (row: { leaseId: string; provider: string }) => boolean,
  env: Env,
): Operation<Outcome<{ leaseId: string; name: string; provider: string; forMs: number }[]>> {
  yield* run(forgetEnded, { now: env.now });
  const rows = (yield* all(selectAllOwed))
    .filter(({ lease_id: leaseId, provider }) => !skips({ leaseId, provider }))
    .slice(0, OWED_ROWS);
  if (rows.length === 0 && env.mayWait) return new Wait(OWED_KEY);
  return rows.map(({ lease_id: leaseId, name, provider, until }) => ({
    leaseId,
    name,
    provider,
    forMs: until - env.now,
  }));
}

/** Has `takeOwed` look again. */
export function* lookAtOwed(env: Env): Operation<void> {
  env.effects.wake(OWED_KEY);
}

/**
 * The place that keeps the lease of a name may have been configured anew while it is held through this daemon. Until
 * that lease and a process that is to be ended with it have ended, it stays where it was granted, and its record
 * tells of it: then this gives what `perform` makes of that, and undefined if the place that is configured now has
 * to be asked.
 */
function* whereItWas<T>(
  name: string,
  provider: string,
  perform: () => Operation<T>,
  env: Env,
): Operation<T | undefined> {
  const row = yield* one(selectTakenByName, { name, now: env.now });
  return row !== undefined && row.provider !== provider ? yield* perform() : undefined;
}

/** `lease.get`, if the lease is still kept where its name was before. */
export function getMoved(
  params: Parsed<"lease.get">,
  provider: string,
  env: Env,
): Operation<Result<"lease.get"> | PawlError | undefined> {
  return whereItWas(params.name, provider, () => getHere(params, env), env);
}

/** `lease.check`, likewise. */
export function checkMoved(
  params: Parsed<"lease.check">,
  provider: string,
  env: Env,
): Operation<Result<"lease.check"> | undefined> {
  return whereItWas(params.name, provider, () => checkHere(params, env), env);
}

/**
 * A provider has told of a token that it granted, perhaps to another machine: the next one is higher. Whoever holds
 * the name here by a lower token of the same provider has been ended by force.
 */
export function* see(
  { name, fencingToken, provider }: { name: string; fencingToken: number; provider: string },
  env: Env,
): Operation<void> {
  const known = (yield* one(selectHighest, { name }))?.highest ?? 0;
  if (fencingToken <= known) return;
  yield* run(raiseTo, { name, fencingToken });
  const row = yield* one(selectHeldByName, { name, now: env.now });
  if (row?.provider !== provider) return;
  yield* drop(row, env);
  tellLost(row, "broken", null, env);
}

/** `lease.get`: what the provider says, and what only the daemon knows that granted it. */
export function* describe(name: string, holder: Holder | null, env: Env): Operation<Result<"lease.get">> {
  if (holder === null) return { lease: null, holders: [], slots: 1, free: 1 };
  const found = yield* one(selectHeldByName, { name, now: env.now });
  const row = found?.fencing_token === holder.fencingToken ? found : undefined;
  const remainingMs = Math.round(row === undefined ? holder.remainingMs : remainingOf(row, env));
  const { pid = null, uid = null } = row ?? {};
  const lease = shownHolder(name, { ...holder, remainingMs, pid, uid }, env);
  return { lease, holders: [lease], slots: 1, free: 0 };
}

/**
 * `lease.check`: a token that has ended here is not current, also while the provider does not know that yet; nor is
 * one below the highest, which a provider can grant that has forgotten what it granted before.
 */
export function* check(
  { name, fencingToken }: Parsed<"lease.check">,
  { holder, highest: told }: Inspected,
  env: Env,
): Operation<Result<"lease.check">> {
  const known = (yield* one(selectHighest, { name }))?.highest ?? 0;
  const highest = Math.max(known, told);
  if (holder?.fencingToken !== fencingToken || fencingToken < highest) return { current: false, highest };
  const rows = yield* all(selectByName, { name });
  const endedHere =
    rows.some((row) => row.fencing_token === fencingToken && !isHeld(row, env)) ||
    (yield* one(selectOwedToken, { name, fencingToken })) !== undefined;
  return { current: !endedHere, highest };
}

/**
 * Before the lease of a name is ended by force: gives the provider that has to be asked, which is not the one of its
 * name if that was configured anew while it is held. A lease that is kept here is ended at once.
 */
export function* breakOrAsk(
  params: Parsed<"lease.break">,
  configured: string | null,
  canAsk: (provider: string) => boolean,
  env: Env,
): Operation<Outcome<{ ask: string } | Result<"lease.break">>> {
  const row = yield* one(selectHeldByName, { name: params.name, now: env.now });
  const provider = row === undefined ? configured : row.provider;
  return provider !== null && canAsk(provider) ? { ask: provider } : yield* breakLease(params, env);
}

/** The provider that keeps a lease that is held through this daemon; null if none does. */
export function* keptBy(name: string, env: Env): Operation<string | null> {
  return (yield* one(selectHeldByName, { name, now: env.now }))?.provider ?? null;
}

/** After a provider was asked to end the lease of a name by force. */
export function* broken(
  { name, reason }: Parsed<"lease.break">,
  byProvider: boolean,
  env: Env,
): Operation<Result<"lease.break">> {
  const row = yield* one(selectHeldByName, { name, now: env.now });
  const here = row !== undefined && row.provider !== null;
  if (here) {
    yield* drop(row, env);
    logBroken(row, reason, env);
    tellLost(row, "broken", reason, env);
  } else if (byProvider) {
    env.effects.log("lease broken", { lease: { name }, reason, caller: env.caller });
  }
  env.effects.wake(waitKey(name));
  return { broken: byProvider || here };
}

/** When the daemon stops: what has ended here, and providers are to be told of. */
export function* takeEnded(env: Env): Operation<{ leaseId: string; name: string; provider: string }[]> {
  const rows = yield* all(selectEnded, { now: env.now, rows: OWED_ROWS });
  return rows.map(({ lease_id: leaseId, name, provider }) => ({ leaseId, name, provider }));
}

/**
 * Leases that providers keep go on while the machine sleeps, and no longer than its boot: their ends follow
 * CLOCK_BOOTTIME.
 */
export const remoteLeases: Ending = {
  *earliest() {
    // While there are any, the clocks are looked at now and then, so that a sleep is noticed.
    const held = yield* one(selectAnyRemote);
    return dueWallAt(held && Number.MAX_SAFE_INTEGER);
  },

  *expire() {
    return 0;
  },

  *restart({ now }, { boot, boottimeMs }) {
    yield* run(followBoottime, { boot: boot ?? "", boottimeMs, now });
  },

  *wakeUp({ now, effects }, { boot, boottimeMs }) {
    yield* run(followBoottime, { boot: boot ?? "", boottimeMs, now });
    effects.deadline(now);
  },
};
