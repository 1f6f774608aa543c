// One request for paths: nobody else has them in the way, nobody who came before wants them, and the grant.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import {
  DEFAULT_LEASE_MS,
  MAX_INTEGER,
  MAX_PATH_HOLDERS,
  MAX_RESERVATION_PATTERNS,
  MAX_ROOT_RESERVATIONS,
} from "@pawl/protocol/limits";
import { holderOf, onLossOf, remainingOf } from "../../grants/on-loss.js";
import { type Operation, one, sql } from "../../store/statement.js";
import type { HolderProcess } from "../../turns/holder-process.js";
import type { Contender } from "../../turns/operation.js";
import { type Env, type InLine, type Outcome, Wait } from "../../turns/operation.js";
import { notWaitingFor, waiterOf } from "../deadlock/untangle.js";
import { findHolders, type Holder, tooMuch, workOf } from "./holders.js";
import { PathWait, type Waiting, wantTheSame } from "./path-wait.js";
import {
  keptPattern,
  literally,
  type Pattern,
  readPattern,
  readRoot,
  Unusable,
  type Work,
} from "./pattern.js";
import {
  addPatterns,
  endKey,
  type HeldRow,
  keep,
  lineOf,
  patternsOf,
  renew,
  selectHeldById,
  selectRoot,
} from "./row.js";

/** Raises the counter of a root; no row when it is at its end, and then nothing has changed. */
const raiseToken = sql<{ root_id: number; highest: number }>(`
  INSERT INTO pawl_path_root (root, highest) VALUES (:root,
    1 + coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'path_fencing_floor'), 0))
  ON CONFLICT (root) DO UPDATE SET highest = CASE WHEN pawl_path_root.highest < excluded.highest
      THEN excluded.highest ELSE pawl_path_root.highest + 1 END
    WHERE pawl_path_root.highest < ${MAX_INTEGER}
  RETURNING root_id, highest`);

const countReservations = sql<{ held: number }>(
  "SELECT count(*) AS held FROM pawl_path_reservation WHERE root_id = :rootId",
);

type Params = Parsed<"path.reserve">;

/** Something that stands in the way: reservations that are held, or a request that came before and waits. */
type Obstacle = { readonly holders: readonly Holder[] } | { readonly waiting: Waiting; readonly key: string };

export function* reserve(params: Params, env: Env): Operation<Outcome<Result<"path.reserve">>> {
  const root = rootOf(params, "path.reserve");
  if (root instanceof PawlError) return root;
  const holder = params.onLoss === undefined ? undefined : holderOf(env);
  if (holder instanceof PawlError) return holder;
  const asked = askedPatterns(params);
  if (asked instanceof PawlError) return asked;
  const own =
    params.reservationId === undefined ? undefined : yield* one(selectHeldById, heldNow(params, env));
  if (params.reservationId !== undefined && own === undefined) return gone();
  const differs = own && (yield* differing(own, root, params));
  if (differs !== undefined) return differs;

  const had = own === undefined ? [] : yield* patternsOf(own.number);
  const patterns = asked.filter(({ text }) => had.every(({ pattern }) => pattern !== text));
  const request = { root, mode: own?.mode ?? params.mode ?? "write", owner: params.owner, patterns };
  const work = workOf(env);
  const known = yield* one(selectRoot, { root });
  const obstacle = yield* findObstacle(request, known?.root_id, own, had, work, env);
  if (obstacle instanceof PawlError) return obstacle;
  if (obstacle !== undefined) {
    if (env.mayWait) return waitBehind(obstacle, request, own, params, env);
    return yield* held(obstacle, request, known?.root_id, work, env);
  }

  const full = yield* findFull(root, known, own, had.length + patterns.length);
  if (full !== undefined) return full;
  return own === undefined
    ? yield* grant(params, request, holder, env)
    : yield* add(params, own, had, patterns, env);
}

