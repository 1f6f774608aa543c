import { METHODS, type Method, type Parsed, type Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { EACH, type Texts, textsAt } from "@pawl/protocol/json-text";
import { MAX_TRANSACT_REFERRED_LENGTH, MAX_TRANSACT_RESULTS_LENGTH } from "@pawl/protocol/limits";
import { encode, RawJson, replaceReferences } from "../json/raw-json.js";
import type { Handlers } from "../rpc/handlers.js";
import { describeIssues, noSuchMethod, pointer } from "../rpc/validation-errors.js";
import type { Operation } from "../store/statement.js";
import type { Env, Outcome } from "../turns/operation.js";
import { guardLease } from "./lease/lease.js";
import { guardClaim } from "./queue/holder.js";

type Definition = (typeof METHODS)[number];
type Call = Parsed<"transact">["calls"][number];
type Perform = (params: unknown, env: Env, texts: Texts) => Operation<Outcome<unknown>>;

const DEFINITIONS: ReadonlyMap<string, Definition> = new Map(METHODS.map((each) => [each.name, each]));

/** The key of the object that stands for a value of an earlier call. */
const REFERENCE = "$result";

/**
 * Performs calls in order until one is refused; whoever drives this operation then undoes all (spec: wire.md,
 * transact). What is wrong with the form of the request is found before the guards are checked, and the guards
 * are checked before the first call.
 */
export function* transact(
  params: Parsed<"transact">,
  env: Env,
  texts: Texts,
  handlers: Omit<Handlers, "transact">,
  /** Whether a call asks outside the database, going by its params and by what is held. */
  reachesOutside: (method: string, params: unknown, env: Env) => Operation<boolean>,
): Operation<Result<"transact"> | PawlError> {
  const { calls, guards } = params;
  for (const [index, { method }] of calls.entries()) {
    const definition = DEFINITIONS.get(method);
    if (definition === undefined) return at(index, method, noSuchMethod(method, [...DEFINITIONS.keys()]));
    if (!definition.transactable) return at(index, method, notTransactable(method, index));
  }

  for (const [index, { lease, claim }] of guards.entries()) {
    const lost =
      lease !== undefined
        ? yield* guardLease(lease, env)
        : claim !== undefined
          ? yield* guardClaim(claim, env)
          : undefined;
    if (lost !== undefined) return refuse(lost.kind, lost.message, { ...lost.details, guard: index });
  }

  const results: RawJson[] = [];
  let resultsLength = 0;
  // A call that could wait is asked for its answer now.
  const now: Env = { ...env, mayWait: false };
  for (const [index, call] of calls.entries()) {
    if (resultsLength > MAX_TRANSACT_RESULTS_LENGTH) {
      return at(index, call.method, tooMuch(call.method, index));
    }
    const path = ["calls", index, "params"];
    const given = substitute(call.params ?? {}, results);
    if (given.wrong.length > 0) return at(index, call.method, wrongReferences(call, path, given.wrong));
    const { schema, raw, perform } = find(call.method, handlers);
    const checked = schema.safeParse(given.params);
    if (!checked.success) {
      return at(index, call.method, describeIssues(call.method, checked.error.issues, given.params, path));
    }
    if (yield* reachesOutside(call.method, checked.data, env)) {
      return at(index, call.method, notTransactable(call.method, index));
    }
    const kept = raw === undefined ? [] : textsAt(textWith(texts[index], results), raw);
    const outcome = yield* perform(checked.data, now, kept);
    if (outcome instanceof PawlError) return at(index, call.method, outcome);
    // As the text that it travels as, which is made only once: here, because its length counts.
    const result = new RawJson(encode(outcome));
    results.push(result);
    resultsLength += result.text.length;
  }
  return { results } as unknown as Result<"transact">;
}

function find(method: string, handlers: Omit<Handlers, "transact">) {
  const { params: schema, raw } = DEFINITIONS.get(method) as Method;
  return { schema, raw, perform: handlers[method as keyof typeof handlers] as Perform };
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

function tooMuch(method: string, index: number): PawlError {
  const message = `comes after results of more than ${MAX_TRANSACT_RESULTS_LENGTH} characters, which is as much as a transaction answers`;
  return refuse(
    "invalid_params",
    `${method} ${message}. Ask for less at once, or read outside the transaction.`,
    {
      issues: [{ path: `/calls/${index}`, message }],
    },
  );
}

interface WrongReference {
  /** Where the reference stands, within the params. */
  readonly path: readonly string[];
  readonly message: string;
}

function wrongReferences(
  call: Call,
  path: readonly PropertyKey[],
  all: readonly WrongReference[],
): PawlError {
  const issues = all.map((each) => ({ path: pointer([...path, ...each.path]), message: each.message }));
  return refuse("invalid_params", `${call.method}: ${issues[0]?.path} ${issues[0]?.message}.`, { issues });
}

/**
 * A copy of params with each `{"$result": pointer}` replaced by what it points to, and those that cannot be.
 * Params without a reference are returned as they are. Nothing here recurses, because JSON may be nested more
 * deeply than the stack.
 */
export function substitute(
  params: Record<string, unknown>,
  results: readonly unknown[],
): { params: Record<string, unknown>; wrong: WrongReference[] } {
  if (!holdsReference(params)) return { params, wrong: [] };
  const copy: Record<string, unknown> = {};
  const wrong: WrongReference[] = [];
  let length = 0;
  const open: { from: object; to: object; parent: Place | undefined }[] = [
    { from: params, to: copy, parent: undefined },
  ];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { from, to, parent } = next;
    for (const [key, value] of Object.entries(from)) {
      if (typeof value !== "object" || value === null) {
        put(to, key, value);
        continue;
      }
      const place = { key, parent };
      if (isReference(value)) {
        const reference = value[REFERENCE];
        const found = typeof reference === "string" ? resolve(reference, results) : undefined;
        if (found === undefined) {
          const message = `refers to ${shown(reference)}, which is no value in the results of earlier calls`;
          wrong.push({ path: pathOf(place), message });
          continue;
        }
        const text = encode(found);
        length += text.length;
        if (length > MAX_TRANSACT_REFERRED_LENGTH) {
          // A few bytes of references could otherwise stand for any amount of data.
          const message = `refers to ${shown(reference)}, with which references bring in more than ${MAX_TRANSACT_REFERRED_LENGTH} characters`;
          return { params, wrong: [{ path: pathOf(place), message }] };
        }
        put(to, key, JSON.parse(text));
        continue;
      }
      const part = Array.isArray(value) ? [] : {};
      put(to, key, part);
      open.push({ from: value, to: part, parent: place });
    }
  }
  return { params: copy, wrong };
}

function holdsReference(params: object): boolean {
  const open: object[] = [params];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (isReference(next)) return true;
    for (const value of Object.values(next)) {
      if (typeof value === "object" && value !== null) open.push(value);
    }
  }
  return false;
}

