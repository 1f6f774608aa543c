// The local provider under the suite that every provider has to pass. Its operations run each in a transaction
// of its own on a real database file; only time is made up.
import { join } from "node:path";
import { test } from "vitest";
import type { Clock } from "../../daemon/dist/clock.js";
import { type LeaseProvider, leaseProviderConformance } from "../../daemon/dist/index.js";
import { localProvider } from "../../daemon/dist/remote/local.js";
import { openDatabase } from "../../daemon/dist/store/open-database.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Store } from "../../daemon/dist/store/store.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { privateDirectory } from "../daemon.js";

leaseProviderConformance({
  test,
  stage: async () => {
    let passedMs = 0;
    const { store, clock, close } = openDatabase({
      path: join(privateDirectory(), "pawl.db"),
      time: { wall: () => 1_700_000_000_000, monotonic: () => passedMs },
    });
    return {
      open: async () => outside(store, clock),
      pass: async (ms) => {
        passedMs += ms;
      },
      close: async () => close(),
    };
  },
});

/** A provider inside, asked from outside as others are. */
function outside(store: Store, clock: Clock): LeaseProvider {
  async function perform<T>(start: (env: Pick<Env, "now">) => Operation<T>): Promise<Exclude<T, Error>> {
    const { now } = clock.read();
    store.begin();
    const outcome = store.perform(start({ now }));
    store.commit(now);
    if (outcome instanceof Error) throw outcome;
    return outcome as Exclude<T, Error>;
  }
  return {
    acquire: (request) => perform((env) => localProvider(env).acquire(request)),
    heartbeat: (request) => perform((env) => localProvider(env).heartbeat(request)),
    release: (request) => perform((env) => localProvider(env).release(request)),
    get: (name) => perform((env) => localProvider(env).get(name)),
    break: (name) => perform((env) => localProvider(env).break(name)),
  };
}
