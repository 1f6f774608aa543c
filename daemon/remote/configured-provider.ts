import { kindOf, notConfigured } from "../domain/lease/refusals.js";
import { fits } from "../domain/name-pattern.js";
import type { LeaseProvider } from "./provider.js";
import type { Loggable } from "./secrets.js";

/** A provider that was loaded, with its configuration. */
export interface ConfiguredProvider {
  /** The specification, which tells providers apart, also over restarts. Leases are recorded with it. */
  readonly text: string;
  /** The word that clients are told of the provider. */
  readonly kind: "dynamodb" | "etcd" | "custom";
  /** The texts of the provider and of its errors for the log. */
  readonly loggable: Loggable;
  readonly provider: LeaseProvider;
}

/** A pattern of names, and the provider of their leases; undefined for this database. */
export interface ProviderRule {
  readonly pattern: string;
  readonly configured: ConfiguredProvider | undefined;
}

/** The providers of a daemon, by the names whose leases they keep and by their specifications. */
export class ConfiguredProviders {
  readonly #rules: readonly ProviderRule[];
  readonly #byText = new Map<string, ConfiguredProvider>();

  constructor(rules: readonly ProviderRule[]) {
    this.#rules = rules;
    for (const { configured } of rules) {
      if (configured !== undefined) this.#byText.set(configured.text, configured);
    }
  }

  /** The provider of a name, by the first pattern that fits; undefined for this database. */
  of(name: string): ConfiguredProvider | undefined {
    return this.#rules.find(({ pattern }) => fits(pattern, name))?.configured;
  }

  /** True if a provider may keep some of the names that begin so. */
  mayKeep(beginning: string): boolean {
    return this.#rules.some(({ pattern, configured }) => {
      const [head = ""] = pattern.split("*");
      return configured !== undefined && (head.startsWith(beginning) || beginning.startsWith(head));
    });
  }

  withText(text: string): ConfiguredProvider | undefined {
    return this.#byText.get(text);
  }

  /** The same for a provider that has to be asked: `provider_unavailable` if it is not configured any more. */
  needed(text: string): ConfiguredProvider {
    const configured = this.#byText.get(text);
    if (configured === undefined) throw notConfigured(kindOf(text));
    return configured;
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#byText.values()].map(({ provider }) => provider.close?.()));
  }
}
