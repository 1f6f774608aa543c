import { hostname } from "node:os";
import type { Readable } from "node:stream";
import { PawlError } from "@pawl/protocol/errors";
import type { PawlClient } from "../connect.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { readAll } from "../terminal/values.js";

/** Stands for the board of a node that has none yet. */
const NO_BOARD = "-";
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

export const commands = { peers };
