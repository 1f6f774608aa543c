// The room of remote leases, which providers keep. `provider.ts` is the contract of providers, `conformance.ts` the
// suite that all of them pass, `specification.ts` their configuration; `load.ts` loads those that are configured.
// Nobody trusts a provider: `checked-answers.ts` looks at each answer, `refusals.ts` has what clients are told of
// failures, `failure-log.ts` and `secrets.ts` what the log is told.

import { setMaxListeners } from "node:events";
import type { Parsed, Result } from "@pawl/protocol";
import type { Id } from "@pawl/protocol/envelope";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { type Boottime, elapsed } from "../clock.js";
import { LEASE_BEGINNING, leaseOf } from "../domain/board/work-state.js";
import type { Inspected, WaitingElsewhere } from "../domain/lease/holder.js";
import * as records from "../domain/lease/remote-lease.js";
import type { Lease } from "../domain/lease/row.js";
import { claim, claimUnder, nextToClaim } from "../domain/work/claim.js";
import type { Operation } from "../store/statement.js";
import { DAEMON } from "../turns/call.js";
import type { AsyncHandlers, Sender } from "../turns/handler.js";
import type { Caller, Env, Outcome } from "../turns/operation.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import { Acquisition } from "./acquisition.js";
import { type ConfiguredProvider, ConfiguredProviders, type ProviderRule } from "./configured-provider.js";
import { FailureLog } from "./failure-log.js";
import { inTurn } from "./in-turn.js";
import { checkStillHeld, lasting } from "./lasting.js";
import { isRemote } from "./lease-id.js";
import { OwedLeases } from "./owed.js";
import { Asking, attemptMs, PATIENCE_MS, pause, USUAL_PATIENCE } from "./retry.js";
import { SeenTokens } from "./seen-tokens.js";
import { WaitingLines } from "./waiting-line.js";

/** The time that providers have to let go of connections and timers when the daemon stops. */
const CLOSE_MS = 500;

/**
 * Leases that providers keep. A provider is asked between the turns; what it grants, renews or ends is then recorded in
 * a turn, and from there on guards, notifications, expiry and the end of connections work as for every lease, on a
 * record that ends a tenth of the ttl before the provider lets go.
 *
 * A provider that does not answer has perhaps done what it was asked. So everything is repeated under the same
 * leaseId, and what is still not known then is owed.
 */
export class RemoteLeases {
  readonly #providers: ConfiguredProviders;
  readonly #loop: TurnLoop;
  readonly #readOnly: boolean;
  readonly #boottime: () => Boottime;
  readonly #stopped = new AbortController();
  readonly #failures: FailureLog;
  readonly #asking: Asking;
  readonly #lines: WaitingLines;
  readonly #owed: OwedLeases;
  readonly #tokens: SeenTokens;

  constructor(options: {
    rules: readonly ProviderRule[];
    loop: TurnLoop;
    log: Logger;
    readOnly: boolean;
    boottime: () => Boottime;
  }) {
    const { rules, loop, log, readOnly, boottime } = options;
    const stopped = this.#stopped.signal;
    setMaxListeners(0, stopped);
    this.#providers = new ConfiguredProviders(rules);
    this.#loop = loop;
    this.#readOnly = readOnly;
    this.#boottime = boottime;
    this.#failures = new FailureLog(log);
    this.#asking = new Asking(this.#failures, stopped);
    this.#lines = new WaitingLines(stopped, () => loop.time().wallMs);
    this.#owed = new OwedLeases({ loop, log, providers: this.#providers, asking: this.#asking, stopped });
    this.#tokens = new SeenTokens(loop, readOnly);
  }

  /** Begins to give back what is owed, also from a life before. */
  start(): void {
    this.#owed.watch();
  }

