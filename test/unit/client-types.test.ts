// The types of calls; checked by `tsc -p test`, since at run time nothing of it is left.

import {
  type ConnectOptions,
  type connect,
  type DetailsOf,
  type MethodName,
  type NotificationName,
  type NotificationParams,
  type Params,
  type PawlClient,
  PawlError,
  type Result,
} from "@pawl/client";
import type * as protocol from "@pawl/protocol";
import type { OneLease, SeveralLeases } from "@pawl/protocol/types";
import { describe, expectTypeOf, test } from "vitest";

declare const client: PawlClient;
/** Compiled and never called. */
const compiled = (_: () => unknown): void => {};

describe("calls by group", () => {
  test("have exactly the params and results of the protocol", () => {
    expectTypeOf<PawlClient["sequence"]["next"]>().returns.resolves.toEqualTypeOf<{
      type: string;
      seq: number;
      id: string;
    }>();
    expectTypeOf<PawlClient["sequence"]["next"]>()
      .parameter(0)
      .toEqualTypeOf<{ type: string; requestId?: string | undefined }>();
    expectTypeOf<PawlClient["sequence"]["reserve"]>().returns.resolves.toEqualTypeOf<{
      type: string;
      first: number;
      last: number;
      firstId: string;
      lastId: string;
    }>();
    expectTypeOf<PawlClient["sequence"]["state"]>().returns.resolves.toEqualTypeOf<{
      mode: { kind: "centralized" } | { kind: "distributed"; nodeId: number | string };
      sequences: Record<string, number>;
      granted: Record<string, number>;
      next?: string | undefined;
    }>();
    expectTypeOf<PawlClient["daemon"]["ping"]>().returns.resolves.toEqualTypeOf<{ now: number }>();
    compiled(() => client.sequence.next({ type: "FR" }));
    compiled(() => client.sequence.next({ type: "FR" }, { signal: AbortSignal.timeout(1) }));
  });

  test("may leave out what has a default, and params that hold nothing", () => {
    expectTypeOf<PawlClient["lease"]["heartbeat"]>()
      .parameter(0)
      .toExtend<{ leaseId: string; ttlMs?: number | undefined; note?: string | undefined }>();
    compiled(() => {
      expectTypeOf(client.lease.acquire({ name: "n", owner: "o" })).resolves.toEqualTypeOf<OneLease>();
      const several = client.lease.acquire({ names: ["n", "m"], owner: "o" });
      expectTypeOf(several).resolves.toEqualTypeOf<SeveralLeases>();
    });
    compiled(() => client.sequence.state());
    compiled(() => client.daemon.ping({}));
    compiled(() => client.lease.list());
    compiled(() => client.lease.break({ name: "n", reason: "why" }));
  });

  test("with mistakes do not compile", () => {
    // @ts-expect-error a method that is not there
    compiled(() => client.sequence.nxt({ type: "FR" }));
    // @ts-expect-error a group that is not there
    compiled(() => client.sequences.next({ type: "FR" }));
    // @ts-expect-error params are needed
    compiled(() => client.sequence.next());
    // @ts-expect-error a param is missing
    compiled(() => client.sequence.next({}));
    // @ts-expect-error a param that is not there
    compiled(() => client.sequence.next({ type: "FR", tpye: "FR" }));
    // @ts-expect-error a param of the wrong type
    compiled(() => client.sequence.next({ type: 1 }));
    // @ts-expect-error a value that is not one of the choices
    compiled(() => client.lease.acquire({ name: "n", owner: "o", releaseOn: "never" }));
    // @ts-expect-error the result has no such property
    compiled(async () => (await client.sequence.next({ type: "FR" })).number);
  });
});

describe("calls by name", () => {
  test("are as precise", () => {
    compiled(() => {
      expectTypeOf(client.call("sequence.next", { type: "FR" })).resolves.toEqualTypeOf<{
        type: string;
        seq: number;
        id: string;
      }>();
    });
    expectTypeOf<Params<"sequence.peek">>().toEqualTypeOf<{ type: string }>();
    expectTypeOf<Result<"sequence.format">>().toEqualTypeOf<{ id: string }>();
  });

  test("with a name known only at run time give what has to be looked at", () => {
    const name: string = "sequence.next";
    compiled(() => {
      expectTypeOf(client.call(name, { type: "FR" })).resolves.toBeUnknown();
    });
  });
});

test("transact gives the result of each call", () => {
  compiled(async () => {
    const { results } = await client.transact({
      calls: [
        { method: "sequence.next", params: { type: "FR" } },
        { method: "sequence.advance", params: { type: "BUG", to: { $result: "/0/seq" } } },
      ],
      guards: [{ lease: { name: "n", fencingToken: 1 } }],
    });
    expectTypeOf(results).toEqualTypeOf<
      [{ type: string; seq: number; id: string }, { type: string; seq: number }]
    >();
  });
  // @ts-expect-error a method that is not there
  compiled(() => client.transact({ calls: [{ method: "sequence.nxt" }] }));
  // @ts-expect-error calls are needed
  compiled(() => client.transact({}));
});

test("notifications have their params", () => {
  expectTypeOf<NotificationParams<"lease.lost">>().toEqualTypeOf<{
    name: string;
    leaseId: string;
    fencingToken: number;
    cause: "expired" | "broken";
    reason: string | null;
  }>();
  compiled(() =>
    client.on("lease.expiring", (params) => {
      expectTypeOf(params.remainingMs).toEqualTypeOf<number>();
    }),
  );
  // @ts-expect-error a notification that is not there
  compiled(() => client.on("lease.found", () => {}));
});

