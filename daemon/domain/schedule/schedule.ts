/**
 * Schedules: batches that are enqueued at times, each occurrence once (spec: queue.md, Schedules).
 *
 * The files, in reading order: cron (the times of an expression in a time zone), cron-dates (whether it has any), row
 * (a schedule, its times and its batches), definition (set, delete), occurrences (what is enqueued when its time has
 * come, or was missed), reads, run.
 */
import type { HandlersOf } from "../../turns/handler.js";
import { remove, set } from "./definition.js";
import { get, list, next } from "./reads.js";
import { runNow } from "./run.js";

/** Which operation performs which method. */
export const scheduleHandlers: HandlersOf<"schedule"> = { set, get, list, run: runNow, next, delete: remove };