  /** The methods for names and leases that a provider keeps; all others are left to the operations. */
  handlers(): Pick<
    AsyncHandlers,
    | "rpc.cancel"
    | "lease.acquire"
    | "lease.configure"
    | "lease.heartbeat"
    | "lease.release"
    | "lease.get"
    | "lease.check"
    | "lease.break"
    | "pipeline.claim"
  > {
    const byName =
      <P extends { name: string }, R>(
        perform: (
          params: P,
          sender: Sender,
          configured: ConfiguredProvider,
          id: Id | undefined,
        ) => Promise<R>,
      ) =>
      (params: P, sender: Sender, id: Id | undefined): Promise<R> | undefined => {
        const configured = this.#providers.of(params.name);
        return configured === undefined ? undefined : perform(params, sender, configured, id);
      };
    return {
      "rpc.cancel": ({ id }, { caller }) => this.#cancel(id, caller),
      "lease.acquire": (params, sender, id) => {
        const configured = this.#ofAny(namesOf(params));
        return configured && this.#acquire(params, sender, configured, id);
      },
      "lease.configure": byName(async ({ name }, _sender, { kind }) => {
        throw onlyOneHolder("lease.configure", "/name", name, kind, "is held by one at a time");
      }),
      "lease.get": byName(this.#get.bind(this)),
      "lease.check": byName(this.#check.bind(this)),
      // The name may have been another provider's when its lease was granted.
      "lease.break": (params, sender) => this.#break(params, sender, this.#providers.of(params.name)),
      "pipeline.claim": (params, sender, id) =>
        this.#mayKeepItem(params) ? this.#claimItem(params, sender, id) : undefined,
      "lease.heartbeat": (params, sender) =>
        isRemote(params.leaseId) ? this.#heartbeat(params, sender) : undefined,
      "lease.release": (params) => (isRemote(params.leaseId) ? this.#release(params) : undefined),
    };
  }

  /** True if a call would have to ask a provider, so that no transaction can hold it. */
  *reaches(method: string, params: unknown, env: Env): Operation<boolean> {
    const { name, leaseId } = params as { name?: string; leaseId?: string };
    switch (method) {
      case "lease.acquire":
        return this.#ofAny(namesOf(params as Parsed<"lease.acquire">)) !== undefined;
      case "lease.configure":
      case "lease.get":
      case "lease.check":
        return this.#providers.of(name as string) !== undefined;
      case "lease.break": {
        const provider = yield* records.keptBy(name as string, env);
        return (
          this.#providers.of(name as string) !== undefined ||
          this.#providers.withText(provider ?? "") !== undefined
        );
      }
      case "pipeline.claim":
        return this.#mayKeepItem(params as Parsed<"pipeline.claim">);
      case "lease.heartbeat":
      case "lease.release":
        return isRemote(leaseId as string);
      default:
        return false;
    }
  }

  /** How many wait for a name, by the key that they would be parked under if it were kept here. */
  waiting(key: string): number {
    return this.#lines.waiting(key);
  }

  /** All that wait for names that providers keep. */
  everyoneWaiting(): WaitingElsewhere[] {
    return this.#lines.everyone();
  }

  /** A connection has closed: nobody waits on it any more. */
  disconnect(connection: number): void {
    this.#lines.disconnect(connection);
  }

  /** Ends all calls that wait or are under way with this refusal. A lease that may have been granted is owed then. */
  stop(refusal: PawlError): void {
    this.#stopped.abort(refusal);
    this.#lines.stop(refusal);
  }

  /** The last thing: tells providers of what has ended here, in the time that there is. */
  async giveBackAtEnd(): Promise<void> {
    if (!this.#readOnly) await this.#owed.giveBackAtEnd();
  }

  async close(): Promise<void> {
    const limit = new AbortController();
    // The process ends then, and with it what a provider still has.
    const late = pause(CLOSE_MS, limit.signal).catch(() => {});
    await Promise.race([this.#providers.close(), late]);
    limit.abort();
  }

  /** Undefined if no call for a name has this id; others that have it, if any, are parked in the loop. */
  #cancel(id: Id, caller: Caller): Promise<Result<"rpc.cancel">> | undefined {
    if (!this.#lines.cancel(caller.connection, id)) return undefined;
    return this.#inTurn(caller, function* (env) {
      env.cancelWaits(env.caller, id);
      return { cancelled: true };
    });
  }

  /** The provider of the first of these names that one keeps. */
  #ofAny(names: readonly string[]): ConfiguredProvider | undefined {
    return names.map((name) => this.#providers.of(name)).find((each) => each !== undefined);
  }

  async #acquire(
    asked: Parsed<"lease.acquire">,
    sender: Sender,
    configured: ConfiguredProvider,
    id: Id | undefined,
  ): Promise<Result<"lease.acquire">> {
    const { name, names, mode, slots = 1, waitMs, onLoss } = asked;
    const refusal = (param: string, says: string): PawlError =>
      onlyOneHolder("lease.acquire", `/${param}`, name ?? names?.join(", "), configured.kind, says);
    if (name === undefined) throw refusal("names", "is not taken together with others");
    if (mode !== "exclusive") throw refusal("mode", "is not shared");
    if (slots > 1) throw refusal("slots", "has one slot");
    if (onLoss !== undefined) throw refusal("onLoss", "is granted anew without asking this daemon");
    const params = { ...asked, name };
    const until = elapsed() + waitMs;
    const parts = {
      loop: this.#loop,
      boottime: this.#boottime,
      failures: this.#failures,
      asking: this.#asking,
      owed: this.#owed,
      tokens: this.#tokens,
      lines: this.#lines,
    };
    const { owner, task } = params;
    return this.#lines.inLine({ name, owner, task, waitMs, caller: sender.caller, id }, (line, asker) =>
      new Acquisition(parts, { params, sender, configured }, { line, asker, until }).perform(),
    );
  }

  #mayKeepItem({ storyId }: Parsed<"pipeline.claim">): boolean {
    return storyId === undefined
      ? this.#providers.mayKeep(LEASE_BEGINNING)
      : this.#providers.of(leaseOf(storyId)) !== undefined;
  }

  /**
   * A claim of an item: its lease comes first, and if the item is not ready any more once that is granted, it is given
   * back and another item is looked for.
   */
  async #claimItem(
    params: Parsed<"pipeline.claim">,
    sender: Sender,
    id: Id | undefined,
  ): Promise<Result<"pipeline.claim">> {
    const { agent: owner, ttlMs, releaseOn, graceMs } = params;
    const { caller } = sender;
    const until = elapsed() + params.waitMs;
    const passed = new Map<string, string>();
    for (;;) {
      const next = await inTurn<Result<"pipeline.claim"> | { storyId: string; changeId: string }>(
        this.#loop,
        caller,
        (env) => nextToClaim(params, passed, env),
        { waitMs: Math.max(0, Math.round(until - elapsed())), signal: this.#stopped.signal, id },
      );
      if ("item" in next) return next;
      const { storyId, changeId } = next;
      const configured = this.#providers.of(leaseOf(storyId));
      if (configured === undefined) {
        // One of those that this database keeps.
        const { stages: _, labels: __, ...named } = params;
        const claimed = await this.#inTurn(caller, (env) => claim({ ...named, storyId }, env));
        if (claimed.item !== null) return claimed;
        continue;
      }
      const asked = { name: leaseOf(storyId), owner, mode: "exclusive", ttlMs, releaseOn, graceMs } as const;
      try {
        const granted = await this.#acquire({ ...asked, waitMs: 0 }, sender, configured, id);
        const { lease } = granted as { lease: Lease };
        const claimed = await this.#inTurn(caller, (env) => claimUnder(storyId, lease, params, env));
        if (claimed !== undefined) return claimed;
        await this.#release({ leaseId: lease.leaseId });
      } catch (error) {
        if (!(error instanceof PawlError) || error.kind !== "lease_held") throw error;
        // It is passed over until a change says something new of it.
        passed.set(storyId, changeId);
      }
    }
  }

  async #heartbeat(
    params: Parsed<"lease.heartbeat">,
    { caller }: Sender,
  ): Promise<Result<"lease.heartbeat">> {
    const { leaseId, note } = params;
    if (note !== undefined) {
      const message = "is that of its acquisition where a lease provider keeps the lease";
      throw refuse("invalid_params", `lease.heartbeat: the note ${message}. Leave it out.`, {
        issues: [{ path: "/note", message }],
      });
    }
    return await this.#owed.inOrder(leaseId, async () => {
      const lease = await this.#inTurn(caller, (env) =>
        records.beginRenewal(params, (ttlMs) => lasting(ttlMs, ttlMs, elapsed(), this.#boottime()), env),
      );
      const { name, ttlMs, lastTtlMs, remainingMs: leftMs } = lease;
      const configured = this.#providers.needed(lease.provider);
      const { value: answer, at } = await this.#asking.patiently(
        configured,
        { patienceMs: Math.min(leftMs, PATIENCE_MS), limitMs: attemptMs(Math.min(ttlMs, lastTtlMs)) },
        (signal) => configured.provider.heartbeat({ name, leaseId, ttlMs }, signal),
      );
      if (answer === null) {
        await this.#inTurn(caller, (env) => records.foundEnded(leaseId, env));
        throw refuse(
          "lease_lost",
          "The lease is not held any more: its provider says that it ended or was broken. Stop what it guards; acquire the name again for a new lease with a higher fencing token.",
        );
      }
      const { remainingMs } = answer;
      const result = await this.#inTurn(caller, (env) =>
        records.renewed({ leaseId, ttlMs }, lasting(remainingMs, ttlMs, at, this.#boottime()), env),
      );
      checkStillHeld(configured.kind, result.remainingMs, at, ttlMs);
      return result;
    });
  }

  #release({ leaseId }: Parsed<"lease.release">): Promise<Result<"lease.release">> {
    const release = async (): Promise<Result<"lease.release">> => {
      const lease = await this.#inTurn(DAEMON, (env) => records.letGo(leaseId, env));
      if (lease === null) return { released: false };
      const configured = this.#providers.needed(lease.provider);
      return { released: await this.#owed.giveBack(leaseId, lease.name, configured, PATIENCE_MS) };
    };
    return this.#owed.inOrder(leaseId, () =>
      this.#owed.whileBusy(leaseId, release).finally(() => this.#owed.later(records.lookAtOwed)),
    );
  }

  async #get(
    params: Parsed<"lease.get">,
    { caller }: Sender,
    configured: ConfiguredProvider,
  ): Promise<Result<"lease.get">> {
    const { name } = params;
    const moved = await this.#inTurn(caller, (env) =>
      records.getMoved(params, configured.text, this.#withLines(env)),
    );
    if (moved !== undefined) return moved;
    const { holder } = await this.#inspect(name, configured);
    return await this.#inTurn(caller, (env) => records.describe(name, holder, this.#withLines(env)));
  }

  async #check(
    params: Parsed<"lease.check">,
    { caller }: Sender,
    configured: ConfiguredProvider,
  ): Promise<Result<"lease.check">> {
    const moved = await this.#inTurn(caller, (env) => records.checkMoved(params, configured.text, env));
    if (moved !== undefined) return moved;
    const inspected = await this.#inspect(params.name, configured);
    return await this.#inTurn(caller, (env) => records.check(params, inspected, env));
  }

  async #break(
    params: Parsed<"lease.break">,
    { caller }: Sender,
    byName: ConfiguredProvider | undefined,
  ): Promise<Result<"lease.break">> {
    const { name, fencingToken } = params;
    const canAsk = (text: string): boolean => this.#providers.withText(text) !== undefined;
    const kept = await this.#inTurn(caller, (env) =>
      records.breakOrAsk(params, byName?.text ?? null, canAsk, env),
    );
    if (!("ask" in kept)) return kept;
    const configured = this.#providers.needed(kept.ask);
    const { provider, kind } = configured;
    if (fencingToken !== undefined) {
      throw onlyOneHolder("lease.break", "/fencingToken", name, kind, "has one holder, who needs no token");
    }
    if (provider.break === undefined) {
      const message = `is kept by a lease provider (${kind}) that cannot end leases by force`;
      throw refuse("invalid_params", `lease.break: the lease of ${shown(name)} ${message}.`, {
        issues: [{ path: "/name", message }],
      });
    }
    const { value, failures } = await this.#asking.patiently(configured, USUAL_PATIENCE, async (signal) =>
      provider.break?.(name, signal),
    );
    return await this.#inTurn(caller, (env) => records.broken(params, value === true || failures > 0, env));
  }

  /** Asks for the holder of a name. The highest token is that of any grant, as far as this daemon has seen. */
  async #inspect(name: string, configured: ConfiguredProvider): Promise<Inspected> {
    await this.#owed.untilReleased(name);
    const { provider } = configured;
    const { value, at } = await this.#asking.patiently(configured, USUAL_PATIENCE, async (signal) => {
      if (provider.inspect !== undefined) return await provider.inspect(name, signal);
      const holder = await provider.get(name, signal);
      return { holder, highest: holder?.fencingToken ?? 0 };
    });
    const highest = this.#tokens.highest(name, value.highest);
    if (highest > 0) await this.#tokens.remember(name, highest, configured);
    const remainingMs = (value.holder?.remainingMs ?? 0) - (elapsed() - at);
    const holder =
      value.holder === null || remainingMs <= 0
        ? null
        : { ...value.holder, remainingMs: Math.ceil(remainingMs) };
    return { holder, highest };
  }

  /** The calls that wait for a remote lease are not parked in the loop. */
  #withLines(env: Env): Env {
    return { ...env, waiting: (key) => (env.waiting(key) === null ? null : this.waiting(key)) };
  }

  #inTurn<T>(caller: Caller, start: (env: Env) => Operation<Outcome<T | PawlError>>): Promise<T> {
    return inTurn(this.#loop, caller, start);
  }
}

function namesOf({ name, names = [name as string] }: Parsed<"lease.acquire">): readonly string[] {
  return names;
}

/** The refusal of what only leases of this daemon's database can be. */
function onlyOneHolder(
  method: string,
  path: string,
  name: string | undefined,
  kind: string,
  says: string,
): PawlError {
  const message = `a name that a lease provider (${kind}) keeps ${says}`;
  return refuse(
    "invalid_params",
    `${method}: ${shown(name)}: ${message}. Use a name that the daemon keeps.`,
    {
      issues: [{ path, message }],
    },
  );
}
