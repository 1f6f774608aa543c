// The room of the prompt: how several agents work together by these tools, for a host that offers it to its user.
import type { McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

/** Adds the prompt to a server. */
export function addPrompt(server: McpServer): void {
  server.registerPrompt(
    "coordinate",
    {
      title: "Work beside other agents",
      description: "Has an agent take work from the board, one piece after the other, beside other agents.",
      argsSchema: z.object({
        name: z.string().optional().describe("The agent's name; the agent chooses one if it is not given."),
        role: z.string().optional().describe("What it is here for."),
      }),
    },
    ({ name, role }) => ({
      messages: [{ role: "user" as const, content: { type: "text" as const, text: words(name, role) } }],
    }),
  );
}

function words(name: string | undefined, role: string | undefined): string {
  const as = name === undefined ? "a short name of your choice" : `the name ${name}`;
  const doing = role === undefined ? "" : ` Your role: ${role}.`;
  return `Several agents work on this machine at the same time.${doing} Work with them by the tools of the pawl server:

1. Call session_start with ${as} and the directory that you work in. Go on with what \`held\` names, if it names anything.
2. Call work_next. If it gives nothing, read its \`reason\`, then wait with waitSeconds; after three times nothing, or where it says that you may stop, stop and say so.
3. Read the notes of the work. Reserve with paths_reserve all files that you will change, before the first change. If they are held, wait, or give the work back and take other work.
4. Do the work, commit it, and leave a note with work_update after each larger step.
5. Call work_finish with the outcome that is true, and a note for whoever comes next: branch and commit of what is done. Never say done of what is not tested. If it needs a person, or something that is not there, give it back with \`blocked\`.
6. Read inbox when \`unread\` is above 0; answer requests. Then go on with 2.

When a result says that something is LOST, stop working on it at once and do not commit it. When a call is refused, do what the refusal says; do not work around it.`;
}
