// The long forms of tests, for which npm run torture asks by PAWL_TORTURE: 1 for the whole of them, 0.1 for a tenth.

const share = Number(process.env.PAWL_TORTURE ?? 0);

/** True if the long form is asked for, or a part of it. */
export const TORTURE = share > 0;
/** True if all of it is: what only comes about in a long time is looked for then. */
export const WHOLE = share >= 1;

/** How often, or for how long, something is done: as the long form has it, or its part, and not less than otherwise. */
export function sized(long: number, short: number): number {
  return TORTURE ? Math.max(Math.round(long * share), short) : short;
}
