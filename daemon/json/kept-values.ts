// Values that are kept with work by those who do it: progress, checkpoints and results.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES, MAX_PAYLOAD_NESTING_LEVELS, MAX_RESULT_BYTES } from "@pawl/protocol/limits";
import { nestingLevels } from "./raw-json.js";

/** How far work has come, as whoever does it says. */
interface Progress {
  readonly percent?: number | undefined;
  readonly note?: string | undefined;
}

/**
 * The JSON text of a progress after more of it was told: what is not given stays as it was.
 *
 * @param before the text that is kept, if there is one.
 */
export function progressAfter(before: string | null | undefined, { percent, note }: Progress): string {
  const told = JSON.parse(before ?? "{}") as Progress;
  return JSON.stringify({ percent: percent ?? told.percent, note: note ?? told.note });
}

/**
 * The refusal of a result or a checkpoint that is too long, or too deep.
 *
 * @param batches how many keep it; 1 for a command.
 */
export function tooLarge(method: string, path: string, text: string, batches: number): PawlError | undefined {
  if (nestingLevels(text) > MAX_PAYLOAD_NESTING_LEVELS) {
    return wrongParam(
      method,
      path,
      `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another. Send it as text, or flatten it`,
    );
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_RESULT_BYTES) {
    return wrongParam(
      method,
      path,
      `has ${bytes} bytes of JSON, and may have ${MAX_RESULT_BYTES}. Keep what is larger elsewhere, and its place here`,
    );
  }
  if (bytes * batches <= MAX_PAGE_BYTES) return undefined;
  return wrongParam(
    method,
    path,
    `has ${bytes} bytes of JSON for each of ${batches} batches, and all together may have ${MAX_PAGE_BYTES}. Make it shorter`,
  );
}

/** The refusal of a param by its path, with what is wrong with it. */
export function wrongParam(method: string, path: string, message: string): PawlError {
  return refuse("invalid_params", `${method}: ${shown(path)} ${message}.`, { issues: [{ path, message }] });
}
