// The room of the link: the one connection to the daemon, as much of it as is needed here, made when it is needed.
import type {
  MethodName,
  NotificationName,
  NotificationParams,
  OneLease,
  Params,
  Result,
} from "@pawl/protocol/types";

/** Whatever calls can be made on. */
export interface Caller {
  call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>>;
}

/** How a call is ended before its answer: given up, or only its wait, of which the answer still comes. */
export interface Ending {
  readonly signal?: AbortSignal;
  readonly endWait?: AbortSignal;
}

/** A connection that survives restarts of the daemon. */
export interface Link {
  readonly socketPath: string;
  /** Rejects with the daemon's refusal, or when the connection is lost. */
  call(
    method: "lease.acquire",
    params: Params<"lease.acquire"> & { name: string },
    options?: Ending,
  ): Promise<OneLease>;
  call<N extends MethodName>(method: N, params: Params<N>, options?: Ending): Promise<Result<N>>;
  /** Listens to a notification, until the returned function is called. */
  on(method: string, listener: (params: Record<string, unknown>) => void): () => void;
  /** Tells of connections that come and go. */
  watch(watcher: { up?: () => void; down?: () => void }): () => void;
  /** Keeps connecting although no request waits. */
  keep(): () => void;
  close(): void;
}

/** Listens to a notification of the daemon by its name. */
export function listen<N extends NotificationName>(
  link: Link,
  notification: N,
  listener: (params: NotificationParams<N>) => void,
): void {
  link.on(notification, (params) => listener(params as NotificationParams<N>));
}

/** The link of this process: connected at the first call, or at the next one if no daemon could be reached. */
export class LateLink {
  readonly #connect: () => Promise<Link>;
  readonly #whenMade: (link: Link) => void;
  #link: Promise<Link> | undefined;
  #made: Link | undefined;
  #closed = false;

  /** @param whenMade is called once, with the connection. */
  constructor(connect: () => Promise<Link>, whenMade: (link: Link) => void) {
    this.#connect = connect;
    this.#whenMade = whenMade;
  }

  /** Rejects where no daemon answers. */
  async get(): Promise<Link> {
    this.#link ??= this.#connect().then(
      (link) => {
        this.#made = link;
        if (this.#closed) link.close();
        else this.#whenMade(link);
        return link;
      },
      (error: unknown) => {
        this.#link = undefined;
        throw error;
      },
    );
    return await this.#link;
  }

  close(): void {
    this.#closed = true;
    this.#made?.close();
  }
}
