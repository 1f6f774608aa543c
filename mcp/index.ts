// The entry: an MCP server on standard input and output, over a daemon's socket (modelcontextprotocol.io).
import type { Server } from "node:net";
import { McpServer, type ServerContext, type StandardSchemaWithJSON } from "@modelcontextprotocol/server";
import { StdioServerTransport, serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";
import { serveHooks } from "./hook/hook-server.js";
import { LateLink, type Link } from "./link.js";
import { addPrompt } from "./prompt.js";
import { addResources, Following } from "./resources/resources.js";
import { Sessions } from "./sessions/sessions.js";
import { perform } from "./tools/perform.js";
import type { Tool } from "./tools/tool.js";
import { TOOL_SETS } from "./tools/tool-sets.js";

export type { Link };

export interface McpOptions {
  /** Connects to the daemon; called when something is first asked of it, and again while it rejects. */
  connect(): Promise<Link>;
  readonly version: string;
  readonly tools: "core" | "full";
  /** After so long without a call a session ends. */
  readonly idleMs: number;
}

const INSTRUCTIONS =
  "Several coding agents share this machine. Call session_start first. Take work with work_next or work_claim, reserve files with paths_reserve before you edit them, end work with work_finish, and read inbox when `unread` is above 0. When a call is refused, do what the refusal says; never work around it.";

/** So often a caller is told that a call still waits. */
const PROGRESS_MS = 5000;
/** So often it is looked whether the parent is still there; its end of the pipe may be held by others. */
const PARENT_LOOK_MS = 1000;

/** Serves until the input ends or the parent has gone. What sessions hold then stays for their grace. */
export async function serveMcp({ connect, version, tools, idleMs }: McpOptions): Promise<void> {
  let hooks: Server | undefined;
  const late = new LateLink(connect, (link) => {
    sessions.follow(link);
    hooks = serveHooks(link.socketPath);
  });
  const sessions = new Sessions(late, idleMs);
  const transport = new StdioServerTransport();
  let current: McpServer | undefined;
  const following = new Following(late, (uri) => {
    current?.server.sendResourceUpdated({ uri }).catch(() => {});
  });
  const server = serveStdio(
    () => {
      current = new McpServer(
        { name: "pawl", title: "pawl: work, files and messages of several agents", version },
        {
          capabilities: { tools: { listChanged: false }, resources: { subscribe: true, listChanged: false } },
          instructions: INSTRUCTIONS,
        },
      );
      for (const each of TOOL_SETS[tools]) register(current, each, sessions);
      addResources(current, late);
      addPrompt(current);
      subscribing(current, following);
      return current;
    },
    { transport, onerror: (error) => process.stderr.write(`pawl mcp: ${error.message}\n`) },
  );
  listening(transport, following);
  await inputEnd();
  sessions.close();
  following.close();
  hooks?.close();
  await server.close();
  late.close();
}

/** Resolves when nobody asks any more. */
async function inputEnd(): Promise<void> {
  const parent = process.ppid;
  let look: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    process.stdin.once("end", resolve).once("close", resolve);
    process.stdout.once("error", () => resolve());
    look = setInterval(() => {
      if (process.ppid !== parent) resolve();
    }, PARENT_LOOK_MS);
  });
  clearInterval(look);
}

/** Subscriptions as of the revisions of 2025: one request for each resource. */
function subscribing({ server }: McpServer, following: Following): void {
  server.setRequestHandler("resources/subscribe", async ({ params }) => {
    await following.follow([params.uri]);
    return {};
  });
  server.setRequestHandler("resources/unsubscribe", async ({ params }) => {
    await following.unfollow([params.uri]);
    return {};
  });
}

/**
 * Subscriptions as of the revisions of 2026: one request names all, and lasts until it is cancelled. The library
 * answers them and passes on what is told of the resources; it does not say which those are, so the messages are looked
 * at here.
 */
function listening(transport: StdioServerTransport, following: Following): void {
  const take = transport.onmessage;
  const open = new Map<unknown, readonly string[]>();
  transport.onmessage = (message: unknown) => {
    const { id, method, params } = message as {
      id?: unknown;
      method?: string;
      params?: Record<string, unknown>;
    };
    const uris = urisOf(params);
    let ready: Promise<void> | undefined;
    if (method === "subscriptions/listen" && uris.length > 0) {
      open.set(id, uris);
      ready = following.follow(uris);
    } else if (method === "notifications/cancelled") {
      void following.unfollow(open.get(params?.requestId) ?? []).catch(() => {});
      open.delete(params?.requestId);
    }
    // Its acknowledgement says that nothing is missed from then on.
    if (ready === undefined) take?.(message as never);
    else void ready.catch(() => {}).then(() => take?.(message as never));
  };
}

function urisOf(params: Record<string, unknown> | undefined): readonly string[] {
  const { resourceSubscriptions } = (params?.notifications ?? {}) as { resourceSubscriptions?: unknown };
  return Array.isArray(resourceSubscriptions)
    ? resourceSubscriptions.filter((uri) => typeof uri === "string")
    : [];
}

function register(server: McpServer, tool: Tool, sessions: Sessions): void {
  const { name, title, description, annotations } = tool;
  server.registerTool(
    name,
    {
      title,
      description,
      annotations: { title, openWorldHint: false, ...annotations },
      inputSchema: unchecked(tool.input, "input"),
      outputSchema: unchecked(tool.output, "output"),
    },
    (args: unknown, context: ServerContext) => {
      const { signal } = context.mcpReq;
      return perform(tool, args, { sessions, signal, waiting: waitingOf(context) });
    },
  );
}

/**
 * A schema that is shown, and checked by the tool itself: what does not fit is refused in its own words. Every agent
 * reads all schemas, so they have no more than is of use.
 */
function unchecked(
  schema: z.ZodObject,
  io: "input" | "output",
): StandardSchemaWithJSON<Record<string, unknown>> {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io }) as Record<string, unknown>;
  if (io === "output") delete json.additionalProperties;
  const jsonSchema = { input: () => json, output: () => json };
  return {
    "~standard": {
      version: 1,
      vendor: "pawl",
      validate: (value: unknown) => ({ value: value as Record<string, unknown> }),
      jsonSchema,
    },
  };
}

/** Tells the caller that it waits, if it asked to be told. */
function waitingOf({ mcpReq }: ServerContext): <T>(reason: string, wait: () => Promise<T>) => Promise<T> {
  const progressToken = mcpReq._meta?.progressToken;
  // A call may wait several times, and what it tells only rises.
  const began = performance.now();
  let last = -1;
  return async (reason, wait) => {
    if (progressToken === undefined) return await wait();
    const tell = (): void => {
      const progress = Math.round((performance.now() - began) / 1000);
      if (progress <= last) return;
      last = progress;
      const params = { progressToken, progress, message: `${reason} (${progress} s)` };
      mcpReq.notify({ method: "notifications/progress", params }).catch(() => {});
    };
    tell();
    const timer = setInterval(tell, PROGRESS_MS);
    try {
      return await wait();
    } finally {
      clearInterval(timer);
    }
  };
}
