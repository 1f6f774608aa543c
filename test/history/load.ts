// The load: callers that do at random what programs do with a daemon, several requests at a time, and that remember
// only what they were answered.
import type { Connection, Execution, Planned, Reply } from "./connection.js";
import { type Call, NOTHING } from "./history.js";
import type { Json } from "./models/calls.js";
import type { Random } from "./random.js";

interface HeldClaim {
  queue: string;
  claimId: string;
  leaseToken: string;
}

interface Delivery {
  object: string;
  commandId: string;
  leaseId: string;
}

/** What those have who only hold, of which others must not have it at the same time. */
export const KEPT = ["lease", "path", "claim", "pulled", "pushed"] as const;
export type Kept = (typeof KEPT)[number];

const LEASES_MS = [200, 400, 2000, 5000];
const WAITS_MS = [0, 0, 20, 80];
/** Patterns of paths, of which some meet. */
const PATTERNS = [["a/x"], ["a/y"], ["a/"], ["b/x"], ["a/x", "b/x"]];
const PATHS = ["a/x", "a/y", "b/x"];
const MOST_REMEMBERED = 40;
/** A share of requests that is repeated as it was, as a client does that lost the answer. */
const REPEATED = 0.15;

/** The type whose numbers are granted, as long as it has some. */
const GRANTED = "GR";

/** The names that the load is about, and what was learned of them so far. Shared by all callers. */
export class Scene {
  readonly #random: Random;
  /** Part of each name, so that one stretch of a run has nothing in common with the next. */
  readonly #epoch: string;
  #labels = 0;
  #claims: HeldClaim[] = [];
  #doneClaims: HeldClaim[] = [];
  #leases: { name: string; leaseId: string; token: number }[] = [];
  #batchIds: { queue: string; batchId: string }[] = [];
  #reservations: { object: string; reservationId: string }[] = [];
  #commands: { object: string; commandId: string }[] = [];
  #deliveries: Delivery[] = [];
  #repeatable: Planned[] = [];
  readonly withBoard: boolean;
  readonly #isShared: boolean;
  readonly #leasesMs: readonly number[];
  readonly #waitsMs: readonly number[];

  /** @param options `isShared` for the nouns that daemons share, of which holders are told that they have lost. */
  constructor(
    random: Random,
    epoch = "",
    { withBoard = false, isShared = false, leasesMs = LEASES_MS, waitsMs = WAITS_MS } = {},
  ) {
    this.#random = random;
    this.#epoch = epoch;
    this.withBoard = withBoard;
    this.#isShared = isShared;
    this.#leasesMs = leasesMs;
    this.#waitsMs = waitsMs;
  }

