import { shown } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_NAME_LENGTH, MAX_NOTE_LENGTH } from "@pawl/protocol/limits";
import type { Holder, Peer } from "../domain/lease/holder.js";
import type { Acquired, AcquireRequest, HeartbeatRequest, LeaseProvider } from "./provider.js";
import { Failure } from "./refusals.js";

/**
 * A provider whose answers keep the contract of `LeaseProvider`, or are rejections: a module of somebody else may
 * answer with anything. An answer that breaks the contract is a `Failure` that names the fault.
 * Fields beyond those of the contract go no further.
 */
export function withCheckedAnswers(provider: LeaseProvider): LeaseProvider {
  return {
    acquire: async (request, signal) => acquiredOf(await provider.acquire({ ...request }, signal), request),
    heartbeat: async (request, signal) =>
      renewedOf(await provider.heartbeat({ ...request }, signal), request),
    release: async (request, signal) => truthOf("release", await provider.release({ ...request }, signal)),
    get: async (name, signal) => holderOrNull("get", await provider.get(name, signal)),
    ...(provider.inspect && {
      inspect: async (name, signal) => inspectedOf(await provider.inspect?.(name, signal)),
    }),
    ...(provider.break && {
      break: async (name, signal) => truthOf("break", await provider.break?.(name, signal)),
    }),
    ...(provider.watch && {
      watch: async (name, signal) => {
        await provider.watch?.(name, signal);
      },
    }),
    ...(provider.close && {
      close: async () => {
        await provider.close?.();
      },
    }),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function acquiredOf(answer: unknown, { ttlMs }: AcquireRequest): Acquired {
  const { granted, fencingToken, remainingMs, holder, retryMs } = fieldsOf("acquire", answer);
  if (granted === true) {
    return {
      granted,
      fencingToken: tokenOf("acquire", "fencingToken", fencingToken),
      remainingMs: ofTtl("acquire", remainingMs, ttlMs),
    };
  }
  if (granted !== false) throw wrong("acquire", "granted", granted, "true or false");
  return {
    granted,
    holder: holderOf("acquire", holder, "holder."),
    retryMs: durationOf("acquire", "retryMs", retryMs),
  };
}

function renewedOf(answer: unknown, { ttlMs }: HeartbeatRequest): { remainingMs: number } | null {
  if (answer === null) return null;
  return { remainingMs: ofTtl("heartbeat", fieldsOf("heartbeat", answer).remainingMs, ttlMs) };
}

function inspectedOf(answer: unknown): { holder: Holder | null; highest: number } {
  const { holder: found, highest: told } = fieldsOf("inspect", answer);
  const holder = holderOrNull("inspect", found, "holder.");
  const least = holder?.fencingToken ?? 0;
  if (!isInteger(told) || told < least) {
    throw wrong("inspect", "highest", told, `an integer from ${least} to ${MAX_INTEGER}`);
  }
  return { holder, highest: told };
}

function holderOrNull(method: string, answer: unknown, at = ""): Holder | null {
  return answer === null ? null : holderOf(method, answer, at);
}

function holderOf(method: string, answer: unknown, at = ""): Holder {
  const { owner, fencingToken, acquiredAt, remainingMs, note = null, peer } = fieldsOf(method, answer, at);
  if (!isText(owner, MAX_NAME_LENGTH) || owner === "") {
    throw wrong(method, `${at}owner`, owner, `a text of 1 to ${MAX_NAME_LENGTH} characters`);
  }
  if (!isInteger(acquiredAt)) {
    throw wrong(method, `${at}acquiredAt`, acquiredAt, "whole milliseconds since the Unix epoch");
  }
  if (note !== null && !isText(note, MAX_NOTE_LENGTH)) {
    throw wrong(method, `${at}note`, note, `null or a text of at most ${MAX_NOTE_LENGTH} characters`);
  }
  return {
    owner,
    fencingToken: tokenOf(method, `${at}fencingToken`, fencingToken),
    acquiredAt,
    remainingMs: durationOf(method, `${at}remainingMs`, remainingMs),
    note,
    peer: peerOf(peer),
  };
}

/** Null for the numbers of a process of another machine, however the provider leaves them out. */
function peerOf(peer: unknown): Peer {
  const { pid, uid, gid } = (typeof peer === "object" && peer !== null ? peer : {}) as Fields;
  const known = (id: unknown): number | null => (isInteger(id) ? id : null);
  return { pid: known(pid), uid: known(uid), gid: known(gid) };
}

function truthOf(method: string, answer: unknown): boolean {
  if (typeof answer === "boolean") return answer;
  throw new Failure("bad_answer", `${method} answered ${shown(answer)}, and must answer true or false`);
}

function fieldsOf(method: string, answer: unknown, at = ""): Fields {
  if (typeof answer === "object" && answer !== null) return answer as Fields;
  throw at === ""
    ? new Failure("bad_answer", `${method} answered ${shown(answer)}, which is no answer that it may give`)
    : wrong(method, at.slice(0, -1), answer, "an object that says who holds the name");
}

function tokenOf(method: string, field: string, value: unknown): number {
  if (isInteger(value) && value >= 1) return value;
  throw wrong(method, field, value, `an integer from 1 to ${MAX_INTEGER}`);
}

function durationOf(method: string, field: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value <= MAX_INTEGER) return value;
  throw wrong(method, field, value, "milliseconds, not below 0");
}

/** The rest of a ttl: below 0 when the answer took longer than the ttl, and never more than the ttl. */
function ofTtl(method: string, value: unknown, ttlMs: number): number {
  if (typeof value === "number" && Number.isFinite(value) && value <= ttlMs) return value;
  throw wrong(method, "remainingMs", value, `milliseconds, and at most the ttl of ${ttlMs} ms`);
}

function isInteger(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** As the contract has texts: NUL and lone surrogates would not come out of a database as they went in. */
function isText(value: unknown, maxLength: number): value is string {
  return typeof value === "string" && value.length <= maxLength && !/[\0\p{Surrogate}]/u.test(value);
}

function wrong(method: string, field: string, value: unknown, wanted: string): Failure {
  return new Failure("bad_answer", `${method} answered with ${field} ${shown(value)}; it must be ${wanted}`);
}
