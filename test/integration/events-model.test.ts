// Events against a model: a random history of all nouns, refusals, tries and restarts; each effect is told once, in the
// order of commits, and what a follower makes of events is what the daemon lists. PAWL_TORTURE=1 makes it long.
import { randomInt } from "node:crypto";
import type { MethodName } from "@pawl/protocol";
import { expect, test } from "vitest";
import { startDaemon } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { type RawClient, Refused } from "../raw-client.js";

const STEPS = sized(5000, 150);
const CALLS_PER_STEP = 6;
/** More than are kept. */
const FLOOD = 17_000;

/** A call, and the events that it brings about by its answer, as `topic kind id`; a refusal brings about none. */
interface Step {
  method: MethodName;
  params: object;
  // biome-ignore lint/suspicious/noExplicitAny: the answer of whichever method it is.
  events(result: any): string[];
}

/** Numbers from 0 up to one below `most`, the same for the same seed. */
function randomOf(seed: number): (most: number) => number {
  let state = seed;
  return (most) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % most;
  };
}

interface Batch {
  readonly id: string;
  readonly queue: string;
  attempt: number;
  isDead: boolean;
}

/** What the model knows of the daemon: what calls were answered, and nothing else. */
class Model {
  readonly #random: (most: number) => number;
  #serial = 0;
  readonly #batches: Batch[] = [];
  readonly #claims: { claimId: string; leaseToken: string; batch: number; isHeld: boolean }[] = [];
  readonly #leases = new Map<string, string>();
  readonly #leaseIds: string[] = ["ls_none"];
  readonly #reservations: { reservationId: string; isHeld: boolean }[] = [];
  readonly #commands: { commandId: string; leaseId: string; isOpen: boolean }[] = [];
  readonly #stages = new Map<string, string>();
  readonly #schedules = new Map<string, number>();
  readonly #paused = new Set<string>();
  readonly #numbers = new Map<string, number>();

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  #one<T>(values: readonly T[]): T {
    return values[this.#random(values.length)] as T;
  }

  /** A random call: sometimes one that is refused, a try, or several that are performed or undone together. */
  step(): Step {
    const kind = this.#random(10);
    if (kind > 1) return this.#single();
    const parts = [this.#transactable(), this.#transactable()];
    const calls = parts.map(({ method, params }) => ({ method, params }));
    if (kind === 1) {
      const dryRun = this.#random(2) === 1;
      const refused = { method: "lease.heartbeat", params: { leaseId: "ls_none" } };
      return {
        method: "transact",
        params: dryRun ? { dryRun, calls } : { calls: [...calls, refused] },
        events: () => [],
      };
    }
    return {
      method: "transact",
      params: { calls },
      events: ({ results }) => parts.flatMap((part, index) => part.events(results[index])),
    };
  }

  #transactable(): Step {
    return this.#one([() => this.#number(), () => this.#enqueue(), () => this.#write()])();
  }

