import { textsAt } from "@pawl/protocol/json-text";
import { MAX_WAIT_MS } from "@pawl/protocol/limits";
import { command } from "../terminal/command.js";
import { printable } from "../terminal/text.js";

/** The batch has ended otherwise than by completion, or has not. */
const EXIT_NOT_COMPLETED = 1;

const FINAL: ReadonlySet<string> = new Set(["completed", "dead", "cancelled", "expired"]);

const wait = command({
  args: "<batch>",
  endsBySignal: true,
  patient: () => true,
  summary: "Wait for the end of a batch, and print its result",
  options: { for: { type: "duration", describe: "How long to wait at most", default: "for ever" } },
  details:
    "Exits with 0 once it is completed, and prints its result if it has one. Exits with 1 if it is dead, was cancelled or has expired, or has not ended in time.",
  examples: [
    [`pawl wait "$(pawl enqueue builds 17)"`, "The result of what was just enqueued"],
    [`pawl wait "$id" --for 5m || pawl cancel "$id" --stop`, "Five minutes are enough"],
  ],
  async run({ batch: batchId, for: forMs }, { connect, output }) {
    const client = await connect();
    const until = performance.now() + (forMs ?? Number.POSITIVE_INFINITY);
    for (;;) {
      const waitMs = Math.ceil(Math.max(0, Math.min(until - performance.now(), MAX_WAIT_MS)));
      const { result: found, text } = await client.callForText("queue.wait", { batchId, waitMs });
      const { state, lastError } = found.batch;
      const isOver = FINAL.has(state);
      if (!isOver && waitMs > 0) continue;
      const [result] = textsAt(text, ["batch", "result"]);
      output.result(found, () => (state === "completed" && result !== undefined ? result : ""), text);
      if (state === "completed") return undefined;
      const why = isOver && lastError !== undefined ? `: ${printable(lastError)}` : "";
      output.note(`It is ${isOver ? "" : "still "}${state}${why}.`);
      return EXIT_NOT_COMPLETED;
    }
  },
});

export const commands = { wait };
