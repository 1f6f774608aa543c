import { REPEATABLE_METHODS } from "./repeatable-methods.js";

/**
 * True if a request may be sent again when nobody knows whether it took effect. Clients import this file at run
 * time, so it loads no schemas. A `transact` never is repeatable: a guard that held the first time, or a value that a
 * later call was given, may be another the second time.
 */
export function isRepeatable(method: string, params: Readonly<Record<string, unknown>>): boolean {
  const repeatable = Object.hasOwn(REPEATABLE_METHODS, method) && REPEATABLE_METHODS[method];
  if (typeof repeatable !== "object") return repeatable ?? false;
  const { withKey, ofEach, unless = {} } = repeatable;
  const isSafe = (given: Readonly<Record<string, unknown>> | undefined): boolean =>
    isGiven(given?.[withKey]) &&
    Object.entries(unless).every(([param, values]) => !values.includes(given?.[param] as string));
  if (ofEach === undefined) return isSafe(params);
  const elements = params[ofEach];
  return Array.isArray(elements) && elements.every(isSafe);
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