  #single(): Step {
    return this.#one([
      () => this.#number(),
      () => this.#enqueue(),
      () => this.#enqueue(),
      () => this.#claim(),
      () => this.#claim(),
      () => this.#end(),
      () => this.#end(),
      () => this.#takeBack(),
      () => this.#configure(),
      () => this.#acquire(),
      () => this.#release(),
      () => this.#reserve(),
      () => this.#giveBack(),
      () => this.#create(),
      () => this.#deliver(),
      () => this.#respond(),
      () => this.#schedule(),
      () => this.#write(),
      () => this.#write(),
    ])();
  }

  #number(): Step {
    const type = this.#one(["FR", "BUG"]);
    const topic = `sequence:${type}`;
    const last = () => this.#numbers.get(type) ?? 0;
    switch (this.#random(3)) {
      case 0:
        return {
          method: "sequence.next",
          params: { type },
          events: ({ id, seq }) => {
            this.#numbers.set(type, seq);
            return [`${topic} dispensed ${id}`];
          },
        };
      case 1:
        return {
          method: "sequence.reserve",
          params: { type, count: 3 },
          events: ({ firstId, last: seq }) => {
            this.#numbers.set(type, seq);
            return [`${topic} reserved ${firstId}`];
          },
        };
      default: {
        const to = this.#random(200);
        return {
          method: "sequence.advance",
          params: { type, to },
          events: () => {
            if (to <= last()) return [];
            this.#numbers.set(type, to);
            return [`${topic} advanced ${type}-${String(to).padStart(3, "0")}`];
          },
        };
      }
    }
  }

  #enqueue(): Step {
    const queue = this.#one(["mail", "build/a", "build/b"]);
    const sourceKey = `key-${this.#random(60)}`;
    return {
      method: "queue.enqueue",
      params: { queue, payloads: [this.#serial++], sourceKey, maxAttempts: 2, retry: { baseMs: 0 } },
      events: ({ batch, created }) => {
        if (!created) return [];
        this.#batches.push({ id: batch.batchId, queue, attempt: 0, isDead: false });
        return [`queue:${queue} enqueued ${batch.batchId}`];
      },
    };
  }

  #claim(): Step {
    const queue = this.#one(["mail", "build/a", "build/b"]);
    return {
      method: "queue.claim",
      params: { queue, owner: "worker", leaseMs: 3_600_000 },
      events: ({ claim }) => {
        if (claim === null) return [];
        const { claimId, leaseToken, batches } = claim;
        const batch = this.#batches.findIndex(({ id }) => id === batches[0].batchId);
        this.#claims.push({ claimId, leaseToken, batch, isHeld: true });
        return [`queue:${queue} claimed ${batches[0].batchId}`];
      },
    };
  }

  /** The end of a claim, also of one that has ended: that is refused, or changes nothing. */
  #end(): Step {
    const claim = this.#claims[Math.max(0, this.#claims.length - 1 - this.#random(4))];
    if (claim === undefined) return this.#enqueue();
    const { claimId, leaseToken } = claim;
    const batch = this.#batches[claim.batch] as Batch;
    const told = (kind: string): string[] => {
      if (!claim.isHeld) return [];
      claim.isHeld = false;
      return [`queue:${batch.queue} ${kind} ${batch.id}`];
    };
    const how = this.#random(5);
    if (how === 0) {
      return {
        method: "queue.progress",
        params: { claimId, leaseToken, percent: 50 },
        events: () => [`queue:${batch.queue} progressed ${batch.id}`],
      };
    }
    if (how === 1) {
      return {
        method: "queue.abandon",
        params: { claimId, leaseToken, error: "no", delayMs: 0 },
        events: () => {
          batch.attempt += 1;
          batch.isDead = batch.attempt >= 2;
          return told(batch.isDead ? "dead" : "failed");
        },
      };
    }
    if (how === 2)
      return {
        method: "queue.abandon",
        params: { claimId, leaseToken, delayMs: 0 },
        events: () => told("released"),
      };
    return { method: "queue.complete", params: { claimId, leaseToken }, events: () => told("completed") };
  }

  #takeBack(): Step {
    const batch = this.#one(this.#batches);
    if (batch === undefined) return this.#enqueue();
    if (this.#random(2) === 0) {
      return {
        method: "queue.cancel",
        params: { batchId: batch.id },
        events: ({ outcome }) =>
          outcome === "cancelled" ? [`queue:${batch.queue} cancelled ${batch.id}`] : [],
      };
    }
    return {
      method: "queue.retry",
      params: { batchId: batch.id },
      events: ({ retried }) => {
        if (retried === 0) return [];
        batch.attempt = 0;
        batch.isDead = false;
        return [`queue:${batch.queue} retried ${batch.id}`];
      },
    };
  }

  #configure(): Step {
    const queue = this.#one(["mail", "build/a"]);
    const paused = this.#random(4) === 0;
    return {
      method: "queue.configure",
      params: { queue, paused },
      events: () => {
        const was = this.#paused.has(queue);
        if (paused) this.#paused.add(queue);
        else this.#paused.delete(queue);
        return [`queue:${queue} ${was === paused ? "configured" : paused ? "paused" : "resumed"} ${queue}`];
      },
    };
  }

  #acquire(): Step {
    const name = this.#one(["deploy/a", "deploy/b", "db"]);
    return {
      method: "lease.acquire",
      params: { name, owner: `o${this.#serial++}`, ttlMs: 3_600_000 },
      events: ({ lease }) => {
        this.#leases.set(name, lease.leaseId);
        this.#leaseIds.push(lease.leaseId);
        return [`lease:${name} acquired ${name}`];
      },
    };
  }

  #release(): Step {
    if (this.#random(3) === 0) {
      const name = this.#one(["deploy/a", "db"]);
      return {
        method: "lease.break",
        params: { name, reason: "it hangs" },
        events: ({ broken }) => {
          this.#leases.delete(name);
          return broken ? [`lease:${name} broken ${name}`] : [];
        },
      };
    }
    const leaseId = this.#one(this.#leaseIds);
    return {
      method: "lease.release",
      params: { leaseId },
      events: () => {
        const name = [...this.#leases].find(([, held]) => held === leaseId)?.[0];
        if (name === undefined) return [];
        this.#leases.delete(name);
        return [`lease:${name} released ${name}`];
      },
    };
  }

  #reserve(): Step {
    const patterns = [this.#one(["src/a/*.ts", "src/**", "docs/x.md"])];
    return {
      method: "path.reserve",
      params: { root: "/srv", patterns, owner: `o${this.#serial++}`, ttlMs: 3_600_000 },
      events: ({ reservation }) => {
        this.#reservations.push({ reservationId: reservation.reservationId, isHeld: true });
        return ["path:/srv reserved /srv"];
      },
    };
  }

  #giveBack(): Step {
    const held = this.#reservations.at(-1 - this.#random(2));
    if (held === undefined) return this.#reserve();
    return {
      method: "path.release",
      params: { reservationId: held.reservationId },
      events: () => {
        const was = held.isHeld;
        held.isHeld = false;
        return was ? ["path:/srv released /srv"] : [];
      },
    };
  }

  #create(): Step {
    return {
      method: "command.create",
      params: { deployment: "d", command: "c", params: {} },
      events: ({ commandId }) => [`command:d created ${commandId}`],
    };
  }

  #deliver(): Step {
    return {
      method: "command.lease",
      params: { deployment: "d", owner: "worker", leaseMs: 3_600_000 },
      events: ({ leases }) =>
        leases.map(({ commandId, leaseId }: { commandId: string; leaseId: string }) => {
          this.#commands.push({ commandId, leaseId, isOpen: true });
          return `command:d dispatched ${commandId}`;
        }),
    };
  }

  #respond(): Step {
    const command = this.#commands.at(-1 - this.#random(3));
    if (command === undefined) return this.#create();
    const { commandId, leaseId } = command;
    const told = (kind: string): string[] => {
      const was = command.isOpen;
      command.isOpen = false;
      return was ? [`command:d ${kind} ${commandId}`] : [];
    };
    if (this.#random(3) === 0)
      return { method: "command.cancel", params: { commandId }, events: () => told("cancelled") };
    const response = { status: "success", response: 1 };
    return {
      method: "command.respond",
      params: { commandId, leaseId, response },
      events: () => told("answered"),
    };
  }

  #schedule(): Step {
    const name = this.#one(["nightly", "poll"]);
    const topic = `schedule:${name}`;
    switch (this.#random(3)) {
      case 0:
        return {
          method: "schedule.delete",
          params: { name },
          events: ({ deleted }) => {
            this.#schedules.delete(name);
            return deleted ? [`${topic} deleted ${name}`] : [];
          },
        };
      case 1:
        return {
          method: "schedule.run",
          params: { name },
          events: ({ batch: { batchId } }) => {
            this.#batches.push({ id: batchId, queue: "timed", attempt: 0, isDead: false });
            return [`queue:timed enqueued ${batchId}`, `${topic} ran ${batchId}`];
          },
        };
      default: {
        const everyMs = this.#one([3_600_000, 7_200_000]);
        return {
          method: "schedule.set",
          params: { name, everyMs, queue: "timed", payloads: [1], overlap: "all" },
          events: () => {
            if (this.#schedules.get(name) === everyMs) return [];
            this.#schedules.set(name, everyMs);
            return [`${topic} set ${name}`];
          },
        };
      }
    }
  }

  #write(): Step {
    const storyId = this.#one(["S-1", "S-2", "S-3", "S-4"]);
    const before = () => this.#stages.get(storyId);
    if (this.#random(5) === 0) {
      return {
        method: "pipeline.delete",
        params: { storyId },
        events: () => (this.#stages.delete(storyId) ? [`item:${storyId} deleted ${storyId}`] : []),
      };
    }
    const stage = this.#one(["todo", "doing", "done"]);
    return {
      method: "pipeline.write",
      params: { storyId, stage, agent: `a${this.#serial++}` },
      events: () => {
        const was = before();
        this.#stages.set(storyId, stage);
        const kind = was === undefined ? "created" : was === stage ? "changed" : "moved";
        return [`item:${storyId} ${kind} ${storyId}`];
      },
    };
  }
}

