/** Limits of what may stand in a change (spec: pipeline.md, Errors). All nodes must agree on them. */

/** A body, in UTF-8. */
export const MAX_BODY_BYTES = 64 * 1024;
/** The value of one field, as canonical JSON in UTF-8. */
export const MAX_FIELD_BYTES = 4 * 1024;
/** Items that one change touches: an op each. */
export const MAX_OPS = 256;

/** The name of a field, known or not, in UTF-8. */
export const MAX_FIELD_NAME_BYTES = 256;
export const MAX_STAGE_LENGTH = 64;
export const MAX_RANK_LENGTH = 256;

/** Odd, and so alive: an item that has come to this can no longer be deleted. */
export const MAX_GENERATION = Number.MAX_SAFE_INTEGER;

/**
 * One increment. A counter is a set value, exact by itself, and a sum of increments: so small, these stay
 * exact, and so independent of their order, up to nine thousand million of them.
 */
export const MAX_INCREMENT = 1_000_000;

/** The counter of a hybrid clock. A tick past it goes to the next millisecond. */
export const MAX_CLOCK_COUNTER = 2 ** 32 - 1;

/** A received change further ahead of the local wall clock than this is refused for now. */
export const MAX_AHEAD_MS = 60_000;
