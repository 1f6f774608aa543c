import { command, UsageError } from "../terminal/command.js";
import { askProgram } from "./daemon-task.js";

/** The line that pawld prints about the table. */
interface Made {
  readonly table: string;
  readonly created: boolean;
}

const leaseTable = command({
  args: "<create> <provider>",
  summary: "Make the DynamoDB table that leases over machines are kept in",
  options: {},
  details:
    "The first word is create. PROVIDER is as pawld --lease-provider takes it after the equals sign. No daemon has to run; credentials come from where the AWS SDK always looks, and so does the region if it is not given. A table that is there already is left as it is.",
  examples: [
    [
      "pawl lease-table create dynamodb:table=leases,region=eu-central-1",
      "In the account of the environment",
    ],
    [
      "pawl lease-table create dynamodb:table=leases,endpoint=http://127.0.0.1:8000,region=local",
      "In a local DynamoDB",
    ],
  ],
  async run({ create, provider }, { output }) {
    if (create !== "create") {
      throw new UsageError(
        `The only thing to do with a lease table is create, not ${JSON.stringify(create)}.`,
      );
    }
    const { table, created } = await askProgram<Made>(["--create-lease-table", provider]);
    output.result({ table, created }, () => `${table}: ${created ? "made" : "it is there already"}`);
    return undefined;
  },
});

export const commands = { "lease-table": leaseTable };
