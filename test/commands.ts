// Commands at the socket, in the words of those who send and receive them.
import type { Command, CommandResponse, CommandState, Envelope, Params, Result } from "@pawl/protocol";
import type { DaemonProcess } from "./daemon.js";
import type { RawClient } from "./raw-client.js";

export type Leased = Result<"command.lease">["leases"][number];

let deployments = 0;

/** A deployment that no other test of this file uses. */
export function newDeployment(): string {
  deployments += 1;
  return `deployment-${deployments}`;
}

/** Sends a command and returns its id. */
export async function create(
  client: RawClient,
  deployment: string,
  params: Partial<Params<"command.create">> = {},
): Promise<string> {
  return (await client.call("command.create", { deployment, command: "run", ...params })).commandId;
}

/** Takes the one command that is there. */
export async function take(
  client: RawClient,
  deployment: string,
  params: Partial<Params<"command.lease">> = {},
): Promise<Leased> {
  const { leases } = await client.call("command.lease", { deployment, owner: "test", ...params });
  const [leased] = leases;
  if (leases.length !== 1 || leased === undefined) throw new Error(`leased ${leases.length} commands, not 1`);
  return leased;
}

export function respond(
  client: RawClient,
  { commandId, leaseId }: Pick<Leased, "commandId" | "leaseId">,
  response: CommandResponse = { status: "success", response: "done" },
): Promise<Result<"command.respond">> {
  return client.call("command.respond", { commandId, leaseId, response });
}

export function get(client: RawClient, commandId: string): Promise<Command> {
  return client.call("command.get", { commandId });
}

export async function stateOf(client: RawClient, commandId: string): Promise<CommandState> {
  return (await get(client, commandId)).state;
}

export async function answerTo(client: RawClient, commandId: string): Promise<CommandResponse | null> {
  const { response } = await client.call("command.response", { commandId });
  if (response !== null && "$upload" in response) throw new Error("the answer is to be read in pieces");
  return response;
}

/** Resolves once a command is final. */
export function ended(client: RawClient, commandId: string): Promise<Command> {
  return client.call("command.wait", { commandId, waitMs: 30_000 });
}

/** A request of the daemon to carry out a command. */
export interface Execute {
  jsonrpc: "2.0";
  id: string;
  method: "command.execute";
  params: Envelope;
}

/** The next request to a connection that serves. */
export async function pushed(client: RawClient): Promise<Execute> {
  const message = JSON.parse(await client.line()) as Execute;
  if (message.method !== "command.execute") throw new Error(`not a push: ${JSON.stringify(message)}`);
  return message;
}

/** Answers a push as a JSON-RPC server does. */
export function answer(
  client: RawClient,
  { id }: Execute,
  answer: { result: unknown } | { error: unknown },
): void {
  client.send({ jsonrpc: "2.0", id, ...answer });
}

/** The lines of the log about answers that came too late. */
export function lateAnswers(daemon: DaemonProcess, commandId: string): number {
  return daemon.log.filter((line) => line.msg === "late answer to a command" && line.commandId === commandId)
    .length;
}
