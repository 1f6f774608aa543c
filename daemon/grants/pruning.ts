/**
 * What is merely kept is removed this long after it may be, so that a daemon with nothing else to do wakes
 * once for many rows. Reading already ignores it from the exact moment on.
 */
export const PRUNE_EVERY_MS = 60_000;
