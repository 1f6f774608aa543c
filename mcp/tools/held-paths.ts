// The refusal of paths in words of agents: which of them, who has them, what for and since when.
import type { Params } from "@pawl/protocol/types";
import { kindOf, Refusal } from "../refusal.js";
import { SESSION_LEASES } from "../sessions/session-name.js";
import { BATCH } from "./held-work.js";
import { readNote } from "./path-works.js";
import type { SessionCall } from "./tool.js";
import type { HeldByOther } from "./wanting.js";

/** So many of the paths are explained. */
const MAX_EXPLAINED = 8;
const MAX_ROWS = 1000;
const ITEMS = "item/";

/** A path that was asked for; a file is taken literally. */
interface WantedPath {
  readonly text: string;
  readonly isFile: boolean;
}

interface Request {
  readonly request: Omit<Params<"path.reserve">, "patterns" | "files" | "waitMs">;
  readonly wanted: readonly WantedPath[];
  readonly refused: unknown;
  readonly hasWaited: boolean;
}

/** A holder, as the daemon's refusal names it; or who comes before and waits. */
interface Holder {
  readonly owner: string;
  readonly pattern?: string;
  readonly mode?: string;
  readonly note?: string | null;
}

/** Why one path is not to be had. */
interface Obstacle extends Holder {
  readonly path: string;
  /** False of one who waits, and came before. */
  readonly holds: boolean;
  readonly since?: string;
  /** What it is for. */
  readonly works?: readonly string[];
  /** Of these, those that the holder does not work on any more. */
  readonly ended?: readonly string[];
  readonly isAgent: boolean;
  /** Tells its reservation from others. */
  readonly key?: string;
}

/** What stands in the way of paths. */
export interface HeldPaths {
  /** The refusal for the agent that asked for them. */
  readonly error: unknown;
  /** What agents hold of it, who can be told. */
  readonly wanted: readonly HeldByOther[];
  /** False where waiting is of no use. */
  readonly canPass: boolean;
}

/** Says why an agent does not get paths that it asked for. */
export async function heldPaths(
  call: SessionCall,
  { request, wanted, refused, hasWaited }: Request,
): Promise<HeldPaths> {
  const each =
    wanted.length === 1
      ? [{ path: wanted[0] as WantedPath, error: refused }]
      : await Promise.all(
          wanted.map(async (path) => ({ path, error: await refusalOf(call, request, path) })),
        );
  const first = each.flatMap(({ path, error }) => obstacleOf(path.text, error));
  // By now all may be free.
  const found = first.length > 0 ? first : obstacleOf(wanted.map(({ text }) => text).join(", "), refused);
  if (found.length === 0) return { error: refused, wanted: [], canPass: true };
  const { name } = call.session;
  const own = found.filter(({ owner, holds }) => holds && owner === name);
  if (own.length > 0) return { error: inOwnWay(own), wanted: [], canPass: false };
  const obstacles = await known(call, request.root, found);
  const free = each.filter(({ error }) => error === undefined).map(({ path }) => path.text);
  const said = obstacles.slice(0, MAX_EXPLAINED).map(sentence);
  if (obstacles.length > MAX_EXPLAINED) said.push(`${obstacles.length - MAX_EXPLAINED} more are held, too.`);
  if (free.length > 0) said.push(`Free are ${free.join(", ")}, but you got none of them.`);
  const shown = obstacles.map(({ isAgent: _, holds: _holds, key: _key, ...rest }) => rest);
  const details = { holder: shown[0], ...(shown.length > 1 ? { holders: shown } : {}) };
  const error = new Refusal("lease_held", said.join(" "), details, advice(obstacles, free, hasWaited));
  return { error, wanted: toldOf(obstacles), canPass: true };
}

/** What each agent is told that holds some of it. */
function toldOf(obstacles: readonly Obstacle[]): HeldByOther[] {
  const keys = new Set(obstacles.filter(({ isAgent }) => isAgent).map(({ key }) => key));
  return [...keys].flatMap((key) => {
    const those = obstacles.filter((each) => each.key === key);
    const [{ owner, works = [] }] = those as [Obstacle];
    if (key === undefined) return [];
    const wanted = [...new Set(those.map(({ path }) => path))].join(", ");
    const held = [...new Set(those.map(({ path, pattern = path }) => pattern))].join(", ");
    const as = held === wanted ? "" : ` as ${held}`;
    const of = works.length === 0 ? "" : ` for ${works.join(", ")}`;
    const words = `${wanted}, which you have reserved${as}${of}`;
    return [{ owner, key, words, how: `paths_release ${held} when you do not need it.` }];
  });
}

/** What stands in the way of one path alone: it is asked for and undone at once. */
async function refusalOf(
  { link }: SessionCall,
  request: Request["request"],
  { text, isFile }: WantedPath,
): Promise<unknown> {
  const params = { ...request, ...(isFile ? { files: [text] } : { patterns: [text] }) };
  try {
    await link.call("transact", { calls: [{ method: "path.reserve", params }], dryRun: true });
    return undefined;
  } catch (error) {
    return error;
  }
}

