import { type About, scopesWhenWoken } from "../domain/about.js";
import { type Coming, comingWhileWaiting } from "../domain/queue/ahead.js";
import type { Operation } from "../store/statement.js";
import { type Call, following } from "../turns/call.js";
import type { Env, Outcome } from "../turns/operation.js";
import type { ScopedCall } from "./turn.js";

/** A call at a place, with what it is about. */
export class PlacedCall implements ScopedCall {
  readonly #call: Call;
  readonly #about: About;
  readonly scopes: readonly string[];
  #coming: Coming | undefined;
  readonly #remember: (outcome: unknown, ageMs: number) => unknown;
  #performed: (() => void) | undefined;

  /**
   * @param options `remember` is told of the outcome, and gives what is answered; `performed` is told once that there
   * is one, or that the call waits.
   */
  constructor(options: {
    call: Call;
    about: About;
    scopes: readonly string[];
    coming?: Coming;
    remember: (outcome: unknown, ageMs: number) => unknown;
    performed: () => void;
  }) {
    this.#call = options.call;
    this.#about = options.about;
    this.scopes = options.scopes;
    this.#coming = options.coming;
    this.#remember = options.remember;
    this.#performed = options.performed;
  }

  get caller(): Call["caller"] {
    return this.#call.caller;
  }

  get coming(): Coming | undefined {
    return this.#coming;
  }

  get id(): Call["id"] {
    return this.#call.id;
  }

  get waitMs(): number {
    return this.#call.waitMs;
  }

  get writes(): boolean | undefined {
    return this.#call.writes;
  }

  get bytes(): number {
    return this.#call.bytes ?? 0;
  }

  get mayBeUndone(): boolean {
    return this.#call.mayBeUndone === true;
  }

  get closed(): boolean {
    return this.#call.closed;
  }

  get hasRoom(): boolean {
    return this.#call.hasRoom !== false;
  }

  get refusal(): Call["refusal"] {
    return this.#call.refusal;
  }

  start(env: Env): Operation<Outcome<unknown>> {
    return this.#call.start(env);
  }

  parked(bytes: number): void {
    this.#coming = comingWhileWaiting(this.#coming);
    this.#call.parked?.(bytes);
  }

  holds(bytes: number): void {
    this.#call.holds?.(bytes);
  }

  settle(outcome: unknown): void {
    this.answered(outcome, 0);
  }

  answered(outcome: unknown, ageMs: number): void {
    this.#call.settle(this.#remember(outcome, ageMs));
    this.performed();
  }

  scopesWhenWoken(key: string): readonly string[] {
    return scopesWhenWoken(this.#about, this.scopes, key);
  }

  following(goOn: Call["start"]): ScopedCall {
    return Object.assign(following(this, goOn), {
      scopes: this.scopes,
      scopesWhenWoken: (key: string) => this.scopesWhenWoken(key),
      following: (further: Call["start"]) => this.following(further),
      performed: () => this.performed(),
      answered: (outcome: unknown, ageMs: number) => this.answered(outcome, ageMs),
    });
  }

  performed(): void {
    this.#performed?.();
    this.#performed = undefined;
  }
}
