import { type Config, isReloadable } from "./config.js";

/** The outcome of reading the configuration again in a running daemon. */
export interface Reload {
  /** The former configuration with what can change at once. */
  readonly config: Config;
  /** The names of what has changed and is taken over. */
  readonly taken: readonly (keyof Config)[];
  /** The names of what has changed and takes effect at the next start. */
  readonly needRestart: readonly (keyof Config)[];
}

export function reloaded(former: Config, read: Config): Reload {
  const changed = (Object.keys(read) as (keyof Config)[]).filter(
    (name) => JSON.stringify(read[name]) !== JSON.stringify(former[name]),
  );
  const taken = changed.filter(isReloadable);
  return {
    config: { ...former, ...Object.fromEntries(taken.map((name) => [name, read[name]])) },
    taken,
    needRestart: changed.filter((name) => !isReloadable(name)),
  };
}
