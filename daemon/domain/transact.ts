import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Texts, textsOf } from "@pawl/protocol/json-text";
import { MAX_COMPARED_PLACES, MAX_TRANSACT_RESULTS_LENGTH } from "@pawl/protocol/limits";
import { pointer } from "../json/pointer.js";
import { encode, RawJson } from "../json/raw-json.js";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import { type Env, type Outcome, Tried } from "../turns/operation.js";
import { guardLease } from "./lease/lease.js";
import { guardPath } from "./path/path.js";
import { guardClaim } from "./queue/holder.js";
import { References, TOO_MUCH_IN_TEXT, type WrongReference } from "./references.js";
import { tooMuchNamed } from "./transact-size.js";

type Call = Parsed<"transact">["calls"][number];

/** A method as one call of a transaction. */
export interface Callable {
  readonly transactable: boolean;
  /** The paths in its params to what it gets as it was sent. */
  readonly raw?: readonly (readonly string[])[] | undefined;
  /** The params with defaults filled in, or the refusal of those that do not fit, which stand at this path. */
  check(params: unknown, path: readonly PropertyKey[]): unknown;
  perform(params: unknown, env: Env, texts: Texts): Operation<Outcome<unknown>>;
  /** True if the call asks a lease provider, going by its params and by the leases that are held. */
  asksProvider(params: unknown, env: Env): Operation<boolean>;
}

/** @param find a method by its name, or the refusal of a name that none has. */
export function transactHandlers(find: (method: string) => Callable | PawlError): HandlersOf<"transact"> {
  return { transact: (params, env, texts) => transact(params, env, texts, find) };
}

/**
 * Performs calls in order until one is refused; whoever drives this operation then undoes all (spec: wire.md,
 * transact). What is wrong with the form of the request is found before the guards are checked, and the guards
 * are checked before the first call.
 */
function* transact(
  { calls, guards, dryRun }: Parsed<"transact">,
  env: Env,
  texts: Texts,
  find: (method: string) => Callable | PawlError,
): Operation<Outcome<Result<"transact">>> {
  const methods: Callable[] = [];
  for (const [index, { method }] of calls.entries()) {
    const found = find(method);
    if (found instanceof PawlError) return at(index, method, found);
    if (!found.transactable) return at(index, method, notTransactable(method, index));
    methods.push(found);
  }

  const tooMuch = yield* tooMuchNamed(calls);
  if (tooMuch !== undefined) return tooMuch;
  const lost = yield* findLost(guards, env);
  if (lost !== undefined) return lost;

  const results: RawJson[] = [];
  const references = new References();
  const secrets: string[] = [];
  let resultsLength = 0;
  // A call that could wait is asked for its answer now, and one that is done in steps for the first of them.
  const places = { left: MAX_COMPARED_PLACES };
  const now: Env = { ...env, mayWait: false, mayGoOn: false, places };
  for (const [index, call] of calls.entries()) {
    if (resultsLength > MAX_TRANSACT_RESULTS_LENGTH) {
      return at(index, call.method, resultsTooLong(call.method, index));
    }
    const path = ["calls", index, "params"];
    const given = references.putInto(paramsOf(call));
    if (given.wrong.length > 0) return at(index, call.method, wrongReferences(call, path, given.wrong));
    const method = methods[index] as Callable;
    const params = method.check(given.params, path);
    if (params instanceof PawlError) return at(index, call.method, params);
    const { waitMs } = params as { waitMs?: number };
    if (waitMs !== undefined && waitMs > 0)
      return at(index, call.method, cannotWait(call.method, waitMs, path));
    if (yield* method.asksProvider(params, env)) {
      return at(index, call.method, notTransactable(call.method, index));
    }
    const { raw = [] } = method;
    const text = raw.length === 0 ? "{}" : references.putIntoText(texts[index] ?? "{}");
    if (text === undefined) return at(index, call.method, wrongReferences(call, path, [TOO_MUCH_IN_TEXT]));
    const sent = textsOf(params as object, raw, () => text);
    const outcome = yield* method.perform(params, now, sent);
    if (outcome instanceof PawlError) return at(index, call.method, outcome);
    // As the text that it travels as, which is made only once: here, because its length counts.
    const result = new RawJson(encode(outcome));
    results.push(result);
    references.add(result.text);
    resultsLength += result.text.length;
    if (dryRun) secrets.push(...secretsOf(outcome));
  }
  if (!dryRun) return { results } as unknown as Result<"transact">;
  const secret = patternOf(secrets);
  const shown = results.map(({ text }) => new RawJson(secret ? text.replace(secret, NO_SECRET) : text));
  return new Tried({ results: shown } as unknown as Result<"transact">);
}

