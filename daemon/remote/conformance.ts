import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { elapsed } from "../clock.js";
import type { Holder } from "../domain/lease/holder.js";
import { withCheckedAnswers } from "./checked-answers.js";
import type { Acquired, AcquireRequest, LeaseProvider } from "./provider.js";

/** Leases that no other stage has, and providers on them. */
export interface Stage {
  /** Another provider on the leases of this stage, as another daemon, or a restarted one, would have it. */
  open(): Promise<LeaseProvider>;
  /** Lets time pass for all its providers: real time, or that of a clock which the providers were given. */
  pass(ms: number): Promise<void>;
  /** Cuts the providers opened so far off from where leases are kept. Absent if they keep them themselves. */
  cut?(): Promise<void>;
  close(): Promise<void>;
}

export interface ConformanceOptions {
  /** Registers a test: `test` of node:test, vitest, jest, or anything that runs and awaits what it is given. */
  test: (name: string, run: () => Promise<void>) => unknown;
  stage: () => Promise<Stage>;
  /**
   * The most time, in milliseconds, from the start of a ttl until another caller that asks all the time gets a lease
   * that is not renewed. Never less than the ttl; twice the ttl for a provider that has to watch a record not change.
   */
  takeoverMs?: (ttlMs: number) => number;
}

/** Long beside the time of a request on a busy machine, short beside a developer's patience. */
const TTL_MS = 2000;
/** The ttl of rules that take many requests and are not about the end of a lease. */
const LONG_TTL_MS = 60_000;
/** The least that remains of a new ttl when the request has taken its time. */
const FRESH_MS = TTL_MS / 2;
/** The delay with which a thing may be noticed, and the pause between two questions meanwhile. */
const STEP_MS = 50;
/** Callers that ask for one name at the same time. */
const CONTENDERS = 20;
const ROUNDS = 10;

/**
 * Checks a lease provider against the rules of `LeaseProvider`, for authors of one: call this in a test file
 * of any test runner. Each test has a stage of its own, so they may run at the same time.
 */
