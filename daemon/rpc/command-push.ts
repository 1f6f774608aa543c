import type { Envelope, Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_SERVED_DEPLOYMENTS } from "@pawl/protocol/limits";
import { ANSWER_TOO_LARGE, type Answer, answerOf, takeAnswer } from "../domain/command/answer.js";
import { nameReceiver } from "../domain/command/incarnation.js";
import { endPushes, type Push, push, type Receiver } from "../domain/command/push.js";
import { readyKey, type Serving } from "../domain/deployment/deployment.js";
import type { RepeatedLines } from "../log/repeated-lines.js";
import type { Operation } from "../store/statement.js";
import { type Call, performUntilDone } from "../turns/call.js";
import { type Env, type Outcome, Unfinished } from "../turns/operation.js";
import type { OwnRequests, PeerAnswer } from "./own-requests.js";
import type { Peer } from "./peer.js";

/** A connection that has left so many requests unanswered whose commands have ended is not sent any more for now. */
const MAX_LEFT_UNANSWERED = 1000;
/** What a connection has left is cleared in steps of so many commands that it has, or of so many deployments. */
const COMMANDS_PER_STEP = 100;
const DEPLOYMENTS_PER_STEP = 250;

/** The turns over the commands of a database. */
export interface CommandTurns {
  /** @param deployment whose rows alone a call uses; undefined for those of any. */
  submit(call: Call, deployment?: string): void;
  /** Takes a call back that waits, where that is known here. Returns true if it waited; otherwise it is woken. */
  withdraw?(call: Call): boolean;
  /** Does something after what came before it on a connection, where turns go on side by side. */
  inOrder?(connection: number, begin: (performed: () => void) => void): void;
  /** The number that rows have of a connection, where it is another. */
  numberOf?(connection: number): number;
  /** The number here of a connection as rows have it; 0 for none. */
  connectionOf?(known: number): number;
  /** A connection was sent a command, where it may have to be told that others deliver that anew. */
  sent?(connection: number, commandId: string): void;
  /** It has answered, or the delivery is over. */
  answered?(commandId: string): void;
}

/** A connection that serves a deployment. */
interface ServingPeer {
  readonly peer: Peer;
  owner: string;
  /** How many commands it may have at a time. */
  max: number;
  /** How long one delivery of a command that says nothing of it may take. */
  executionMs: number;
  /** The targets whose commands it takes; undefined for all. */
  targets: readonly string[] | undefined;
  /** As it named itself, with the number of that name; undefined if it did not. */
  named: Receiver["named"];
  /** The commands that it has: sent to it, not yet answered, and not ended. They alone count against `max`. */
  readonly commands: Set<string>;
  /** How many requests it has not answered, also for commands that have ended meanwhile. */
  unanswered: number;
}

/** A deployment and the peers that serve it. */
interface ServedDeployment {
  readonly deployment: string;
  /** By connection, the longest unserved first. */
  readonly peers: Map<number, ServingPeer>;
  /** The call that takes commands for them, or waits for some. */
  taking: Call | undefined;
}

/**
 * The connections that deployments are serving by, and what travels on them: commands as requests of the daemon,
 * answers as the responses. Each deployment has one call that waits for commands in the same line as those
 * that pull; when there are some it hands them out in its turn, and they are sent after the commit.
 */
export class CommandPush implements Serving {
  readonly #turns: CommandTurns;
  readonly #lines: RepeatedLines;
  readonly #peer: (connection: number) => Peer | undefined;
  readonly #ownRequests: OwnRequests;
  readonly #refuse: (peer: Peer, refusal: PawlError) => void;
  readonly #deployments = new Map<string, ServedDeployment>();
  /** The deployments that each connection serves. */
  readonly #byConnection = new Map<number, Set<ServedDeployment>>();

