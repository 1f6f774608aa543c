import type { Dispenser } from "@pawl/protocol/dispenser";
import type { Methods, Result } from "@pawl/protocol/types";
import type { CallOptions } from "./call.js";
import type { Connection } from "./connection.js";

/** `client.sequence.next({...})` for every method of the protocol. */
export type Groups = Methods<CallOptions>;

/** A group of methods, made from their names as they are asked for, so that no list is needed at run time. */
export function groupOf(connection: Connection, group: string): unknown {
  return new Proxy({} as Record<string, unknown>, {
    get(methods, name) {
      // A promise would be asked for `then` before it is resolved with us.
      if (typeof name !== "string" || name === "then" || name in methods) return Reflect.get(methods, name);
      methods[name] = (params?: Record<string, unknown>, options?: CallOptions) =>
        connection.call(`${group}.${name}`, params ?? {}, options);
      return methods[name];
    },
  });
}

/** The sequences of a daemon, behind the same interface as those of a file or of memory. */
export function dispenserOf(connection: Connection): Dispenser {
  return {
    next: async (type) => (await connection.call("sequence.next", { type })).seq,
    nextId: async (type) => (await connection.call("sequence.next", { type })).id,
    peek: async (type) => (await connection.call("sequence.peek", { type })).seq,
    state: () => wholeState(connection),
    formatId: async (type, seq) => (await connection.call("sequence.format", { type, seq })).id,
  };
}

/** All pages of `sequence.state` as one. */
async function wholeState(connection: Connection): Promise<Result<"sequence.state">> {
  const { next, ...state } = await connection.call("sequence.state", {});
  for (let after = next; after !== undefined; ) {
    const page = await connection.call("sequence.state", { after });
    Object.assign(state.sequences, page.sequences);
    Object.assign(state.granted, page.granted);
    after = page.next;
  }
  return state;
}
