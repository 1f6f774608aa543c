import { REPEATABLE_METHODS } from "./repeatable-methods.js";

/**
 * True if a request may be sent again when nobody knows whether it took effect. Clients import this file at run
 * time, so it loads no schemas. A `transact` never is repeatable: a guard that held the first time, or a value that a
 * later call was given, may be another the second time.
 */
export function isRepeatable(method: string, params: Readonly<Record<string, unknown>>): boolean {
  const repeatable = Object.hasOwn(REPEATABLE_METHODS, method) && REPEATABLE_METHODS[method];
  if (typeof repeatable !== "object") return repeatable ?? false;
  const { withKey, ofEach } = repeatable;
  if (ofEach === undefined) return isGiven(params[withKey]);
  const elements = params[ofEach];
  return Array.isArray(elements) && elements.every((element) => isGiven(element?.[withKey]));
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
