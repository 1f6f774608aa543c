// What the holder of a grant is told when it is lost, of one that another daemon has granted, or an earlier life of
// this one: whoever renews it here is told by this daemon.
import type { GivenId } from "../domain/about.js";
import { lossesOfLease } from "../domain/lease/row.js";
import { lossOfReservation } from "../domain/path/row.js";
import { lossOfClaim } from "../domain/queue/holder.js";
import type { Operation } from "../store/statement.js";
import type { HeldGrant } from "./held.js";

export function* lossesOf({ kind, id }: Pick<GivenId, "kind" | "id">): Operation<HeldGrant["tell"]> {
  switch (kind) {
    case "lease":
      return (yield* lossesOfLease(id)).map((params) => ({ method: "lease.lost", params }));
    case "reservation":
      return (yield* lossOfReservation(id)).map((params) => ({ method: "path.lost", params }));
    case "claim":
      return (yield* lossOfClaim(id)).map((params) => ({ method: "claim.lost", params }));
    default:
      return [];
  }
}
