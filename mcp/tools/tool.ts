// The room of tools: what an agent can do, each tool with its description for a model that has never heard of pawl.
import { z } from "zod";
import type { Link } from "../link.js";
import type { Session } from "../sessions/session.js";
import type { Sessions } from "../sessions/sessions.js";

/** The longest wait of a tool: hosts give up after a minute. */
const MAX_WAIT_SECONDS = 45;

/** A call of a tool, and what it may use. */
export interface Call {
  readonly sessions: Sessions;
  /** Aborted when the caller gives the call up. */
  readonly signal: AbortSignal;
  /** Tells the caller now and then, while `perform` runs, that it waits. */
  waiting<T>(reason: string, perform: () => Promise<T>): Promise<T>;
}

/** A call in a session. */
export interface SessionCall extends Call {
  readonly session: Session;
  readonly link: Link;
}

interface Described {
  readonly name: string;
  readonly title: string;
  /** When to use it, what it gives, what to do on a refusal. */
  readonly description: string;
  readonly annotations: {
    readonly readOnlyHint: boolean;
    readonly destructiveHint: boolean;
    readonly idempotentHint: boolean;
  };
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
}

/** A tool as those take it who know nothing of its arguments. */
export interface Tool extends Described {
  /** Performs it. Rejects with the refusal. */
  run(
    args: never,
    call: never,
  ): Promise<{ readonly result: Record<string, unknown>; readonly session: Session }>;
  /** True if it needs no session, because it starts one. */
  readonly starts: boolean;
}

/** Declares a tool of a session: `session` is added to its arguments. */
export function tool<const I extends z.ZodRawShape, const O extends z.ZodRawShape>(
  definition: Omit<Described, "input" | "output"> & {
    readonly input: I;
    readonly output: O;
    run(args: z.output<z.ZodObject<I>>, call: SessionCall): Promise<z.input<z.ZodObject<O>>>;
  },
): Tool {
  const { input, output, run, ...described } = definition;
  return {
    ...described,
    starts: false,
    input: z.strictObject({
      session: z.string().meta({ description: "The `session` of session_start." }),
      ...input,
    }),
    output: z.looseObject({ ...output, ...NEWS }),
    run: async ({ session: _, ...args }: { session: string }, call: SessionCall) => ({
      result: await run(args as z.output<z.ZodObject<I>>, call),
      session: call.session,
    }),
  };
}

/** Declares the tool that starts a session. */
export function startingTool<const I extends z.ZodRawShape, const O extends z.ZodRawShape>(
  definition: Omit<Described, "input" | "output"> & {
    readonly input: I;
    readonly output: O;
    run(
      args: z.output<z.ZodObject<I>>,
      call: Call,
    ): Promise<{ result: z.input<z.ZodObject<O>>; session: Session }>;
  },
): Tool {
  const { input, output, ...described } = definition;
  return {
    ...described,
    starts: true,
    input: z.strictObject(input),
    output: z.looseObject({ ...output, ...NEWS }),
  };
}

/** The end of each result. Every tool's schema has it, so it is short; session_start says what it means. */
const NEWS = {
  unread: z.number().nullable(),
  lost: z.array(z.unknown()),
};

/** What follows, or what to do next, in words. */
export const hint = z.string().optional();

/** The argument of a tool that may wait. */
export function waitSeconds(untilWhat: string, otherEnds = "; any message ends it") {
  return z
    .int()
    .min(0)
    .max(MAX_WAIT_SECONDS)
    .optional()
    .meta({
      description: `Waits so long ${untilWhat}${otherEnds}. Default 0.`,
    });
}

export const READS = { readOnlyHint: true, destructiveHint: false, idempotentHint: true } as const;
export const ADDS = { readOnlyHint: false, destructiveHint: false, idempotentHint: false } as const;
export const SETS = { readOnlyHint: false, destructiveHint: false, idempotentHint: true } as const;
export const DESTROYS = { readOnlyHint: false, destructiveHint: true, idempotentHint: false } as const;