function* grant(
  params: Params,
  { root, mode, patterns }: Request,
  holder: HolderProcess | undefined,
  env: Env,
): Operation<Result<"path.reserve">> {
  const { root_id: rootId, highest: fencingToken } = yield* raise(root, env);
  const { owner, note = null, ttlMs = DEFAULT_LEASE_MS, releaseOn = "expiry", graceMs, onLoss } = params;
  const { task = null, awaitsChildren } = params;
  const ending = onLoss && holder && { onLoss, holder };
  const terms = { owner, note, mode, ttlMs, releaseOn, graceMs: graceMs || null, ending, task };
  const kept = yield* keep(
    {
      ...terms,
      awaitsChildren: awaitsChildren === undefined ? null : awaitsChildren ? 1 : 0,
      rootId,
      fencingToken,
    },
    patterns,
    env,
  );
  const { reservationId, ...end } = kept;
  env.effects.tell("path", root, "reserved", root, { by: owner, fencingToken });
  const texts = patterns.map(({ text }) => text);
  return { reservation: { reservationId, root, patterns: texts, mode, fencingToken, ...end } };
}

/** More paths have a token of their own: others may have held them since the reservation was made. */
function* add(
  params: Params,
  own: HeldRow,
  had: readonly { position: number; pattern: string }[],
  patterns: readonly Pattern[],
  env: Env,
): Operation<Result<"path.reserve">> {
  const { reservation_id: reservationId, root, mode } = own;
  const fencingToken = patterns.length === 0 ? own.fencing_token : (yield* raise(root, env)).highest;
  yield* addPatterns(own, patterns, (had.at(-1)?.position ?? -1) + 1);
  const { ttlMs = own.acquired_ttl_ms, note = null } = params;
  const end = yield* renew(own, { ttlMs, fencingToken, note }, env);
  if (patterns.length > 0) env.effects.tell("path", root, "reserved", root, { by: own.owner, fencingToken });
  const texts = [...had.map(({ pattern }) => pattern), ...patterns.map(({ text }) => text)];
  return { reservation: { reservationId, root, patterns: texts, mode, fencingToken, ...end } };
}

function* raise(root: string, env: Env): Operation<{ root_id: number; highest: number }> {
  const raised = (yield* one(raiseToken, { root })) as { root_id: number; highest: number };
  env.effects.reached("pathToken", raised.highest);
  return raised;
}

interface Request extends Waiting {
  readonly root: string;
}

/** The patterns that a request names, each once. */
function askedPatterns({ patterns = [], files = [] }: Params): Pattern[] | PawlError {
  const asked = new Map<string, Pattern>();
  for (const [list, read, given] of [
    ["patterns", readPattern, patterns],
    ["files", literally, files],
  ] as const) {
    for (const [index, text] of given.entries()) {
      const pattern = read(text);
      if (pattern instanceof Unusable) return unusable("path.reserve", `/${list}/${index}`, text, pattern);
      asked.set(pattern.text, pattern);
    }
  }
  return [...asked.values()];
}

/** The first that stands in the way. Whoever waits is behind the last one that came before and wants the same. */
function* findObstacle(
  request: Request,
  rootId: number | undefined,
  own: HeldRow | undefined,
  had: readonly { pattern: string }[],
  work: Work,
  env: Env,
): Operation<Obstacle | PawlError | undefined> {
  const before = env.before(lineOf(request.root));
  if (before.length > 0) {
    const mine = had.map(({ pattern }) => keptPattern(pattern));
    const ahead =
      own === undefined ? before : notBehind({ ...request, mode: own.mode, patterns: mine }, before, work);
    const last = yield* lastThatWantsTheSame(request, ahead, work, env);
    if (last !== undefined) return last;
  }
  if (rootId === undefined) return undefined;
  const { mode, patterns } = request;
  const isOwn = ({ number }: { number: number }): boolean => number === own?.number;
  const most = env.mayWait ? 1 : MAX_PATH_HOLDERS;
  const holders = yield* findHolders({ rootId, mode, patterns, isOwn }, most, work, env);
  if (holders instanceof PawlError) return holders;
  return holders.length === 0 ? undefined : { holders };
}

