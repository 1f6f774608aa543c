import { PawlError } from "@pawl/protocol/errors";

/** The MCP server. Rejects where its package is not installed. */
export async function packageOfAgents(): Promise<typeof import("@pawl/mcp")> {
  return await import("@pawl/mcp").catch(refuseWithout);
}

/** The hooks, which are an entry of their own. */
export async function packageOfHooks(): Promise<typeof import("@pawl/mcp/hook")> {
  return await import("@pawl/mcp/hook").catch(refuseWithout);
}

function refuseWithout(error: unknown): never {
  if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
  throw new PawlError(
    "not_found",
    "What is for agents is a package of its own, which is not here. Install @pawl/mcp beside @pawl/client.",
    { what: "@pawl/mcp" },
  );
}
