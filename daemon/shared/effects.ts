import type { EventKind, EventNoun } from "@pawl/protocol";
import { CollectedEffects } from "../turns/effects.js";
import type { EventDetails } from "../turns/journal.js";
import type { Effects } from "../turns/operation.js";

/** The effects that the turns of this process tell those who follow, once the transaction is committed. */
type Told = Pick<Effects, "tell" | "note" | "noteDuration">;

/**
 * The effects of a turn over shared names. Those that go into the journal of this process are kept until the commit,
 * because the journal's own turns go on meanwhile.
 */
export class SharedEffects extends CollectedEffects {
  readonly #told: ((effects: Told) => void)[] = [];
  #toldBefore = 0;
  readonly #woken = new Set<string>();
  readonly #isFollowed: () => boolean;

  constructor(wallMs: number, isFollowed: () => boolean) {
    super(undefined, undefined, wallMs);
    this.#isFollowed = isFollowed;
  }

  override wake(key: string): void {
    this.#woken.add(key);
    super.wake(key);
  }

  /**
   * Every key of which others are to know that it was woken, also by an operation that was refused: one too many only
   * costs a look.
   */
  get woken(): ReadonlySet<string> {
    return this.#woken;
  }

  override tell<N extends EventNoun>(
    noun: N,
    name: string,
    kind: EventKind<N>,
    id: string,
    details?: EventDetails,
  ): void {
    this.#told.push((effects) => effects.tell(noun, name, kind, id, details));
  }

  override note<N extends EventNoun>(noun: N, name: string, kind: EventKind<N>, times: number): void {
    this.#told.push((effects) => effects.note(noun, name, kind, times));
  }

  override noteDuration(queue: string, what: "wait" | "run", ms: number): void {
    this.#told.push((effects) => effects.noteDuration(queue, what, ms));
  }

  override get isFollowed(): boolean {
    return this.#isFollowed();
  }

  override begin(): void {
    super.begin();
    this.#toldBefore = this.#told.length;
  }

  override forget(): void {
    super.forget();
    this.#told.length = this.#toldBefore;
  }

  get tellsSome(): boolean {
    return this.#told.length > 0;
  }

  /** After the commit: tells, in a turn of this process. */
  tellAll(effects: Told): void {
    for (const tell of this.#told) tell(effects);
  }
}
