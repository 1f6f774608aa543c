import type { CallToolResult } from "@modelcontextprotocol/server";
import { Refusal, type Told, told } from "../refusal.js";
import type { Lost, Session } from "../sessions/session.js";
import type { Call, SessionCall, Tool } from "./tool.js";
import { unreadOf } from "./unread.js";

/** What every result ends with. */
interface News {
  /** Null if it could not be asked. */
  readonly unread: number | null;
  readonly lost: readonly Lost[];
  /** Why not all of it could be had, in words. */
  readonly missing?: string;
}

/**
 * Performs a call of a tool. A refusal is a result too, which says its kind, the holder where there is one, and what to
 * do: a model that reads it can correct itself.
 */
export async function perform(tool: Tool, args: unknown, call: Call): Promise<CallToolResult> {
  let session: Session | undefined;
  let end: (() => void) | undefined;
  try {
    const parsed = tool.input.safeParse(args ?? {});
    if (!parsed.success) throw invalid(tool, parsed.error.issues);
    const values = parsed.data as { session?: string };
    if (!tool.starts) {
      session = call.sessions.get(values.session as string);
      end = session.begin();
      await session.confirmShown();
    }
    const own =
      session === undefined ? call : ({ ...call, session, link: session.link } satisfies SessionCall);
    const done = await tool.run(values as never, own as never);
    session = done.session;
    return result(done.result, await newsOf(session));
  } catch (error) {
    call.signal.throwIfAborted();
    const waited = ((args as { waitSeconds?: number } | undefined)?.waitSeconds ?? 0) > 0;
    return refusal(told(error, waited), session === undefined ? undefined : await newsOf(session));
  } finally {
    end?.();
  }
}

/** Never rejects: the tool has done its work by now, and its result must reach the agent whatever else fails. */
async function newsOf(session: Session): Promise<News> {
  try {
    const unread = await unreadOf({ session, link: session.link });
    return { unread, lost: session.takeLost() };
  } catch (error) {
    const missing = `How many messages wait could not be asked: ${told(error).message}`;
    return { unread: null, lost: session.takeLost(), missing };
  }
}

function invalid(
  { name, input }: Tool,
  issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[],
): Refusal {
  const each = issues.map(
    ({ path, message }) => `${path.length === 0 ? "arguments" : path.join(".")}: ${message}`,
  );
  const known = Object.keys(input.shape).join(", ");
  return new Refusal("invalid_params", `${name}: ${each.join("; ")}. It takes ${known}.`);
}

function result(structured: Record<string, unknown>, { missing, ...news }: News): CallToolResult {
  const structuredContent = { ...structured, ...news };
  const caution = missing === undefined ? "" : `${missing} The call itself is done.\n`;
  return {
    content: [{ type: "text", text: `${alarm(news)}${caution}${JSON.stringify(structuredContent)}` }],
    structuredContent,
  };
}

function refusal(refused: Told, news: News | undefined): CallToolResult {
  const { kind, message, whatToDo, ...details } = refused;
  const { missing: _, ...known } = news ?? {};
  const rest = { kind, ...details, ...known };
  const text = `${news === undefined ? "" : alarm(news)}${kind}: ${message}\nWhat to do: ${whatToDo}\n${JSON.stringify(rest)}`;
  return { content: [{ type: "text", text }], isError: true };
}

/** What is lost is said before all else: whoever goes on with it works against another. */
function alarm({ lost }: News): string {
  if (lost.length === 0) return "";
  const each = lost.map(({ kind, id, cause }) => `${kind} ${id} (${cause})`);
  return `LOST, stop working on it: ${each.join(", ")}.\n`;
}