/** What is followed, as it is listed and as it comes from events: by thing, its state. */
type State = Map<string, string>;

const STATES: Readonly<Record<string, string>> = {
  enqueued: "waiting",
  failed: "waiting",
  released: "waiting",
  retried: "waiting",
  ready: "waiting",
  created: "PENDING",
  dispatched: "DISPATCHED",
  acquired: "held",
};

/** What is there, by the lists of all nouns. */
async function listed(client: RawClient): Promise<State> {
  const state: State = new Map();
  const { queues } = await client.call("queue.stats", {});
  for (const { queue } of queues) {
    for (let after: number | undefined; ; ) {
      const page = await client.call("queue.list", {
        queue,
        limit: 1000,
        ...(after === undefined ? {} : { after }),
      });
      for (const each of page.batches) state.set(each.batchId, STATES[each.state] ?? each.state);
      if (page.next === undefined) break;
      after = page.next;
    }
  }
  for (const { name } of (await client.call("lease.list", {})).leases) state.set(`lease:${name}`, "held");
  for (const { name } of (await client.call("schedule.list", {})).schedules)
    state.set(`schedule:${name}`, "set");
  const { commands } = await client.call("command.list", { limit: 1000 });
  for (const { commandId, state: its } of commands) state.set(commandId, its);
  const { stages } = await client.call("pipeline.list", {});
  for (const [stage, items] of Object.entries(stages))
    for (const { storyId } of items) state.set(`item:${storyId}`, stage);
  return state;
}

