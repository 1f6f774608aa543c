// The upkeep of a board's logs: pawl board compact and repair.
import type { Context } from "../../terminal/command.js";
import { bytes, count, duration, plural } from "../../terminal/quantities.js";
import { printable } from "../../terminal/text.js";

/** Takes away what nothing of the board rests on, or only says how much that is. */
export async function compact(dryRun: boolean, { connect, output }: Context): Promise<void> {
  const client = await connect();
  const done = await client.pipeline.compact(dryRun ? { dryRun } : {});
  output.result(done, () => {
    const verb = dryRun ? "Would take away" : "Took away";
    const stay = done.kept > 0 ? `; the board rests on ${count(done.kept)}` : "";
    const lines = [`${verb} ${plural(done.changes, "change")} of ${bytes(done.bytes)}${stay}.`];
    if (done.unknown === 0) return lines;
    lines.push(`Kept ${plural(done.unknown, "change")} that not all peers are known to have.`);
    for (const { name, author, saidAt } of done.waitsFor) {
      const said =
        saidAt === undefined
          ? "has not said yet what it has: sync with it, once it is of this version"
          : `said what it has ${duration(Math.max(0, Date.now() - saidAt))} ago, and lacks something: sync with it`;
      lines.push(printable(`${name} (${author.slice(0, 8)}) ${said}.`));
    }
    return lines;
  });
}

/** Gives this node's latest changes again that lie ahead of the time. */
export async function repair({ connect, output }: Context): Promise<void> {
  const client = await connect();
  const done = await client.pipeline.repair();
  output.result(done, () => {
    const lines = [
      done.changes === 0
        ? "No change of this node lies ahead of the time that only this node has."
        : `Gave ${plural(done.changes, "change")} again, under incarnation ${done.incarnation}.`,
    ];
    if (done.aheadMs !== undefined) {
      lines.push(
        `The latest change here, which another node has, lies ${duration(done.aheadMs)} ahead: until then, what this node writes does, too.`,
      );
    }
    return lines;
  });
}
