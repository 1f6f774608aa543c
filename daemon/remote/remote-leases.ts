import { randomBytes, randomInt } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import type { Logger } from "pino";
import { type Boottime, elapsed } from "../clock.js";
import * as outside from "../domain/lease/remote-lease.js";
import { held, type Lasting, waitKey } from "../domain/lease/row.js";
import type { Operation } from "../store/statement.js";
import { DAEMON, performUntilDone } from "../turns/call.js";
import type { AsyncHandlers, Sender } from "../turns/handler.js";
import type { Caller, Env, Outcome } from "../turns/operation.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import type { Acquired, Inspected, LeaseProvider } from "./provider.js";
import { Failure, notConfigured, tooLate, unavailable } from "./refusals.js";
import type { Loggable } from "./secrets.js";
import { fits, kindOf } from "./specification.js";

/** The holder gives a lease up when this part of its ttl is left, before the provider may give it to another. */
const MARGIN_FRACTION = 1 / 10;
/** One attempt may take this part of the ttl, within bounds: so that several fit into what remains of it. */
const ATTEMPT_FRACTION = 1 / 4;
const MIN_ATTEMPT_MS = 50;
const MAX_ATTEMPT_MS = 3000;
/** What fails is repeated for so long before it is `provider_unavailable`; a renewal no longer than the lease lasts. */
const PATIENCE_MS = 3000;
/** Attempts that fail follow each other by half to all of this, doubled each time up to the most. */
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 1000;
/** Who was told that a name may be free asks within so long. */
const MAX_AFTER_WATCH_MS = 10;
/** A name that is held is asked for again no sooner, whatever the provider thinks of that. */
const MIN_RETRY_MS = 50;
/** What could not be given back is tried again at most this much later. */
const MAX_OWED_PAUSE_MS = 15_000;
/** How long what was asked for may be granted without our knowing, beyond its ttl: requests can be on their way. */
const OWED_EXTRA_MS = 10_000;
/** A provider's defect is logged once in so long, and no more than so many of them. */
const SAME_DEFECT_MS = 600_000;
const MAX_DEFECTS = 20;
const LEASE_ID_BYTES = 16;
/** What the leaseIds of leases kept outside begin with: no other begins so. */
const LEASE_ID_PREFIX = "lease_x";
/** When the daemon stops, providers are told of what has ended, and let go of, for so long. */
const LAST_RELEASES_MS = 1500;
const CLOSE_MS = 500;

/** A provider outside, by what it was configured with. */
export interface Site {
  readonly text: string;
  /** What clients are told of it. */
  readonly kind: "dynamodb" | "etcd" | "custom";
  /** What the log is told of it, and of what it says. */
  readonly loggable: Loggable;
  readonly provider: LeaseProvider;
}

/** Names and where their leases are kept; undefined for this database. The first pattern that fits counts. */
export interface SiteRule {
  readonly pattern: string;
  readonly site: Site | undefined;
}

/** Those who wait for a name, first come first, and who held it when the first of them asked last. */
interface Line {
  readonly waiting: Waiting[];
  holder: { readonly owner: string; readonly until: number } | undefined;
}

interface Waiting {
  /** Resolves when it is the first. */
  readonly first: Promise<void>;
  readonly next: () => void;
}

/**
 * Leases that are kept outside this database. The provider is asked outside the turns; what it grants, renews or
 * ends is then recorded in a turn, and from there on guards, notifications, expiry and the end of connections work
 * as for every lease, on a record that ends a tenth of the ttl before the provider lets go.
 *
 * A provider that does not answer has perhaps done what it was asked. So everything is repeated under the same
 * leaseId, and what is still not known then is owed: it is given back in the background, also after a restart.
 */
