// Commands that have been final for long enough are removed.
import type { CommandState } from "@pawl/protocol";
import { type Ending, retentionEnd } from "../../grants/ending.js";
import { all, one, run, sql, write } from "../../store/statement.js";

/** Commands that one step removes at most ... */
const PRUNED_COMMANDS = 100;

/** ... and params and answers ... */
const PRUNED_BYTES = 2 * 1024 * 1024;

/** ... and pieces of an upload, of up to 64 KiB each. */
const PRUNED_CHUNKS = 32;

const earliestEnded = sql<{ at: number | null }>(
  "SELECT min(ended_at) AS at FROM pawl_command WHERE ended_at IS NOT NULL",
);

const selectPrunable = sql<{
  seq: number;
  deployment: string;
  state: CommandState;
  bytes: number;
  uploaded: 0 | 1;
  hasMore: 1 | null;
}>(`
  SELECT seq, deployment, state, request_bytes + coalesce(response_bytes, 0) AS bytes, uploaded,
    has_more AS "hasMore"
  FROM pawl_command WHERE ended_at <= :before ORDER BY ended_at LIMIT :rows`);

const deleteChunks = sql(`
  DELETE FROM pawl_command_chunk WHERE seq = :seq AND at IN
    (SELECT at FROM pawl_command_chunk WHERE seq = :seq ORDER BY at LIMIT :rows)`);

const deleteUpload = sql("DELETE FROM pawl_command_upload WHERE seq = :seq");

const deleteParams = sql("DELETE FROM pawl_command_params WHERE seq = :seq");

const deleteResponse = sql("DELETE FROM pawl_command_response WHERE seq = :seq");

const deleteAnswerChunks = sql(`
  DELETE FROM pawl_command_answer_chunk WHERE seq = :seq AND (attempt, at) IN
    (SELECT attempt, at FROM pawl_command_answer_chunk WHERE seq = :seq ORDER BY attempt, at LIMIT :rows)`);

const deleteAnswers = sql("DELETE FROM pawl_command_answer WHERE seq = :seq");

const deleteMore = sql("DELETE FROM pawl_command_more WHERE seq = :seq");

const deleteCommand = sql("DELETE FROM pawl_command WHERE seq = :seq");

const deleteUnusedDeployment = sql(`
  DELETE FROM pawl_deployment WHERE deployment = :deployment AND declared = 0
    AND NOT EXISTS (SELECT 1 FROM pawl_command WHERE deployment = :deployment)`);

/** Commands that have been final for long enough. */
export const keptCommands: Ending = {
  *earliest(env) {
    return retentionEnd((yield* one(earliestEnded))?.at, env);
  },

  *expire(env, rows) {
    const before = env.retentionNow - env.retentionMs;
    const limit = Math.min(rows, PRUNED_COMMANDS);
    const found = yield* all(selectPrunable, { before, rows: limit });
    const deployments = new Set<string>();
    let bytes = 0;
    let complete = found.length < limit;
    for (const row of found) {
      const { seq } = row;
      if (row.uploaded === 1) {
        if ((yield* run(deleteChunks, { seq, rows: PRUNED_CHUNKS })) === PRUNED_CHUNKS) {
          complete = false;
          break;
        }
        yield* write(deleteUpload, { seq });
      }
      if ((yield* run(deleteAnswerChunks, { seq, rows: PRUNED_CHUNKS })) === PRUNED_CHUNKS) {
        complete = false;
        break;
      }
      yield* write(deleteAnswers, { seq });
      yield* write(deleteParams, { seq });
      yield* write(deleteResponse, { seq });
      if (row.hasMore === 1) yield* write(deleteMore, { seq });
      yield* write(deleteCommand, { seq });
      env.effects.count(`commands${row.state}`, -1);
      deployments.add(row.deployment);
      bytes += row.bytes;
      if (bytes > PRUNED_BYTES) {
        complete = false;
        break;
      }
    }
    for (const deployment of deployments) yield* run(deleteUnusedDeployment, { deployment });
    return complete ? found.length : rows;
  },
};