test("options of connect are checked", () => {
  expectTypeOf<typeof connect>().returns.resolves.toEqualTypeOf<PawlClient>();
  expectTypeOf<{ spawn: true }>().toExtend<ConnectOptions>();
  expectTypeOf<{ spawn: { args: ["--idle-exit", "60"] } }>().toExtend<ConnectOptions>();
  // @ts-expect-error an option that is not there
  const mistaken: ConnectOptions = { sokcet: "/tmp/x" };
  expectTypeOf(mistaken).toEqualTypeOf<ConnectOptions>();
});

describe("work", () => {
  test("has the payloads of the type that is named", () => {
    compiled(() =>
      client.work<{ image: string }>("thumbnails", ({ payloads, signal, fencingToken, batches }) => {
        expectTypeOf(payloads).toEqualTypeOf<readonly { image: string }[]>();
        expectTypeOf(signal).toEqualTypeOf<AbortSignal>();
        expectTypeOf(fencingToken).toEqualTypeOf<number>();
        expectTypeOf(batches[0]?.batchId).toEqualTypeOf<string | undefined>();
      }),
    );
    compiled(() =>
      client.work("thumbnails", ({ payloads }) => {
        expectTypeOf(payloads).toEqualTypeOf<readonly unknown[]>();
      }),
    );
    // @ts-expect-error an option that is not there
    compiled(() => client.work("q", () => {}, { concurency: 2 }));
  });
});

test("withLease resolves with what its function returns", () => {
  compiled(() => {
    expectTypeOf(
      client.withLease("n", async ({ fencingToken }) => `${fencingToken}`),
    ).resolves.toEqualTypeOf<string>();
    expectTypeOf(client.withLease("n", () => 1)).resolves.toEqualTypeOf<number>();
  });
});

test("withItem takes what reaches the daemon, and nothing that would be left out", () => {
  compiled(() => {
    const options = {
      doneStage: "3_qa",
      waitMs: 1,
      ttlMs: 1000,
      releaseOn: "disconnect",
      graceMs: 1,
    } as const;
    return client.withItem({ agent: "a" }, () => {}, options);
  });
  // @ts-expect-error the claim of an item ends no process
  compiled(() => client.withItem({ agent: "a" }, () => {}, { onLoss: {} }));
  // @ts-expect-error it belongs to no task
  compiled(() => client.withItem({ agent: "a" }, () => {}, { task: "t" }));
  // @ts-expect-error nothing is known of children
  compiled(() => client.withItem({ agent: "a" }, () => {}, { awaitsChildren: true }));
});

describe("commands", () => {
  interface Builder {
    build: { params: { ref: string }; response: { size: number } };
    clean: { params: null; response: null };
  }

  test("by a contract are checked", () => {
    compiled(() => {
      const builder = client.commands.to<Builder>("builder");
      expectTypeOf(builder.send("build", { ref: "main" })).resolves.toEqualTypeOf<{ size: number }>();
      // @ts-expect-error a command that is not there
      void builder.send("biuld", { ref: "main" });
      // @ts-expect-error params of another command
      void builder.send("build", null);
    });
    compiled(() =>
      client.commands.pull<Builder>("builder", {
        build: async ({ ref }, { signal, attempt }) => {
          expectTypeOf(ref).toEqualTypeOf<string>();
          expectTypeOf(signal).toEqualTypeOf<AbortSignal>();
          return { size: ref.length + attempt };
        },
        clean: () => null,
      }),
    );
    // @ts-expect-error a command of the contract has no handler
    compiled(() => client.commands.serve<Builder>("builder", { clean: () => null }));
    compiled(() =>
      client.commands.serve<Builder>("builder", {
        // @ts-expect-error an answer that is not the contract's
        build: () => ({ bytes: 1 }),
        clean: () => null,
      }),
    );
  });

  test("without one take and give what is said", () => {
    compiled(() => {
      expectTypeOf(client.commands.send<number>("d", "add", { a: 1 })).resolves.toEqualTypeOf<number>();
      expectTypeOf(client.commands.send("d", "add")).resolves.toBeUnknown();
    });
    compiled(() => client.commands.pull("d", { add: ({ a, b }: { a: number; b: number }) => a + b }));
  });
});

test("the details of an error are those of its kind", () => {
  compiled(async () => {
    const error: unknown = await client.sequence.next({ type: "FR" }).catch((thrown) => thrown);
    if (!(error instanceof PawlError)) return;
    if (error.kind === "lease_held") expectTypeOf(error.details.holder.owner).toEqualTypeOf<string>();
    if (error.kind === "clock_ahead") expectTypeOf(error.details.retryMs).toEqualTypeOf<number | undefined>();
    expectTypeOf<DetailsOf<"read_only">["method"]>().toEqualTypeOf<string>();
    // A later daemon may say more.
    expectTypeOf(error.details.other).toBeUnknown();
  });
});

/** The methods of which one type does not fit where the other is wanted. */
type Differing<A, B> = {
  [N in keyof A]: N extends keyof B ? ([A[N], B[N]] extends [B[N], A[N]] ? never : N) : N;
}[keyof A];

test("the types of the client are those of the schemas", () => {
  expectTypeOf<MethodName>().toEqualTypeOf<protocol.MethodName>();
  type Sent = Differing<{ [N in MethodName]: Params<N> }, { [N in protocol.MethodName]: protocol.Params<N> }>;
  expectTypeOf<Sent>().toBeNever();
  type Answered = Differing<
    { [N in MethodName]: Result<N> },
    { [N in protocol.MethodName]: protocol.Result<N> }
  >;
  expectTypeOf<Answered>().toBeNever();
  type Told = Differing<
    { [N in NotificationName]: NotificationParams<N> },
    { [N in protocol.NotificationName]: protocol.NotificationParams<N> }
  >;
  expectTypeOf<Told>().toBeNever();
});
