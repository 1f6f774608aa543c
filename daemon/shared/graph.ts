// Who holds what daemons share, for `daemon.graph`: of all daemons; and who waits for it at this one.
import { type Found, find, type GraphSource, type Recognized, type Who } from "../domain/graph.js";
import { all, type Operation, type Statement } from "../store/statement.js";
import type { Env } from "../turns/operation.js";
import { daemonOf, ownConnection } from "./connection-number.js";

/** The daemon that looks, and how it knows its own connections and the processes of its machine. */
export interface Looking {
  readonly known: GraphSource["known"];
  /** Its number. */
  readonly own: number;
  /** The ticks at which a process of this machine began; undefined for one of another. */
  readonly ticksHere: (known: number) => number | undefined;
}

/** The actor of a process, its ticks as all daemons know them, and of a connection; behind them that of a task. */
const PROCESS = /^(\d+)\.(\d+)(.*)$/s;
const CONNECTION = /^#(\d+)(.*)$/s;

/** Adds what is held at one place, and who waits for it here. */
export function* findShared(found: Found, env: Env, looking: Looking): Operation<void> {
  const rows = yield* all(selectDaemons, {});
  const hosts = new Map(rows.map(({ number, node }) => [number, node]));
  const recognize = (who: Who): Recognized => recognized(who, looking, hosts);
  yield* find(found, env, { elsewhere: [], known: looking.known, recognize });
}

function recognized(
  { actor, connection }: Who,
  looking: Looking,
  hosts: ReadonlyMap<number, string>,
): Recognized {
  const daemon = connection === undefined ? looking.own : connection ? daemonOf(connection) : null;
  const [, , ticks] = PROCESS.exec(actor ?? "") ?? [];
  const isHere =
    daemon === looking.own || (ticks !== undefined && looking.ticksHere(Number(ticks)) !== undefined);
  const name = isHere ? nameHere(actor, looking) : actor;
  // Of a process of this machine it is known who that is, whoever served it.
  if (daemon === looking.own || (isHere && daemon === null)) return { actor: name, isElsewhere: false };
  const host = daemon === null ? undefined : hosts.get(daemon);
  const at = host === undefined ? { daemon: null } : { daemon, host };
  return { actor: name, at, isElsewhere: !isHere };
}

/** As an actor is named among those of this node's own database, where the same process may hold and wait, too. */
function nameHere(actor: string | undefined, looking: Looking): string | undefined {
  const [, pid, ticks, task] = PROCESS.exec(actor ?? "") ?? [];
  if (ticks !== undefined) return `${pid}.${looking.ticksHere(Number(ticks)) ?? ticks}${task}`;
  const [, connection, ofTask] = CONNECTION.exec(actor ?? "") ?? [];
  return connection === undefined ? actor : `#${ownConnection(Number(connection), looking.own)}${ofTask}`;
}

const selectDaemons: Statement<{ number: number; node: string }> = {
  sql: "SELECT number, node FROM pawl_shared_daemon",
};
