// How paths are reserved, added to, and shared by the work of one session.
import { statSync } from "node:fs";
import { join } from "node:path";
import type { Result } from "@pawl/protocol/types";
import { Interrupted, kindOf } from "../refusal.js";
import { TERMS } from "../sessions/grants.js";
import type { WorkTree } from "../sessions/work-tree.js";
import { type HeldPaths, heldPaths } from "./held-paths.js";
import { keep, losing } from "./holding.js";
import { nameWorks, noteText, type Reserved, worksOf } from "./path-works.js";
import type { SessionCall } from "./tool.js";
import { type Ask, askedUntilMessage, ending } from "./waiting.js";
import { tellHolders } from "./wanting.js";

/** Paths that are asked for. */
export interface Asked {
  readonly tree: WorkTree;
  readonly mode: "write" | "read";
  readonly works: readonly string[];
  readonly note: string | undefined;
  /** What it is added to. */
  readonly own: Reserved | undefined;
  readonly all: readonly string[];
}

/** Reserves paths, or waits for them; whoever has them is told. */
export async function reserve(call: SessionCall, asked: Asked, seconds: number | undefined): Promise<void> {
  const { session, link } = call;
  const { tree, mode, own, all } = asked;
  const works = own?.works ?? asked.works;
  const note = asked.note ?? own?.note ?? null;
  // A file that is there, with brackets in its name, is that file.
  const files = all.filter((path) => /[*?[]/.test(path) && isThere(join(tree.top, path)));
  const patterns = all.filter((path) => !files.includes(path));
  const words = noteText({ works, note });
  const request = {
    root: tree.shared,
    owner: session.name,
    // Several agents of one process wait for each other all the same.
    task: session.id,
    mode,
    ...TERMS,
    ...(words === "" ? {} : { note: words }),
    ...(own === undefined ? {} : { reservationId: own.reservationId }),
  };
  const both = {
    ...(patterns.length === 0 ? {} : { patterns }),
    ...(files.length === 0 ? {} : { files }),
  };
  const wanted = all.map((text) => ({ text, isFile: files.includes(text) }));
  const refusal = (error: unknown, hasWaited: boolean) =>
    inWords(call, error, own, { request, wanted, hasWaited });
  const ask: Ask<Result<"path.reserve">> = (waitMs, endWait) =>
    link.call("path.reserve", { ...request, ...both, waitMs }, ending(endWait));
  const { reservation } = await granted(call, seconds, ask, refusal);
  const { reservationId, fencingToken, patterns: reserved } = reservation;
  const hold: Reserved = {
    kind: "paths",
    id: tree.shared,
    mode,
    reservationId,
    fencingToken,
    patterns: reserved,
    works,
    note,
  };
  if (own === undefined) await keep(call, hold);
  else await keepMore(call, own, hold);
}

type Worded = HeldPaths & { readonly error: unknown };

/** Asks at once, then with a wait of which the holders are told. */
async function granted(
  call: SessionCall,
  seconds: number | undefined,
  ask: Ask<Result<"path.reserve">>,
  refusal: (error: unknown, hasWaited: boolean) => Promise<Worded>,
): Promise<Result<"path.reserve">> {
  const waits = (seconds ?? 0) > 0;
  try {
    return await ask(0, undefined);
  } catch (error) {
    const { wanted, canPass, error: worded } = await refusal(error, false);
    if (!waits || !canPass) {
      await tellHolders(call, wanted, false);
      throw worded;
    }
    const whenWaiting = () => tellHolders(call, wanted, true);
    const reason = "waiting for the paths";
    const { answer } = await askedUntilMessage(call, seconds, reason, ask, { whenWaiting }).catch(
      async (later: unknown) => {
        const still = await refusal(later, true);
        await tellHolders(call, still.wanted, false);
        throw still.error;
      },
    );
    return answer;
  }
}

/** A refusal as the agent is told it. One's own reservation may have ended meanwhile. */
async function inWords(
  call: SessionCall,
  error: unknown,
  own: Reserved | undefined,
  asked: Omit<Parameters<typeof heldPaths>[1], "refused">,
): Promise<Worded> {
  const refused = error instanceof Interrupted ? error.refused : error;
  if (own !== undefined && kindOf(refused) === "lease_lost") call.session.lose(own, "ended");
  if (kindOf(refused) !== "lease_held") return { error, wanted: [], canPass: false };
  const worded = await heldPaths(call, { ...asked, refused });
  return error instanceof Interrupted
    ? { ...worded, error: new Interrupted(worded.error) }
    : { ...worded, error: worded.error };
}

/** Has a reservation of other work be for this work, too; of work that has ended, for this alone. */
export async function shareWith(
  call: SessionCall,
  hold: Reserved,
  more: readonly string[],
  given: string | undefined,
): Promise<void> {
  const held = worksOf(call.session);
  const before = hold.works.filter((work) => held.includes(work));
  const note = (before.length === 0 ? given : undefined) ?? hold.note ?? given ?? null;
  const works = [...before, ...more.filter((work) => !before.includes(work))];
  await losing(call, hold, () => nameWorks(call, hold, { works, note }));
}

/** Keeps what was added to a reservation; for a caller that has given up meanwhile it is given back. */
async function keepMore(
  { session, link, signal }: SessionCall,
  own: Reserved,
  hold: Reserved,
): Promise<void> {
  const added = hold.patterns.filter((pattern) => !own.patterns.includes(pattern));
  if (signal.aborted && added.length > 0)
    await link.call("path.release", { reservationId: own.reservationId, patterns: added });
  signal.throwIfAborted();
  session.add(hold);
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
