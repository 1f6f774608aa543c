import type { NotificationName } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";
import { EXECUTION_TIME } from "../domain/command/delivery.js";
import type { LostRow } from "../grants/on-loss.js";
import type { Operation } from "../store/statement.js";
import type { Outlet } from "../turns/effects.js";
import type { Caller, Env } from "../turns/operation.js";
import { changesBy } from "./grants-made.js";
import { endsWithLife, type HeldGrant, HeldGrants } from "./held.js";
import type { Elsewhere, KnownScopes } from "./known-scopes.js";

/** A grant is given back instead of answered once this part of its time is over. */
const TOO_LATE_PART = 1 / 2;
/** Of what does not end with a connection. */
const NO_GRACE_MS = Number.POSITIVE_INFINITY;
/** Deliveries of which it is remembered that they last for their time. */
const MAX_LASTING = 50_000;

export interface GrantedOptions {
  readonly scopes: KnownScopes;
  readonly processOf: NonNullable<Env["processOf"]>;
  readonly notify: Outlet["notify"];
  /** Performs an operation that gives a grant back. If that fails, the grant ends by its time. */
  readonly giveBack: (giveBack: (env: Env) => Operation<unknown>) => void;
  /** Ends the holder of a grant, who has to stop now, as its connection here. */
  readonly endHolder: (row: LostRow, connection: number) => void;
  /** Something is held for a shorter time than all before. */
  readonly onShorter: () => void;
  /**
   * Holders were told, because the database is away or silent.
   *
   * @param endWithLife true if something of it ends once others take this daemon for dead, as they may now.
   */
  readonly onLost: (grants: number, endWithLife: boolean) => void;
  /** The clock of the place, in milliseconds since 1970. */
  readonly now: () => number;
}

/** What this daemon has granted at a place, or renewed: its holders are told before others may end it. */
export class Granted {
  readonly #options: GrantedOptions;
  readonly #held = new HeldGrants();
  #losing: NodeJS.Timeout | undefined;
  /** Since when the database has not answered, in milliseconds of `elapsed`; undefined while it is there. */
  #silentSince: number | undefined;
  /** Commands of whose deliveries it is known that they last for their time, whatever becomes of this daemon. */
  readonly #lasting = new Set<string>();

  constructor(options: GrantedOptions) {
    this.#options = options;
  }

  /** The shortest time for which nobody else ends something, in milliseconds; infinity for nothing. */
  get shortestMs(): number {
    return this.#held.shortestMs;
  }

  /**
   * Notes what a call was granted, or has given back, and gives what it is answered.
   *
   * @param call `elsewhere` has what holders are told of what was not granted here.
   * @param ageMs how long ago the time of the grant was.
   */
  note(
    call: { readonly method: string; readonly params: object; readonly elsewhere: Elsewhere },
    caller: Caller,
    outcome: unknown,
    ageMs: number,
  ): unknown {
    const { scopes: known, giveBack: perform } = this.#options;
    const { method, params, elsewhere } = call;
    const changes = changesBy(method, params, outcome);
    const { connection } = caller;
    if (changes.some(({ ttlMs }) => ttlMs > 0 && ageMs >= ttlMs * TOO_LATE_PART)) {
      for (const { giveBack } of changes) if (giveBack !== undefined) perform(giveBack);
      if (method !== "transact") return TOO_LATE;
      // The rest of it was done: it is answered as it is, and then its holder is told.
      setImmediate(() => {
        for (const { tell = [] } of changes) this.#tell(connection, tell);
      });
      return outcome;
    }
    for (const { id, scopes, ttlMs, graceMs = NO_GRACE_MS, tell, onLoss: ending, isDelivery } of changes) {
      if (ttlMs === 0) {
        if (!isDelivery) known.forget(id);
        this.#held.forget(id);
        continue;
      }
      if (scopes !== undefined) known.remember({ kind: "claim", id }, scopes);
      const other = tell !== undefined || this.#held.has(id) ? undefined : elsewhere.get(id);
      const told = tell ?? other?.tell;
      if (isDelivery) this.#noteLasting(id, told);
      if (told === undefined) this.#held.renew(id, ttlMs, caller);
      else if (told.length > 0) {
        const how = ending ?? other?.ending;
        const holder = how && this.#options.processOf(caller);
        const onLoss = how && holder && !(holder instanceof PawlError) ? { ...how, holder } : undefined;
        // What was granted elsewhere may end with its connection.
        const after = tell === undefined ? RESTART_GRACE_MS : graceMs;
        this.#hold(id, { connection, ttlMs, graceMs: after, tell: told, onLoss, lapses: isDelivery });
      }
    }
    return outcome;
  }

  /** @param told what its receiver is told if the delivery ends before its time; undefined if that is as it was. */
  #noteLasting(commandId: string, told: HeldGrant["tell"] | undefined): void {
    if (this.#lasting.size >= MAX_LASTING) this.#lasting.clear();
    if (told?.length === 0) this.#lasting.add(commandId);
    else if (told !== undefined) this.#lasting.delete(commandId);
  }

