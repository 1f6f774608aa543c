// Nodes of one board for tests: real daemons that trust each other.
import type { Result } from "@pawl/protocol";
import { connect, type PawlClient } from "../client/dist/index.js";
import { type DaemonProcess, Place, type StartOptions } from "./daemon.js";

/** A node: where it is, its daemon of now, and a client of it. */
export class BoardNode {
  readonly place: Place;
  daemon: DaemonProcess;
  client: PawlClient;

  private constructor(place: Place, daemon: DaemonProcess, client: PawlClient) {
    this.place = place;
    this.daemon = daemon;
    this.client = client;
  }

  static async start(options: StartOptions = {}): Promise<BoardNode> {
    const place = new Place();
    const daemon = await place.start(options);
    return new BoardNode(place, daemon, await connect({ socket: place.socket, reconnectMs: 0 }));
  }

  /** Starts a daemon at its place again, after the last one ended. */
  async startAgain(): Promise<void> {
    this.client.close();
    this.daemon = await this.place.start();
    this.client = await connect({ socket: this.place.socket, reconnectMs: 0 });
  }

  /** The board as it can be seen, the same on all nodes that agree. */
  async content(): Promise<unknown> {
    const { heads } = await this.client.pipeline.heads();
    const items: unknown[] = [];
    let after: string | undefined;
    do {
      const page = await this.client.pipeline.list({
        limit: 1000,
        ...(after === undefined ? {} : { after }),
      });
      items.push(...Object.values(page.stages).flat());
      after = page.next;
    } while (after !== undefined);
    return { heads, items };
  }

  /** Where the tables differ from the log. */
  async differences(): Promise<unknown[]> {
    return await differencesBy((params) => this.client.pipeline.rebuild(params));
  }
}

/** Where the tables differ from the log, by as many calls as that takes. */
export async function differencesBy(
  rebuild: (params: { verify: true; after?: string }) => Promise<Result<"pipeline.rebuild">>,
): Promise<unknown[]> {
  const found: unknown[] = [];
  let after: string | undefined;
  do {
    const step = await rebuild({ verify: true, ...(after === undefined ? {} : { after }) });
    found.push(...step.differences);
    after = step.next;
  } while (after !== undefined);
  return found;
}

/** Makes each of the nodes accept the changes of all others, on the board of the first that has one. */
export async function trustEachOther(...nodes: BoardNode[]): Promise<void> {
  const identities = await Promise.all(nodes.map(({ client }) => client.pipeline.identity()));
  const board = identities.find((each) => each.board !== null)?.board;
  for (const [index, { client }] of nodes.entries()) {
    for (const [other, { author }] of identities.entries()) {
      if (other === index) continue;
      await client.peer.trust({ author, name: `node ${other}`, ...(board ? { board } : {}) });
    }
  }
}
