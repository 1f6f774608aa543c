/**
 * The messages of JSON-RPC 2.0 that the daemon makes, by the library `json-rpc-2.0`, which no other file imports. Its
 * server is not used: it answers by promises, which were a tenth of the work of a call, and takes batches of one,
 * `[null]`, ids of any type and positional params for granted.
 */
import type { Failure, Id, Success } from "@pawl/protocol/envelope";
import type { PawlError } from "@pawl/protocol/errors";
import {
  createJSONRPCErrorResponse,
  createJSONRPCNotification,
  createJSONRPCRequest,
  createJSONRPCSuccessResponse,
} from "json-rpc-2.0";
import type { RawJson } from "../json/raw-json.js";
import { type SharedJson, SharedText } from "../json/shared-json.js";

export function success(id: Id, result: unknown): Success {
  return createJSONRPCSuccessResponse(id, result) as Success;
}

/** The same as text, of a result that is one. */
export function successText(id: Id, { text }: RawJson): string {
  return `${successHead(id)}${text}}`;
}

/** The same of a result that many share. */
export function sharedText(id: Id, { bytes }: SharedJson): SharedText {
  return new SharedText([successHead(id), bytes, "}"]);
}

function successHead(id: Id): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":`;
}

export function failure(id: Id, { code, message, data }: PawlError): Failure {
  return createJSONRPCErrorResponse(id, code, message, data) as Failure;
}

export function request(id: string, method: string, params: object): object {
  return createJSONRPCRequest(id, method, params);
}

export function notification(method: string, params: object): object {
  return createJSONRPCNotification(method, params);
}
