// Options of the commands that run a program while they hold something for it.
import { UsageError } from "../terminal/command.js";

/** The highest code that a program can exit with. */
const MAX_EXIT_CODE = 255;

export const HOLD_OPTIONS = {
  wait: { type: "duration", describe: "How long to wait while another holds it", default: "not at all" },
  ttl: {
    type: "duration",
    describe: "How long it is held beyond the last sign of life of this program",
    default: "30s",
  },
  owner: {
    type: "text",
    value: "TEXT",
    describe: "Who holds it, for others to see",
    default: "program and pid",
  },
  note: { type: "text", value: "TEXT", describe: "Why, for others to see" },
  grace: {
    type: "duration",
    describe: "How long it stays held while the connection to the daemon is lost",
    default: "not at all",
  },
  "conflict-exit-code": {
    type: "number",
    short: "E",
    value: "NUMBER",
    describe: "The exit code if it is not to be had, as of flock(1)",
    default: "1",
  },
} as const;

/** The exit code that was asked for. Throws `UsageError` for one that no program can have. */
export function exitCodeOf(given: number | undefined): number | undefined {
  if (given === undefined || given <= MAX_EXIT_CODE) return given;
  throw new UsageError(`--conflict-exit-code takes 0 to ${MAX_EXIT_CODE}, not ${given}.`);
}
