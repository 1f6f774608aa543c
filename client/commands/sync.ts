import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import type { Result } from "@pawl/protocol/types";
import { connect, type PawlClient } from "../connect.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import type { PeerAddress } from "../sync/ssh-forward.js";
import type { Refused, Synced } from "../sync/sync-boards.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { count, duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";

/**
 * A watch waits so long for the next change, and then asks again: a connection that ssh forwarded stays open there
 * until then if this program is killed.
 */
const WATCH_MS = 30_000;
/** With `--watch`, a peer that cannot be reached is tried again after so long, then twice that, up to the last. */
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 60_000;
/** Some changes were refused that should not have been: the boards do not agree. */
const EXIT_REFUSED = 1;

const sync = command({
  args: "<peer>",
  patient: () => true,
  summary: "Give each other what this node and another lack",
  options: {
    watch: { type: "flag", describe: "Go on: sync again whenever one of the two boards changes" },
  },
  details:
    "PEER is the path of a daemon's socket, which may be forwarded from elsewhere, or ssh:HOST or ssh:HOST:SOCKET, for which it is forwarded by ssh. First this node takes in what it lacks, then the peer. Both must trust each other: see pawl peers. Exits with 1 when one refused changes of the other.",
  examples: [
    ["pawl sync ssh:build", "With the daemon that `pawl socket-path` names on the host build"],
    ["pawl sync ssh:me@build:/run/pawl/default.sock --watch", "With this one, for as long as it runs"],
    ["pawl sync /tmp/forwarded.sock", "With one whose socket is here, as by ssh -L"],
  ],
  async run({ peer: text, watch }, { connect: connectHere, output }) {
    // Loaded here, and not for the help of all commands.
    const { parsePeer } = await import("../sync/ssh-forward.js");
    const address = parsePeer(text);
    if (address === undefined) {
      throw new UsageError(`PEER is a path, ssh:HOST or ssh:HOST:/SOCKET, not ${JSON.stringify(text)}.`);
    }
    const here = await connectHere();
    if (!watch) return await atPeer(address, async (peer) => exitCode(await once(here, peer, output)));
    for (let retryMs = FIRST_RETRY_MS; ; ) {
      try {
        await atPeer(address, (peer) =>
          goOn(here, peer, output, () => {
            retryMs = FIRST_RETRY_MS;
          }),
        );
      } catch (error) {
        const isPassing = error instanceof ConnectionLost || (error instanceof PawlError && error.retryable);
        if (!isPassing) throw error;
        output.note(`${printable(error.message)} Trying again in ${duration(retryMs)}.`);
        await delay(retryMs);
        retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
      }
    }
  },
});

/** Connects to a peer for as long as something is done with it. */
async function atPeer<T>(address: PeerAddress, perform: (peer: PawlClient) => Promise<T>): Promise<T> {
  if (address.kind === "socket") {
    await using peer = await connect({ socket: address.path, reconnectMs: 0 });
    return await perform(peer);
  }
  const { forward } = await import("../sync/ssh-forward.js");
  await using forwarding = await forward(address.host, address.path);
  await using peer = await connect({ socket: forwarding.socket, reconnectMs: 0 });
  return await perform(peer);
}

async function once(here: PawlClient, peer: PawlClient, output: Output): Promise<Synced> {
  try {
    const { syncBoards } = await import("../sync/sync-boards.js");
    const done = await syncBoards(here, peer, {
      onProgress: ({ direction, done: given, total }) =>
        output.progress(
          `${direction === "pull" ? "Pulling" : "Pushing"}: ${count(given)} of ${plural(total, "change")}`,
        ),
    });
    output.progress(undefined);
    report(done, await namesOf(here, done), output);
    return done;
  } catch (error) {
    output.progress(undefined);
    throw error;
  }
}

/** Syncs, and again after each change of one of the boards; until a connection fails. */
async function goOn(here: PawlClient, peer: PawlClient, output: Output, onDone: () => void): Promise<never> {
  for (let last = ""; ; ) {
    const [mine, theirs] = await Promise.all([here.pipeline.watch(), peer.pipeline.watch()]);
    const { syncBoards } = await import("../sync/sync-boards.js");
    const done = await syncBoards(here, peer);
    onDone();
    const said = JSON.stringify(done.refused.map(({ retryMs: _, ...each }) => each));
    // A refusal that was reported is not reported again.
    if (done.pulled + done.pushed > 0 || said !== last) report(done, await namesOf(here, done), output);
    last = said;
    if (done.pulled + done.pushed > 0) continue;
    const retry = Math.min(WATCH_MS, ...done.refused.flatMap(({ retryMs }) => retryMs ?? []));
    const over = new AbortController();
    const { signal } = over;
    try {
      await Promise.race([
        here.pipeline.watch({ since: mine.revision, waitMs: retry }, { signal }),
        peer.pipeline.watch({ since: theirs.revision, waitMs: retry }, { signal }),
      ]);
    } finally {
      over.abort();
    }
  }
}

function report(done: Synced, names: ReadonlyMap<string, string>, output: Output): void {
  output.result(done, () => `Pulled ${plural(done.pulled, "change")}, pushed ${count(done.pushed)}.`);
  for (const each of done.refused) output.note(printable(describe(each, names)));
}

const ADVICE: Partial<Record<Refused["kind"], string>> = {
  unknown_author: "Trust it there with pawl peers trust.",
  clock_ahead: "Compare the clocks of the nodes.",
};

function describe({ by, author, kind, seq, retryMs }: Refused, names: ReadonlyMap<string, string>): string {
  const whose = author === null ? "a log" : `the log of ${names.get(author) ?? author}`;
  const again = retryMs === undefined ? "" : ` It can be offered again in ${duration(retryMs)}.`;
  const where = by === "here" ? "This node" : "The peer";
  const advice =
    kind === "unknown_author" && by === "here" ? "Trust it with pawl peers trust." : ADVICE[kind];
  return `${where} refused ${whose} from change ${seq} on: ${kind}.${advice === undefined ? "" : ` ${advice}`}${again}`;
}

/** The names here of the authors whose logs were refused. */
async function namesOf(here: PawlClient, { refused }: Synced): Promise<Map<string, string>> {
  if (refused.length === 0) return new Map();
  const { peers: known } = await here.peer.list();
  return new Map(known.map(({ author, name }: Result<"peer.list">["peers"][number]) => [author, name]));
}

/** To refuse an author who was revoked is what was wanted. */
function exitCode({ refused }: Synced): number | undefined {
  return refused.some(({ kind }) => kind !== "revoked_author") ? EXIT_REFUSED : undefined;
}

export const commands = { sync };