export function leaseProviderConformance(options: ConformanceOptions): void {
  const takeoverMs = options.takeoverMs ?? ((ttlMs: number): number => ttlMs);

  function rule(name: string, run: (stage: Stage, provider: LeaseProvider) => Promise<void>): void {
    options.test(name, async () => {
      const stage = await options.stage();
      try {
        await run(stage, await stage.open());
      } finally {
        await stage.close();
      }
    });
  }

  rule("a free name is granted, for the whole ttl", async (_stage, provider) => {
    const granted = expectGranted(await provider.acquire(ask("release")));
    assert.ok(Number.isSafeInteger(granted.fencingToken) && granted.fencingToken >= 1);
    assert.ok(granted.remainingMs > FRESH_MS && granted.remainingMs <= TTL_MS);
  });

  rule(
    "a name that is held is granted to nobody else, and they learn who holds it",
    async (stage, provider) => {
      const request = ask("release", { owner: "first", note: "rolling out 4.2" });
      const { fencingToken } = expectGranted(await provider.acquire(request));
      for (const other of [provider, await stage.open()]) {
        const refused = await other.acquire(ask("release", { owner: "second" }));
        assert.equal(refused.granted, false);
        if (refused.granted) return;
        assert.ok(refused.retryMs >= 0 && refused.retryMs <= takeoverMs(TTL_MS));
        expectHolder(refused.holder, { owner: "first", fencingToken, note: "rolling out 4.2" });
        assert.ok(!JSON.stringify(refused).includes(request.leaseId), "the leaseId is secret");
      }
    },
  );

  rule(
    "the same owner is refused like others: the leaseId alone tells holders apart",
    async (_stage, provider) => {
      expectGranted(await provider.acquire(ask("release", { owner: "deploy" })));
      assert.equal((await provider.acquire(ask("release", { owner: "deploy" }))).granted, false);
    },
  );

  rule("asking again with the leaseId that holds a name is answered as before", async (stage, provider) => {
    const request = ask("release");
    const { fencingToken } = expectGranted(await provider.acquire(request));
    await stage.pass(TTL_MS / 2);
    for (const each of [provider, await stage.open()]) {
      const again = expectGranted(await each.acquire(request));
      assert.equal(again.fencingToken, fencingToken);
      assert.ok(again.remainingMs > FRESH_MS && again.remainingMs <= TTL_MS);
    }
    await stage.pass((TTL_MS * 3) / 4);
    assert.equal((await provider.acquire(ask("release"))).granted, false, "it lasts for a whole ttl");
    assert.equal(await provider.release(request), true);
    const next = expectGranted(await provider.acquire(ask("release")));
    assert.ok(next.fencingToken > fencingToken);
  });

  rule("a lease outlives the provider object that took it", async (stage, provider) => {
    const request = ask("release");
    const { fencingToken } = expectGranted(await provider.acquire(request));
    await provider.close?.();
    const restarted = await stage.open();
    assert.equal((await restarted.acquire(ask("release"))).granted, false);
    assert.equal((await restarted.get("release"))?.fencingToken, fencingToken);
    assert.notEqual(await restarted.heartbeat(request), null);
    assert.equal(await restarted.release(request), true);
    assert.equal(await restarted.get("release"), null);
  });

  rule("get tells who holds a name and never the leaseId", async (stage, provider) => {
    const other = await stage.open();
    assert.equal(await other.get("release"), null);
    const request = ask("release", { owner: "deploy", note: null });
    const { fencingToken } = expectGranted(await provider.acquire(request));
    for (const each of [provider, other]) {
      const holder = await each.get("release");
      expectHolder(holder, { owner: "deploy", fencingToken, note: null });
      assert.ok(!JSON.stringify(holder).includes(request.leaseId), "the leaseId is secret");
    }
    await provider.release({ name: "release", leaseId: request.leaseId });
    assert.equal(await other.get("release"), null);
  });

  rule(
    "inspect tells the same, and the highest token also when nobody holds the name",
    async (stage, provider) => {
      if (provider.inspect === undefined) return;
      const other = await stage.open();
      assert.deepEqual(await other.inspect?.("release"), { holder: null, highest: 0 });
      const request = ask("release", { owner: "deploy", note: null });
      const { fencingToken } = expectGranted(await provider.acquire(request));
      for (const each of [provider, other]) {
        const inspected = await each.inspect?.("release");
        expectHolder(inspected?.holder ?? null, { owner: "deploy", fencingToken, note: null });
        assert.equal(inspected?.highest, fencingToken);
        assert.ok(!JSON.stringify(inspected).includes(request.leaseId), "the leaseId is secret");
      }
      await provider.release(request);
      for (const each of [provider, other]) {
        assert.deepEqual(await each.inspect?.("release"), { holder: null, highest: fencingToken });
      }
      const next = expectGranted(await other.acquire(ask("release")));
      assert.equal((await provider.inspect("release")).highest, next.fencingToken);
    },
  );

  rule("a released name is free at once, and released only once", async (stage, provider) => {
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    assert.equal(await provider.release(request), true);
    assert.equal(await provider.release(request), false);
    expectGranted(await (await stage.open()).acquire(ask("release")));
    assert.equal(await provider.release(request), false, "another holds it now");
    assert.notEqual(await provider.get("release"), null);
  });

  rule("a wrong leaseId neither renews nor releases", async (_stage, provider) => {
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    const wrong = { name: "release", leaseId: newLeaseId(), ttlMs: TTL_MS };
    assert.equal(await provider.heartbeat(wrong), null);
    assert.equal(await provider.release(wrong), false);
    assert.equal(await provider.heartbeat({ ...wrong, name: "never held" }), null);
    assert.equal(await provider.release({ ...wrong, name: "never held" }), false);
    assert.notEqual(await provider.heartbeat(request), null);
  });

  rule("a lease that is not renewed ends by its ttl, not before", async (stage, provider) => {
    const other = await stage.open();
    const request = ask("release");
    const beganAtMs = elapsed();
    const { fencingToken } = expectGranted(await provider.acquire(request));
    const { granted, waitedMs } = await acquireWithin(
      stage,
      other,
      "release",
      takeoverMs(TTL_MS) + 4 * STEP_MS,
    );
    // Where time is real, asking takes some of it too.
    const afterMs = Math.max(waitedMs + STEP_MS, elapsed() - beganAtMs);
    assert.ok(afterMs >= TTL_MS, `granted after ${afterMs} ms of a ttl of ${TTL_MS} ms`);
    assert.ok(granted.fencingToken > fencingToken);
    assert.equal(await provider.heartbeat(request), null, "what has ended is never revived");
    assert.equal(await provider.release(request), false);
  });

  rule("a lease that has ended is not revived, also when nobody took it", async (stage, provider) => {
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    await stage.pass(takeoverMs(TTL_MS) + 2 * STEP_MS);
    assert.equal(await provider.heartbeat(request), null);
    assert.equal(await provider.release(request), false);
  });

  rule("heartbeats keep a lease for longer than its ttl", async (stage, provider) => {
    const other = await stage.open();
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    for (let passed = 0; passed < 2 * takeoverMs(TTL_MS); passed += TTL_MS / 3) {
      await stage.pass(TTL_MS / 3);
      const renewed = await provider.heartbeat(request);
      assert.ok(renewed !== null && renewed.remainingMs > FRESH_MS && renewed.remainingMs <= TTL_MS);
      assert.equal((await other.acquire(ask("release"))).granted, false);
    }
  });

  rule("a heartbeat sets the ttl anew", async (stage, provider) => {
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    await provider.heartbeat({ ...request, ttlMs: 3 * TTL_MS });
    await stage.pass(2 * TTL_MS);
    assert.notEqual(await provider.get("release"), null);
    assert.notEqual(await provider.heartbeat(request), null);
  });

  rule("fencing tokens rise over holders, expiry and restarts", async (stage, provider) => {
    let highest = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const each = round % 2 === 0 ? provider : await stage.open();
      const request = ask("release");
      const within = takeoverMs(TTL_MS) + 4 * STEP_MS;
      const { granted } = await acquireWithin(stage, each, "release", within, request);
      assert.ok(granted.fencingToken > highest, `${granted.fencingToken} after ${highest}`);
      highest = granted.fencingToken;
      if (round % 3 !== 2) assert.equal(await each.release(request), true);
    }
  });

  rule("a fencing token is above what the daemon knows from elsewhere", async (_stage, provider) => {
    const request = ask("release", { tokenAbove: 1_000_000 });
    const first = expectGranted(await provider.acquire(request));
    assert.ok(first.fencingToken > 1_000_000);
    await provider.release(request);
    const second = expectGranted(await provider.acquire(ask("release")));
    assert.ok(second.fencingToken > first.fencingToken);
  });

  rule("of many who ask at the same time, one gets it", async (stage, provider) => {
    const providers = [provider, await stage.open(), await stage.open()];
    let highest = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const requests = Array.from({ length: CONTENDERS }, () => ask("release"));
      const answers = await Promise.all(
        requests.map((request, index) => (providers[index % 3] as LeaseProvider).acquire(request)),
      );
      const winners = answers.flatMap((answer, index) => (answer.granted ? [{ answer, index }] : []));
      assert.equal(winners.length, 1);
      const { answer, index } = winners[0] as (typeof winners)[number];
      assert.ok(answer.fencingToken > highest);
      highest = answer.fencingToken;
      assert.equal(await provider.release(requests[index] as AcquireRequest), true);
    }
  });

  rule("names are apart from one another, whatever characters they have", async (_stage, provider) => {
    const names = [
      "a",
      "A",
      "a/b",
      "a/",
      "a b",
      "a%2Fb",
      "..",
      "*",
      "a:b#c?d&e=f",
      'quo"te\\',
      "Größe",
      "🔒",
      "\n",
      "x".repeat(128),
    ];
    for (const name of names) {
      expectGranted(await provider.acquire(ask(name, { owner: name, ttlMs: LONG_TTL_MS })));
    }
    for (const name of names) assert.equal((await provider.get(name))?.owner, name);
  });

  rule("break ends a lease by force, and the next token is higher", async (stage, provider) => {
    if (provider.break === undefined) return;
    assert.equal(await provider.break("release"), false);
    const request = ask("release");
    const { fencingToken } = expectGranted(await provider.acquire(request));
    assert.equal(await (await stage.open()).break?.("release"), true);
    assert.equal(await provider.heartbeat(request), null);
    assert.equal(await provider.release(request), false);
    assert.ok(expectGranted(await provider.acquire(ask("release"))).fencingToken > fencingToken);
  });

  rule("watch resolves when a name becomes free", async (stage, provider) => {
    if (provider.watch === undefined) return;
    const other = await stage.open();
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    const abort = new AbortController();
    const watched = other.watch?.("release", abort.signal);
    await provider.release(request);
    await watched;
    abort.abort();
    expectGranted(await other.acquire(ask("release")));
  });

  rule("every answer is one that the daemon takes", async (stage, provider) => {
    const strict = withCheckedAnswers(provider);
    const other = withCheckedAnswers(await stage.open());
    assert.equal(await strict.get("release"), null);
    await strict.inspect?.("release");
    const request = ask("release", { note: "rolling out 4.2", ttlMs: LONG_TTL_MS });
    expectGranted(await strict.acquire(request));
    assert.equal((await other.acquire(ask("release"))).granted, false);
    expectGranted(await strict.acquire(request));
    assert.notEqual(await strict.heartbeat(request), null);
    assert.equal(await other.heartbeat({ ...request, leaseId: newLeaseId() }), null);
    await other.get("release");
    await other.inspect?.("release");
    assert.equal(await strict.release(request), true);
    assert.equal(await strict.release(request), false);
    await other.inspect?.("release");
    await strict.break?.("release");
    expectGranted(await strict.acquire(ask("release")));
    await other.break?.("release");
  });

  rule("what cannot be reached is provider_unavailable, neither lost nor free", async (stage, provider) => {
    if (stage.cut === undefined) return;
    const request = ask("release");
    expectGranted(await provider.acquire(request));
    await stage.cut();
    const attempts = [
      () => provider.acquire(ask("other")),
      () => provider.heartbeat(request),
      () => provider.release(request),
      () => provider.get("release"),
    ];
    for (const attempt of attempts) {
      await assert.rejects(attempt, (error: { kind?: unknown }) => error.kind === "provider_unavailable");
    }
  });
}

