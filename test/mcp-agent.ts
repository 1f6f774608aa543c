// A coding agent as a host runs one: `pawl mcp` as a process of its own, spoken to by the official client.
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { onTestFinished } from "vitest";
import { type AtEnd, PAWL } from "./daemon.js";

export interface Told {
  readonly isError: boolean;
  readonly text: string;
  /** The structured content; of a refusal what its text ends with. */
  // biome-ignore lint/suspicious/noExplicitAny: each tool has another shape, and the client has checked it
  readonly value: any;
}

export interface AgentOptions {
  readonly socket: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** A revision to speak; that of the newest handshake if not given. */
  readonly revision?: string;
  readonly atEnd?: AtEnd;
}

/** The last revision that begins with `initialize`. */
const FIRST_WITHOUT_HANDSHAKE = "2026";

export class Agent {
  readonly client: Client;
  readonly #transport: StdioClientTransport;
  session = "";

  private constructor(client: Client, transport: StdioClientTransport) {
    this.client = client;
    this.#transport = transport;
  }

  /** Starts a server and agrees with it on a revision. */
  static async start({ socket, args = [], env = {}, cwd, revision, atEnd = onTestFinished }: AgentOptions) {
    const own: Record<string, string> = {};
    for (const [name, value] of Object.entries({ ...process.env, ...env })) {
      if (value !== undefined) own[name] = value;
    }
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [PAWL, "mcp", "--socket", socket, ...args],
      env: own,
      stderr: "inherit",
      ...(cwd === undefined ? {} : { cwd }),
    });
    const client = new Client(
      { name: "test", version: "1" },
      revision === undefined
        ? {}
        : revision.startsWith(FIRST_WITHOUT_HANDSHAKE)
          ? { versionNegotiation: { mode: { pin: revision } } }
          : { supportedProtocolVersions: [revision] },
    );
    const agent = new Agent(client, transport);
    atEnd(() => agent.close());
    await client.connect(transport);
    // From now on the client holds each result against the schema of its tool.
    await client.listTools();
    return agent;
  }

  /** Another agent by the same server, as a host has it that runs several. */
  another(): Agent {
    return new Agent(this.client, this.#transport);
  }

  /** The pid of `pawl mcp`. */
  get pid(): number {
    return this.#transport.pid as number;
  }

  /** Calls a tool, in this agent's session once it has one. */
  async call(name: string, args: Record<string, unknown> = {}, options = {}): Promise<Told> {
    const session = this.session === "" || name === "session_start" ? {} : { session: this.session };
    const result = await this.client.callTool({ name, arguments: { ...session, ...args } }, options);
    const text = (result.content as { text: string }[])[0]?.text ?? "";
    const isError = result.isError === true;
    const value = isError ? JSON.parse(text.split("\n").at(-1) as string) : result.structuredContent;
    if (name === "session_start" && !isError) this.session = value.session;
    return { isError, text, value };
  }

  /** Calls a tool that is not to be refused, and resolves with its structured content. */
  // biome-ignore lint/suspicious/noExplicitAny: each tool has another shape, and the client has checked it
  async done(name: string, args: Record<string, unknown> = {}, options = {}): Promise<any> {
    const { isError, text, value } = await this.call(name, args, options);
    if (isError) throw new Error(`${name} was refused: ${text}`);
    return value;
  }

  /** Calls a tool that is to be refused, and resolves with the kind and the whole text. */
  async refused(name: string, args: Record<string, unknown> = {}): Promise<{ kind: string; text: string }> {
    const { isError, text, value } = await this.call(name, args);
    if (!isError) throw new Error(`${name} was not refused: ${text}`);
    return { kind: value.kind, text };
  }

  /** Ends the server as a crash does. */
  async kill(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.client.onclose = resolve;
    });
    process.kill(this.pid, "SIGKILL");
    await closed;
  }

  async close(): Promise<void> {
    await this.client.close();
  }
}
