import { MAX_INTEGER } from "@pawl/protocol/limits";
import { all, one, sql } from "../store/statement.js";
import type { Env } from "../turns/operation.js";
import type { Holder, LeaseProvider } from "./provider.js";
import { exhausted } from "./refusals.js";

const selectHolder = sql<HolderRow & { lease_id: string }>(`
  SELECT lease_id, owner, fencing_token, acquired_at, expires_at, note, pid, uid, gid FROM pawl_lease
  WHERE name = :name AND expires_at > :now`);

/** Raises the counter of a name; no row when it is at its end, and then nothing has changed. */
const raiseToken = sql<{ highest: number }>(`
  INSERT INTO pawl_lease_token (name, highest) VALUES (:name, :above + 1)
  ON CONFLICT (name) DO UPDATE
    SET highest = 1 + CASE WHEN pawl_lease_token.highest > :above THEN pawl_lease_token.highest ELSE :above END
    WHERE pawl_lease_token.highest < ${MAX_INTEGER}
  RETURNING highest`);

/** Whoever the row belongs to until now has lost the lease by its ttl. */
const take = sql(`
  INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid)
  VALUES (:name, :leaseId, :fencingToken, :owner, :note, :now, :expiresAt, :ttlMs, NULL, 'expiry', 0, :pid, :uid, :gid)
  ON CONFLICT (name) DO UPDATE SET lease_id = excluded.lease_id, fencing_token = excluded.fencing_token,
    owner = excluded.owner, note = excluded.note, acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at, ttl_ms = excluded.ttl_ms, warn_at = excluded.warn_at,
    release_on = excluded.release_on, connection = excluded.connection, pid = excluded.pid,
    uid = excluded.uid, gid = excluded.gid, provider = NULL, boot = NULL, ends_uptime_ms = NULL`);

const prolong = sql<{ name: string }>(`
  UPDATE pawl_lease SET expires_at = :expiresAt, ttl_ms = :ttlMs
  WHERE name = :name AND lease_id = :leaseId AND expires_at > :now
  RETURNING name`);

const remove = sql<{ name: string }>(`
  DELETE FROM pawl_lease WHERE name = :name AND lease_id = :leaseId AND expires_at > :now RETURNING name`);

const removeByForce = sql<{ name: string }>(`
  DELETE FROM pawl_lease WHERE name = :name AND expires_at > :now RETURNING name`);

/** What a row says of who holds its name. */
export interface HolderRow {
  owner: string;
  fencing_token: number;
  acquired_at: number;
  expires_at: number;
  note: string | null;
  pid: number | null;
  uid: number | null;
  gid: number | null;
}

/** Leases in the daemon's own database: the provider of every name that is configured no other. */
export function localProvider(
  env: Pick<Env, "now">,
): Required<Omit<LeaseProvider<"inside">, "inspect" | "watch" | "close">> {
  const { now } = env;
  return {
    *acquire({ name, leaseId, owner, ttlMs, note, peer, tokenAbove }) {
      const row = yield* one(selectHolder, { name, now });
      if (row?.lease_id === leaseId) {
        yield* all(prolong, { name, leaseId, ttlMs, now, expiresAt: now + ttlMs });
        return { granted: true, fencingToken: row.fencing_token, remainingMs: ttlMs };
      }
      if (row !== undefined) {
        return { granted: false, holder: holderOf(row, now), retryMs: row.expires_at - now };
      }
      if (tokenAbove >= MAX_INTEGER) return exhausted(name);
      const raised = yield* one(raiseToken, { name, above: tokenAbove });
      if (raised === undefined) return exhausted(name);
      const fencingToken = raised.highest;
      const grant = { name, leaseId, fencingToken, owner, note, now, expiresAt: now + ttlMs, ttlMs };
      yield* all(take, { ...grant, ...peer });
      return { granted: true, fencingToken, remainingMs: ttlMs };
    },

    *heartbeat({ name, leaseId, ttlMs }) {
      const row = yield* one(prolong, { name, leaseId, ttlMs, now, expiresAt: now + ttlMs });
      return row === undefined ? null : { remainingMs: ttlMs };
    },

    *release({ name, leaseId }) {
      return (yield* one(remove, { name, leaseId, now })) !== undefined;
    },

    *get(name) {
      const row = yield* one(selectHolder, { name, now });
      return row === undefined ? null : holderOf(row, now);
    },

    *break(name) {
      return (yield* one(removeByForce, { name, now })) !== undefined;
    },
  };
}

export function holderOf(row: HolderRow, now: number): Holder {
  return {
    owner: row.owner,
    fencingToken: row.fencing_token,
    acquiredAt: row.acquired_at,
    remainingMs: row.expires_at - now,
    note: row.note,
    peer: { pid: row.pid, uid: row.uid, gid: row.gid },
  };
}