  constructor(options: {
    turns: CommandTurns;
    lines: RepeatedLines;
    /** An open connection by its number. */
    peer: (connection: number) => Peer | undefined;
    ownRequests: OwnRequests;
    /** Tells a peer about something from it that was no message. */
    refuse: (peer: Peer, refusal: PawlError) => void;
  }) {
    this.#turns = options.turns;
    this.#lines = options.lines;
    this.#peer = options.peer;
    this.#ownRequests = options.ownRequests;
    this.#refuse = options.refuse;
  }

  /** The operation of `command.serve`: commands are sent from then on, the first after the reply. */
  *serve(params: Parsed<"command.serve">, env: Env): Operation<Result<"command.serve"> | PawlError> {
    const { deployment } = params;
    const connection = this.#connectionOf(env.caller.connection);
    const deployments = this.#byConnection.get(connection);
    if (
      deployments !== undefined &&
      deployments.size >= MAX_SERVED_DEPLOYMENTS &&
      !this.#serves(connection, deployment)
    ) {
      return refuse(
        "exhausted",
        `This connection serves ${MAX_SERVED_DEPLOYMENTS} deployments already. Open another one for more.`,
        { limit: MAX_SERVED_DEPLOYMENTS },
      );
    }
    const incarnationId = yield* nameReceiver(params, env);
    if (incarnationId instanceof PawlError) return incarnationId;
    const { incarnation } = params;
    const named =
      incarnation === undefined || incarnationId === null ? undefined : { incarnation, incarnationId };
    env.effects.afterCommit(() => this.#enter(connection, named, params));
    return { deployment };
  }

  count(deployment: string): number {
    return this.#deployments.get(deployment)?.peers.size ?? 0;
  }

  *deployments(): Iterable<string> {
    for (const { deployment, peers } of this.#deployments.values()) if (peers.size > 0) yield deployment;
  }

  /** Nothing more comes from this connection: what it has is given back, unless it is answered already. */
  leave(connection: number): void {
    const deployments = this.#byConnection.get(connection);
    if (deployments === undefined) return;
    this.#byConnection.delete(connection);
    for (const served of deployments) {
      served.peers.delete(connection);
      if (served.peers.size === 0 && served.taking === undefined) this.#deployments.delete(served.deployment);
    }
    this.#inOrder(connection, (performed) => {
      performed();
      this.#perform((env) => this.#clear(connection, [...deployments], env));
    });
  }

  /** Gives back what a connection has that has left, and ends the waits for commands for nobody, in steps. */
  *#clear(connection: number, left: readonly ServedDeployment[], env: Env): Operation<Outcome<void>> {
    const known = this.#turns.numberOf?.(connection) ?? connection;
    if ((yield* endPushes(known, COMMANDS_PER_STEP, env)) === COMMANDS_PER_STEP)
      return new Unfinished((later) => this.#clear(connection, left, later));
    for (const served of left.slice(0, DEPLOYMENTS_PER_STEP)) this.#stopTaking(served, env);
    const others = left.slice(DEPLOYMENTS_PER_STEP);
    return others.length === 0
      ? undefined
      : new Unfinished((later) => this.#clear(connection, others, later));
  }

  /** Takes nothing for a deployment that nobody serves. May be done again, by a turn that is performed again. */
  #stopTaking(served: ServedDeployment, env: Env): void {
    const { deployment, peers, taking } = served;
    if (peers.size > 0 || taking === undefined) return;
    // One that does not wait finds out by itself.
    if (this.#turns.withdraw === undefined) env.effects.wake(readyKey(deployment));
    else if (this.#turns.withdraw(taking)) this.#doneTaking(served);
  }

  /**
   * A command has ended while a connection had it, and its peer was told so. The connection has room for
   * another one from then on: nobody waits for the answer, and a receiver that drops what is cancelled, or hangs in it,
   * must not keep others from being delivered. The answer, if it comes, is taken as a late one.
   */
  ended(connection: number, commandId: string): void {
    for (const served of this.#byConnection.get(connection) ?? []) {
      if (served.peers.get(connection)?.commands.delete(commandId)) this.#take(served);
    }
  }

  /** The peer has read what was in the way of sending it more. */
  roomAgain(connection: number): void {
    for (const served of this.#byConnection.get(connection) ?? []) this.#take(served);
  }

  /** The others took this daemon for dead, and with it receivers that have named themselves: they do so again. */
  nameAgain(): void {
    for (const served of this.#deployments.values()) {
      for (const serving of served.peers.values()) {
        if (serving.named !== undefined) this.#nameAgain(served, serving, serving.named.incarnation);
      }
    }
  }

  #nameAgain({ deployment, peers }: ServedDeployment, { peer }: ServingPeer, incarnation: string): void {
    const { connection } = peer.caller;
    performUntilDone(this.#turnsOf(deployment), {
      start: (env) => nameReceiver({ deployment, incarnation }, { ...env, caller: this.#known(peer) }),
      failed: (error) => {
        if (error instanceof PawlError && !error.retryable) {
          // It is given nothing any more.
          const { kind } = error;
          this.#lines.log("warn", "a receiver has ended while its daemon was cut off", { kind }, () => ({
            deployment,
          }));
          peers.delete(connection);
          return false;
        }
        return this.#mayTryAgain(error) && peers.get(connection)?.peer === peer;
      },
    });
  }

