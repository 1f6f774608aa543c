import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import { createInterface } from "node:readline";
import { createSecureContext } from "node:tls";
import { shown } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";
import type { Holder } from "../domain/lease/holder.js";
import { exhausted } from "../domain/lease/refusals.js";
import { digestOf } from "./lease-id.js";
import type { Acquired, LeaseProvider, ProviderClocks } from "./provider.js";
import { Failure, type Reason, unavailable } from "./refusals.js";
import type { EtcdSpecification } from "./specification.js";

/** The time that one member has to answer before another is asked. */
const MEMBER_MS = 2000;
/** An attempt gives way so often to others that write between its read and its write. */
const TRIES = 5;
/** etcd counts in seconds. */
const SECOND_MS = 1000;
/** Waiters are told of a deletion; they ask again after so long in case that failed. */
const LOOK_AGAIN_MS = 5000;
/** Of gRPC (https://grpc.github.io/grpc/core/md_doc_statuscodes.html): what etcd says of leases, and of tokens. */
const NOT_FOUND = 5;
const FAILED_PRECONDITION = 9;
const UNAUTHENTICATED = 16;
/** Other refusals of etcd, as clients are told of them. */
const REFUSALS: ReadonlyMap<number, Reason> = new Map([
  [4, "timeout"],
  [7, "denied"],
  [8, "overloaded"],
  [14, "unreachable"],
  [UNAUTHENTICATED, "denied"],
]);

/**
 * The value under a name while it is held; etcd deletes the key when its etcd lease ends.
 *
 * The fencing token is the key's create-revision plus `tokenBase`. That is 0 unless a daemon knew of a higher
 * token from elsewhere: another provider before, or the same cluster before it was restored from a backup. Then
 * it is raised, for good, in a key of its own.
 */
interface Value {
  /** The digest of the leaseId: others can read what is stored here. */
  readonly proof: string;
  readonly tokenBase: number;
  readonly owner: string;
  readonly note: string | null;
  readonly ttlMs: number;
  readonly acquiredAt: number;
}

interface Entry {
  readonly value: Value;
  readonly createRevision: number;
  readonly modRevision: string;
  /** The etcd lease that it ends with. */
  readonly etcdLease: string;
}

/**
 * Leases in an etcd cluster, by the JSON gateway that every etcd serves beside gRPC, at the same address.
 *
 * The client library etcd3 is not used: its last release is of 2023, its election once had several leaders at a
 * time (microsoft/etcd3#176), it pulls in all of gRPC, and it repeats requests and keeps leases alive by rules of
 * its own, where the daemon has to know when a request was sent. The requests needed here are plain HTTP.
 *
 * Costs in round trips: acquire two if the name is held and three if it is free; heartbeat, release and get two.
 */
