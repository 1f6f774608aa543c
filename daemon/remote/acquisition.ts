import { randomInt } from "node:crypto";
import type { Parsed } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Boottime, elapsed } from "../clock.js";
import * as records from "../domain/lease/remote-lease.js";
import type { Lease } from "../domain/lease/row.js";
import { DAEMON } from "../turns/call.js";
import type { Sender } from "../turns/handler.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import type { ConfiguredProvider } from "./configured-provider.js";
import type { FailureLog } from "./failure-log.js";
import { inTurn } from "./in-turn.js";
import { checkStillHeld, lasting } from "./lasting.js";
import { newLeaseId } from "./lease-id.js";
import type { OwedLeases } from "./owed.js";
import type { Acquired } from "./provider.js";
import { Failure } from "./refusals.js";
import { type Asking, attemptMs, MIN_ATTEMPT_MS, mayPass, PATIENCE_MS, pause, pauseAfter } from "./retry.js";
import type { SeenTokens } from "./seen-tokens.js";
import type { Asker, Line, WaitingLines } from "./waiting-line.js";

/** A call that was told that a name may be free asks within this time. */
const MAX_AFTER_WATCH_MS = 10;
/** A name that is held is asked for again no sooner, also if the provider says so. */
const MIN_RETRY_MS = 50;
/** The time beyond its ttl in which a lease may be granted without our knowing: requests can be on their way. */
const OWED_EXTRA_MS = 10_000;

/** The parts that asking for names takes. */
export interface AcquisitionParts {
  readonly loop: TurnLoop;
  readonly boottime: () => Boottime;
  readonly failures: FailureLog;
  readonly asking: Asking;
  readonly owed: OwedLeases;
  readonly tokens: SeenTokens;
  readonly lines: WaitingLines;
}

/** A request for one name, which is held by one. */
type OneName = Parsed<"lease.acquire"> & { readonly name: string };

type Granted = Extract<Acquired, { granted: true }>;
type Refused = Extract<Acquired, { granted: false }>;

/**
 * One call of `lease.acquire` for a name that a provider keeps: asks until the name is granted, or the time is over.
 * All requests have one leaseId. The leaseId is written down as owed before, until the grant is recorded or the
 * provider certainly does not have it.
 */
export class Acquisition {
  readonly #parts: AcquisitionParts;
  readonly #params: OneName;
  readonly #sender: Sender;
  readonly #configured: ConfiguredProvider;
  readonly #line: Line;
  readonly #asker: Asker;
  /** Aborted when nobody waits for the answer any more. */
  readonly #nobodyAsks: AbortSignal;
  readonly #leaseId = newLeaseId();
  /** The ends of the wait for the name, and of the patience with a provider that fails. */
  readonly #until: number;
  readonly #patientUntil: number;
  /** The request that the provider is at; undefined once it has answered. */
  #asked: Promise<Acquired> | undefined;
  /** True if the provider may hold the name for this leaseId without our having it. */
  #unsure = false;
  #recorded = false;
  /** The number of attempts in a row that have failed. */
  #failures = 0;
  /** How often in a row the provider told that the name may be free, and it was not. */
  #fruitless = 0;
  /** The fencing token of the last holder of the name. */
  #heldBy = 0;

  /** @param until by the clock that `elapsed` reads. */
  constructor(
    parts: AcquisitionParts,
    { params, sender, configured }: { params: OneName; sender: Sender; configured: ConfiguredProvider },
    { line, asker, until }: { line: Line; asker: Asker; until: number },
  ) {
    this.#parts = parts;
    this.#params = params;
    this.#sender = sender;
    this.#configured = configured;
    this.#line = line;
    this.#asker = asker;
    this.#nobodyAsks = asker.over;
    this.#until = until;
    this.#patientUntil = Math.max(until, elapsed() + PATIENCE_MS);
  }

  async perform(): Promise<{ lease: Lease }> {
    const { owed } = this.#parts;
    const leaseId = this.#leaseId;
    try {
      return await owed.whileBusy(leaseId, async () => {
        for (;;) {
          const tokenAbove = await this.#begin();
          const askedBefore = this.#unsure;
          const acquired = await this.#ask(tokenAbove);
          if (acquired === undefined) continue;
          if (acquired.granted) return await this.#record(acquired, tokenAbove, askedBefore);
          await this.#waitUntilFree(acquired, tokenAbove);
        }
      });
    } finally {
      // A lease that the provider may know is given back.
      if (!this.#recorded) {
        owed.later(this.#unsure ? records.lookAtOwed : (env) => records.forgetOwed(leaseId, env));
        if (this.#unsure) this.#giveBackIfGrantedLate();
      }
    }
  }

  /** A provider may still be at the request when it is asked to take the lease back, and grant it after that. */
  #giveBackIfGrantedLate(): void {
    const { owed } = this.#parts;
    const { name, ttlMs } = this.#params;
    const giveBack = (): void => void owed.giveBackFor(ttlMs, this.#leaseId, name, this.#configured);
    this.#asked?.then(({ granted }) => {
      if (granted) giveBack();
    }, giveBack);
  }