/** The last of those who came before, want the same, and are not to be overtaken. */
function* lastThatWantsTheSame(
  request: Request,
  ahead: readonly InLine[],
  work: Work,
  env: Env,
): Operation<Obstacle | PawlError | undefined> {
  let first = env.mayOvertake && env.contender !== undefined ? ahead : undefined;
  if (first !== undefined) {
    first = first.filter(({ wants }) => wantTheSame(request, wants as Waiting, work));
    if (work.left < 0) return tooMuch(env);
    const { actor } = (env.contender as Contender).contest;
    const known = first.map(({ contender }) => contender).filter((each) => each !== undefined);
    const kept = yield* notWaitingFor(actor, known, env);
    first = first.filter(({ contender }) => contender === undefined || kept.includes(contender));
  }
  const line = first ?? ahead;
  for (let index = line.length - 1; index >= 0; index -= 1) {
    const { wants, key } = line[index] as InLine;
    if (first !== undefined || wantTheSame(request, wants as Waiting, work))
      return work.left < 0 ? tooMuch(env) : { waiting: wants as Waiting, key };
  }
  return undefined;
}

/**
 * The calls of a line that wait neither for a reservation nor behind one that does: to wait for those would close a
 * circle that only the order of arrival makes.
 */
function notBehind(mine: Waiting, line: readonly InLine[], work: Work): InLine[] {
  const behind: Waiting[] = [mine];
  return line.filter(({ wants }) => {
    const waiting = wants as Waiting;
    const isBehind = behind.some((each) => wantTheSame(each, waiting, work));
    if (isBehind) behind.push(waiting);
    return !isBehind;
  });
}

function waitBehind(
  obstacle: Obstacle,
  request: Request,
  own: HeldRow | undefined,
  params: Params,
  env: Env,
): Wait {
  const { root, owner, mode, patterns } = request;
  const task = params.task ?? own?.task ?? null;
  const awaitsChildren = own === undefined ? params.awaitsChildren : own.awaits_children === 1;
  const actor = waiterOf(env.caller, task);
  const asked = { ...request, task, own: own?.number, awaitsChildren };
  const contest =
    env.contender?.contest ?? (actor === undefined ? undefined : new PathWait(actor, env.caller, asked));
  const key = "key" in obstacle ? obstacle.key : endKey((obstacle.holders[0] as Holder).row);
  // If one's own reservation ends meanwhile, nothing can be added to it.
  const keys = own === undefined ? [key] : [key, endKey(own)];
  return new Wait(keys, "", {
    line: { name: lineOf(root), wants: { owner, mode, patterns } satisfies Waiting },
    contest,
  });
}

/** The refusal that names all holders; behind one that waits, the holders that it waits for. */
function* held(
  obstacle: Obstacle,
  request: Request,
  rootId: number | undefined,
  work: Work,
  env: Env,
): Operation<PawlError> {
  if ("holders" in obstacle) return refusal(request, obstacle.holders, undefined, env);
  const { waiting } = obstacle;
  const { mode, patterns } = waiting;
  const wanted = { mode, patterns, isOwn: () => false };
  const found =
    rootId === undefined ? [] : yield* findHolders({ ...wanted, rootId }, MAX_PATH_HOLDERS, work, env);
  return refusal(request, found instanceof PawlError ? [] : found, waiting, env);
}

function refusal(
  { patterns, root }: Request,
  found: readonly Holder[],
  waiting: Waiting | undefined,
  env: Env,
): PawlError {
  const holders = found.map(({ row, pattern }) => {
    const remainingMs = Math.max(remainingOf(row, env), 0);
    const { mode, note, pid } = row;
    return { owner: row.owner, expiresAt: env.wallMs + remainingMs, remainingMs, pattern, mode, note, pid };
  });
  const { owner, expiresAt, remainingMs } = holders[0] ?? {
    owner: waiting?.owner ?? "",
    expiresAt: env.wallMs,
    remainingMs: 0,
  };
  const wanted = patterns.length === 1 ? shown(patterns[0]?.text) : `one of ${patterns.length} patterns`;
  const [first] = found;
  const why =
    waiting !== undefined
      ? `wanted by ${shown(waiting.owner)}, who came before and waits`
      : `held by ${shown(owner)} as ${shown(first?.pattern)} for ${remainingMs} ms more unless renewed`;
  const others = holders.length > 1 ? ` and ${holders.length - 1} more` : "";
  return refuse(
    "lease_held",
    `In ${shown(root)}, ${wanted} is ${why}${others}. Ask again, or wait for it with waitMs.`,
    { holder: { owner, expiresAt, remainingMs }, holders },
  );
}