  /** True if it is known whether the receiver of a command has to be told when its delivery ends before its time. */
  knowsDelivery(commandId: string): boolean {
    return this.#held.has(commandId) || this.#lasting.has(commandId);
  }

  /** Forgets what is over by its time without a word to anybody. */
  dropLapsed(): void {
    this.#held.dropLapsed();
  }

  #hold(id: string, grant: HeldGrant): void {
    const { shortestMs } = this.#held;
    this.#held.keep(id, grant);
    if (this.#silentSince !== undefined) this.cutOff(this.#silentSince);
    if (this.#held.shortestMs < shortestMs) this.#options.onShorter();
  }

  /** A connection was sent a command, and is to be told if others may deliver it anew. */
  sent(connection: number, commandId: string): void {
    const params = { commandId, reason: EXECUTION_TIME };
    const tell = [{ method: "command.cancelled" as const, params }];
    const lasts = { ttlMs: RESTART_GRACE_MS, graceMs: RESTART_GRACE_MS };
    this.#hold(commandId, { connection, ...lasts, tell, onLoss: undefined });
  }

  /** It has answered, or was told that nobody waits for the answer. */
  answered(commandId: string): void {
    this.#held.drop(commandId);
  }

  /** A connection of this daemon is told something, after which it may hold less. */
  told(method: NotificationName, params: object): void {
    if (!ENDS_HELD.has(method)) return;
    const { leaseId, claimId, reservationId, commandId } = params as Record<string, string | undefined>;
    this.#held.drop((leaseId ?? claimId ?? reservationId ?? commandId) as string);
  }

  /** The connection here that has to close before others are granted what was lost; 0 if it has. */
  toClose(id: string): number {
    return this.#held.toClose(id);
  }

  /** A connection has closed. */
  disconnected(connection: number): void {
    // Who renews one of these at another connection is told of it there, as of what was granted elsewhere.
    for (const id of this.#held.dropOf(connection)) this.#options.scopes.forget(id);
  }

  /**
   * The database is away: each holder is told before others may end what it holds.
   *
   * @param heardAt since when it has not answered, in milliseconds of `elapsed`.
   */
  cutOff(heardAt: number): void {
    clearTimeout(this.#losing);
    this.#silentSince = heardAt;
    const at = this.#held.firstLossAt(heardAt);
    if (at === Number.POSITIVE_INFINITY) return;
    const lose = (): void => {
      this.#lose(this.#held.takeLost(heardAt));
      this.cutOff(heardAt);
    };
    this.#losing = setTimeout(lose, Math.max(at - elapsed(), 0)).unref();
  }

  /**
   * True if others may take this daemon for dead before they end what it is time to tell of.
   *
   * @param heardAt since when the database has not answered, in milliseconds of `elapsed`.
   */
  losesLife(heardAt: number): boolean {
    return this.#held.lost(heardAt).some(endsWithLife);
  }

  /** Tells those of whose grants it is time, of a database that may yet answer. */
  tellLost(heardAt: number): void {
    this.#lose(this.#held.takeLost(heardAt));
  }

  /** The database is there again, or the daemon stops. */
  goOn(): void {
    clearTimeout(this.#losing);
    this.#silentSince = undefined;
  }

  /** The others take this daemon for dead, and end what is bound to its connections. */
  giveUpLife(): void {
    this.#lose(this.#held.takeEndingWithLife());
  }

  #lose(lost: ReturnType<HeldGrants["takeLost"]>): void {
    if (lost.length === 0) return;
    for (const { id, connection, ttlMs, since, tell, onLoss } of lost) {
      this.#tell(connection, tell);
      // What was not renewed here for so long may have been given back at another daemon.
      if (onLoss === undefined || elapsed() - since > ttlMs) continue;
      this.#options.endHolder(lostRow(id, onLoss, this.#options.now()), this.#held.toClose(id));
    }
    this.#options.onLost(lost.length, lost.some(endsWithLife));
  }

  #tell(connection: number, tell: HeldGrant["tell"]): void {
    for (const { method, params } of tell) this.#options.notify(connection, method, params);
  }
}

function lostRow(
  grantId: string,
  { holder, ...ending }: NonNullable<HeldGrant["onLoss"]>,
  lostAt: number,
): LostRow {
  return {
    ...ending,
    grant_id: grantId,
    connection: 0,
    pid: holder.pid,
    start_time: holder.startTime,
    pidfd_inode: holder.pidfdInode,
    boot: holder.boot,
    pid_namespace: holder.pidNamespace,
    database_file: holder.databaseFile,
    lost_at: lostAt,
  };
}

/** After these a connection has no more of what it held. */
const ENDS_HELD: ReadonlySet<NotificationName> = new Set([
  "lease.lost",
  "claim.lost",
  "path.lost",
  "command.cancelled",
]);

const TOO_LATE = refuse(
  "unavailable",
  "The database of these shared names took so long to answer that what was granted is not sure to be held any more; it is given back. Ask again.",
  { reason: "shared_unavailable" },
);
