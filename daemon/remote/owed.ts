import { PawlError } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { elapsed } from "../clock.js";
import * as records from "../domain/lease/remote-lease.js";
import type { Operation } from "../store/statement.js";
import { DAEMON, performUntilDone } from "../turns/call.js";
import type { Env } from "../turns/operation.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import type { ConfiguredProvider, ConfiguredProviders } from "./configured-provider.js";
import { inTurn } from "./in-turn.js";
import { type Asking, MAX_ATTEMPT_MS, pause, pauseAfter } from "./retry.js";

/** A lease that could not be given back is tried again at most this much later. */
const MAX_OWED_PAUSE_MS = 15_000;
/** The time in which providers are told of what has ended when the daemon stops. */
const LAST_RELEASES_MS = 1500;

interface Owed {
  readonly leaseId: string;
  readonly name: string;
  readonly provider: string;
}

/**
 * The leases that are owed to their providers: a provider may have granted one without our knowing, or does not know
 * that it has ended here. The database keeps them (`pawl_lease_owed`); they are given back in the background, also
 * after a restart.
 */
export class OwedLeases {
  readonly #loop: TurnLoop;
  readonly #log: Logger;
  readonly #providers: ConfiguredProviders;
  readonly #asking: Asking;
  readonly #stopped: AbortSignal;
  /** LeaseIds that are being asked for or given back: nobody else is to. */
  readonly #busy = new Set<string>();
  /** By leaseId, the last of what is to be asked about it in order. */
  readonly #inOrder = new Map<string, Promise<unknown>>();
  /** By name, a release that is under way. */
  readonly #releasing = new Map<string, Promise<unknown>>();

  constructor(options: {
    loop: TurnLoop;
    log: Logger;
    providers: ConfiguredProviders;
    asking: Asking;
    stopped: AbortSignal;
  }) {
    this.#loop = options.loop;
    this.#log = options.log;
    this.#providers = options.providers;
    this.#asking = options.asking;
    this.#stopped = options.stopped;
  }

  /** Has what is owed given back, as soon as there is some. */
  watch(): void {
    if (this.#stopped.aborted) return;
    const skips = ({ leaseId, provider }: { leaseId: string; provider: string }): boolean =>
      this.#busy.has(leaseId) || this.#providers.withText(provider) === undefined;
    performUntilDone(this.#loop, {
      start: (env) => records.takeOwed(skips, env),
      waits: true,
      done: (owed) => {
        for (const each of owed) void this.#giveBackInTime(each);
        this.watch();
      },
      failed: (error) => this.#goesOn(error, "what is owed cannot be looked up"),
    });
  }

  /** Keeps a leaseId from being given back in the background while it is being asked about. */
  async whileBusy<T>(leaseId: string, perform: () => Promise<T>): Promise<T> {
    this.#busy.add(leaseId);
    try {
      return await perform();
    } finally {
      this.#busy.delete(leaseId);
    }
  }

  /** Performs what is asked about one lease one after the other. */
  inOrder<T>(leaseId: string, perform: () => Promise<T>): Promise<T> {
    const before = this.#inOrder.get(leaseId) ?? Promise.resolve();
    const after = before.then(perform, perform);
    this.#inOrder.set(leaseId, after);
    const forget = (): void => {
      if (this.#inOrder.get(leaseId) === after) this.#inOrder.delete(leaseId);
    };
    after.then(forget, forget);
    return after;
  }

  /** Resolves when no release of this name is under way: the name is not asked for before. */
  async untilReleased(name: string): Promise<void> {
    await this.#releasing.get(name);
  }

  /**
   * Releases a lease at its provider, and owes it no more. True also if the lease was gone when asked again, after an
   * attempt that was not answered: it was that attempt.
   */
  async giveBack(
    leaseId: string,
    name: string,
    configured: ConfiguredProvider,
    patienceMs: number,
  ): Promise<boolean> {
    const asked = this.#asking.patiently(configured, { patienceMs, limitMs: MAX_ATTEMPT_MS }, (signal) =>
      configured.provider.release({ name, leaseId }, signal),
    );
    const releasing = asked.catch(() => {});
    this.#releasing.set(name, releasing);
    try {
      const { value: released, failures } = await asked;
      await inTurn(this.#loop, DAEMON, (env) => records.forgetOwed(leaseId, env));
      return released || failures > 0;
    } finally {
      if (this.#releasing.get(name) === releasing) this.#releasing.delete(name);
    }
  }

  /** Performs an operation of which nobody hears, again while the storage refuses it. */
  later(start: (env: Env) => Operation<unknown>): void {
    performUntilDone(this.#loop, {
      start,
      failed: (error) => this.#goesOn(error, "a lease that is owed no more could not be forgotten"),
    });
  }

  /**
   * The last thing: gives back what has ended here and the provider has not been told of. What does not succeed in
   * time is given back when the daemon is started again. What is held is left as it is, over a restart.
   */
  async giveBackAtEnd(): Promise<void> {
    let ended: Owed[] = [];
    this.#performLast(function* (env) {
      ended = yield* records.takeEnded(env);
    });
    const limit = AbortSignal.timeout(LAST_RELEASES_MS);
    await Promise.all(ended.map((each) => this.#giveBackOnce(each, limit)));
  }

  async #giveBackOnce({ leaseId, name, provider }: Owed, limit: AbortSignal): Promise<void> {
    const configured = this.#providers.withText(provider);
    if (configured === undefined) return;
    try {
      await this.#asking.once(
        configured,
        LAST_RELEASES_MS,
        (signal) => configured.provider.release({ name, leaseId }, signal),
        limit,
      );
      this.#performLast((env) => records.forgetOwed(leaseId, env));
    } catch (error) {
      const { title, error: text } = configured.loggable;
      this.#log.warn({ provider: title, name, text: text(error) }, "a lease is given back at the next start");
    }
  }

  /** A row that cannot be written now is found at the next start as it was. */
  #performLast(operation: (env: Env) => Operation<unknown>): void {
    try {
      this.#loop.performNow(operation);
    } catch (error) {
      this.#log.error({ err: error }, "leases that have ended are left to the next daemon");
    }
  }

  /** Gives a lease back, again until that has worked or it has ended by itself, in `forMs`. */
  async #giveBackInTime({ leaseId, name, provider, forMs }: Owed & { forMs: number }): Promise<void> {
    const configured = this.#providers.withText(provider);
    if (configured === undefined || this.#busy.has(leaseId)) return;
    await this.whileBusy(leaseId, () => this.giveBackFor(forMs, leaseId, name, configured));
  }

  /** Asks a provider to take a lease back, again until that has worked, for so long. */
  async giveBackFor(
    forMs: number,
    leaseId: string,
    name: string,
    configured: ConfiguredProvider,
  ): Promise<void> {
    const until = elapsed() + forMs;
    try {
      for (let failures = 0; !this.#stopped.aborted && elapsed() < until; failures += 1) {
        try {
          await this.inOrder(leaseId, () => this.giveBack(leaseId, name, configured, 0));
          return;
        } catch (error) {
          if (!(error instanceof PawlError)) this.#log.error({ err: error }, "a lease was not given back");
          await pause(pauseAfter(failures, MAX_OWED_PAUSE_MS), this.#stopped);
        }
      }
    } catch {
      // The daemon stops; the next one goes on.
    }
  }

  /** True if something that failed is to be tried again. */
  #goesOn(error: Error, message: string): boolean {
    if (this.#stopped.aborted) return false;
    if (!(error instanceof PawlError)) this.#log.error({ err: error }, message);
    return true;
  }
}