export function etcdProvider(
  specification: EtcdSpecification,
  { elapsed, now }: ProviderClocks,
): LeaseProvider {
  const { kind, prefix } = specification;
  const gateway = new Gateway(specification);
  /** The etcd lease of each that is held through this object, and the seconds it was asked for. */
  const own = new Map<string, { etcdLease: string; seconds: number }>();

  const keyOf = (name: string): string => base64(`${prefix}lease/${name}`);
  const baseKeyOf = (name: string): string => base64(`${prefix}token/${name}`);

  /** The entry of a name, and the term of the answer. */
  async function read(name: string, signal: AbortSignal | undefined) {
    const reply = await gateway.ask("kv/range", { key: keyOf(name) }, signal);
    const [found] = pairsOf(reply);
    return { header: headerOf(reply), entry: found === undefined ? undefined : entryOf(found) };
  }

  /**
   * Keeps an etcd lease alive; undefined if the name is not held under this digest any more. A leader that was
   * replaced and has not noticed could still say yes. So the key is read after that, which takes a majority; if both
   * answers are of one term, then the leader that renewed was the leader.
   */
  async function keepAlive(
    name: string,
    digest: string,
    etcdLease: string,
    signal: AbortSignal | undefined,
  ): Promise<{ asked: number } | undefined> {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const asked = elapsed();
      const reply = await gateway.ask("lease/keepalive", { ID: etcdLease }, signal);
      const { header, entry } = await read(name, signal);
      if (entry?.value.proof !== digest || entry.etcdLease !== etcdLease) return undefined;
      if (integer(reply.TTL) > 0 && headerOf(reply).term === header.term) return { asked };
    }
    throw unavailable(kind, new Failure("unreachable", "its leader changes"));
  }

  /** Renews a lease as it is known here, or as its key has it; undefined if it is not held. */
  async function renew(
    name: string,
    leaseId: string,
    ttlMs: number,
    signal: AbortSignal | undefined,
  ): Promise<{ remainingMs: number } | undefined> {
    const digest = digestOf(leaseId);
    let known = own.get(leaseId);
    if (known === undefined) {
      const { entry } = await read(name, signal);
      if (entry?.value.proof !== digest) return undefined;
      known = { etcdLease: entry.etcdLease, seconds: secondsOf(entry.value.ttlMs) };
    }
    if (known.seconds !== secondsOf(ttlMs)) return await changeTtl(name, leaseId, ttlMs, signal);

    const kept = await keepAlive(name, digest, known.etcdLease, signal);
    if (kept === undefined) {
      // The ttl known here is old if the answer to a change of it was lost: then the key says better.
      const remembered = own.delete(leaseId);
      return remembered ? await renew(name, leaseId, ttlMs, signal) : undefined;
    }
    own.set(leaseId, known);
    return { remainingMs: ttlMs - (elapsed() - kept.asked) };
  }

  /** The ttl of an etcd lease never changes: the key is moved to a new one, in one transaction. */
  async function changeTtl(name: string, leaseId: string, ttlMs: number, signal: AbortSignal | undefined) {
    const key = keyOf(name);
    const seconds = secondsOf(ttlMs);
    for (let tries = 0; tries < TRIES; tries += 1) {
      const { entry } = await read(name, signal);
      if (entry?.value.proof !== digestOf(leaseId)) {
        own.delete(leaseId);
        return undefined;
      }
      const asked = elapsed();
      const { ID } = await gateway.ask("lease/grant", { TTL: String(seconds) }, signal);
      const etcdLease = String(ID);
      const value = encode({ ...entry.value, ttlMs });
      const reply = await gateway.tryAsk(
        "kv/txn",
        {
          compare: [{ target: "MOD", key, modRevision: entry.modRevision, result: "EQUAL" }],
          success: [{ requestPut: { key, value, lease: etcdLease } }],
        },
        signal,
        [NOT_FOUND],
      );
      const moved = reply?.succeeded === true;
      // An etcd lease that is not needed any more would end by itself; nothing depends on this.
      gateway.revoke(moved ? entry.etcdLease : etcdLease, signal).catch(() => {});
      if (!moved) continue;
      own.set(leaseId, { etcdLease, seconds });
      return { remainingMs: ttlMs - (elapsed() - asked) };
    }
    throw unavailable(kind, new Failure("contended", `${shown(name)} was changed again and again`));
  }

  /** The time that an entry still lives if nobody renews it; etcd tells it in whole seconds. */
  async function remainingOf({ etcdLease, value }: Entry, signal: AbortSignal | undefined): Promise<number> {
    const reply = await gateway.ask("lease/timetolive", { ID: etcdLease }, signal);
    return Math.max(1, Math.min(value.ttlMs, integer(reply.TTL) * SECOND_MS));
  }

  /**
   * An etcd lease under the number that belongs to this leaseId, so that it is found again when the answer is
   * lost. Undefined if there was one, from an earlier attempt: it is done away with, because its time began too
   * early to be known.
   */
  async function grant(leaseId: string, seconds: number, signal: AbortSignal | undefined) {
    const etcdLease = etcdLeaseOf(leaseId);
    const request = { TTL: String(seconds), ID: etcdLease };
    const reply = await gateway.tryAsk("lease/grant", request, signal, [FAILED_PRECONDITION]);
    if (reply !== undefined) return etcdLease;
    await gateway.revoke(etcdLease, signal);
    return undefined;
  }

  return {
    async acquire({ name, leaseId, owner, ttlMs, note, tokenAbove }, signal): Promise<Acquired> {
      const digest = digestOf(leaseId);
      const key = keyOf(name);
      const baseKey = baseKeyOf(name);
      for (let tries = 0; tries < TRIES; tries += 1) {
        const look = { success: [{ requestRange: { key } }, { requestRange: { key: baseKey } }] };
        const both = await gateway.ask("kv/txn", look, signal);
        const [found, base] = rangesOf(both);
        if (found !== undefined) {
          const entry = entryOf(found);
          if (entry.value.proof === digest) {
            // An earlier attempt took it, and its answer was lost.
            const renewed = await renew(name, leaseId, ttlMs, signal);
            if (renewed === undefined) continue;
            return { granted: true, fencingToken: tokenOf(entry), ...renewed };
          }
          const remainingMs = await remainingOf(entry, signal);
          const retryMs = Math.min(remainingMs, LOOK_AGAIN_MS);
          return { granted: false, holder: holderOf(entry, remainingMs), retryMs };
        }

        // The key is going to be created at a later revision than this.
        const { revision } = headerOf(both);
        const formerBase = base === undefined ? 0 : Number(base64Decoded(base.value));
        const tokenBase = Math.max(formerBase, tokenAbove - revision);
        if (tokenBase + revision >= MAX_INTEGER) throw exhausted(name);
        const asked = elapsed();
        const seconds = secondsOf(ttlMs);
        const etcdLease = await grant(leaseId, seconds, signal);
        if (etcdLease === undefined) continue;
        const value = encode({ proof: digest, tokenBase, owner, note, ttlMs, acquiredAt: now() });
        const raise = { requestPut: { key: baseKey, value: base64(String(tokenBase)) } };
        const reply = await gateway.tryAsk(
          "kv/txn",
          {
            compare: [
              { target: "CREATE", key, createRevision: "0", result: "EQUAL" },
              { target: "MOD", key: baseKey, modRevision: modRevisionOf(base), result: "EQUAL" },
            ],
            success: [
              { requestPut: { key, value, lease: etcdLease } },
              ...(tokenBase === formerBase ? [] : [raise]),
            ],
          },
          signal,
          [NOT_FOUND],
        );
        if (reply?.succeeded !== true) {
          gateway.revoke(etcdLease, signal).catch(() => {});
          continue;
        }
        own.set(leaseId, { etcdLease, seconds });
        const fencingToken = tokenBase + headerOf(reply).revision;
        return { granted: true, fencingToken, remainingMs: ttlMs - (elapsed() - asked) };
      }
      throw unavailable(kind, new Failure("contended", `too many ask for ${shown(name)} at the same time`));
    },

    async heartbeat({ name, leaseId, ttlMs }, signal) {
      return (await renew(name, leaseId, ttlMs, signal)) ?? null;
    },

    async release({ name, leaseId }, signal) {
      const { entry } = await read(name, signal);
      const mine = entry?.value.proof === digestOf(leaseId);
      // Without its etcd lease, a request to take the name that is still on its way comes to nothing.
      await gateway.revoke(mine ? entry.etcdLease : etcdLeaseOf(leaseId), signal);
      own.delete(leaseId);
      return mine;
    },

    async get(name, signal) {
      const { entry } = await read(name, signal);
      return entry === undefined ? null : holderOf(entry, await remainingOf(entry, signal));
    },

    async break(name, signal) {
      const { entry } = await read(name, signal);
      if (entry === undefined) return false;
      await gateway.revoke(entry.etcdLease, signal);
      return true;
    },

    watch: (name, signal) => gateway.untilDeleted(keyOf(name), signal),

    async close() {
      gateway.close();
    },
  };
}

