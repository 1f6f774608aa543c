import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import leven from "leven";
import type { z } from "zod";
import { pointer } from "../json/pointer.js";

/** Issues that one answer lists at most. */
const MAX_ISSUES = 20;
const MAX_SHOWN_NAME_LENGTH = 64;
/** A name that differs by more characters is another one, not a misspelled one. */
const MAX_MISSPELLED_CHARACTERS = 3;

type RawIssue = z.core.$ZodIssue;

/**
 * The refusal of params that do not fit: `details.issues` with a JSON Pointer (RFC 6901) into the params and
 * a sentence each, the first of them in the message together with the value. `prefix` is where the params stand
 * in the request, if they are not its own.
 */
export function describeIssues(
  method: string,
  issues: readonly RawIssue[],
  params: unknown,
  prefix: readonly PropertyKey[] = [],
): PawlError {
  const described: { path: string; message: string }[] = [];
  // No more are looked at than are told: there may be one for each of a thousand batches.
  for (let index = 0; index < issues.length && described.length < MAX_ISSUES; index++) {
    let issue = issues[index] as RawIssue;
    // A schema that narrows another has the bounds of both, and a number may be beyond several.
    for (; areOneBound(issue, issues[index + 1]); index++) {
      issue = narrower(issue, issues[index + 1] as RawIssue);
    }
    described.push(...describe(issue, params, prefix));
  }
  described.splice(MAX_ISSUES);
  const first = described[0] ?? { path: "", message: "do not fit" };
  return refuse("invalid_params", `${method}: ${first.path || "params"} ${first.message}.`, {
    issues: described,
  });
}

/** True if two issues say of one value that it is beyond a bound, and on the same side. */
function areOneBound(one: RawIssue, other: RawIssue | undefined): boolean {
  return (
    (one.code === "too_small" || one.code === "too_big") &&
    one.code === other?.code &&
    pointer(one.path) === pointer(other.path)
  );
}

/** The issue whose bound leaves fewer values, of two with one kind of bound. */
function narrower(one: RawIssue, other: RawIssue): RawIssue {
  const isNarrower =
    one.code === "too_small" && other.code === "too_small"
      ? other.minimum > one.minimum
      : one.code === "too_big" && other.code === "too_big" && other.maximum < one.maximum;
  return isNarrower ? other : one;
}

function describe(
  issue: RawIssue,
  params: unknown,
  prefix: readonly PropertyKey[],
): { path: string; message: string }[] {
  const path = pointer([...prefix, ...issue.path]);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.slice(0, MAX_ISSUES).map((key) => ({
      path: pointer([...prefix, ...issue.path, key]),
      message: `is not a parameter here (${shown(key)})`,
    }));
  }
  if (issue.code === "invalid_key") {
    const [name] = issue.path.slice(-1);
    return issue.issues.map((each) => ({
      path,
      message: `has a name that ${sentence(each)}, not ${shown(name)}`,
    }));
  }
  const value = valueAt(params, issue.path);
  if (value === undefined) return [{ path, message: "is required" }];
  return [{ path, message: `${sentence(issue)}, not ${shown(value)}` }];
}

function sentence(issue: RawIssue): string {
  switch (issue.code) {
    case "too_small":
      return `must ${issue.origin === "string" ? "have at least" : issue.origin === "array" ? "hold at least" : "be at least"} ${issue.minimum}${unit(issue.origin, issue.minimum)}`;
    case "too_big":
      return `must ${issue.origin === "string" ? "have at most" : issue.origin === "array" ? "hold at most" : "be at most"} ${issue.maximum}${unit(issue.origin, issue.maximum)}`;
    case "invalid_type":
      return `must be ${ARTICLE[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return oneOf(issue.values);
    case "invalid_union":
      // By a member that says which of several forms an object has.
      return "options" in issue && issue.options !== undefined ? oneOf(issue.options) : issue.message;
    case "invalid_format":
      return issue.message.startsWith("Invalid")
        ? `does not have the form ${issue.pattern ?? issue.format}`
        : issue.message;
    default:
      return issue.message;
  }
}

function oneOf(values: readonly unknown[]): string {
  return `must be ${values.map((value) => JSON.stringify(value)).join(" or ")}`;
}

const ARTICLE: Readonly<Record<string, string>> = {
  string: "a string",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  object: "an object",
  record: "an object",
  array: "an array",
};

function unit(origin: string, number: number | bigint): string {
  const one = origin === "string" ? " character" : origin === "array" ? " element" : "";
  return one === "" || Number(number) === 1 ? one : `${one}s`;
}

/** The refusal of a method that does not exist, naming the one whose name is closest, if one is close. */
export function noSuchMethod(name: string, names: readonly string[]): PawlError {
  // A name may be as long as a message, and comparing costs its length times that of each method.
  const wanted = name.slice(0, MAX_SHOWN_NAME_LENGTH);
  const distance = (each: string): number => leven(wanted.toLowerCase(), each.toLowerCase());
  const closest = names.reduce((best, each) => (distance(each) < distance(best) ? each : best));
  const isClose = distance(closest) <= MAX_MISSPELLED_CHARACTERS;
  return refuse(
    "method_not_found",
    `There is no method ${JSON.stringify(wanted)}. ${isClose ? `The closest is ${closest}; ` : ""}rpc.discover lists all.`,
    isClose ? { closest } : {},
  );
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, part) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, part)
        ? (value as Record<PropertyKey, unknown>)[part]
        : undefined,
    root,
  );
}
