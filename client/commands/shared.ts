import { command, UsageError } from "../terminal/command.js";
import { askProgram } from "./daemon-task.js";

/** The line that pawld prints about the tables. */
interface Made {
  readonly place: string;
  readonly schema: string;
  readonly from: number;
  readonly steps: readonly string[];
  readonly sql?: string;
}

const shared = command({
  args: "<create> <url>",
  summary: "Make the tables in PostgreSQL for names that daemons share",
  options: {
    "dry-run": { type: "flag", describe: "Print the statements, and change nothing" },
  },
  words: { create: ["create"] },
  details:
    "The first word is create. The URL is as pawld --shared takes it after the equals sign: postgresql://USER@HOST/DATABASE, and ?schema=NAME for another schema than pawl. A password is better in PGPASSWORD than in the URL. The user needs CREATE on the database, or on the schema if that is there already. Tables of an older pawl are brought up to date in one transaction, for which the daemons that use them have to be stopped; a daemon never does this by itself. What is up to date is left as it is.",
  examples: [
    ["pawl shared create postgresql://pawl@db.example/work", "In the schema pawl of the database work"],
    [
      "pawl shared create 'postgresql://pawl@db.example/work?schema=ci' --dry-run",
      "The statements, for who keeps the database",
    ],
  ],
  async run({ create, url, "dry-run": dryRun }, { output }) {
    if (create !== "create") {
      throw new UsageError(
        `The only thing to do with tables of shared names is create, not ${JSON.stringify(create)}.`,
      );
    }
    const made = await askProgram<Made>(["--create-shared-tables", url, ...(dryRun ? ["--dry-run"] : [])]);
    output.result(made, () => (made.sql === undefined ? shownMade(made) : made.sql || shownMade(made)));
    return undefined;
  },
});

function shownMade({ place, schema, from, steps }: Made): string {
  const where = `${place}, schema ${schema}`;
  if (steps.length === 0) return `${where}: up to date`;
  return from === 0 ? `${where}: made` : `${where}: brought up to date, ${steps.join(", ")}`;
}

export const commands = { shared };
