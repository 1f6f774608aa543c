import { hostname } from "node:os";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { connect, type PawlClient } from "../connect.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { forward, type PeerAddress, parsePeer } from "../sync/ssh-forward.js";
import { type Refused, type Synced, syncBoards } from "../sync/sync-boards.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { count, duration, plural, when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { readAll } from "../terminal/values.js";

/** Of a board, for a node that has none yet. */
const NO_BOARD = "-";
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

const peers = command({
  args: "<self|trust|revoke|list> [peer..]",
  summary: "Say whose changes are accepted",
  options: {
    name: {
      type: "text",
      value: "NAME",
      describe: "How it is called: this node in its line, or here the peer that is trusted",
      default: "of the host; as the line says",
    },
  },
  details:
    "Two nodes that sync must each trust the other. self prints the line that the other is to trust; trust takes such a line, or - to read it from standard input; revoke takes the name or the key of a peer. What was accepted before stays.",
  examples: [
    ["pawl peers self", "The board (- for none yet), the key and the name of this node"],
    ["ssh build pawl peers self | pawl peers trust -", "Accept what the node on build writes"],
    ["pawl peers revoke build", "From now on, no more"],
    ["pawl peers list", "Whose changes are accepted"],
  ],
  async run({ "self|trust|revoke|list": action, peer, name }, { connect: connectHere, output, stdin }) {
    switch (action) {
      case "self":
        noMore(peer);
        return printSelf(await connectHere(), name, output);
      case "trust":
        return trust(await connectHere(), await lineOf(peer, stdin), name, output);
      case "revoke":
        return revoke(await connectHere(), peer, output);
      case "list":
        noMore(peer);
        return list(await connectHere(), output);
      default:
        throw new UsageError(`What to do is self, trust, revoke or list, not ${JSON.stringify(action)}.`);
    }
  },
});

function noMore([surplus]: readonly string[]): void {
  if (surplus !== undefined) throw new UsageError(`${JSON.stringify(surplus)} is one argument too many.`);
}

async function printSelf(client: PawlClient, given: string | undefined, output: Output): Promise<undefined> {
  const { board, author } = await client.pipeline.identity();
  const name = given ?? hostname();
  output.result({ board, author, name }, () => `${board ?? NO_BOARD} ${author} ${printable(name)}`);
  return undefined;
}

/** The line of a peer, which may come from standard input. */
async function lineOf(words: readonly string[], stdin: Readable): Promise<string> {
  return (words.length === 1 && words[0] === "-" ? await readAll(stdin) : words.join(" ")).trim();
}

async function trust(
  client: PawlClient,
  line: string,
  given: string | undefined,
  output: Output,
): Promise<undefined> {
  if (line.includes("\n")) {
    throw new UsageError(`One peer at a time, in one line; not ${line.split("\n").length} lines.`);
  }
  const [board = "", author = "", ...rest] = line.split(/\s+/);
  const name = given ?? rest.join(" ");
  if (!/^([0-9a-f]{32}|-)$/.test(board) || !/^[0-9a-f]{64}$/.test(author) || name === "") {
    throw new UsageError(
      `A peer is the line that \`pawl peers self\` prints there: board, key and name; not ${JSON.stringify(line.slice(0, 120))}.`,
    );
  }
  const trusted = await client.peer.trust({ author, name, ...(board === NO_BOARD ? {} : { board }) });
  output.result(trusted, () => `Changes of ${printable(trusted.name)} are accepted from now on.`);
  return undefined;
}

async function revoke(
  client: PawlClient,
  words: readonly string[],
  output: Output,
): Promise<number | undefined> {
  const wanted = words.join(" ");
  if (wanted === "") throw new UsageError("Name the peer, or give its key.");
  const known = (await client.peer.list()).peers.filter(({ revokedAt }) => revokedAt === undefined);
  const found = known.filter(({ author, name }) => author === wanted || name === wanted);
  if (found.length > 1) {
    const keys = found.map(({ author }) => author).join(", ");
    throw new UsageError(`${found.length} peers are called ${JSON.stringify(wanted)}. Give a key: ${keys}.`);
  }
  const [peer] = found;
  if (peer === undefined) {
    throw new PawlError(
      "not_found",
      `No peer is trusted under ${JSON.stringify(wanted)}. See pawl peers list.`,
      {
        what: "peer",
      },
    );
  }
  const { author, name } = peer;
  const result = await client.peer.revoke({ author });
  output.result({ ...result, author, name }, () => `Changes of ${printable(name)} are accepted no more.`);
  return undefined;
}

async function list(client: PawlClient, output: Output): Promise<undefined> {
  const found = await client.peer.list();
  output.result(found, () => {
    if (found.peers.length === 0) {
      output.note("No peers are trusted. See pawl peers --help.");
      return "";
    }
    return output.table(
      [{ title: "NAME", flexible: true }, { title: "TRUSTED" }, { title: "REVOKED" }, { title: "KEY" }],
      found.peers.map(({ name, author, trustedAt, revokedAt }) => [
        name,
        when(trustedAt),
        revokedAt === undefined ? "" : { text: when(revokedAt), style: "red" },
        author,
      ]),
    );
  });
  return undefined;
}

const sync = command({
  args: "<peer>",
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
  await using forwarding = await forward(address.host, address.path);
  await using peer = await connect({ socket: forwarding.socket, reconnectMs: 0 });
  return await perform(peer);
}

async function once(here: PawlClient, peer: PawlClient, output: Output): Promise<Synced> {
  try {
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
    const done = await syncBoards(here, peer);
    onDone();
    const said = JSON.stringify(done.refused.map(({ retryMs: _, ...each }) => each));
    // What was said already is not said again.
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

/** How the authors are called here whose logs were refused. */
async function namesOf(here: PawlClient, { refused }: Synced): Promise<Map<string, string>> {
  if (refused.length === 0) return new Map();
  const { peers: known } = await here.peer.list();
  return new Map(known.map(({ author, name }: Result<"peer.list">["peers"][number]) => [author, name]));
}

/** To refuse an author who was revoked is what was wanted. */
function exitCode({ refused }: Synced): number | undefined {
  return refused.some(({ kind }) => kind !== "revoked_author") ? EXIT_REFUSED : undefined;
}

export const commands = { sync, peers };
