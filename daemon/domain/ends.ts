import type { Ending } from "../grants/ending.js";
import { grants } from "../grants/grant.js";
import { type Free, lostHolders, orphanedHolders } from "../grants/on-loss.js";
import { turnedItems } from "./board/work-state.js";
import { delayedCommands, deliveries, overdueCommands, overlongDeliveries } from "./command/ends.js";
import { incarnations } from "./command/incarnation-ends.js";
import { keptCommands } from "./command/retention.js";
import { leases, leaseWarnings } from "./lease/ends.js";
import { remoteLeases } from "./lease/remote-lease.js";
import { freeLease } from "./lease/row.js";
import { reservationConnections, reservations } from "./path/ends.js";
import { freeReservation } from "./path/row.js";
import { claimsOfEndedLeases } from "./queue/claims-under-lease.js";
import { claims, closedQueues, scheduledBatches, unaskedPrefixes, unlaidQueues } from "./queue/ends.js";
import { turnedBatches } from "./queue/flows.js";
import { endedBatches } from "./queue/retention.js";
import { stoppedClaims } from "./queue/stop.js";
import { overdueBatches } from "./queue/ttl.js";
import { occurrences } from "./schedule/occurrences.js";
import { requests } from "./sequence/requests.js";

/** Has others be granted what was lost by a process that has ended. */
export const FREE: Free = { lease: freeLease, path: freeReservation };

/**
 * All that ends by itself, and whether what several daemons share in a database ends so, too. Grants come before what
 * is merely kept, so that their waiters wait for nothing.
 */
const ALL: readonly (readonly [ending: Ending, of: "local" | "shared"])[] = [
  [lostHolders, "shared"],
  // Their ends follow another clock first.
  [remoteLeases, "local"],
  [grants(leases), "shared"],
  [leaseWarnings, "shared"],
  [claimsOfEndedLeases, "shared"],
  [stoppedClaims, "shared"],
  [turnedItems, "local"],
  [grants(reservations), "shared"],
  [reservationConnections, "shared"],
  [grants(claims), "shared"],
  [turnedBatches, "shared"],
  [scheduledBatches, "shared"],
  [overdueBatches, "shared"],
  [closedQueues, "shared"],
  [unlaidQueues, "shared"],
  [unaskedPrefixes, "shared"],
  [occurrences, "shared"],
  [overdueCommands, "shared"],
  [grants(deliveries), "shared"],
  [overlongDeliveries, "shared"],
  [incarnations, "shared"],
  [delayedCommands, "shared"],
  [requests, "shared"],
  [endedBatches, "shared"],
  [keptCommands, "shared"],
];

/** All that ends by itself. */
export const ENDINGS: readonly Ending[] = ALL.map(([ending]) => ending);

/** The same of what may be kept in a database that several daemons share. */
export const SHARED_ENDINGS: readonly Ending[] = [
  orphanedHolders(FREE),
  ...ALL.filter(([, of]) => of === "shared").map(([ending]) => ending),
];