  /** Waits while the name is held through this daemon, writes down what may be owed, and gives the highest token. */
  async #begin(): Promise<number> {
    const { loop, owed, tokens } = this.#parts;
    const { name, waitMs, ttlMs } = this.#params;
    const forMs = Math.max(waitMs, PATIENCE_MS) + ttlMs + OWED_EXTRA_MS;
    const { highest } = await inTurn(
      loop,
      DAEMON,
      (env) => records.begin({ name, leaseId: this.#leaseId, provider: this.#configured.text, forMs }, env),
      { waitMs: Math.max(0, Math.round(this.#until - elapsed())), signal: this.#nobodyAsks },
    );
    const tokenAbove = tokens.highest(name, highest);
    await orAborted(owed.untilReleased(name), this.#nobodyAsks);
    return tokenAbove;
  }

  /** Asks the provider once; undefined, after a pause, if that failed and may be repeated. */
  async #ask(tokenAbove: number): Promise<Acquired | undefined> {
    const { name, owner, ttlMs, note = null } = this.#params;
    const { pid, uid, gid } = this.#sender.caller;
    const request = { name, leaseId: this.#leaseId, owner, ttlMs, note, peer: { pid, uid, gid }, tokenAbove };
    this.#unsure = true;
    try {
      const acquired = await this.#parts.asking.once(
        this.#configured,
        Math.min(attemptMs(ttlMs), Math.max(this.#patientUntil - elapsed(), MIN_ATTEMPT_MS)),
        (signal) => {
          const asked = this.#configured.provider.acquire(request, signal);
          this.#asked = asked;
          return asked.finally(() => {
            this.#asked = undefined;
          });
        },
        this.#nobodyAsks,
      );
      this.#failures = 0;
      return acquired;
    } catch (error) {
      const pauseMs = pauseAfter(this.#failures++);
      if (!mayPass(error) || this.#nobodyAsks.aborted || elapsed() + pauseMs >= this.#patientUntil)
        throw error;
      await pause(pauseMs, this.#nobodyAsks);
      return undefined;
    }
  }

  /** Records what the provider granted: from here on it is a lease like others. */
  async #record(granted: Granted, tokenAbove: number, askedBefore: boolean): Promise<{ lease: Lease }> {
    const { name, ttlMs } = this.#params;
    const { text: provider, kind } = this.#configured;
    const { fencingToken, remainingMs } = granted;
    const { boottime } = this.#parts;
    const answered = elapsed();
    // The token may have been seen meanwhile if an earlier answer that granted it was lost.
    if (fencingToken < tokenAbove || (fencingToken === tokenAbove && !askedBefore)) {
      throw this.#parts.failures.refusalOf(this.#configured, tokenTooLow(name, fencingToken, tokenAbove));
    }
    // Nobody would ever know of the lease.
    if (this.#sender.closed) throw refuse("unavailable", "The connection was closed.", { reason: "closed" });
    const asked = this.#params;
    const grant = { name, leaseId: this.#leaseId, provider, fencingToken, members: null, joint: null };
    const asker = this.#asker;
    const result = await inTurn(this.#parts.loop, this.#sender.caller, function* (env) {
      // A cancel that came before this was told that nothing is granted; one that comes later is told that it was.
      if (asker.over.aborted) return asker.over.reason as PawlError;
      asker.granted();
      return yield* records.record(asked, grant, lasting(remainingMs, ttlMs, answered, boottime()), env);
    });
    this.#recorded = true;
    checkStillHeld(kind, result.lease.remainingMs, answered, ttlMs);
    return result;
  }

  /** Waits until asking again may help; refuses when the time is over. */
  async #waitUntilFree({ holder, retryMs }: Refused, tokenAbove: number): Promise<void> {
    this.#unsure = false;
    const { tokens, lines } = this.#parts;
    const { name } = this.#params;
    const { fencingToken } = holder;
    const now = elapsed();
    this.#line.holder = { owner: holder.owner, until: now + holder.remainingMs };
    if (fencingToken > tokenAbove) await tokens.remember(name, fencingToken, this.#configured);
    if (now >= this.#until) throw lines.heldBy(this.#line);
    this.#fruitless = fencingToken === this.#heldBy ? this.#fruitless : 0;
    this.#heldBy = fencingToken;
    const told = await this.#watch(Math.min(Math.max(retryMs, MIN_RETRY_MS), this.#until - now));
    if (!told) return;
    // All daemons that wait are told at the same time. A provider that tells again and again, of nothing, is
    // listened to less and less.
    const pauseMs = this.#fruitless === 0 ? randomInt(MAX_AFTER_WATCH_MS) : pauseAfter(this.#fruitless);
    await pause(pauseMs, this.#nobodyAsks);
    this.#fruitless += 1;
  }

  /** Waits for so long, or until the provider tells that the name may be free; returns whether it told that. */
  async #watch(retryMs: number): Promise<boolean> {
    const over = new AbortController();
    const stop = (): void => over.abort();
    this.#nobodyAsks.addEventListener("abort", stop, { once: true });
    try {
      const watched = this.#configured.provider.watch?.(this.#params.name, over.signal).then(
        () => true,
        // Without being told, the time decides.
        () => new Promise<never>(() => {}),
      );
      const paused = pause(Math.max(retryMs, 1), this.#nobodyAsks, over.signal).then(() => false);
      return await (watched === undefined ? paused : Promise.race([watched, paused]));
    } finally {
      this.#nobodyAsks.removeEventListener("abort", stop);
      over.abort();
    }
  }
}

/** Rejects with the reason of `signal` once that is aborted. */
async function orAborted(done: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw signal.reason;
  let onAbort: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  await Promise.race([done, aborted]).finally(() => signal.removeEventListener("abort", onAbort));
}

function tokenTooLow(name: string, fencingToken: number, tokenAbove: number): Failure {
  return new Failure(
    "bad_answer",
    `acquire granted ${shown(name)} with the fencing token ${fencingToken}, and ${tokenAbove} was granted before; it was asked for a higher one`,
  );
}
