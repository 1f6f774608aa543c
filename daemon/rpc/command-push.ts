import type { Envelope, Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_SERVED_DEPLOYMENTS } from "@pawl/protocol/limits";
import type { Logger } from "pino";
import { answerOf, takeAnswer } from "../domain/command/answer.js";
import { endPushes, type Push, push, type Receiver } from "../domain/command/push.js";
import { readyKey } from "../domain/command/row.js";
import type { Serving } from "../domain/deployment/deployment.js";
import type { Connection } from "../socket/connection.js";
import type { Operation } from "../store/statement.js";
import { performUntilDone } from "../turns/call.js";
import type { Env, Outcome } from "../turns/operation.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import type { Answered } from "./rpc.js";

/** A connection that has left so many requests unanswered whose commands have ended is not sent any more for now. */
const MAX_LEFT_UNANSWERED = 1000;

/** Sends a request, and tells what it is answered by. */
type Ask = (
  connection: Connection,
  method: string,
  params: object,
  onAnswer: (answered: Answered) => void,
) => void;

/** A connection that serves a deployment. */
interface Served {
  readonly connection: Connection;
  owner: string;
  /** How many commands it may have at a time. */
  max: number;
  /** Those it has: sent to it, not yet answered, and not ended. They alone count against `max`. */
  readonly commands: Set<string>;
  /** How many requests it has not answered, also for commands that have ended meanwhile. */
  unanswered: number;
}

/** Those who serve a deployment. */
interface Post {
  readonly deployment: string;
  /** By connection, the longest unserved first. */
  readonly served: Map<number, Served>;
  /** Whether there is a call that takes commands for them, or waits for some. */
  taking: boolean;
}

/**
 * The connections that deployments are served by, and what travels on them: commands as requests of the daemon,
 * answers as the responses. Each deployment has one call that waits for commands in the same line as those
 * that pull; when there are some it hands them out in its turn, and they are sent after the commit.
 */
export class Receivers implements Serving {
  readonly #loop: TurnLoop;
  readonly #log: Logger;
  readonly #connection: (connection: number) => Connection | undefined;
  readonly #ask: Ask;
  readonly #refuse: (connection: Connection, refusal: PawlError) => void;
  readonly #posts = new Map<string, Post>();
  /** The deployments that each connection serves. */
  readonly #byConnection = new Map<number, Set<Post>>();

  constructor(options: {
    loop: TurnLoop;
    log: Logger;
    /** An open connection by its number. */
    connection: (connection: number) => Connection | undefined;
    ask: Ask;
    /** Tells a peer about something from it that was no message. */
    refuse: (connection: Connection, refusal: PawlError) => void;
  }) {
    this.#loop = options.loop;
    this.#log = options.log;
    this.#connection = options.connection;
    this.#ask = options.ask;
    this.#refuse = options.refuse;
  }

  /** The operation of `command.serve`: commands are sent from then on, the first after the reply. */
  *serve(params: Parsed<"command.serve">, env: Env): Operation<Result<"command.serve"> | PawlError> {
    const { deployment } = params;
    const { connection } = env.caller;
    const posts = this.#byConnection.get(connection);
    if (
      posts !== undefined &&
      posts.size >= MAX_SERVED_DEPLOYMENTS &&
      !this.#serves(connection, deployment)
    ) {
      return refuse(
        "exhausted",
        `This connection serves ${MAX_SERVED_DEPLOYMENTS} deployments already. Open another one for more.`,
        { limit: MAX_SERVED_DEPLOYMENTS },
      );
    }
    env.effects.afterCommit(() => this.#enter(connection, params));
    return { deployment };
  }

  count(deployment: string): number {
    return this.#posts.get(deployment)?.served.size ?? 0;
  }

  *deployments(): Iterable<string> {
    for (const { deployment, served } of this.#posts.values()) if (served.size > 0) yield deployment;
  }

  /** Nothing more comes from this connection: what it has is given back, unless it is answered already. */
  leave(connection: number): void {
    const posts = this.#byConnection.get(connection);
    if (posts === undefined) return;
    this.#byConnection.delete(connection);
    for (const post of posts) {
      post.served.delete(connection);
      if (post.served.size === 0 && !post.taking) this.#posts.delete(post.deployment);
    }
    this.#perform(function* (env) {
      yield* endPushes(connection, env);
      // What waits there for nobody finds out that it need not.
      for (const { deployment, served } of posts)
        if (served.size === 0) env.effects.wake(readyKey(deployment));
    });
  }

  /**
   * A command has ended while a connection had it, and its peer was told so. It has room for another one from
   * then on: nobody waits for the answer, and a receiver that drops what is cancelled, or hangs in it, must not
   * keep others from being delivered. The answer, if it comes, is taken as a late one.
   */
  ended(connection: number, commandId: string): void {
    for (const post of this.#byConnection.get(connection) ?? []) {
      if (post.served.get(connection)?.commands.delete(commandId)) this.#take(post);
    }
  }