  get types(): string[] {
    return ["FR", "BUG", GRANTED];
  }
  get queues(): string[] {
    return [`mail${this.#epoch}`, `build${this.#epoch}`];
  }
  get names(): string[] {
    return [`release${this.#epoch}`, `tree${this.#epoch}`, `port${this.#epoch}`];
  }
  get #root(): string {
    return `/tree${this.#epoch}`;
  }
  get #items(): string[] {
    return [`FR-1${this.#epoch}`, `FR-2${this.#epoch}`];
  }
  get #deployment(): string {
    return `builder${this.#epoch}/x`;
  }
  /** Where receivers pull: one of the deployments where daemons share them, of which the other is pushed as well. */
  get #pulled(): string {
    return this.#isShared ? this.#random.of([this.#deployment, this.pushed]) : this.#deployment;
  }
  /** Their batches are in a queue of their own. */
  get schedules(): string[] {
    return this.#isShared ? [`each${this.#epoch}`, `some${this.#epoch}`] : [];
  }
  get #ticks(): string {
    return `ticks${this.#epoch}`;
  }
  get pushed(): string {
    return `pushed${this.#epoch}/x`;
  }

  /**
   * What somebody asks for who only holds it, for as long as its connection; nobody else gives it back or renews it.
   * `pushed` is sent to who serves it.
   */
  keep(kind: Kept): Planned[] {
    const name = `kept${this.#epoch}`;
    const common = {
      owner: this.#label("keeper"),
      releaseOn: "disconnect",
      waitMs: Math.max(...this.#waitsMs),
    };
    const time = Math.max(...this.#leasesMs);
    const waiting = (object: string, method: string, params: object): Planned => ({
      calls: [call(object, method, { ...common, ...params })],
      waits: true,
    });
    switch (kind) {
      case "lease":
        return [waiting(`lease:${name}`, "lease.acquire", { name, ttlMs: time })];
      case "path":
        return [
          waiting(`path:/${name}`, "path.reserve", { root: `/${name}`, patterns: ["a/"], ttlMs: time }),
        ];
      case "claim": {
        const batch = {
          queue: name,
          payloads: [name],
          sourceKey: name,
          maxAttempts: 0,
          retry: { baseMs: 0 },
        };
        return [
          single(call(`queue:${name}`, "queue.enqueue", batch)),
          waiting(`queue:${name}`, "queue.claim", { queue: name, leaseMs: time, notify: true }),
        ];
      }
      case "pulled":
        return [
          this.#keptCommand(name, name),
          waiting("", "command.lease", { deployment: name, leaseMs: time }),
        ];
      case "pushed":
        return [this.#keptCommand(this.keptPushed, `pushed-${name}`)];
    }
  }

  get keptPushed(): string {
    return `pushed-kept${this.#epoch}`;
  }

  #keptCommand(deployment: string, label: string): Planned {
    const params = { deployment, command: "run", params: { label }, idempotencyKey: label, maxAttempts: 0 };
    return single(call(`command:${label}`, "command.create", params));
  }

  /** Several requests, to be sent at once. */
  plan(most: number): Planned[] {
    const planned: Planned[] = [];
    for (let count = this.#random.upTo(most); count > 0; count -= 1) planned.push(this.#one());
    return planned;
  }

  /** Everything that can be read of the state of all things. */
  readAll(): Planned[] {
    const calls: Call[] = [
      ...[...this.types, "PAIR_A", "PAIR_B"].map((type) => peek(type)),
      ...this.queues.map((queue) => call(`queue:${queue}`, "queue.list", { queue, limit: 1000 })),
      ...this.names.map((name) => call(`lease:${name}`, "lease.get", { name })),
      ...(this.#isShared ? this.#readShared() : []),
      ...this.#commands
        .slice(-MOST_REMEMBERED)
        .flatMap(({ object, commandId }) => [
          call(object, "command.get", { commandId }),
          call(object, "command.response", { commandId }),
        ]),
      ...(this.withBoard ? this.#items : []).map((storyId) =>
        call(`item:${storyId}`, "pipeline.read", { storyId }),
      ),
    ];
    return calls.map((each) => ({ calls: [each] }));
  }

  #readShared(): Call[] {
    return [
      call(`path:${this.#root}`, "path.list", { root: this.#root }),
      call(`queue:${this.#ticks}`, "queue.list", { queue: this.#ticks, limit: 1000 }),
      ...this.schedules.map(schedule),
      ...[this.#deployment, this.pushed].map(listOf),
      // All that is ready, and of all others that they are not.
      call("", "command.lease", { deployment: this.#deployment, owner: "load", max: 100, leaseMs: 1000 }),
    ];
  }

  /** The schedules come no more. */
  deleteSchedules(): Planned[] {
    return this.schedules.map((name) => single(call(`schedule:${name}`, "schedule.delete", { name })));
  }

  /** Remembers what the answers tell. */
  learn(planned: readonly Planned[], replies: readonly Reply[]): void {
    planned.forEach(({ calls, guard }, index) => {
      const reply = replies[index];
      if (reply?.kind !== "answered") return;
      const results = guard === undefined ? reply.results : reply.results.slice(1);
      calls.forEach((each, at) => {
        this.#learnOf(each, results[at] as Json);
      });
    });
    for (const list of [
      this.#claims,
      this.#doneClaims,
      this.#leases,
      this.#reservations,
      this.#batchIds,
      this.#deliveries,
    ]) {
      list.splice(0, list.length - MOST_REMEMBERED);
    }
    this.#repeatable.splice(0, this.#repeatable.length - MOST_REMEMBERED);
  }

  /** Answers a push, now or never; returns what it answered. */
  answer(connection: Connection, { id }: Execution): Json {
    if (this.#random.chance(0.1)) return undefined;
    connection.write(JSON.stringify({ jsonrpc: "2.0", id, result: "done" }));
    return { status: "success", response: "done" };
  }

  #learnOf({ object, method, params }: Call, result: Json): void {
    switch (method) {
      case "queue.enqueue":
        this.#batchIds.push({ queue: params.queue as string, batchId: result.batch.batchId });
        break;
      case "queue.claim":
        if (result.claim !== null) this.#claims.push({ queue: params.queue as string, ...result.claim });
        break;
      case "lease.acquire":
        this.#leases.push({ ...result.lease, token: result.lease.fencingToken });
        break;
      case "path.reserve":
        this.#reservations.push({ object, reservationId: result.reservation.reservationId });
        break;
      case "command.create":
        if (result.created) this.#commands.push({ object, commandId: result.commandId });
        break;
      case "command.lease":
        for (const each of result.leases) {
          this.#deliveries.push({ ...each, object: `command:${each.envelope.params.label}` });
        }
        break;
    }
  }

  #one(): Planned {
    const { chance } = this.#random;
    if (this.#repeatable.length > 0 && chance(REPEATED)) return this.#random.of(this.#repeatable);
    const kind = this.#random.next();
    if (this.#isShared) return this.#oneShared(kind);
    if (kind < 0.25) return single(this.#sequence());
    if (kind < 0.3) return this.#pair();
    if (kind < 0.62) return this.#queue();
    if (kind < 0.78) return this.#lease();
    if (kind < 0.9 || !this.withBoard) return this.#command();
    return single(this.#item());
  }

  #oneShared(kind: number): Planned {
    if (kind < 0.18) return single(this.#sequence());
    if (kind < 0.22) return this.#pair();
    if (kind < 0.48) return this.#queue();
    if (kind < 0.6) return this.#lease();
    if (kind < 0.72) return this.#path();
    if (kind < 0.79) return this.#grants();
    return kind < 0.96 ? this.#command() : single(this.#schedule());
  }

  #sequence(): Call {
    const type = this.#random.of(this.types);
    const requestId = this.#random.chance(0.3) ? this.#label("once") : undefined;
    const kind = this.#random.next();
    if (kind < 0.2) return peek(type);
    if (kind < 0.25)
      return call(`sequence:${type}`, "sequence.advance", { type, to: this.#random.upTo(2000) });
    if (type === GRANTED && kind < 0.4) {
      const first = this.#random.upTo(3000);
      return call(`sequence:${type}`, "sequence.grant", { type, first, last: first + this.#random.upTo(20) });
    }
    const params = { type, ...(requestId === undefined ? {} : { requestId }) };
    const made =
      kind < 0.4
        ? call(`sequence:${type}`, "sequence.reserve", { ...params, count: this.#random.upTo(5) })
        : call(`sequence:${type}`, "sequence.next", params);
    if (requestId !== undefined) this.#repeatable.push(single(made));
    return made;
  }

  /** Two counters that are only taken from together, so that whoever reads both finds both alike. */
  #pair(): Planned {
    const method = this.#random.chance(0.5) ? "sequence.next" : "sequence.peek";
    return { calls: ["PAIR_A", "PAIR_B"].map((type) => call("sequence:PAIR", method, { type })) };
  }

  #queue(): Planned {
    const isOfSchedules = this.#isShared && this.#random.chance(0.1);
    const queue = isOfSchedules ? this.#ticks : this.#random.of(this.queues);
    const object = `queue:${queue}`;
    const kind = isOfSchedules ? 0.5 : this.#random.next();
    if (kind < 0.3) return this.#enqueue(queue);
    if (kind < 0.35) {
      const batches = [1, 2, 3].map(() => this.#batch(queue));
      return single(call(object, "queue.enqueueMany", { batches }));
    }
    if (kind < 0.6) {
      const waitMs = this.#random.of(this.#waitsMs);
      const made = call(object, "queue.claim", {
        queue,
        owner: this.#label("owner"),
        leaseMs: this.#random.of(this.#leasesMs),
        maxBatches: this.#random.upTo(3),
        ...(this.#isShared ? { notify: true } : {}),
        ...this.#waits(waitMs),
      });
      return { calls: [made], waits: waitMs > 0 };
    }
    if (kind < 0.9) return this.#ofClaim();
    if (this.#batchIds.length === 0) return this.#enqueue(queue);
    const known = this.#random.of(this.#batchIds);
    const method = this.#random.chance(0.3) ? "queue.cancel" : "queue.get";
    return single(call(`queue:${known.queue}`, method, { batchId: known.batchId }));
  }

  #enqueue(queue: string): Planned {
    const params = this.#batch(queue);
    const made = single(call(`queue:${queue}`, "queue.enqueue", params));
    if (params.sourceKey !== undefined) this.#repeatable.push(made);
    return made;
  }

  #batch(queue: string): { sourceKey?: string; [param: string]: unknown } {
    const { chance } = this.#random;
    return {
      queue,
      payloads: [this.#label("batch")],
      retry: { baseMs: 0 },
      ...(chance(0.4) ? { sourceKey: this.#label("key") } : {}),
      ...(chance(0.3) ? { slotPolicy: "join", mergeKey: { group: this.#random.of(["a", "b"]) } } : {}),
      ...(chance(0.15) ? { maxAttempts: 2 } : {}),
      ...(chance(0.1) ? { delayMs: this.#random.of([30, 200]) } : {}),
    };
  }

  #ofClaim(): Planned {
    const claims = this.#random.chance(0.1) ? this.#doneClaims : this.#claims;
    if (claims.length === 0) return this.#enqueue(this.#random.of(this.queues));
    const held = this.#random.of(claims);
    const { queue, claimId, leaseToken } = held;
    const params = { claimId, leaseToken };
    const object = `queue:${queue}`;
    const kind = this.#random.next();
    if (kind < 0.2)
      return single(call(object, "queue.renew", { ...params, leaseMs: this.#random.of(this.#leasesMs) }));
    if (claims === this.#claims) {
      claims.splice(claims.indexOf(held), 1);
      this.#doneClaims.push(held);
    }
    if (kind < 0.3) return single(call(object, "queue.abandon", params));
    if (queue === this.#ticks) return single(call(object, "queue.complete", params));
    if (kind < 0.4) return single(call(object, "queue.abandon", { ...params, error: "failed" }));
    if (kind < 0.45) return single(call(object, "queue.abandon", { ...params, delayMs: 50 }));
    if (kind < 0.8) return single(call(object, "queue.complete", params));
    return this.#handOn(held);
  }

  /** A number is taken, the claim completed and the next step enqueued under the number: all or nothing. */
  #handOn({ queue, claimId, leaseToken }: HeldClaim): Planned {
    const params = { claimId, leaseToken };
    const next = this.#random.of(this.queues);
    const calls = [
      call("sequence:FR", "sequence.next", { type: "FR" }),
      call(`queue:${queue}`, "queue.complete", params),
      call(`queue:${next}`, "queue.enqueue", {
        queue: next,
        payloads: [this.#label("next"), { $result: "/0/seq" }],
        retry: { baseMs: 0 },
      }),
    ];
    // One that is refused at its end leaves nothing behind of what came before.
    if (this.#random.chance(0.2)) calls.push(call(NOTHING, "queue.get", { batchId: "qwb:none" }));
    return this.#random.chance(0.5) ? { calls, guard: call(`queue:${queue}`, "", params) } : { calls };
  }

  #waits(waitMs: number): { waitMs?: number; releaseOn?: string } {
    return {
      ...(waitMs > 0 ? { waitMs } : {}),
      ...(this.#random.chance(0.3) ? { releaseOn: "disconnect" } : {}),
    };
  }

  #path(): Planned {
    const root = this.#root;
    const object = `path:${root}`;
    const kind = this.#random.next();
    if (kind < 0.5 || this.#reservations.length === 0) {
      const waitMs = this.#random.of(this.#waitsMs);
      const made = call(object, "path.reserve", {
        root,
        patterns: this.#random.of(PATTERNS),
        owner: this.#label("owner"),
        ttlMs: this.#random.of(this.#leasesMs),
        ...(this.#random.chance(0.3) ? { mode: "read" } : {}),
        ...this.#waits(waitMs),
      });
      return { calls: [made], waits: waitMs > 0 };
    }
    if (kind < 0.6) return single(call(object, "path.check", { root, path: this.#random.of(PATHS) }));
    if (kind < 0.65) return single(call(object, "path.list", { root }));
    const { reservationId } = this.#random.of(this.#reservations);
    return single(call(object, kind < 0.8 ? "path.heartbeat" : "path.release", { reservationId }));
  }

  /** Several grants, all or none. */
  #grants(): Planned {
    const name = this.#random.of(this.names);
    const queue = this.#random.of(this.queues);
    const common = { owner: this.#label("owner"), ...this.#waits(0) };
    const time = this.#random.of(this.#leasesMs);
    return {
      calls: [
        call(`lease:${name}`, "lease.acquire", { name, ttlMs: time, ...common }),
        this.#random.chance(0.5)
          ? call(`queue:${queue}`, "queue.claim", { queue, leaseMs: time, notify: true, ...common })
          : call(`path:${this.#root}`, "path.reserve", {
              root: this.#root,
              patterns: this.#random.of(PATTERNS),
              ttlMs: time,
              ...common,
            }),
      ],
    };
  }

  #lease(): Planned {
    const name = this.#random.of(this.names);
    const object = `lease:${name}`;
    const kind = this.#random.next();
    if (kind < 0.4 || this.#leases.length === 0) {
      const waitMs = this.#random.of(this.#waitsMs);
      const made = call(object, "lease.acquire", {
        name,
        owner: this.#label("owner"),
        ttlMs: this.#random.of(this.#leasesMs),
        ...this.#waits(waitMs),
      });
      return { calls: [made], waits: waitMs > 0 };
    }
    if (kind < 0.5) return single(call(object, "lease.get", { name }));
    if (kind < 0.53) return single(call(object, "lease.break", { name, reason: "load" }));
    const known = this.#random.of(this.#leases);
    const { leaseId, token: fencingToken } = known;
    const its = `lease:${known.name}`;
    if (kind < 0.65) return single(call(its, "lease.check", { name: known.name, fencingToken }));
    if (kind < 0.8) return single(call(its, "lease.heartbeat", { leaseId }));
    return single(call(its, "lease.release", { leaseId }));
  }

  #command(): Planned {
    const kind = this.#random.next();
    if (this.#isShared && kind < 0.03) return single(this.#setOrList());
    if (kind < 0.35) {
      const label = this.#label("command");
      const made = single(
        call(`command:${label}`, "command.create", {
          deployment: this.#random.chance(0.3) ? this.pushed : this.#deployment,
          command: "run",
          params: { label },
          idempotencyKey: label,
          maxAttempts: this.#random.of([0, 0, 3]),
        }),
      );
      this.#repeatable.push(made);
      return made;
    }
    if (kind < 0.6) {
      const waitMs = this.#random.of(this.#waitsMs);
      const made = call("", "command.lease", {
        deployment: this.#pulled,
        owner: "load",
        max: this.#random.upTo(2),
        leaseMs: this.#random.of(this.#leasesMs),
        ...this.#waits(waitMs),
      });
      return { calls: [made], waits: waitMs > 0 };
    }
    if (this.#deliveries.length > 0 && kind < 0.9) return single(this.#ofDelivery());
    if (this.#commands.length === 0) return this.#pair();
    const { object, commandId } = this.#random.of(this.#commands);
    if (this.#isShared && this.#random.chance(0.3)) {
      const waitMs = this.#random.of(this.#waitsMs);
      return { calls: [call(object, "command.wait", { commandId, waitMs })], waits: waitMs > 0 };
    }
    const method = this.#random.of(["command.get", "command.get", "command.response", "command.cancel"]);
    return single(call(object, method, { commandId }));
  }

  #setOrList(): Call {
    const deployment = this.#random.of([this.#deployment, this.pushed]);
    if (this.#random.chance(0.4)) return listOf(deployment);
    const model = this.#random.of(["pull", "push"]);
    const projectId = this.#random.of(["one", "two"]);
    return call(`deployment:${deployment}`, "deployment.set", { deployment, model, projectId });
  }

  #schedule(): Call {
    const name = this.#random.of(this.schedules);
    const object = `schedule:${name}`;
    const kind = this.#random.next();
    if (kind < 0.35) return schedule(name);
    if (kind < 0.45) return call(object, "schedule.delete", { name });
    if (kind < 0.6) return call(object, "schedule.run", { name });
    const [isWhole] = [name === this.schedules[0]];
    return call(object, "schedule.set", {
      name,
      queue: this.#ticks,
      payloads: [name],
      everyMs: this.#random.of([1000, 1300]),
      overlap: isWhole ? "all" : "skip",
      missed: isWhole ? "all" : this.#random.of(["none", "last"]),
    });
  }

  #ofDelivery(): Call {
    const { object, commandId, leaseId } = this.#random.of(this.#deliveries);
    const kind = this.#random.next();
    if (kind < 0.2)
      return call(object, "command.renew", { leaseId, leaseMs: this.#random.of(this.#leasesMs) });
    if (kind < 0.4) return call(object, "command.release", { leaseId });
    return call(object, "command.respond", {
      commandId,
      leaseId,
      response: { status: "success", response: this.#label("answer") },
    });
  }

  #item(): Call {
    const storyId = this.#random.of(this.#items);
    const kind = this.#random.next();
    if (kind < 0.4) return call(`item:${storyId}`, "pipeline.read", { storyId });
    if (kind < 0.45) return call(`item:${storyId}`, "pipeline.delete", { storyId });
    return call(`item:${storyId}`, "pipeline.write", {
      storyId,
      stage: "2_current",
      ...(kind < 0.7 ? { name: this.#label("name") } : { retryCountDelta: 1 }),
    });
  }

  #label(what: string): string {
    this.#labels += 1;
    return `${what}-${this.#labels}${this.#epoch}`;
  }
}

function call(object: string, method: string, params: Record<string, unknown>): Call {
  return { object, method, params };
}

function single(made: Call): Planned {
  return { calls: [made] };
}

function schedule(name: string): Call {
  return call(`schedule:${name}`, "schedule.get", { name });
}

/** The one deployment that a page of the list begins with. */
function listOf(deployment: string): Call {
  const after = deployment.slice(0, -1);
  return call(`deployment:${deployment}`, "deployment.list", { after, limit: 1 });
}

function peek(type: string): Call {
  return call(`sequence:${type.replace(/_.*/, "")}`, "sequence.peek", { type });
}
