import { constants } from "node:os";

/** The code of an error of the system, else an empty text; Node itself has none for a quota that is used up. */
export function systemCode(error: unknown): string {
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  return errno === -constants.errno.EDQUOT ? "EDQUOT" : `${code ?? ""}`;
}
