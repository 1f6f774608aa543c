import { PawlError } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { elapsed } from "../clock.js";
import type { ConfiguredProvider } from "./configured-provider.js";
import { Failure, unavailable } from "./refusals.js";

/** A provider's defect is logged once in this time, and no more than so many defects. */
const SAME_DEFECT_MS = 600_000;
const MAX_DEFECTS = 20;

/** Logs what providers fail with, each thing once: they are asked again and again, and fail as often. */
export class FailureLog {
  readonly #log: Logger;
  /** Providers that did not answer the last time, and the reasons that have been logged. */
  readonly #down = new Map<ConfiguredProvider, Set<unknown>>();
  /** By provider, the texts of defects that have been logged, and until when they are not logged again. */
  readonly #defects = new Map<ConfiguredProvider, Map<string, number>>();

  constructor(log: Logger) {
    this.#log = log;
  }

  answered(configured: ConfiguredProvider): void {
    if (!this.#down.delete(configured)) return;
    this.#log.info({ provider: configured.loggable.title }, "the lease provider answers again");
  }

  /** Makes a refusal, with what clients may know, of what a provider rejected with; logs what they may not know. */
  refusalOf(configured: ConfiguredProvider, error: unknown): PawlError {
    const { kind, loggable } = configured;
    const { kind: said } = (error ?? {}) as { kind?: unknown };
    const ours = kind !== "custom" && error instanceof PawlError;
    if (ours && said !== "provider_unavailable") return error;
    const isKnown = said === "provider_unavailable" || error instanceof Failure;
    const refusal = ours ? error : unavailable(kind, error);
    const { reason } = refusal.details;
    const text = loggable.error(ours ? error.cause : error);
    if (reason === "bad_answer") {
      if (this.#isNew(configured, `breaks its rules: ${text}`))
        this.#log.error({ provider: loggable.title, text }, "a lease provider breaks its rules");
      return refusal;
    }
    if (!isKnown) this.#logDefect(configured, text, error);
    // A defect of one of its methods says nothing of the others, which may answer all the while.
    if (isKnown || reason !== "failed") this.#logDown(configured, reason, text);
    return refusal;
  }

  #logDown(configured: ConfiguredProvider, reason: unknown, text: string): void {
    const logged = this.#down.get(configured) ?? new Set();
    this.#down.set(configured, logged);
    if (logged.has(reason)) return;
    logged.add(reason);
    const { title: provider } = configured.loggable;
    this.#log.warn({ provider, reason, text }, "the lease provider does not answer");
  }

  #logDefect(configured: ConfiguredProvider, text: string, error: unknown): void {
    if (!this.#isNew(configured, text)) return;
    const { title: provider, stack } = configured.loggable;
    this.#log.error({ provider, text, stack: stack(error) }, "the lease provider failed");
  }

  /** True if a defect is to be logged, which it then counts as. */
  #isNew(configured: ConfiguredProvider, text: string): boolean {
    const now = elapsed();
    const defects = this.#defects.get(configured) ?? new Map<string, number>();
    this.#defects.set(configured, defects);
    for (const [logged, until] of defects) if (until <= now) defects.delete(logged);
    if (defects.has(text) || defects.size >= MAX_DEFECTS) return false;
    defects.set(text, now + SAME_DEFECT_MS);
    return true;
  }
}
