// Deployments: those whom commands are sent to.
import type { Parsed, Result } from "@pawl/protocol";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import type { Env } from "../../turns/operation.js";

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

const countPending = sql<{ pending: number }>(`
  SELECT count(*) AS pending FROM pawl_command WHERE deployment = :deployment AND state = 'PENDING'`);

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

export function deploymentHandlers(serving: Serving): HandlersOf<"deployment"> {
  return { set, list: (params, env) => list(params, env, serving) };
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
): Operation<Result<"deployment.list">> {
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
    deployments.push({
      ...row,
      receivers,
      pending: (yield* one(countPending, { deployment }))?.pending ?? 0,
    });
  }
  return rows.length > limit
    ? { deployments, next: (rows[limit - 1] as { deployment: string }).deployment }
    : { deployments };
}
