import { connectionOf, connectToOneOf } from "../connect.js";
import type { Connection } from "../connection/connection.js";
import { defaultInstance } from "../connection/socket-path.js";
import { command } from "../terminal/command.js";
import { packageOfAgents } from "./packages.js";

/** How long a call of an agent waits for a daemon that went away. */
const RECONNECT_MS = 10_000;
const DEFAULT_IDLE_MS = 7_200_000;

const mcp = command({
  args: "",
  patient: () => true,
  summary: "Serve coding agents by the Model Context Protocol, on standard input and output",
  options: {
    tools: {
      type: "text",
      choices: ["core", "full"],
      value: "core|full",
      describe: "Which tools: those that every agent needs, or all",
      default: "core",
    },
    spawn: { type: "flag", describe: "Start a daemon when none listens" },
    idle: {
      type: "duration",
      describe: "A session that does nothing for so long ends; 0 for never",
      default: "2h",
    },
  },
  details:
    "A host, such as Claude Code or an editor, starts it for each agent; docs/agents.md has the settings. An agent takes work, reserves paths and writes messages by it; all of that is renewed for it, and given back 30 s after this program has ended, unless it is started again meanwhile. It ends with its input, and with the process that started it. Messages about trouble go to standard error. It is the package @pawl/mcp.",
  examples: [
    ["claude mcp add pawl -- pawl mcp --spawn", "For Claude Code"],
    ["pawl mcp --tools full", "With locks, numbers, and the board to edit"],
    ["npx @modelcontextprotocol/inspector pawl mcp", "Look at it by hand"],
  ],
  async run({ tools = "core", spawn, idle = DEFAULT_IDLE_MS }, { instance, env, socketPaths, version }) {
    const { serveMcp } = await packageOfAgents();
    const connect = async () => {
      const options = { reconnectMs: RECONNECT_MS, spawn };
      const client = await connectToOneOf(socketPaths(), instance ?? defaultInstance(env), options);
      return connectionOf(client) as Connection;
    };
    await serveMcp({
      connect: async () => {
        const connection = await connect();
        if (spawn) connection.watch({ refused: startingAgain(connect) });
        return connection;
      },
      version: version(),
      tools,
      idleMs: idle === 0 ? Number.POSITIVE_INFINITY : idle,
    });
    return undefined;
  },
});

/** Starts a daemon again where one has gone: the connection that was lost finds it. */
function startingAgain(connect: () => Promise<Connection>): () => void {
  let starting = false;
  return () => {
    if (starting) return;
    starting = true;
    connect()
      .then(
        (other) => other.close(),
        // It is tried again as long as nobody listens.
        () => {},
      )
      .finally(() => {
        starting = false;
      });
  };
}

export const commands = { mcp };