  #known({ caller }: Peer): Env["caller"] {
    return { ...caller, connection: this.#turns.numberOf?.(caller.connection) ?? caller.connection };
  }

  #connectionOf(known: number): number {
    return this.#turns.connectionOf?.(known) ?? known;
  }

  #turnsOf(deployment: string | undefined): { submit(call: Call): void } {
    return { submit: (call) => this.#turns.submit(call, deployment) };
  }

  #serves(connection: number, deployment: string): boolean {
    return this.#deployments.get(deployment)?.peers.has(connection) ?? false;
  }

  #enter(
    number: number,
    named: Receiver["named"],
    { deployment, targets, owner, max, executionMs }: Parsed<"command.serve">,
  ): void {
    const peer = this.#peer(number);
    if (peer === undefined || !peer.mayAnswer) return;
    let served = this.#deployments.get(deployment);
    if (served === undefined) {
      served = { deployment, peers: new Map(), taking: undefined };
      this.#deployments.set(deployment, served);
    }
    const serving = served.peers.get(number);
    if (serving === undefined)
      served.peers.set(number, {
        peer,
        targets,
        named,
        owner,
        max,
        executionMs,
        commands: new Set(),
        unanswered: 0,
      });
    else Object.assign(serving, { targets, named, owner, max, executionMs });
    const deployments = this.#byConnection.get(number);
    if (deployments === undefined) this.#byConnection.set(number, new Set([served]));
    else deployments.add(served);
    this.#take(served);
  }

  /** Has commands taken for those who have room, or waits for some. */
  #take(served: ServedDeployment): void {
    if (!hasRoom(served)) return;
    if (served.taking !== undefined) {
      // What waits may be of a target, or for a receiver, that only this one is.
      const wake = function* (env: Env): Operation<void> {
        env.effects.wake(readyKey(served.deployment));
      };
      if (
        [...served.peers.values()].some(({ targets, named }) => targets !== undefined || named !== undefined)
      )
        this.#perform(wake, served.deployment);
      return;
    }
    served.taking = performUntilDone(this.#turnsOf(served.deployment), {
      waits: true,
      start: (env) => this.#push(served, env),
      done: () => {
        this.#doneTaking(served);
        this.#take(served);
      },
      failed: (error) => {
        const again = this.#mayTryAgain(error);
        if (!again) this.#doneTaking(served);
        return again;
      },
    });
  }

  #doneTaking(served: ServedDeployment): void {
    served.taking = undefined;
    const { deployment, peers } = served;
    if (peers.size === 0 && this.#deployments.get(deployment) === served)
      this.#deployments.delete(deployment);
  }

  *#push(served: ServedDeployment, env: Env): Operation<Outcome<readonly Push[]>> {
    const pushes = yield* push(served.deployment, this.#freeOf(served), env);
    if (!Array.isArray(pushes)) return pushes;
    // In the order of the turn: one that is cancelled later in it is sent before its receiver is told that.
    env.effects.afterCommit(() => {
      for (const each of pushes as readonly Push[]) this.#send(served, each);
    });
    return pushes;
  }

  #send(served: ServedDeployment, { connection: known, envelope }: Push): void {
    const number = this.#connectionOf(known);
    const serving = served.peers.get(number);
    // The connection closed while the turn went on; then the command is given back.
    if (serving === undefined) return;
    const { commandId } = envelope;
    serving.commands.add(commandId);
    this.#turns.sent?.(number, commandId);
    serving.unanswered += 1;
    // The last in the line from now on.
    served.peers.delete(number);
    served.peers.set(number, serving);
    this.#ownRequests.ask(serving.peer, "command.execute", envelope, (answer) => {
      serving.commands.delete(commandId);
      this.#turns.answered?.(commandId);
      serving.unanswered -= 1;
      this.#answered(serving.peer, envelope, answer);
      this.#take(served);
    });
  }

  #answered(peer: Peer, envelope: Envelope, given: PeerAnswer | undefined): void {
    const { caller } = peer;
    const { commandId, attempt } = envelope;
    const answer = given === undefined ? ANSWER_TOO_LARGE : this.#answerOf(peer, given);
    this.#inOrder(caller.connection, (performed) =>
      performUntilDone(this.#turnsOf(envelope.deployment), {
        start: (env) => takeAnswer({ commandId, attempt }, answer, { ...env, caller }),
        done: performed,
        failed: (error) => {
          performed();
          // Once the connection has closed, the command is given back.
          return this.#mayTryAgain(error) && !peer.closed;
        },
      }),
    );
  }

  /** @param begin is told how to say that what comes after it may begin, once. */
  #inOrder(connection: number, begin: (performed: () => void) => void): void {
    if (this.#turns.inOrder === undefined) return begin(() => {});
    this.#turns.inOrder(connection, (performed) => {
      let isPerformed = false;
      begin(() => {
        if (!isPerformed) performed();
        isPerformed = true;
      });
    });
  }

  #answerOf(peer: Peer, { text, response }: PeerAnswer): Answer {
    const { answer, wrong } = answerOf(text, response);
    if (wrong !== undefined) this.#refuse(peer, refuse("invalid_request", wrong, { answered: response.id }));
    return answer;
  }

  /** Performs an operation of which nobody hears, again while storage refuses. */
  #perform(start: (env: Env) => Operation<unknown>, deployment?: string): void {
    performUntilDone(this.#turnsOf(deployment), { start, failed: (error) => this.#mayTryAgain(error) });
  }

  /** True if a failure may pass; it is logged. */
  #mayTryAgain(error: Error): boolean {
    if (!(error instanceof PawlError)) {
      this.#lines.log("error", "a push failed", { text: error.message }, () => ({ err: error }));
      return true;
    }
    if (!error.retryable)
      this.#lines.log("info", "answer to a push not taken", { kind: error.kind }, () => error.details);
    return error.retryable;
  }

  #freeOf(served: ServedDeployment): Receiver[] {
    return [...served.peers.values()].map((serving) => ({
      connection: this.#known(serving.peer).connection,
      pid: serving.peer.caller.pid,
      owner: serving.owner,
      unanswered: serving.unanswered,
      room: roomOf(serving),
      executionMs: serving.executionMs,
      targets: serving.targets,
      named: serving.named,
    }));
  }
}

function hasRoom(served: ServedDeployment): boolean {
  for (const serving of served.peers.values()) if (roomOf(serving) > 0) return true;
  return false;
}

function roomOf({ peer, max, commands, unanswered }: ServingPeer): number {
  if (!peer.mayBeAsked || unanswered - commands.size >= MAX_LEFT_UNANSWERED) return 0;
  return Math.max(0, max - commands.size);
}