export class OutsideLeases {
  readonly #rules: readonly SiteRule[];
  readonly #sites = new Map<string, Site>();
  readonly #loop: TurnLoop;
  readonly #log: Logger;
  readonly #lines = new Map<string, Line>();
  /** What ends the waiting of each connection, if it closes. */
  readonly #byConnection = new Map<number, Set<AbortController>>();
  /** LeaseIds that are being asked for or given back: nobody else is to. */
  readonly #busy = new Set<string>();
  /** By leaseId, the last of what is to be asked about it in order. */
  readonly #inOrder = new Map<string, Promise<unknown>>();
  /** By name, a release that is under way. */
  readonly #releasing = new Map<string, Promise<unknown>>();
  /** Sites that did not answer last time, and the reasons that have been logged: each once. */
  readonly #down = new Map<Site, Set<unknown>>();
  /** By site, the texts of defects that have been logged, and until when they are not logged again. */
  readonly #defects = new Map<Site, Map<string, number>>();
  /** By name, the highest tokens seen that could not be written down: there is no space, or the daemon only reads. */
  readonly #seen = new Map<string, number>();
  readonly #readOnly: boolean;
  readonly #boottime: () => Boottime;
  readonly #stopped = new AbortController();

  constructor(options: {
    rules: readonly SiteRule[];
    loop: TurnLoop;
    log: Logger;
    readOnly: boolean;
    boottime: () => Boottime;
  }) {
    this.#rules = options.rules;
    this.#loop = options.loop;
    this.#log = options.log;
    this.#readOnly = options.readOnly;
    this.#boottime = options.boottime;
    setMaxListeners(0, this.#stopped.signal);
    for (const { site } of options.rules) if (site !== undefined) this.#sites.set(site.text, site);
  }

  /** Begins to give back what is owed, also from a life before. */
  start(): void {
    this.#watchOwed();
  }

  /** What takes its methods where a name or a lease is kept outside, and leaves the rest to the operations. */
  handlers(): Pick<
    AsyncHandlers,
    "lease.acquire" | "lease.heartbeat" | "lease.release" | "lease.get" | "lease.check" | "lease.break"
  > {
    const byName =
      <P extends { name: string }, R>(perform: (params: P, sender: Sender, site: Site) => Promise<R>) =>
      (params: P, sender: Sender): Promise<R> | undefined => {
        const site = this.#siteOf(params.name);
        return site === undefined ? undefined : perform(params, sender, site);
      };
    return {
      "lease.acquire": byName(this.#acquire.bind(this)),
      "lease.get": byName(this.#get.bind(this)),
      "lease.check": byName(this.#check.bind(this)),
      // The name may have been another provider's when its lease was granted.
      "lease.break": (params, sender) => this.#break(params, sender, this.#siteOf(params.name)),
      "lease.heartbeat": (params, sender) =>
        isOutside(params.leaseId) ? this.#heartbeat(params, sender) : undefined,
      "lease.release": (params) => (isOutside(params.leaseId) ? this.#release(params) : undefined),
    };
  }

  /** Whether a call would have to ask a provider outside, so that no transaction can hold it. */
  *reaches(method: string, params: unknown, env: Env): Operation<boolean> {
    const { name, leaseId } = params as { name?: string; leaseId?: string };
    switch (method) {
      case "lease.get":
      case "lease.check":
        return this.#siteOf(name as string) !== undefined;
      case "lease.break": {
        const provider = yield* outside.keptBy(name as string, env);
        return this.#siteOf(name as string) !== undefined || this.#sites.has(provider ?? "");
      }
      case "lease.heartbeat":
      case "lease.release":
        return isOutside(leaseId as string);
      default:
        return false;
    }
  }

  /** How many wait for a name, by the key that they would be parked under if it were kept here. */
  waiting(key: string): number {
    return this.#lines.get(key)?.waiting.length ?? 0;
  }

  /** A connection has closed: nobody waits on it any more. */
  disconnect(connection: number): void {
    const closed = refuse("unavailable", "The connection was closed.", { reason: "closed" });
    for (const asking of this.#byConnection.get(connection) ?? []) asking.abort(closed);
  }

  /** Ends all that waits or is under way with this refusal; what is not known by then is owed. */
  stop(refusal: PawlError): void {
    this.#stopped.abort(refusal);
    for (const all of this.#byConnection.values()) for (const asking of all) asking.abort(refusal);
  }

  /**
   * The last thing: gives back what has ended here and the provider has not been told of. What does not succeed in
   * time is given back when the daemon is started again. What is held is left as it is, over a restart.
   */
  async giveBackAtEnd(): Promise<void> {
    if (this.#readOnly) return;
    let ended: { leaseId: string; name: string; provider: string }[] = [];
    this.#performLast(function* (env) {
      ended = yield* outside.takeEnded(env);
    });
    const limit = AbortSignal.timeout(LAST_RELEASES_MS);
    await Promise.all(
      ended.map(async ({ leaseId, name, provider }) => {
        const site = this.#sites.get(provider);
        if (site === undefined) return;
        try {
          await this.#attempt(
            site,
            LAST_RELEASES_MS,
            (signal) => site.provider.release({ name, leaseId }, signal),
            limit,
          );
          this.#performLast((env) => outside.settle(leaseId, env));
        } catch (error) {
          const text = site.loggable.error(error);
          this.#log.warn(
            { provider: site.loggable.title, name, text },
            "a lease is given back at the next start",
          );
        }
      }),
    );
  }

  /** What cannot be written now is found at the next start as it was. */
  #performLast(operation: (env: Env) => Operation<unknown>): void {
    try {
      this.#loop.performNow(operation);
    } catch (error) {
      this.#log.error({ err: error }, "leases that have ended are left to the next daemon");
    }
  }

  async close(): Promise<void> {
    const closed = Promise.allSettled([...this.#sites.values()].map(({ provider }) => provider.close?.()));
    const limit = new AbortController();
    // The process ends then, and with it what a provider still has.
    const late = this.#pause(CLOSE_MS, limit.signal).catch(() => {});
    await Promise.race([closed, late]);
    limit.abort();
  }

  #siteOf(name: string): Site | undefined {
    return this.#rules.find(({ pattern }) => fits(pattern, name))?.site;
  }

  async #acquire(
    params: Parsed<"lease.acquire">,
    sender: Sender,
    site: Site,
  ): Promise<Result<"lease.acquire">> {
    const { name, waitMs } = params;
    const key = waitKey(name);
    const asking = new AbortController();
    const { connection } = sender.caller;
    const all = this.#byConnection.get(connection) ?? new Set();
    this.#byConnection.set(connection, all.add(asking));
    if (this.#stopped.signal.aborted) asking.abort(this.#stopped.signal.reason);
    let place: Waiting | undefined;
    try {
      const until = elapsed() + waitMs;
      const line = this.#lines.get(key) ?? { waiting: [], holder: undefined };
      if (waitMs === 0) {
        // Those who wait come first.
        if (line.waiting.length > 0) throw this.#heldBy(name, line);
      } else {
        this.#lines.set(key, line);
        place = enter(line);
        const over = new AbortController();
        const inTime = await Promise.race([
          place.first.then(() => true),
          this.#pause(waitMs, asking.signal, over.signal).then(() => false),
        ]).finally(() => over.abort());
        if (!inTime) throw this.#heldBy(name, line);
      }
      return await this.#take(params, sender, site, { asking: asking.signal, until, line });
    } finally {
      all.delete(asking);
      if (all.size === 0) this.#byConnection.delete(connection);
      const line = this.#lines.get(key);
      if (line !== undefined && place !== undefined) {
        leave(line, place);
        if (line.waiting.length === 0) this.#lines.delete(key);
      }
    }
  }

  /** Asks for a name until it is granted, or its time is over. */
  async #take(
    { name, owner, ttlMs, waitMs, releaseOn, note: said }: Parsed<"lease.acquire">,
    sender: Sender,
    site: Site,
    { asking, until, line }: { asking: AbortSignal; until: number; line: Line },
  ): Promise<Result<"lease.acquire">> {
    const { caller } = sender;
    const { text: provider, kind } = site;
    const note = said ?? null;
    const leaseId = LEASE_ID_PREFIX + randomBytes(LEASE_ID_BYTES).toString("hex");
    const patient = Math.max(until, elapsed() + PATIENCE_MS);
    const forMs = Math.max(waitMs, PATIENCE_MS) + ttlMs + OWED_EXTRA_MS;
    /** Whether the provider may hold the name for this leaseId without our having it. */
    let unsure = false;
    let recorded = false;
    /** How often in a row it was told that the name may be free, and it was not. */
    let fruitless = 0;
    let heldBy = 0;
    this.#busy.add(leaseId);
    try {
      for (let failures = 0; ; ) {
        const { highest } = await this.#inTurn(
          DAEMON,
          (env) => outside.begin({ name, leaseId, provider, forMs }, env),
          { waitMs: Math.max(0, Math.round(until - elapsed())), signal: asking },
        );
        const tokenAbove = Math.max(highest, this.#seen.get(name) ?? 0);
        await this.#releasing.get(name);

        let acquired: Acquired;
        const askedBefore = unsure;
        try {
          const request = {
            name,
            leaseId,
            owner,
            ttlMs,
            note,
            peer: { pid: caller.pid, uid: caller.uid, gid: caller.gid },
            tokenAbove,
          };
          unsure = true;
          acquired = await this.#attempt(
            site,
            Math.min(attemptMs(ttlMs), Math.max(patient - elapsed(), MIN_ATTEMPT_MS)),
            (signal) => site.provider.acquire(request, signal),
            asking,
          );
        } catch (error) {
          const pause = pauseMs(failures++);
          if (!mayPass(error) || asking.aborted || elapsed() + pause >= patient) throw error;
          await this.#pause(pause, asking);
          continue;
        }
        failures = 0;
        if (acquired.granted) {
          const answered = elapsed();
          const { fencingToken, remainingMs } = acquired;
          // If it was granted before and that answer was lost, it may have been seen meanwhile.
          if (fencingToken < tokenAbove || (fencingToken === tokenAbove && !askedBefore)) {
            throw this.#failed(
              site,
              new Failure(
                "bad_answer",
                `acquire granted ${shown(name)} with the fencing token ${fencingToken}, and ${tokenAbove} was granted before; it was asked for a higher one`,
              ),
            );
          }
          // Nobody would ever know of it.
          if (sender.closed) throw refuse("unavailable", "The connection was closed.", { reason: "closed" });
          const grant = { name, leaseId, provider, owner, note, ttlMs, releaseOn, fencingToken };
          const result = await this.#inTurn(caller, (env) =>
            outside.record(grant, this.#lasting(remainingMs, ttlMs, answered), env),
          );
          recorded = true;
          checkStillHeld(kind, result.lease.remainingMs, answered, ttlMs);
          return result;
        }

        unsure = false;
        const { holder, retryMs } = acquired;
        const { fencingToken } = holder;
        const now = elapsed();
        line.holder = { owner: holder.owner, until: now + holder.remainingMs };
        if (fencingToken > tokenAbove) await this.#remember(name, fencingToken, site);
        if (now >= until) throw this.#heldBy(name, line);
        fruitless = fencingToken === heldBy ? fruitless : 0;
        heldBy = fencingToken;
        const told = await this.#untilFree(
          site,
          name,
          Math.min(Math.max(retryMs, MIN_RETRY_MS), until - now),
          asking,
        );
        // All daemons that wait are told at the same time. A provider that tells again and again, of nothing, is
        // listened to less and less.
        if (told)
          await this.#pause(fruitless === 0 ? randomInt(MAX_AFTER_WATCH_MS) : pauseMs(fruitless), asking);
        fruitless += told ? 1 : 0;
      }
    } finally {
      this.#busy.delete(leaseId);
      // What is not certainly unknown to the provider is given back.
      if (!recorded) this.#later((env) => (unsure ? outside.lookAtOwed(env) : outside.settle(leaseId, env)));
    }
  }

