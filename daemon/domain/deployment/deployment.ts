// Deployments: those whom commands are sent to.
import type { Parsed, Result } from "@pawl/protocol";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";

export const selectDeployment = sql<{ model: "pull" | "push"; projectId: string | null }>(`
  SELECT model, project_id AS "projectId" FROM pawl_deployment WHERE deployment = :deployment`);

const declareDeployment = sql(`
  INSERT INTO pawl_deployment (deployment, model, project_id, declared) VALUES (:deployment, :model, :projectId, 1)
  ON CONFLICT (deployment) DO UPDATE
    SET model = excluded.model, project_id = excluded.project_id, declared = 1`);

export const useDeployment = sql(`
  INSERT INTO pawl_deployment (deployment, model, project_id, declared) VALUES (:deployment, 'pull', NULL, 0)`);

const selectDeployments = sql<{ deployment: string; model: "pull" | "push"; projectId: string | null }>(`
  SELECT deployment, model, project_id AS "projectId" FROM pawl_deployment
  WHERE deployment > :after ORDER BY deployment LIMIT :rows`);

/** Commands that one step counts: some 2 ms of work. */
const COUNTED_PER_STEP = 16_384;
/** Deployments that one step counts for. */
const DEPLOYMENTS_PER_STEP = 256;

const countPending = sql<{ pending: number; last: number | null }>(`
  SELECT count(*) AS pending, max(seq) AS last FROM
    (SELECT seq FROM pawl_command WHERE deployment = :deployment AND state = 'PENDING' AND seq > :after
     ORDER BY seq LIMIT :rows) AS next`);

/** The connections that serve by push, as far as operations have to know. */
export interface Serving {
  /** How many connections serve a deployment, whether or not they have room. */
  count(deployment: string): number;
  /** The deployments that are served. */
  deployments(): Iterable<string>;
}

/** The key under which callers that want a command of a deployment are parked. */
export function readyKey(deployment: string): string {
  return `command.ready:${deployment}`;
}

/** The same for a command that is for one receiver; without a receiver, for a command that is for any one. */
export function meantKey(deployment: string, incarnation?: string): string {
  return `command.meant:${deployment}${incarnation === undefined ? "" : `:${incarnation}`}`;
}

/** @param serving those that serve deployments of the database of a turn. */
export function deploymentHandlers(serving: (env: Env) => Serving): HandlersOf<"deployment"> {
  return { set, list: (params, env) => list(params, env, serving(env)) };
}

function* set(params: Parsed<"deployment.set">): Operation<Result<"deployment.set">> {
  const { deployment, model, projectId = null } = params;
  yield* run(declareDeployment, { deployment, model, projectId });
  return { deployment, model, projectId };
}

function* list(
  params: Parsed<"deployment.list">,
  env: Env,
  serving: Serving,
): Operation<Outcome<Result<"deployment.list">>> {
  const { projectId, after = "", limit } = params;
  const rows = yield* all(selectDeployments, { after, rows: limit + 1 });
  // A deployment that nobody has sent anything to yet may have receivers all the same.
  const known = new Set(rows.map(({ deployment }) => deployment));
  const last = rows.length > limit ? (rows.at(-1) as { deployment: string }).deployment : undefined;
  for (const deployment of serving.deployments()) {
    const onPage = deployment > after && (last === undefined || deployment < last);
    if (onPage && !known.has(deployment)) rows.push({ deployment, model: "pull", projectId: null });
  }
  rows.sort((a, b) => (a.deployment < b.deployment ? -1 : 1));

  const deployments: Result<"deployment.list">["deployments"] = [];
  for (const row of rows.slice(0, limit)) {
    if (projectId !== undefined && row.projectId !== projectId) continue;
    const { deployment } = row;
    const waiting = env.waiting(readyKey(deployment));
    const receivers = waiting === null ? null : serving.count(deployment) + waiting;
    deployments.push({ ...row, receivers, pending: 0 });
  }
  const page =
    rows.length > limit
      ? { deployments, next: (rows[limit - 1] as { deployment: string }).deployment }
      : { deployments };
  return yield* countFrom({ index: 0, after: 0 }, page, env);
}

/** One step of counting what is pending for the deployments of a page, and those that follow it. */
function* countFrom(
  from: { readonly index: number; readonly after: number },
  { deployments, ...page }: Result<"deployment.list">,
  env: Env,
): Operation<Outcome<Result<"deployment.list">>> {
  const counted = [...deployments];
  let left = COUNTED_PER_STEP;
  let { index, after } = from;
  while (index < counted.length) {
    if (left <= 0 || index - from.index === DEPLOYMENTS_PER_STEP) {
      // In a transaction there is one step, and what it has not counted counts for none.
      if (!env.mayGoOn) break;
      const to = { index, after };
      const heldBytes = pageBytes(0, 0, counted.length);
      return new Unfinished((later) => countFrom(to, { deployments: counted, ...page }, later), heldBytes);
    }
    const row = counted[index] as (typeof counted)[number];
    const found = yield* one(countPending, { deployment: row.deployment, after, rows: left });
    const pending = found?.pending ?? 0;
    counted[index] = { ...row, pending: row.pending + pending };
    const isWhole = pending < left;
    left -= pending;
    if (isWhole) index += 1;
    after = isWhole ? 0 : (found?.last ?? 0);
  }
  return { deployments: counted, ...page };
}
