// Schedules as programs use them: whole lists, and what an answer is about by itself.
import type { Params, Result } from "@pawl/protocol/types";
import type { CallOptions } from "../connection/call.js";
import type { Connection } from "../connection/connection.js";

/** What was set, when it comes next, and what it enqueued last. */
export type Schedule = Result<"schedule.get">["schedule"];

/** Batches that are enqueued at times, each occurrence once, over the methods of `client.schedule`. */
export interface Schedules {
  /**
   * Makes a schedule, or changes it. The same definition again changes nothing, so a program may set its schedules each
   * time that it starts.
   *
   * Rejects with a `PawlError` `invalid_params` that names the field of a cron expression that is wrong.
   *
   * @example
   * await client.schedules.set({
   *   name: "nightly-report",
   *   cron: "30 2 * * *",
   *   timeZone: "Europe/Berlin",
   *   queue: "reports",
   *   payloads: [{ report: "sales" }],
   * });
   */
  set(schedule: Params<"schedule.set">, options?: CallOptions): Promise<Schedule>;
  /** Rejects with a `PawlError` `not_found` when there is none of that name. */
  get(name: string, options?: CallOptions): Promise<Schedule>;
  /** All schedules by name, however many pages they are. */
  list(options?: CallOptions): Promise<Schedule[]>;
  /** Removes a schedule; what it has enqueued stays. Resolves with false when there was none. */
  delete(name: string, options?: CallOptions): Promise<boolean>;
  /** Enqueues a batch now, besides the occurrences. Rejects with `exhausted` when the queue is full. */
  run(name: string, options?: CallOptions): Promise<Result<"schedule.run">["batch"]>;
  /**
   * When a schedule comes next, or would by a cron expression, in milliseconds since the Unix epoch.
   *
   * @example const [at] = await client.schedules.next({ cron: "@daily", timeZone: "Europe/Berlin" });
   */
  next(of: string | Params<"schedule.next">, options?: CallOptions): Promise<number[]>;
}

export function schedulesOf(connection: Connection): Schedules {
  return {
    set: async (schedule, options) => (await connection.call("schedule.set", schedule, options)).schedule,
    get: async (name, options) => (await connection.call("schedule.get", { name }, options)).schedule,
    list: async (options) => await listAll(connection, options),
    delete: async (name, options) => (await connection.call("schedule.delete", { name }, options)).deleted,
    run: async (name, options) => (await connection.call("schedule.run", { name }, options)).batch,
    next: async (of, options) => {
      const params = typeof of === "string" ? { name: of } : of;
      return (await connection.call("schedule.next", params, options)).times;
    },
  };
}

async function listAll(connection: Connection, options: CallOptions | undefined): Promise<Schedule[]> {
  const found: Schedule[] = [];
  for (let after: string | undefined; ; ) {
    const page: Result<"schedule.list"> = await connection.call(
      "schedule.list",
      { limit: 1000, ...(after === undefined ? {} : { after }) },
      options,
    );
    found.push(...page.schedules);
    if (page.next === undefined) return found;
    after = page.next;
  }
}