/** A way into the params, from its end. */
interface Place {
  readonly key: string;
  readonly parent: Place | undefined;
}

function pathOf(place: Place | undefined): string[] {
  const path: string[] = [];
  for (let each = place; each !== undefined; each = each.parent) path.push(each.key);
  return path.reverse();
}

function isReference(value: object): value is { [REFERENCE]: unknown } {
  return !Array.isArray(value) && Object.hasOwn(value, REFERENCE) && Object.keys(value).length === 1;
}

/** Sets an own property, also the one that an assignment would take for the prototype. */
function put(target: object, key: string, value: unknown): void {
  if (key !== "__proto__") (target as Record<string, unknown>)[key] = value;
  else Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
}

/** What a JSON Pointer (RFC 6901) points to, or undefined for nothing. */
export function resolve(reference: string, root: unknown): unknown {
  if (reference === "") return root;
  if (!reference.startsWith("/") || /~(?![01])/.test(reference)) return undefined;
  let value = root;
  for (const token of reference.slice(1).split("/")) {
    const key = token.replaceAll("~1", "/").replaceAll("~0", "~");
    if (value instanceof RawJson) {
      const text = memberText(value.text, key);
      if (text === undefined) return undefined;
      value = new RawJson(text);
      continue;
    }
    if (typeof value !== "object" || value === null) return undefined;
    if (Array.isArray(value) && !/^(0|[1-9][0-9]*)$/.test(key)) return undefined;
    if (!Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** What an element or a member of a JSON text is, as a text. */
function memberText(json: string, key: string): string | undefined {
  if (json.startsWith("{")) return textsAt(json, [key])[0];
  return json.startsWith("[") && /^(0|[1-9][0-9]*)$/.test(key)
    ? textsAt(json, [EACH])[Number(key)]
    : undefined;
}

/** The text of a call's params, with what its references stand for. All of them are known to stand for something. */
function textWith(text: string | undefined, results: readonly unknown[]): string {
  return replaceReferences(text ?? "{}", REFERENCE, (reference) => encode(resolve(reference, results)));
}