  /** The peer has read what was in the way of sending it more. */
  roomAgain(connection: number): void {
    for (const post of this.#byConnection.get(connection) ?? []) this.#take(post);
  }

  #serves(connection: number, deployment: string): boolean {
    return this.#posts.get(deployment)?.served.has(connection) ?? false;
  }

  #enter(number: number, { deployment, owner, max }: Parsed<"command.serve">): void {
    const connection = this.#connection(number);
    if (connection === undefined || !connection.mayAnswer) return;
    let post = this.#posts.get(deployment);
    if (post === undefined) {
      post = { deployment, served: new Map(), taking: false };
      this.#posts.set(deployment, post);
    }
    const served = post.served.get(number);
    if (served === undefined)
      post.served.set(number, { connection, owner, max, commands: new Set(), unanswered: 0 });
    else Object.assign(served, { owner, max });
    const posts = this.#byConnection.get(number);
    if (posts === undefined) this.#byConnection.set(number, new Set([post]));
    else posts.add(post);
    this.#take(post);
  }

  /** Has commands taken for those who have room, or waits for some. */
  #take(post: Post): void {
    if (post.taking || !hasRoom(post)) return;
    post.taking = true;
    performUntilDone(this.#loop, {
      waits: true,
      start: (env) => this.#push(post, env),
      done: () => {
        this.#doneTaking(post);
        this.#take(post);
      },
      failed: (error) => {
        const again = this.#mayTryAgain(error);
        if (!again) this.#doneTaking(post);
        return again;
      },
    });
  }

  #doneTaking(post: Post): void {
    post.taking = false;
    if (post.served.size === 0) this.#posts.delete(post.deployment);
  }

  *#push(post: Post, env: Env): Operation<Outcome<readonly Push[]>> {
    const pushes = yield* push(post.deployment, freeOf(post), env);
    if (!Array.isArray(pushes)) return pushes;
    // In the order of the turn: one that is cancelled later in it is sent before its receiver is told that.
    env.effects.afterCommit(() => {
      for (const each of pushes as readonly Push[]) this.#send(post, each);
    });
    return pushes;
  }

  #send(post: Post, { connection: number, envelope }: Push): void {
    const served = post.served.get(number);
    // It closed while the turn went on; then what it was given is given back.
    if (served === undefined) return;
    served.commands.add(envelope.commandId);
    served.unanswered += 1;
    // The last in the line from now on.
    post.served.delete(number);
    post.served.set(number, served);
    this.#ask(served.connection, "command.execute", envelope, (answered) => {
      served.commands.delete(envelope.commandId);
      served.unanswered -= 1;
      this.#answered(served.connection, envelope, answered);
      this.#take(post);
    });
  }

  #answered(connection: Connection, envelope: Envelope, { text, response }: Answered): void {
    const { caller } = connection;
    const { commandId, attempt } = envelope;
    const { answer, wrong } = answerOf(text, response);
    if (wrong !== undefined)
      this.#refuse(connection, refuse("invalid_request", wrong, { answered: response.id }));
    this.#perform(
      (env) => takeAnswer({ commandId, attempt }, answer, { ...env, caller }),
      // Once the connection has closed, the command is given back.
      () => !connection.closed,
    );
  }

  /** Performs an operation of which nobody hears, again while storage refuses and it is still `wanted`. */
  #perform(start: (env: Env) => Operation<unknown>, wanted: () => boolean = () => true): void {
    performUntilDone(this.#loop, {
      start,
      failed: (error) => this.#mayTryAgain(error) && wanted(),
    });
  }

  /** Whether a failure may pass; it is logged. */
  #mayTryAgain(error: Error): boolean {
    if (!(error instanceof PawlError)) {
      this.#log.error({ err: error }, "a push failed");
      return true;
    }
    if (!error.retryable)
      this.#log.info({ kind: error.kind, ...error.details }, "answer to a push not taken");
    return error.retryable;
  }
}

function hasRoom(post: Post): boolean {
  for (const served of post.served.values()) if (roomOf(served) > 0) return true;
  return false;
}

function roomOf({ connection, max, commands, unanswered }: Served): number {
  if (!connection.mayBeAsked || unanswered - commands.size >= MAX_LEFT_UNANSWERED) return 0;
  return Math.max(0, max - commands.size);
}

function freeOf(post: Post): Receiver[] {
  return [...post.served.values()].map((served) => ({
    connection: served.connection.caller.connection,
    pid: served.connection.caller.pid,
    owner: served.owner,
    unanswered: served.unanswered,
    room: roomOf(served),
  }));
}