  /** Waits until asking for a name again may help, and says whether the provider told that it may. */
  async #untilFree(site: Site, name: string, retryMs: number, asking: AbortSignal): Promise<boolean> {
    const over = new AbortController();
    const stop = (): void => over.abort();
    asking.addEventListener("abort", stop, { once: true });
    try {
      const watched = site.provider.watch?.(name, over.signal).then(
        () => true,
        // Without being told, the time decides.
        () => new Promise<never>(() => {}),
      );
      const pause = this.#pause(Math.max(retryMs, 1), asking, over.signal).then(() => false);
      return await (watched === undefined ? pause : Promise.race([watched, pause]));
    } finally {
      asking.removeEventListener("abort", stop);
      over.abort();
    }
  }

  #heartbeat(params: Parsed<"lease.heartbeat">, { caller }: Sender): Promise<Result<"lease.heartbeat">> {
    const { leaseId } = params;
    return this.#oneAfterOther(leaseId, async () => {
      const lease = await this.#inTurn(caller, (env) =>
        outside.beginRenewal(params, (ttlMs) => this.#lasting(ttlMs, ttlMs, elapsed()), env),
      );
      const { name, remainingMs: leftMs } = lease;
      const ttlMs = params.ttlMs ?? lease.ttlMs;
      const site = this.#configured(lease.provider);
      const { value: answer, at } = await this.#insist(
        site,
        { patienceMs: Math.min(leftMs, PATIENCE_MS), limitMs: attemptMs(Math.min(ttlMs, lease.ttlMs)) },
        (signal) => site.provider.heartbeat({ name, leaseId, ttlMs }, signal),
      );
      if (answer === null) {
        await this.#inTurn(caller, (env) => outside.foundEnded(leaseId, env));
        throw refuse(
          "lease_lost",
          "The lease is not held any more: its provider says that it ended or was broken. Stop what it guards; acquire the name again for a new lease with a higher fencing token.",
        );
      }
      const { remainingMs } = answer;
      const result = await this.#inTurn(caller, (env) =>
        outside.renewed({ leaseId, ttlMs }, this.#lasting(remainingMs, ttlMs, at), env),
      );
      checkStillHeld(site.kind, result.remainingMs, at, ttlMs);
      return result;
    });
  }

  #release({ leaseId }: Parsed<"lease.release">): Promise<Result<"lease.release">> {
    return this.#oneAfterOther(leaseId, async () => {
      this.#busy.add(leaseId);
      try {
        const lease = await this.#inTurn(DAEMON, (env) => outside.letGo(leaseId, env));
        if (lease === null) return { released: false };
        const released = await this.#giveBack(
          leaseId,
          lease.name,
          this.#configured(lease.provider),
          PATIENCE_MS,
        );
        return { released };
      } finally {
        this.#busy.delete(leaseId);
        this.#later(outside.lookAtOwed);
      }
    });
  }

  /**
   * Releases at the provider, and settles what is owed. True also if the lease was gone when asked again, after an
   * attempt that was not answered: it was that attempt.
   */
  async #giveBack(leaseId: string, name: string, site: Site, patienceMs: number): Promise<boolean> {
    const asked = this.#insist(site, { patienceMs, limitMs: MAX_ATTEMPT_MS }, (signal) =>
      site.provider.release({ name, leaseId }, signal),
    );
    const under = asked.catch(() => {});
    this.#releasing.set(name, under);
    try {
      const { value: released, failures } = await asked;
      await this.#inTurn(DAEMON, (env) => outside.settle(leaseId, env));
      return released || failures > 0;
    } finally {
      if (this.#releasing.get(name) === under) this.#releasing.delete(name);
    }
  }

  async #get(params: Parsed<"lease.get">, { caller }: Sender, site: Site): Promise<Result<"lease.get">> {
    const { name } = params;
    const moved = await this.#inTurn(caller, (env) =>
      outside.getMoved(params, site.text, this.#withLines(env)),
    );
    if (moved !== undefined) return moved;
    const seen = await this.#look(name, site);
    return await this.#inTurn(caller, (env) => outside.describe(name, seen.holder, this.#withLines(env)));
  }

  async #check(
    params: Parsed<"lease.check">,
    { caller }: Sender,
    site: Site,
  ): Promise<Result<"lease.check">> {
    const moved = await this.#inTurn(caller, (env) => outside.checkMoved(params, site.text, env));
    if (moved !== undefined) return moved;
    const seen = await this.#look(params.name, site);
    return await this.#inTurn(caller, (env) => outside.check(params, seen, env));
  }

  async #break(
    params: Parsed<"lease.break">,
    { caller }: Sender,
    configured: Site | undefined,
  ): Promise<Result<"lease.break">> {
    const { name } = params;
    const kept = await this.#inTurn(caller, (env) =>
      outside.breakOrAsk(params, configured?.text ?? null, (text) => this.#sites.has(text), env),
    );
    if (!("ask" in kept)) return kept;
    const site = this.#configured(kept.ask);
    const { provider, kind } = site;
    if (provider.break === undefined) {
      const message = `is kept by a lease provider (${kind}) that cannot end leases by force`;
      throw refuse("invalid_params", `lease.break: the lease of ${shown(name)} ${message}.`, {
        issues: [{ path: "/name", message }],
      });
    }
    const { value, failures } = await this.#insist(site, ONE_ASK, async (signal) =>
      provider.break?.(name, signal),
    );
    return await this.#inTurn(caller, (env) => outside.broken(params, value === true || failures > 0, env));
  }

  /** Asks who holds a name. The highest token is that which anybody was granted, as far as this daemon has seen. */
  async #look(name: string, site: Site): Promise<Inspected> {
    await this.#releasing.get(name);
    const { provider } = site;
    const { value, at } = await this.#insist(site, ONE_ASK, async (signal) => {
      if (provider.inspect !== undefined) return await provider.inspect(name, signal);
      const holder = await provider.get(name, signal);
      return { holder, highest: holder?.fencingToken ?? 0 };
    });
    const highest = Math.max(value.highest, this.#seen.get(name) ?? 0);
    if (highest > 0) await this.#remember(name, highest, site);
    const remainingMs = (value.holder?.remainingMs ?? 0) - (elapsed() - at);
    const holder =
      value.holder === null || remainingMs <= 0
        ? null
        : { ...value.holder, remainingMs: Math.ceil(remainingMs) };
    return { holder, highest };
  }

  /** Has every later token be higher than one that a provider told of. That it is told of goes on without space. */
  async #remember(name: string, fencingToken: number, { text: provider }: Site): Promise<void> {
    if (!this.#readOnly) {
      try {
        await this.#inTurn(DAEMON, (env) => outside.see({ name, fencingToken, provider }, env));
        this.#seen.delete(name);
        return;
      } catch (error) {
        if (!(error instanceof PawlError)) throw error;
      }
    }
    this.#seen.set(name, Math.max(fencingToken, this.#seen.get(name) ?? 0));
  }

  /** Those who wait for leases that are kept outside are not parked in the loop. */
  #withLines(env: Env): Env {
    return { ...env, waiting: (key) => (env.waiting(key) === null ? null : this.waiting(key)) };
  }

  #configured(text: string): Site {
    const site = this.#sites.get(text);
    if (site !== undefined) return site;
    throw notConfigured(kindOf(text));
  }

  /** Repeats an attempt that fails while there is patience; gives what came, when, and after how many failures. */
  async #insist<T>(
    site: Site,
    { patienceMs, limitMs }: { patienceMs: number; limitMs: number },
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<{ value: T; at: number; failures: number }> {
    const until = elapsed() + patienceMs;
    for (let failures = 0; ; failures += 1) {
      try {
        const left = Math.max(until - elapsed(), MIN_ATTEMPT_MS);
        const value = await this.#attempt(site, Math.min(limitMs, left), call);
        return { value, at: elapsed(), failures };
      } catch (error) {
        const pause = pauseMs(failures);
        if (!mayPass(error) || elapsed() + pause >= until) throw error;
        await this.#pause(pause, this.#stopped.signal);
      }
    }
  }

  /** Asks a provider once. Whatever it throws is `provider_unavailable`, but for a refusal that is its own. */
  async #attempt<T>(
    site: Site,
    limitMs: number,
    call: (signal: AbortSignal) => Promise<T>,
    asking: AbortSignal = this.#stopped.signal,
  ): Promise<T> {
    const attempt = new AbortController();
    let end: (reason: unknown) => void = () => {};
    // It may not look at its signal.
    const ended = new Promise<never>((_, reject) => {
      end = reject;
    });
    ended.catch(() => {});
    const timer = setTimeout(() => {
      const late = new Failure("timeout", `it did not answer within ${Math.round(limitMs)} ms`);
      end(late);
      attempt.abort(late);
    }, limitMs);
    const onAbort = (): void => {
      end(asking.reason);
      attempt.abort(asking.reason);
    };
    asking.addEventListener("abort", onAbort, { once: true });
    if (asking.aborted) onAbort();
    try {
      const value = await Promise.race([call(attempt.signal), ended]);
      if (this.#down.delete(site)) {
        this.#log.info({ provider: site.loggable.title }, "the lease provider answers again");
      }
      return value;
    } catch (error) {
      if (asking.aborted) throw asking.reason;
      throw this.#failed(site, error);
    } finally {
      clearTimeout(timer);
      asking.removeEventListener("abort", onAbort);
    }
  }

  /** Turns what a provider rejected with into what clients may know, and logs what they may not. */
  #failed(site: Site, error: unknown): PawlError {
    const { kind, loggable } = site;
    const { kind: said } = (error ?? {}) as { kind?: unknown };
    const ours = kind !== "custom" && error instanceof PawlError;
    if (ours && said !== "provider_unavailable") return error;
    const isKnown = said === "provider_unavailable" || error instanceof Failure;
    const refusal = ours ? error : unavailable(kind, error);
    const { reason } = refusal.details;
    const text = loggable.error(ours ? error.cause : error);
    const provider = loggable.title;
    if (reason === "bad_answer") {
      this.#log.error({ provider, text }, "a lease provider breaks its rules");
      return refusal;
    }
    if (!isKnown) this.#logDefect(site, text, error);
    // A defect of one of its methods says nothing of the others, which may answer all the while.
    if (!isKnown && reason === "failed") return refusal;
    const logged = this.#down.get(site) ?? new Set();
    this.#down.set(site, logged);
    if (!logged.has(reason)) {
      logged.add(reason);
      this.#log.warn({ provider, reason, text }, "the lease provider does not answer");
    }
    return refusal;
  }

  /** Logs a defect of a provider, which is asked again and again and fails as often. */
  #logDefect(site: Site, text: string, error: unknown): void {
    const now = elapsed();
    const defects = this.#defects.get(site) ?? new Map<string, number>();
    this.#defects.set(site, defects);
    for (const [logged, until] of defects) if (until <= now) defects.delete(logged);
    if (defects.has(text) || defects.size >= MAX_DEFECTS) return;
    defects.set(text, now + SAME_DEFECT_MS);
    const { title: provider, stack } = site.loggable;
    this.#log.error({ provider, text, stack: stack(error) }, "the lease provider failed");
  }

  /** Has what is owed given back, as soon as there is some. */
  #watchOwed(): void {
    if (this.#stopped.signal.aborted) return;
    const skips = ({ leaseId, provider }: { leaseId: string; provider: string }): boolean =>
      this.#busy.has(leaseId) || !this.#sites.has(provider);
    performUntilDone(this.#loop, {
      start: (env) => outside.takeOwed(skips, env),
      waits: true,
      done: (owed) => {
        for (const each of owed) void this.#giveBackInTime(each);
        this.#watchOwed();
      },
      failed: (error) => this.#goesOn(error, "what is owed cannot be looked up"),
    });
  }

  /** Gives a lease back, again until that has worked or it has ended by itself. */
  async #giveBackInTime({
    leaseId,
    name,
    provider,
    forMs,
  }: {
    leaseId: string;
    name: string;
    provider: string;
    forMs: number;
  }): Promise<void> {
    const site = this.#sites.get(provider);
    if (site === undefined || this.#busy.has(leaseId)) return;
    this.#busy.add(leaseId);
    const until = elapsed() + forMs;
    try {
      for (let failures = 0; !this.#stopped.signal.aborted && elapsed() < until; failures += 1) {
        try {
          await this.#oneAfterOther(leaseId, () => this.#giveBack(leaseId, name, site, 0));
          return;
        } catch (error) {
          if (!(error instanceof PawlError)) this.#log.error({ err: error }, "a lease was not given back");
          await this.#pause(pauseMs(failures, MAX_OWED_PAUSE_MS), this.#stopped.signal);
        }
      }
    } catch {
      // The daemon stops; the next one goes on.
    } finally {
      this.#busy.delete(leaseId);
    }
  }

  /** What is asked about one lease is asked one after the other. */
  #oneAfterOther<T>(leaseId: string, perform: () => Promise<T>): Promise<T> {
    const before = this.#inOrder.get(leaseId) ?? Promise.resolve();
    const after = before.then(perform, perform);
    this.#inOrder.set(leaseId, after);
    const forget = (): void => {
      if (this.#inOrder.get(leaseId) === after) this.#inOrder.delete(leaseId);
    };
    after.then(forget, forget);
    return after;
  }

  /** Performs an operation in a turn; rejects with its refusal, or at once with the reason of the signal. */
  #inTurn<T>(
    caller: Caller,
    start: (env: Env) => Operation<Outcome<T | PawlError>>,
    { waitMs = 0, signal }: { waitMs?: number; signal?: AbortSignal } = {},
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal?.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) return onAbort();
      this.#loop.submit({
        caller,
        start: (env) => (signal?.aborted ? nothing() : start(env)),
        waitMs,
        closed: false,
        settle: (outcome) => {
          signal?.removeEventListener("abort", onAbort);
          if (outcome instanceof Error) reject(outcome);
          else resolve(outcome as T);
        },
      });
    });
  }

  /** Performs an operation of which nobody hears, again while storage refuses. */
  #later(start: (env: Env) => Operation<unknown>): void {
    performUntilDone(this.#loop, {
      start,
      failed: (error) => this.#goesOn(error, "a lease could not be settled"),
    });
  }

  /** Whether something that failed is to be tried again. */
  #goesOn(error: Error, message: string): boolean {
    if (this.#stopped.signal.aborted) return false;
    if (!(error instanceof PawlError)) this.#log.error({ err: error }, message);
    return true;
  }

  /** What remains for the holder of what remained `from` an answer on: its margin is kept, the time since is gone. */
  #lasting(remainingMs: number, ttlMs: number, from: number): Lasting {
    const passedMs = elapsed() - from;
    const leftMs = Math.floor(remainingMs - passedMs - ttlMs * MARGIN_FRACTION);
    return { remainingMs: leftMs, boottime: this.#boottime() };
  }

  #heldBy(name: string, { holder }: Line): PawlError {
    // Not known yet if the first in the line has no answer yet: then it is held by nobody but taken by those.
    const remainingMs = Math.max(0, Math.ceil((holder?.until ?? 0) - elapsed()));
    return held(name, holder?.owner ?? "those who wait for it", remainingMs, this.#loop.time().wallMs);
  }

  /** Resolves after so long; rejects with the reason of a signal, the first of which ends it. */
  #pause(ms: number, signal: AbortSignal, over?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        settle();
      };
      const onAbort = (): void => end(() => reject(signal.reason));
      const timer = setTimeout(() => end(resolve), Math.min(ms, MAX_TIMER_MS));
      signal.addEventListener("abort", onAbort, { once: true });
      over?.addEventListener("abort", () => end(resolve), { once: true });
      if (signal.aborted) onAbort();
    });
  }
}

