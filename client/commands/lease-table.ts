import { execFile } from "node:child_process";
import { type ErrorDetails, type ErrorKind, PawlError } from "@pawl/protocol/errors";
import { daemonCommand } from "../connection/daemon-program.js";
import { command, UsageError } from "../terminal/command.js";

/** The line that pawld prints about the table. */
interface Made {
  readonly table: string;
  readonly created: boolean;
  readonly error?: { readonly kind: ErrorKind; readonly message: string; readonly details: ErrorDetails };
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
    const made = await makeTable(provider);
    if (made.error !== undefined) {
      const { kind, message, details } = made.error;
      throw new PawlError(kind, message, details);
    }
    const { table, created } = made;
    output.result({ table, created }, () => `${table}: ${created ? "made" : "it is there already"}`);
    return undefined;
  },
});

/** The SDK is the daemon's, so its program makes the table: with our environment, without serving anything. */
function makeTable(provider: string): Promise<Made> {
  const [program = "pawld", ...before] = daemonCommand();
  return new Promise((resolve, reject) => {
    execFile(program, [...before, "--create-lease-table", provider], (error, stdout, stderr) => {
      const line = stdout.trim();
      if (line.startsWith("{")) return resolve(JSON.parse(line) as Made);
      const said = stderr.trim().replace(/^pawld: /, "");
      const usage = error !== null && error.code === EXIT_USAGE;
      reject(usage ? new UsageError(said) : new PawlError("unavailable", said || String(error?.message)));
    });
  });
}

/** The exit code of pawld when its options are wrong. */
const EXIT_USAGE = 2;

export const commands = { "lease-table": leaseTable };
