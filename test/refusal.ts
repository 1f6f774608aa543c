// The form that every refusal has.
import { ERRORS, type ErrorKind } from "@pawl/protocol/errors";
import { expect } from "vitest";
import type { DaemonProcess } from "./daemon.js";
import type { RawError, RawReply } from "./raw-client.js";

/** Signs of what must never leave the daemon: stack traces, SQL, tables, file paths (spec: wire.md, Errors). */
const LEAK =
  /\bat .+:\d+:\d+|node:internal|\bSELECT\b|\bINSERT\b|\bUPDATE\b|\bDELETE\b|pawl_|SQLITE|\/(tmp|work|home|var|run|usr)\//;

/** Checks an error object against the table of errors. Returns it, for what else is to be said about it. */
export function expectRefusal(error: RawError | undefined, kind: ErrorKind): RawError {
  expect(error).toBeDefined();
  const { code, message, data } = error as RawError;
  expect({ kind: data.kind, code, retryable: data.retryable }).toEqual({
    kind,
    code: ERRORS[kind].code,
    retryable: ERRORS[kind].retryable,
  });
  expect(message).toMatch(/^\S.*[.?]$/s);
  expect(JSON.stringify(error)).not.toMatch(LEAK);
  return error as RawError;
}

/** Checks a whole reply: the id that it comes under, and that it is a refusal of this kind and nothing else. */
export function expectRefusedReply(reply: RawReply, id: RawReply["id"], kind: ErrorKind): RawError {
  expect(Object.keys(reply).sort()).toEqual(["error", "id", "jsonrpc"]);
  expect(reply.jsonrpc).toBe("2.0");
  expect(reply.id).toBe(id);
  return expectRefusal(reply.error, kind);
}

/** The exit code of a pawld that could not start. */
const EXIT_NOT_STARTED = 3;

/** Checks that a daemon does not start, and returns the one sentence that it says about it. */
export async function refusedStart(daemon: DaemonProcess): Promise<string> {
  expect(await daemon.exited).toBe(EXIT_NOT_STARTED);
  // But for what is told of a place of shared names.
  expect(daemon.log.filter(({ place }) => place === undefined)).toEqual([]);
  expect(daemon.stderr).toMatch(/^pawld: .+[.?]\n$/);
  return daemon.stderr;
}