/** An answer of the gateway. Its fields are as etcd's protobuf has them, 64-bit numbers as text, zeros left out. */
type Reply = Readonly<Record<string, unknown>>;

/** The requests of etcd's gRPC as JSON over HTTP, each made to a member that answers. */
class Gateway {
  readonly #specification: EtcdSpecification;
  readonly #agents: { readonly http: http.Agent; readonly https: https.Agent };
  /** The member to ask first: the last that answered. */
  #first = 0;
  /** As etcdctl takes it: `name:password`, or the password apart. */
  readonly #user: { readonly name: string; readonly password: string } | undefined;
  #authorization: string | undefined;

  constructor(specification: EtcdSpecification) {
    this.#specification = specification;
    const [ca, cert, key] = [specification.ca, specification.cert, specification.key].map((path) =>
      path === undefined ? undefined : readFileSync(path),
    );
    const files = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
    // A file that is no certificate, or not that of the key, is found now and not at every request.
    createSecureContext(files);
    this.#agents = {
      http: new http.Agent({ keepAlive: true }),
      https: new https.Agent({ keepAlive: true, ...files }),
    };
    const { ETCDCTL_USER, ETCDCTL_PASSWORD } = process.env;
    const [, name, password] = /^([^:]+)(?::(.*))?$/s.exec(ETCDCTL_USER ?? "") ?? [];
    this.#user = name === undefined ? undefined : { name, password: password ?? ETCDCTL_PASSWORD ?? "" };
  }

  /** Makes a request; rejects with `provider_unavailable` when no member answers it. */
  async ask(path: string, body: object, signal: AbortSignal | undefined): Promise<Reply> {
    return (await this.tryAsk(path, body, signal, [])) as Reply;
  }

  /** The same; undefined when etcd refuses with one of these codes. */
  async tryAsk(
    path: string,
    body: object,
    signal: AbortSignal | undefined,
    codes: readonly number[],
  ): Promise<Reply | undefined> {
    const { endpoints, kind } = this.#specification;
    let failure: unknown;
    for (let tries = 0; tries < endpoints.length && signal?.aborted !== true; tries += 1) {
      try {
        return await this.#askMember(path, body, signal);
      } catch (error) {
        if (error instanceof Refused && codes.includes(error.code)) return undefined;
        failure = error;
        this.#first = (this.#first + 1) % endpoints.length;
      }
    }
    throw unavailable(kind, failure ?? signal?.reason);
  }

  /** Ends an etcd lease and deletes what is attached to it. One that has ended already is fine too. */
  async revoke(etcdLease: string, signal: AbortSignal | undefined): Promise<void> {
    await this.tryAsk("lease/revoke", { ID: etcdLease }, signal, [NOT_FOUND]);
  }

  /** Resolves when a key is not there, or not any more. */
  async untilDeleted(key: string, signal: AbortSignal): Promise<void> {
    const response = await this.#post("watch", { createRequest: { key, filters: ["NOPUT"] } }, signal);
    try {
      for await (const line of createInterface({ input: response })) {
        const { created, events } = (JSON.parse(line) as { result?: Reply }).result ?? {};
        if (events !== undefined) return;
        // From now on no deletion is missed; one before shows in what is there.
        if (created === true && pairsOf(await this.ask("kv/range", { key }, signal)).length === 0) return;
      }
    } finally {
      response.destroy();
    }
    throw new Failure("unreachable", "the watch was ended");
  }

  close(): void {
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }

  async #askMember(path: string, body: object, signal: AbortSignal | undefined): Promise<Reply> {
    const limit = AbortSignal.timeout(MEMBER_MS);
    const limited = signal === undefined ? limit : AbortSignal.any([signal, limit]);
    if (this.#user !== undefined) {
      this.#authorization ??= String(
        replyOf(await textOf(await this.#post("auth/authenticate", this.#user, limited))).token,
      );
    }
    try {
      return replyOf(await textOf(await this.#post(path, body, limited)));
    } catch (error) {
      // Its tokens end after some minutes; the next try gets a new one.
      if (error instanceof Refused && error.code === UNAUTHENTICATED) this.#authorization = undefined;
      throw error;
    }
  }

  #post(path: string, body: object, signal: AbortSignal): Promise<http.IncomingMessage> {
    const { endpoints } = this.#specification;
    const url = new URL(`/v3/${path}`, endpoints[this.#first]);
    const { request } = url.protocol === "https:" ? https : http;
    const agent = url.protocol === "https:" ? this.#agents.https : this.#agents.http;
    const headers = this.#authorization === undefined ? {} : { authorization: this.#authorization };
    return new Promise((resolve, reject) => {
      const options = { method: "POST", agent, signal, headers };
      request(url, options, resolve).once("error", reject).end(JSON.stringify(body));
    });
  }
}

/** etcd answered that it will not. */
class Refused extends Failure {
  readonly code: number;

  constructor(code: number, message: string) {
    // Of a wrong password it says that the argument is invalid.
    super(/authentication failed/.test(message) ? "denied" : (REFUSALS.get(code) ?? "failed"), message);
    this.code = code;
  }
}

async function textOf(response: http.IncomingMessage): Promise<string> {
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) text += chunk;
  return text;
}

/** The answer in a body. A method that streams wraps it, as `result` or `error`. */
function replyOf(body: string): Reply {
  let parsed: Reply;
  try {
    parsed = JSON.parse(body) as Reply;
  } catch {
    // A proxy before etcd answers so for a while, and half of an answer looks like that too.
    throw new Failure("unreachable", `not an etcd: it answered ${shown(body)}`);
  }
  const { error, result = parsed } = parsed;
  if (error === undefined) return result as Reply;
  const { code, grpc_code, message } = (typeof error === "object" ? error : parsed) as Reply;
  throw new Refused(Number(code ?? grpc_code), String(message ?? error));
}

/** Of a header: at which revision the answer was given, and under which leader. */
function headerOf({ header = {} }: Reply): { revision: number; term: string } {
  const fields = header as Reply;
  return { revision: integer(fields.revision), term: String(fields.raft_term ?? fields.raftTerm) };
}

function pairsOf({ kvs = [] }: Reply): readonly Reply[] {
  return kvs as readonly Reply[];
}

/** The one pair of each range of a transaction, undefined where there is none. */
function rangesOf({ responses = [] }: Reply): (Reply | undefined)[] {
  return (responses as readonly Reply[]).map(
    ({ response_range, responseRange }) => pairsOf((response_range ?? responseRange ?? {}) as Reply)[0],
  );
}

function modRevisionOf(pair: Reply | undefined): string {
  return String(pair?.mod_revision ?? pair?.modRevision ?? 0);
}

function entryOf(pair: Reply): Entry {
  return {
    value: JSON.parse(base64Decoded(pair.value)) as Value,
    createRevision: integer(pair.create_revision ?? pair.createRevision),
    modRevision: modRevisionOf(pair),
    etcdLease: String(pair.lease ?? 0),
  };
}

function integer(field: unknown): number {
  return Number(field ?? 0);
}

function tokenOf({ createRevision, value }: Entry): number {
  return value.tokenBase + createRevision;
}

function holderOf(entry: Entry, remainingMs: number): Holder {
  const { owner, acquiredAt, note } = entry.value;
  // The process is of another machine, whose numbers mean nothing here.
  const peer = { pid: null, uid: null, gid: null };
  return { owner, fencingToken: tokenOf(entry), acquiredAt, remainingMs, note, peer };
}

function secondsOf(ttlMs: number): number {
  return Math.ceil(ttlMs / SECOND_MS);
}

/** The number of the etcd lease of a leaseId: 63 bits that nobody can guess. */
function etcdLeaseOf(leaseId: string): string {
  const digest = createHash("sha256").update(`etcd lease of ${leaseId}`).digest();
  return String((digest.readBigUInt64BE() >> 1n) | 1n);
}

function encode(value: Value): string {
  return base64(JSON.stringify(value));
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

function base64Decoded(field: unknown): string {
  return Buffer.from(String(field), "base64").toString();
}
