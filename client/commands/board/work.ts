// Work from the board: pawl board ready, claim, finish and configure.
import type { Params, Result } from "@pawl/protocol/types";
import { type Context, UsageError } from "../../terminal/command.js";
import type { Output } from "../../terminal/output.js";
import { duration, plural } from "../../terminal/quantities.js";
import { printable } from "../../terminal/text.js";
import { listOf } from "../../terminal/values.js";
import type { Action, BoardArguments } from "./options.js";

/** There was nothing to claim: no failure, but for a script not the same as something. */
const EXIT_NOTHING = 1;

type Item = Result<"pipeline.ready">["items"][number];

/** Performs one of the actions; resolves with the exit code where that is not 0. */
export async function doWork(
  action: Exclude<Action, "rebuild" | "compact" | "repair">,
  args: BoardArguments,
  context: Context,
): Promise<number | undefined> {
  switch (action) {
    case "ready":
      return await showReady(args, context);
    case "claim":
      return await claim(args, context);
    case "finish":
      return await finish(args, context);
    case "configure":
      return await configure(args, context);
  }
}

function wantedOf({ stage, label }: BoardArguments): Pick<Params<"pipeline.ready">, "stages" | "labels"> {
  return {
    ...(stage === undefined ? {} : { stages: listOf("stage", stage) }),
    ...(label === undefined ? {} : { labels: listOf("label", label) }),
  };
}

async function showReady(args: BoardArguments, { connect, output }: Context): Promise<undefined> {
  const { agent, limit } = args;
  const found = await (await connect()).pipeline.ready({
    ...wantedOf(args),
    ...(agent === undefined ? {} : { agent }),
    ...(limit === undefined ? {} : { limit }),
  });
  output.result(found, () => {
    if (found.items.length > 0) return tableOf(found.items, output);
    output.note("Nothing is ready. pawl why item ID says why one is not.");
    return "";
  });
  return undefined;
}

function tableOf(items: readonly Item[], output: Output): string {
  return output.table(
    [
      { title: "ITEM" },
      { title: "STAGE" },
      { title: "PRIORITY", align: "right" },
      { title: "NAME", flexible: true },
      { title: "AGENT", flexible: true },
    ],
    items.map(({ storyId, stage, name, agent, fields: { priority } }) => [
      storyId,
      printable(stage),
      typeof priority === "number" ? String(priority) : "",
      printable(name ?? ""),
      printable(agent ?? ""),
    ]),
  );
}

async function claim(args: BoardArguments, { connect, output, env }: Context): Promise<number | undefined> {
  const { item: story, agent, to, wait = 0, lease } = args;
  const wanted = wantedOf(args);
  if (story !== undefined && Object.keys(wanted).length > 0) {
    throw new UsageError(
      "An item that is named has its stage and its labels. Leave --stage and --label out.",
    );
  }
  const found = await (await connect()).pipeline.claim({
    ...(story === undefined ? wanted : { storyId: story }),
    agent: agent ?? `${env.USER ?? process.getuid?.() ?? "somebody"}:pawl board`,
    ...(to === undefined ? {} : { toStage: to }),
    waitMs: wait,
    ...(lease === undefined ? {} : { ttlMs: lease }),
  });
  output.result(found, () => {
    const { item, lease: held } = found;
    if (item === null || held === undefined) return "";
    const name = item.name === null ? "" : `  ${printable(item.name)}`;
    return `${output.styled("bold", item.storyId)}${name}
  Stage    ${printable(item.stage)}
  Token    ${held.fencingToken}
  Lease    ${held.leaseId}
  Ends in  ${duration(held.remainingMs)}
`;
  });
  if (found.item !== null) return undefined;
  output.note(printable(found.reason ?? "There is nothing to claim."));
  return EXIT_NOTHING;
}

async function finish(args: BoardArguments, { connect, output }: Context): Promise<undefined> {
  const { item: story, token, to, note, agent } = args;
  if (story === undefined || token === undefined) {
    throw new UsageError(
      "Say which item is finished, and the token of its claim: pawl board finish FR-001 7",
    );
  }
  if (!/^[1-9]\d{0,15}$/.test(token)) {
    throw new UsageError(`A token is a number as pawl board claim printed it, not ${JSON.stringify(token)}.`);
  }
  if (to === undefined) throw new UsageError("Say where the item goes: --to 5_done");
  const done = await (await connect()).pipeline.finish({
    storyId: story,
    fencingToken: Number(token),
    toStage: to,
    ...(note === undefined ? {} : { note }),
    ...(agent === undefined ? {} : { agent }),
  });
  output.result(done, () => `${story} is in ${printable(done.item.stage)}.`);
  return undefined;
}

async function configure(args: BoardArguments, { connect, output }: Context): Promise<undefined> {
  const params = configurationOf(args);
  const client = await connect();
  const now = await (Object.keys(params).length === 0
    ? client.pipeline.configuration({})
    : client.pipeline.configure(params));
  output.result(now, () => {
    const of = (part: "ready" | "done"): string =>
      now.stages.flatMap((each) => (each[part] ? [each.stage] : [])).join(", ") || "none";
    const follow = Object.entries(now.transitions ?? {}).map(
      ([stage, next]) => `           ${stage}: ${next.length === 0 ? "none" : next.join(", ")}`,
    );
    const retries = now.maxRetries === 0 ? "never" : `at ${plural(now.maxRetries, "retry", "retries")}`;
    return [
      `Work from  ${of("ready")}`,
      `Done in    ${of("done")}`,
      `Blocked    ${retries}`,
      `Moves      ${now.transitions === null ? "any" : "only these"}`,
      ...follow,
    ].map(printable);
  });
  return undefined;
}

const DEFAULTS = { stages: "stages", follow: "transitions", "max-retries": "maxRetries" } as const;

function configurationOf(args: BoardArguments): Params<"pipeline.configure"> {
  const { work, done, follow, "max-retries": maxRetries } = args;
  const params: Params<"pipeline.configure"> = {};
  if (work !== undefined || done !== undefined) {
    if (work === undefined || done === undefined) {
      throw new UsageError("Stages are set together: give --work and --done.");
    }
    const [ready, ends] = [listOf("work", work), listOf("done", done)];
    params.stages = [...new Set([...ready, ...ends])].map((stage) => ({
      stage,
      ...(ready.includes(stage) ? { ready: true } : {}),
      ...(ends.includes(stage) ? { done: true } : {}),
    }));
  }
  if (follow !== undefined) params.transitions = transitionsOf(follow);
  if (maxRetries !== undefined) params.maxRetries = maxRetries;
  for (const name of listOf("default", args.default)) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new UsageError(
        `--default takes ${Object.keys(DEFAULTS).join(", ")}, not ${JSON.stringify(name)}.`,
      );
    }
    const member = DEFAULTS[name as keyof typeof DEFAULTS];
    if (params[member] !== undefined) throw new UsageError(`${name} is both set and given back.`);
    params[member] = null;
  }
  return params;
}

function transitionsOf(text: string): Record<string, string[]> {
  const transitions: Record<string, string[]> = {};
  for (const rule of text.split(";")) {
    const [stage = "", next, ...rest] = rule.split("=").map((part) => part.trim());
    if (stage === "" || next === undefined || rest.length > 0) {
      throw new UsageError(
        `--follow takes rules as 1_backlog=2_current, with semicolons between, not ${JSON.stringify(rule)}.`,
      );
    }
    Object.defineProperty(transitions, stage, {
      value: next === "" ? [] : listOf("follow", next),
      enumerable: true,
      configurable: true,
    });
  }
  return transitions;
}
