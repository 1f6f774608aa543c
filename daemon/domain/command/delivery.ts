// A delivery: the leaseId that names it, and whether it is still held.
import type { NotificationParams } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { LiveRow } from "./row.js";
import { isFinal, stateAt } from "./state.js";

const LEASE_ID = /^(cml:(cmd_[0-9a-f-]{36}):([1-9][0-9]{0,15})):[A-Za-z0-9_-]+$/;

/** An id that names the delivery and proves that this daemon granted it. */
export function leaseIdOf(commandId: string, attempt: number, env: Env): string {
  const delivery = `cml:${commandId}:${attempt}`;
  return `${delivery}:${env.sign(delivery)}`;
}

/** The delivery that a leaseId was given for, or undefined if none ever was. */
export function readLeaseId(leaseId: string, env: Env): { commandId: string; attempt: number } | undefined {
  const [, delivery, commandId, attempt] = LEASE_ID.exec(leaseId) ?? [];
  if (delivery === undefined || leaseId !== `${delivery}:${env.sign(delivery)}`) return undefined;
  return { commandId: commandId as string, attempt: Number(attempt) };
}

/** The command of a delivery, as its leaseId says: nothing of it is proven. */
export function commandOfLease(leaseId: string): string | undefined {
  return LEASE_ID.exec(leaseId)?.[2];
}

const selectBound = sql<{ commandId: string }>(`
  SELECT command_id AS "commandId" FROM pawl_command
  WHERE command_id = :commandId AND lease_expires_at IS NOT NULL
    AND (lease_connection IS NOT NULL OR grace_ends_at IS NOT NULL)`);

/** What a receiver that has leased a command is told when the delivery ends before its time, if it may. */
export function* lossOfDelivery(commandId: string): Operation<NotificationParams<"command.cancelled">[]> {
  const isBound = (yield* one(selectBound, { commandId })) !== undefined;
  return isBound ? [{ commandId, reason: EXECUTION_TIME }] : [];
}

/** The message to a receiver whose delivery is over. Its command goes on; the answer still counts for now. */
export const EXECUTION_TIME = "EXECUTION_TIME";

export function isHeld(row: LiveRow, attempt: number | undefined, env: Env): boolean {
  return row.state === "DISPATCHED" && row.attempt === attempt && stateAt(row, env).state === "DISPATCHED";
}

const selectEnd = sql<{ code: string | null; message: string | null }>(
  "SELECT error_code AS code, error_message AS message FROM pawl_command WHERE seq = :seq",
);

export function unknownLease(leaseId: string): PawlError {
  return refuse(
    "lease_lost",
    `The lease ${shown(leaseId)} is none of this daemon's, or its command is gone. Use the leaseId that command.lease gave, and lease another command.`,
    { reason: "unknown" },
  );
}

/** Why a lease is not held any more, so that its holder knows whether to stop or that all is well. */
export function* lostLease(row: LiveRow, attempt: number | undefined, env: Env): Operation<PawlError> {
  const { commandId } = row;
  const current = stateAt(row, env);
  const end = isFinal(row.state) ? yield* one(selectEnd, { seq: row.seq }) : undefined;
  const reason =
    attempt === undefined
      ? "unknown"
      : current.state === "EXPIRED"
        ? "expired"
        : current.state === "SUCCEEDED" || current.state === "FAILED"
          ? end?.code === "CANCELLED"
            ? "cancelled"
            : "ended"
          : "superseded";
  return refuse("lease_lost", `${LOST[reason](shown(commandId))} Stop working on it.`, {
    commandId,
    state: current.state,
    attempt: current.attempt,
    reason,
    ...(reason === "cancelled" && { message: end?.message }),
  });
}

const LOST = {
  unknown: (id: string) => `This lease is not one of the command ${id}.`,
  expired: (id: string) => `The deadline of the command ${id} has passed.`,
  cancelled: (id: string) => `The command ${id} has been cancelled.`,
  ended: (id: string) => `The command ${id} has ended.`,
  superseded: (id: string) => `The lease of the command ${id} has ended; another delivery comes after it.`,
} as const;