interface Told {
  topic: string;
  kind: string;
  id: string;
  to?: string | undefined;
}

function apply(state: State, { topic, kind, id, to }: Told): void {
  const noun = topic.slice(0, topic.indexOf(":"));
  if (noun === "queue") {
    if (id.startsWith("qwb:") && kind !== "progressed") state.set(id, STATES[kind] ?? kind);
  } else if (noun === "command") state.set(id, STATES[kind] ?? (to as string));
  else if (noun === "item") {
    if (kind === "deleted") state.delete(topic);
    else if (to !== undefined) state.set(topic, to);
  } else if (noun === "lease" || noun === "schedule") {
    if (kind === "acquired" || kind === "set") state.set(topic, kind === "set" ? kind : "held");
    else if (kind !== "ran") state.delete(topic);
  }
}

/** One who lists, and then goes by events. */
class Follower {
  readonly told: string[] = [];
  gaps = 0;
  state: State = new Map();
  #cursor: string | undefined;

  /** Reads all that has happened. */
  async read(client: RawClient, random: (most: number) => number): Promise<void> {
    for (;;) {
      const place = this.#cursor === undefined ? {} : { since: this.#cursor };
      const page = await client.call("events.watch", { topics: ["*"], limit: 1 + random(50), ...place });
      this.#cursor = page.cursor;
      if (page.gap || place.since === undefined) {
        this.gaps += page.gap ? 1 : 0;
        this.state = await listed(client);
        if (page.gap) continue;
        return;
      }
      if (page.events.length === 0) return;
      for (const event of page.events) {
        this.told.push(`${event.topic} ${event.kind} ${event.id}`);
        apply(this.state, event);
      }
    }
  }
}

/** Performs calls that are sent together, and returns the events that they bring about. */
async function perform(client: RawClient, steps: readonly Step[]): Promise<string[]> {
  const answers = steps.map(async ({ method, params }) => {
    try {
      return { result: await client.call(method, params as never) };
    } catch (error) {
      if (error instanceof Refused) return { result: undefined };
      throw error;
    }
  });
  const results = await Promise.all(answers);
  return steps.flatMap((step, index) => {
    const { result } = results[index] as { result: unknown };
    return result === undefined ? [] : step.events(result);
  });
}

test(
  "each effect of a random history is told once and in order, and whoever follows knows what the daemon lists",
  async () => {
    const seed = Number(process.env.PAWL_SEED ?? randomInt(2 ** 31));
    console.info(`PAWL_SEED=${seed}`);
    const random = randomOf(seed + 1);
    const daemon = await startDaemon();
    let client = await daemon.place.connect();
    let process_ = daemon;
    const model = new Model(seed);
    const [steady, slow] = [new Follower(), new Follower()];
    await steady.read(client, random);
    await slow.read(client, random);
    let expected: string[] = [];
    for (let step = 0; step < STEPS; step++) {
      const steps = Array.from({ length: 1 + random(CALLS_PER_STEP) }, () => model.step());
      expected.push(...(await perform(client, steps)));
      if (random(4) === 0) {
        await steady.read(client, random);
        expect(steady.told).toEqual(expected);
        expect(steady.state).toEqual(await listed(client));
      }
      if (random(40) === 0) {
        await process_.end("SIGKILL");
        process_ = await daemon.place.start();
        client = await daemon.place.connect();
        const gaps = steady.gaps;
        await steady.read(client, random);
        expect(steady.gaps).toBe(gaps + 1);
        expect(steady.state).toEqual(await listed(client));
        expected = [];
        steady.told.length = 0;
      }
    }
    // One that reads only now, behind more than is kept.
    await slow.read(client, random);
    for (let sent = 0; sent < FLOOD; sent += 1000) {
      const calls = Array.from({ length: 1000 }, (_, id) => ({
        jsonrpc: "2.0",
        id,
        method: "sequence.next",
        params: { type: "X" },
      }));
      client.send(calls);
      await client.line();
    }
    await client.call("lease.acquire", { name: "last", owner: "o", ttlMs: 3_600_000 });
    const before = slow.gaps;
    await slow.read(client, random);
    expect(slow.gaps).toBe(before + 1);
    expect(slow.state).toEqual(await listed(client));
  },
  TORTURE ? 3_600_000 : 120_000,
);
