import type { Ending } from "../grants/ending.js";
import { grants } from "../grants/grant.js";
import { lostHolders } from "../grants/on-loss.js";
import { turnedItems } from "./board/work-state.js";
import { delayedCommands, deliveries, overdueCommands, overlongDeliveries } from "./command/ends.js";
import { incarnations } from "./command/incarnation-ends.js";
import { keptCommands } from "./command/retention.js";
import { leases, leaseWarnings } from "./lease/ends.js";
import { remoteLeases } from "./lease/remote-lease.js";
import { reservationConnections, reservations } from "./path/ends.js";
import { claimsOfEndedLeases } from "./queue/claims-under-lease.js";
import {
  claims,
  closedQueues,
  overdueBatches,
  scheduledBatches,
  unaskedPrefixes,
  unlaidQueues,
} from "./queue/ends.js";
import { turnedBatches } from "./queue/flows.js";
import { endedBatches } from "./queue/retention.js";
import { stoppedClaims } from "./queue/stop.js";
import { occurrences } from "./schedule/occurrences.js";
import { requests } from "./sequence/requests.js";

const leaseGrants = grants(leases);
const claimGrants = grants(claims);
const reservationGrants = grants(reservations);

/** All that ends by itself. Grants come before what is merely kept, so that their waiters wait for nothing. */
export const ENDINGS: readonly Ending[] = [
  lostHolders,
  // Their ends follow another clock first.
  remoteLeases,
  leaseGrants,
  leaseWarnings,
  claimsOfEndedLeases,
  stoppedClaims,
  turnedItems,
  reservationGrants,
  reservationConnections,
  claimGrants,
  turnedBatches,
  scheduledBatches,
  overdueBatches,
  closedQueues,
  unlaidQueues,
  unaskedPrefixes,
  occurrences,
  overdueCommands,
  grants(deliveries),
  overlongDeliveries,
  incarnations,
  delayedCommands,
  requests,
  endedBatches,
  keptCommands,
];

/** The same of what may be kept in a database that several daemons share. */
export const SHARED_ENDINGS: readonly Ending[] = [
  leaseGrants,
  leaseWarnings,
  claimsOfEndedLeases,
  stoppedClaims,
  reservationGrants,
  reservationConnections,
  claimGrants,
  turnedBatches,
  scheduledBatches,
  overdueBatches,
  closedQueues,
  unlaidQueues,
  unaskedPrefixes,
  requests,
  endedBatches,
];