function ask(name: string, other: Partial<AcquireRequest> = {}): AcquireRequest {
  return {
    name,
    leaseId: newLeaseId(),
    owner: "conformance",
    ttlMs: TTL_MS,
    note: null,
    peer: { pid: process.pid, uid: process.getuid?.() ?? null, gid: process.getgid?.() ?? null },
    tokenAbove: 0,
    ...other,
  };
}

function newLeaseId(): string {
  return `lease_${randomBytes(16).toString("hex")}`;
}

type Granted = Extract<Acquired, { granted: true }>;

function expectGranted(acquired: Acquired): Granted {
  assert.equal(acquired.granted, true);
  return acquired as Granted;
}

function expectHolder(
  holder: Holder | null,
  expected: Pick<Holder, "owner" | "fencingToken" | "note">,
): void {
  assert.notEqual(holder, null);
  const { owner, fencingToken, note, remainingMs, acquiredAt } = holder as Holder;
  assert.deepEqual({ owner, fencingToken, note }, expected);
  assert.ok(remainingMs > 0 && remainingMs <= TTL_MS);
  assert.ok(Number.isSafeInteger(acquiredAt) && acquiredAt > 0);
}

/** Asks until the name is granted, and says how long that took. */
async function acquireWithin(
  stage: Stage,
  provider: LeaseProvider,
  name: string,
  withinMs: number,
  request = ask(name),
): Promise<{ granted: Granted; waitedMs: number }> {
  for (let waitedMs = 0; ; waitedMs += STEP_MS) {
    const acquired = await provider.acquire(request);
    if (acquired.granted) return { granted: acquired, waitedMs };
    assert.ok(waitedMs < withinMs, `not granted after ${waitedMs} ms`);
    await stage.pass(STEP_MS);
  }
}