/** The refusal of more than there may be. */
function* findFull(
  root: string,
  known: { root_id: number; highest: number } | undefined,
  own: HeldRow | undefined,
  patterns: number,
): Operation<PawlError | undefined> {
  if (patterns > MAX_RESERVATION_PATTERNS)
    return refuse(
      "exhausted",
      `The reservation would have ${patterns} patterns, and one has at most ${MAX_RESERVATION_PATTERNS}. Give some back, or make another one.`,
      { limit: MAX_RESERVATION_PATTERNS },
    );
  if (known === undefined) return undefined;
  if (known.highest >= MAX_INTEGER)
    return refuse(
      "exhausted",
      `The fencing tokens of ${shown(root)} have come to their end at ${MAX_INTEGER}.`,
      {
        name: root,
        highest: MAX_INTEGER,
      },
    );
  if (own !== undefined) return undefined;
  const { held: reservations = 0 } = (yield* one(countReservations, { rootId: known.root_id })) ?? {};
  if (reservations < MAX_ROOT_RESERVATIONS) return undefined;
  return refuse(
    "exhausted",
    `There are ${reservations} reservations of ${shown(root)}, and a root has at most ${MAX_ROOT_RESERVATIONS}. Ask again when some have ended.`,
    { limit: MAX_ROOT_RESERVATIONS, retryable: true },
  );
}

/** The refusal of terms that are not those of the reservation that is added to. */
function* differing(own: HeldRow, root: string, params: Params): Operation<PawlError | undefined> {
  const onLoss = params.onLoss && (yield* onLossOf(own.reservation_id));
  const terms: readonly [string, unknown, unknown][] = [
    ["root", own.root, root],
    ["owner", own.owner, params.owner],
    ["mode", own.mode, params.mode],
    ["releaseOn", own.release_on, params.releaseOn],
    ["graceMs", own.grace_ms ?? 0, params.graceMs],
    ["onLoss/signal", onLoss?.signal, params.onLoss?.signal],
    ["onLoss/graceMs", onLoss?.graceMs, params.onLoss?.graceMs],
  ];
  const different = terms.find(([, kept, given]) => given !== undefined && given !== kept);
  if (different === undefined) return undefined;
  const [name, kept, given] = different;
  const message = `is ${shown(given)}, and the reservation has ${shown(kept)}`;
  return refuse(
    "invalid_params",
    `path.reserve: ${name} ${message}. Add with what it has, or make another one.`,
    {
      issues: [{ path: `/${name}`, message }],
    },
  );
}

export function heldNow({ reservationId }: { reservationId?: string | undefined }, env: Env) {
  return { reservationId: reservationId ?? "", now: env.now };
}

/** The root that a call names, in its one form. */
export function rootOf({ root }: { root: string }, method: string): string | PawlError {
  const read = readRoot(root);
  return read instanceof Unusable ? unusable(method, "/root", root, read) : read;
}

export function unusable(method: string, path: string, given: string, { why }: Unusable): PawlError {
  const [, param, index] = path.split("/");
  const place = index === undefined ? param : `${param}[${index}]`;
  return refuse("invalid_params", `${method}: ${place}, ${shown(given)}, ${why}.`, {
    issues: [{ path, message: why }],
  });
}

export function gone(): PawlError {
  return refuse(
    "lease_lost",
    "The reservation is not held any more: it expired or was released. Stop what it guards; reserve the paths again for a new one with a higher fencing token.",
  );
}