type Found = Holder & { readonly path: string; readonly holds: boolean };

function obstacleOf(path: string, error: unknown): Found[] {
  if (error === undefined || kindOf(error) !== "lease_held") return [];
  const { holder, holders = [] } = ((error as { details?: unknown }).details ?? {}) as {
    holder?: Holder;
    holders?: readonly Holder[];
  };
  const [first] = holders;
  // Who comes before and waits is named as the holder, though not among the holders.
  if (holder !== undefined && first?.owner !== holder.owner)
    return [{ owner: holder.owner, path, holds: false }];
  return holders.map(({ owner, pattern, mode, note }) => ({
    path,
    owner,
    holds: true,
    ...(pattern === undefined ? {} : { pattern }),
    ...(mode === undefined || mode === "write" ? {} : { mode }),
    ...(note === undefined || note === null || note === "" ? {} : { note }),
  }));
}

/** Adds since when each has it, what it works on, and whether it can be asked. */
async function known({ link }: SessionCall, root: string, found: readonly Found[]): Promise<Obstacle[]> {
  const owners = [...new Set(found.map(({ owner }) => owner))];
  const [{ leases }, ...all] = await Promise.all([
    link.call("lease.list", { prefix: ITEMS, limit: MAX_ROWS }),
    ...owners.map(async (owner) => {
      const [{ reservations }, { lease }] = await Promise.all([
        link.call("path.list", { root, owner, limit: MAX_ROWS }),
        link.call("lease.get", { name: SESSION_LEASES + owner }),
      ]);
      return { owner, reservations, isAgent: lease !== null };
    }),
  ]);
  return found.map((each) => {
    const { reservations = [], isAgent = false } = all.find(({ owner }) => owner === each.owner) ?? {};
    const held = reservations.find(
      ({ patterns }) => each.pattern !== undefined && patterns.includes(each.pattern),
    );
    const since =
      held === undefined
        ? {}
        : { since: clockTime(held.acquiredAt), key: `${root} ${each.owner} ${held.acquiredAt}` };
    if (!isAgent) return { ...each, isAgent, ...since };
    const { note: text, ...rest } = each;
    const { works, note } = readNote(text ?? "");
    const items = leases.filter(({ owner }) => owner === each.owner).map((lease) => lease.name);
    // Of jobs no lease says it.
    const ended = works.filter((id) => !id.startsWith(BATCH) && !items.includes(ITEMS + id));
    return {
      ...rest,
      isAgent,
      ...since,
      ...(note === undefined || note === "" ? {} : { note }),
      ...(works.length === 0 ? {} : { works }),
      ...(ended.length === 0 ? {} : { ended }),
    };
  });
}

/** The time of day, as people say it. */
export function clockTime(at: number): string {
  return new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function sentence(obstacle: Obstacle): string {
  const { path, owner, pattern, mode, note, since, works = [], ended = [], holds } = obstacle;
  if (!holds) return `${path} is wanted by ${owner}, who came before and waits.`;
  const as = pattern === undefined || pattern === path ? "" : ` as ${pattern}`;
  const details = [
    since === undefined ? "" : ` since ${since}`,
    works.length === 0 ? "" : ` for ${works.join(", ")}`,
    note === undefined ? "" : ` (${note})`,
    mode === "read" ? ", to read it unchanged" : "",
  ];
  const over = ended.length === 0 ? "" : ` ${owner} does not work on ${ended.join(", ")} any more.`;
  return `${path} is held by ${owner}${as}${details.join("")}.${over}`;
}

function advice(obstacles: readonly Obstacle[], free: readonly string[], hasWaited: boolean): string {
  const holders = [...new Set(obstacles.map(({ owner }) => owner))];
  const agents = holders.filter((name) => obstacles.some((each) => each.owner === name && each.isAgent));
  const stays = `It stays so until ${holders.join(" and ")} give${holders.length === 1 ? "s" : ""} it back.`;
  const ask =
    agents.length > 0
      ? `ask ${agents.join(" and ")} by message_send (told already that you want it)`
      : `tell your user, since ${holders.join(" and ")} cannot be asked by message_send`;
  const wait = hasWaited ? "" : ", wait with waitSeconds";
  const part = free.length === 0 ? "" : ` Call again with ${free.join(", ")} alone: you get it at once.`;
  return `${stays}${part} Do another part first${wait}, or ${ask}. Do not edit it all the same.`;
}

function inOwnWay(holders: readonly Found[]): Refusal {
  const each = holders.map(({ path, pattern = path, note }) => {
    const { works } = readNote(note ?? "");
    return `${path} meets ${pattern}${works.length === 0 ? "" : ` for ${works.join(", ")}`}`;
  });
  return new Refusal(
    "lease_held",
    `You have reserved some of that yourself: ${each.join("; ")}.`,
    { holders: holders.map(({ owner, pattern }) => ({ owner, pattern })) },
    "Leave out what you have already. To have it in another mode, or more around it, give it back with paths_release, then ask for all in one call.",
  );
}