/** Patience and limit of a question that has no ttl. */
const ONE_ASK = { patienceMs: PATIENCE_MS, limitMs: MAX_ATTEMPT_MS };

function isOutside(leaseId: string): boolean {
  return leaseId.startsWith(LEASE_ID_PREFIX);
}

/** Whether asking again may help. A provider that gives answers which cannot be would only do so again. */
function mayPass(error: unknown): boolean {
  return (
    error instanceof PawlError &&
    error.kind === "provider_unavailable" &&
    error.details.reason !== "bad_answer"
  );
}

/** This process may have been stopped since: what has ended is not handed out. */
function checkStillHeld(provider: string, remainingMs: number, from: number, ttlMs: number): void {
  if (elapsed() - from >= remainingMs) throw tooLate(provider, ttlMs);
}

/** How long one attempt may take. */
function attemptMs(ttlMs: number): number {
  return Math.min(Math.max(ttlMs * ATTEMPT_FRACTION, MIN_ATTEMPT_MS), MAX_ATTEMPT_MS);
}

/** How long to wait after so many failures, at random, so that many who failed together do not ask together. */
function pauseMs(failures: number, most = MAX_PAUSE_MS): number {
  const full = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(failures, 20), most);
  return randomInt(Math.ceil(full / 2), full + 1);
}

function enter(line: Line): Waiting {
  let next: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    next = resolve;
  });
  const place = { first, next };
  line.waiting.push(place);
  line.waiting[0]?.next();
  return place;
}

function leave(line: Line, place: Waiting): void {
  line.waiting.splice(line.waiting.indexOf(place), 1);
  line.waiting[0]?.next();
}

function* nothing(): Operation<never> {
  return undefined as never;
}
