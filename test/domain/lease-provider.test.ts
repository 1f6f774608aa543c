// Leases that the database keeps, under the suite that every provider has to pass. Their operations run each in a
// transaction of its own on a real database file; only time is made up.
import { join } from "node:path";
import type { OneLease } from "@pawl/protocol/types";
import { test } from "vitest";
import type { Clock } from "../../daemon/dist/clock.js";
import { acquire } from "../../daemon/dist/domain/lease/acquire.js";
import * as lease from "../../daemon/dist/domain/lease/lease.js";
import { see } from "../../daemon/dist/domain/lease/remote-lease.js";
import { type Holder, type LeaseProvider, leaseProviderConformance } from "../../daemon/dist/index.js";
import { openDatabase } from "../../daemon/dist/store/open-database.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { type Effects, type Env, Tried, Unfinished, Wait } from "../../daemon/dist/turns/operation.js";
import { Clocks } from "../clocks.js";
import { privateDirectory } from "../daemon.js";
import { envOf } from "./drive.js";

leaseProviderConformance({
  test,
  stage: async () => {
    const time = new Clocks();
    const { store, clock, close } = openDatabase({ path: join(privateDirectory(), "pawl.db"), time });
    const ids = new Map<string, string>();
    return {
      open: async () => provider(store, clock, ids),
      pass: async (ms) => time.pass(ms),
      close: async () => close(),
    };
  },
});

const ignored = () => {};
const effects = {
  reached: ignored,
  wake: ignored,
  deadline: ignored,
  bind: ignored,
  count: ignored,
  notify: ignored,
  log: ignored,
  tell: ignored,
};

/**
 * The operations as a provider. Its callers choose a leaseId, the daemon makes one.
 *
 * @param ids by the leaseId of the caller, that of the daemon.
 */
function provider(store: Store, clock: Clock, ids: Map<string, string>): LeaseProvider {
  async function perform<T>(
    start: (env: Env) => Operation<T | Wait | Unfinished<unknown> | Tried<unknown>>,
  ): Promise<Exclude<T, Error | Tried<unknown>>> {
    const env = envOf({
      ...clock.read(),
      caller: { connection: 1, pid: 1, uid: 1, gid: 1 },
      mayWait: false,
      mayGoOn: false,
      idMark: "",
      waiting: () => 0,
      waitsBefore: () => false,
      isLeft: () => false,
      random: (bytes: number) => crypto.getRandomValues(Buffer.alloc(bytes)),
      effects: envOf(effects as unknown as Partial<Env>) as unknown as Effects,
    });
    store.begin();
    const outcome = store.perform(start(env));
    store.commit();
    if (outcome instanceof Error || outcome instanceof Wait) throw outcome;
    if (outcome instanceof Unfinished || outcome instanceof Tried) throw outcome;
    return outcome as Exclude<T, Error | Tried<unknown>>;
  }

  /** Null for a refusal of this kind. */
  async function unless<T>(kind: string, asked: Promise<T>): Promise<T | null> {
    try {
      return await asked;
    } catch (error) {
      if ((error as { kind?: unknown }).kind !== kind) throw error;
      return null;
    }
  }

  const idOf = (leaseId: string): string => ids.get(leaseId) ?? leaseId;
  const heartbeat = (leaseId: string, ttlMs: number) =>
    unless(
      "lease_lost",
      perform((env) => lease.heartbeat({ leaseId: idOf(leaseId), ttlMs }, env)),
    );
  const get = async (name: string) => {
    const { lease: found } = await perform((env) => lease.get({ name }, env));
    if (found === null) return null;
    const { owner, fencingToken, acquiredAt, remainingMs, note, pid, uid } = found;
    return { owner, fencingToken, acquiredAt, remainingMs, note, peer: { pid, uid, gid: null } };
  };

  return {
    async acquire({ name, leaseId, owner, ttlMs, note, tokenAbove }) {
      const again = ids.has(leaseId) ? await heartbeat(leaseId, ttlMs) : null;
      if (again !== null) return { granted: true, ...((await get(name)) as Holder) };
      await perform((env) => see({ name, fencingToken: tokenAbove, provider: "elsewhere" }, env));
      const how = { mode: "exclusive" as const, releaseOn: "expiry" as const, waitMs: 0, graceMs: 0 };
      const params = { name, owner, ttlMs, ...how, ...(note && { note }) };
      const granted = await unless(
        "lease_held",
        perform((env) => acquire(params, env) as Operation<OneLease>),
      );
      if (granted === null) {
        const holder = (await get(name)) as Holder;
        return { granted: false, holder, retryMs: holder.remainingMs };
      }
      ids.set(leaseId, granted.lease.leaseId);
      return { granted: true, ...granted.lease };
    },
    async heartbeat({ leaseId, ttlMs }) {
      const renewed = await heartbeat(leaseId, ttlMs);
      return renewed && { remainingMs: renewed.remainingMs };
    },
    async release({ leaseId }) {
      return (await perform((env) => lease.release({ leaseId: idOf(leaseId) }, env))).released;
    },
    get,
    async break(name) {
      return (await perform((env) => lease.breakLease({ name, reason: "conformance" }, env))).broken;
    },
  };
}
