import type { Response } from "@pawl/protocol/envelope";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_BATCH_ANSWER_BYTES } from "@pawl/protocol/limits";
import { SharedText } from "../json/shared-json.js";
import type { Call } from "../turns/call.js";
import type { LineUnderWay } from "./peer.js";

export interface BatchOptions {
  /** Requests in the batch. */
  count: number;
  /** Takes up a request and adds its call, or refuses it if there is a refusal. `take` is to be told its answer. */
  begin: (batch: Batch, index: number, calls: Call[], refusal: PawlError | undefined) => void;
  /** Undefined if there is nobody to read it. */
  write: (response: Response) => string | SharedText | undefined;
  /** True if so much is kept that no more of the batch is to be performed. */
  isFull: () => boolean;
  /** Called with how many bytes of answers more, or fewer, are kept. */
  keep: (bytes: number, sharing: { isShared: boolean }) => void;
  /** Called with all answers, in the order of the requests, without those of notifications. */
  finish: (answers: (string | SharedText)[]) => void;
}

/**
 * A batch whose answers come in. They are sent together, so they are counted as they come: once they have grown too
 * large, or those of all connections have, the requests that are not yet performed, or that wait, are refused instead.
 */
export class Batch implements LineUnderWay {
  readonly #options: Omit<BatchOptions, "begin">;
  /** Undefined once all are taken up: it refers to their line, which is not to be kept while one of them waits. */
  #begin: BatchOptions["begin"] | undefined;
  readonly #answers: (string | SharedText | undefined)[];
  #begun = 0;
  #answered = 0;
  #bytes = 0;

  constructor({ begin, ...options }: BatchOptions) {
    this.#options = options;
    this.#begin = begin;
    this.#answers = new Array(options.count);
  }

  get left(): number {
    return this.#options.count - this.#begun;
  }

  /** The refusal of every request that is not yet performed; undefined while there is room for answers. */
  get refusal(): PawlError | undefined {
    return this.#bytes > 0 && this.#options.isFull() ? TOO_MANY_ANSWERS : undefined;
  }

  goOn(most: number, calls: Call[]): void {
    const { count } = this.#options;
    const end = Math.min(this.#begun + most, count);
    const { refusal } = this;
    while (this.#begun < end) {
      const index = this.#begun;
      this.#begun += 1;
      this.#begin?.(this, index, calls, refusal);
    }
    if (end === count) this.#begin = undefined;
  }

  /** @param response null for a notification. */
  take(index: number, response: Response | null): void {
    const { count, write, keep, finish } = this.#options;
    const text = response === null ? undefined : write(response);
    if (text !== undefined) {
      const isShared = text instanceof SharedText;
      // Shared ones count as others do: so much is still to be sent.
      const bytes = isShared ? text.length : memoryOf(text);
      this.#answers[index] = text;
      this.#bytes += bytes;
      keep(bytes, { isShared });
    }
    this.#answered += 1;
    if (this.#answered < count) return;
    keep(-this.#bytes, { isShared: false });
    finish(this.#answers.filter((answer) => answer !== undefined));
  }
}

/** The line of all answers to a batch: those that are shared are not made anew for it. */
export function lineOf(answers: readonly (string | SharedText)[]): string | SharedText {
  if (!answers.some((answer) => answer instanceof SharedText)) return `[${answers.join(",")}]`;
  const parts = answers.flatMap((answer, index) => [
    index === 0 ? "[" : ",",
    ...(answer instanceof SharedText ? answer.parts : [answer]),
  ]);
  return new SharedText([...parts, "]"]);
}

/** The bytes that a text takes: two for each character, unless all are ASCII. */
function memoryOf(text: string): number {
  return Buffer.byteLength(text) === text.length ? text.length : 2 * text.length;
}

const TOO_MANY_ANSWERS = refuse(
  "unavailable",
  `The answers of this batch have grown beyond ${MAX_BATCH_ANSWER_BYTES} bytes, or those that all connections have not read beyond their bound, so this request was not performed. Send it in another batch.`,
  { reason: "batch_too_large" },
);
