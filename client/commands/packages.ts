// The packages that some commands need beside the client. They are looked for when such a command runs.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { PawlError } from "@pawl/protocol/errors";

const PURPOSES = { "@pawl/web": "The page", "@pawl/mcp": "What is for agents" } as const;

type Package = keyof typeof PURPOSES;

/** The program of this package. */
export const PROGRAM = fileURLToPath(new URL("../../bin/pawl.js", import.meta.url));

/** The page. Rejects with `not_found` where its package is not installed; so do the others. */
export async function packageOfPage(): Promise<typeof import("@pawl/web")> {
  return await import("@pawl/web").catch(refuseWithout("@pawl/web"));
}

/** Throws `not_found` where the page is not installed; it is not loaded. */
export function requirePage(): void {
  try {
    createRequire(import.meta.url).resolve("@pawl/web/package.json");
  } catch {
    throw missing("@pawl/web");
  }
}

/** The MCP server. */
export async function packageOfAgents(): Promise<typeof import("@pawl/mcp")> {
  return await import("@pawl/mcp").catch(refuseWithout("@pawl/mcp"));
}

/** The hooks, which are an entry of their own. */
export async function packageOfHooks(): Promise<typeof import("@pawl/mcp/hook")> {
  return await import("@pawl/mcp/hook").catch(refuseWithout("@pawl/mcp"));
}

/** Rejects with what is missing, or with the error where that is another. */
function refuseWithout(name: Package): (error: unknown) => never {
  return (error) => {
    throw (error as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND" ? missing(name) : error;
  };
}

function missing(name: Package): PawlError {
  return new PawlError(
    "not_found",
    `${PURPOSES[name]} is a package of its own, which is not here. Install ${name} beside @pawl/client.`,
    { what: name },
  );
}
