// What the holder of a grant is told when it is lost, of one that another daemon has granted, or an earlier life of
// this one: whoever renews it here is told by this daemon.
import type { GivenId } from "../domain/about.js";
import { lossOfDelivery } from "../domain/command/delivery.js";
import { lossesOfLease } from "../domain/lease/row.js";
import { lossOfReservation } from "../domain/path/row.js";
import { lossOfClaim } from "../domain/queue/holder.js";
import { onLossOf } from "../grants/on-loss.js";
import type { Operation } from "../store/statement.js";
import { type Change, endingOf } from "./grants-made.js";
import type { HeldGrant } from "./held.js";

/** What its holder is told, and how its process is ended, if it is. */
export interface Losses {
  readonly tell: HeldGrant["tell"];
  readonly ending?: Change["onLoss"];
}

export function* lossesOf({ kind, id }: Pick<GivenId, "kind" | "id">): Operation<Losses> {
  switch (kind) {
    case "lease": {
      const tell = (yield* lossesOfLease(id)).map((params) => ({ method: "lease.lost" as const, params }));
      return { tell, ending: endingOf("lease", yield* onLossOf(id)) };
    }
    case "reservation": {
      const tell = (yield* lossOfReservation(id)).map((params) => ({ method: "path.lost" as const, params }));
      return { tell, ending: endingOf("path", yield* onLossOf(id)) };
    }
    case "claim":
      return { tell: (yield* lossOfClaim(id)).map((params) => ({ method: "claim.lost" as const, params })) };
    case "command": {
      const told = yield* lossOfDelivery(id);
      return { tell: told.map((params) => ({ method: "command.cancelled" as const, params })) };
    }
    case "batch":
      return { tell: [] };
  }
}
