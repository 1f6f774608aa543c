/** As much of an event as is looked at here; pages are given all of it. */
export interface HappenedEvent {
  readonly cursor: string;
  readonly topic: string;
  readonly kind: string;
  readonly id: string;
}

/** Two seconds of the daemon: what happened in them, and how much there was at their end. */
export interface Sample {
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
  readonly enqueued: number;
  readonly completed: number;
  readonly failed: number;
  readonly waiting: number;
  readonly claimed: number;
}

interface Depths {
  readonly queues: { readonly ready: number; readonly scheduled: number; readonly claimed: number };
}

/** Ten minutes, at a sample every 2 s. */
const MOST_SAMPLES = 300;
const COUNTED: Readonly<Record<string, "enqueued" | "completed" | "failed">> = {
  enqueued: "enqueued",
  completed: "completed",
  failed: "failed",
  dead: "failed",
};

/** What the plots of the overview show, for a page that is opened later. */
export class History {
  readonly samples: Sample[] = [];
  #counts = { enqueued: 0, completed: 0, failed: 0 };
  #depths = { waiting: 0, claimed: 0 };
  #stale = true;

  count(events: readonly HappenedEvent[]): void {
    this.#stale = true;
    for (const { topic, kind } of events) {
      const counted = topic.startsWith("queue:") ? COUNTED[kind] : undefined;
      if (counted !== undefined) this.#counts[counted] += 1;
    }
  }

  /** True if something has happened since the depths were told. */
  get wantsDepths(): boolean {
    return this.#stale;
  }

  depths({ queues }: Depths): void {
    this.#stale = false;
    this.#depths = { waiting: queues.ready + queues.scheduled, claimed: queues.claimed };
  }

  sample(at: number): Sample {
    const sample = { at, ...this.#counts, ...this.#depths };
    this.#counts = { enqueued: 0, completed: 0, failed: 0 };
    this.samples.push(sample);
    if (this.samples.length > MOST_SAMPLES) this.samples.shift();
    return sample;
  }
}