/** Stands in the answer of a try for each secret that was granted: the next grant, which is no try, may have it. */
const NO_SECRET = "dry-run";

/** The secrets that a call has granted: the proofs of a claim, of leases, or of a reservation. */
function secretsOf(outcome: unknown): string[] {
  const { claim, lease, leases, reservation } = outcome as {
    claim?: { leaseToken?: string } | null;
    lease?: { leaseId?: string } | null;
    leases?: { leaseId?: string }[];
    reservation?: { reservationId?: string };
  };
  const found = [claim?.leaseToken, lease?.leaseId, reservation?.reservationId];
  if (Array.isArray(leases)) found.push(...leases.map((each) => each?.leaseId));
  return found.filter((secret) => typeof secret === "string");
}

/**
 * A later call may have carried a secret elsewhere, so it is looked for as it is: long, random and ASCII. All are
 * looked for at once: there may be a thousand of them, and 4 MiB of results.
 */
function patternOf(secrets: readonly string[]): RegExp | undefined {
  return secrets.length === 0 ? undefined : new RegExp([...new Set(secrets)].map(literally).join("|"), "g");
}

function literally(secret: string): string {
  return secret.replaceAll(/\W/g, "\\$&");
}

/** An empty array is no params. */
function paramsOf({ params }: Call): Record<string, unknown> {
  return params === undefined || Array.isArray(params) ? {} : params;
}

/** The refusal of the first guard that does not hold any more. */
function* findLost(guards: Parsed<"transact">["guards"], env: Env): Operation<PawlError | undefined> {
  for (const [index, { lease, claim, path }] of guards.entries()) {
    const lost =
      lease !== undefined
        ? yield* guardLease(lease, env)
        : claim !== undefined
          ? yield* guardClaim(claim, env)
          : path !== undefined
            ? yield* guardPath(path, env)
            : undefined;
    if (lost !== undefined) return refuse(lost.kind, lost.message, { ...lost.details, guard: index });
  }
  return undefined;
}

/** The refusal of one call as that of the whole. */
function at(index: number, method: string, refusal: PawlError): PawlError {
  const message = `${refusal.message} This was calls[${index}] (${shown(method)}); none of them was done.`;
  return refuse(refusal.kind, message, { ...refusal.details, index });
}

function notTransactable(method: string, index: number): PawlError {
  const message = "waits, streams or is not about the database, so it cannot be part of a transaction";
  return refuse("invalid_params", `${method} ${message}. Call it by itself.`, {
    issues: [{ path: `/calls/${index}/method`, message }],
  });
}

function cannotWait(method: string, waitMs: number, path: readonly PropertyKey[]): PawlError {
  const message = `is ${waitMs}, but nothing waits in a transaction`;
  const issues = [{ path: pointer([...path, "waitMs"]), message }];
  return refuse("invalid_params", `${method}: waitMs ${message}. Leave it out.`, { issues });
}

function resultsTooLong(method: string, index: number): PawlError {
  const message = `comes after results of more than ${MAX_TRANSACT_RESULTS_LENGTH} characters, which is as much as a transaction answers`;
  return refuse(
    "invalid_params",
    `${method} ${message}. Ask for less at once, or read outside the transaction.`,
    {
      issues: [{ path: `/calls/${index}`, message }],
    },
  );
}

function wrongReferences(
  call: Call,
  path: readonly PropertyKey[],
  all: readonly WrongReference[],
): PawlError {
  const issues = all.map((each) => ({ path: pointer([...path, ...each.path]), message: each.message }));
  return refuse("invalid_params", `${call.method}: ${issues[0]?.path} ${issues[0]?.message}.`, { issues });
}
