/**
 * What can be said in words of something that was thrown, which may be anything: also what has no text, or a text that
 * cannot be had. Never throws. Half characters and NUL, which no text of the daemon has, are replaced.
 *
 * @param maxLength of the text.
 */
export function textOfThrown(thrown: unknown, maxLength = Number.POSITIVE_INFINITY): string {
  const text = plainTextOf(thrown) ?? `${typeof thrown} that has no text`;
  return text.slice(0, maxLength).replace(/[\0\p{Surrogate}]/gu, "\uFFFD");
}

/** True if there are words for it. */
export function hasText(thrown: unknown): boolean {
  return plainTextOf(thrown) !== undefined;
}

function plainTextOf(thrown: unknown): string | undefined {
  try {
    return String(thrown instanceof Error ? thrown.message || thrown.name : thrown);
  } catch {
    return undefined;
  }
}
