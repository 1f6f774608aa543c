import { ALL_OPTIONS, ONLY_FLAGS, type Option } from "./options.js";

const HELP_COLUMN = 36;

/** The text of `pawld --help`, from which the manual page is made too. */
export function helpText(): string {
  const rows = [...ALL_OPTIONS.map(([, option]) => option), ...Object.values(ONLY_FLAGS)].map(row);
  const changeAtOnce = ALL_OPTIONS.filter(([, { reloadable }]) => reloadable).map(([, { flag }]) => flag);
  return `pawld [options]

The pawl daemon: owns the state of this node and serves it as JSON-RPC 2.0 on a Unix socket.

Options, with their defaults in brackets:
${rows.join("\n")}

An option can also be set in the environment (--state-dir as PAWL_STATE_DIR) or in the file of --config
(state-dir = "..."). Flags win over the environment, which wins over the file. Under systemd the file is
$CONFIGURATION_DIRECTORY/NAME.toml of the instance, if it is there.

SIGHUP has the configuration read again. Most options take effect at the next start; these change at once:
${changeAtOnce.join(", ")}.

Examples:
  pawld                                    serve on the default paths of this user
  pawld --instance ci --idle-exit 600      a second daemon, which ends when nobody uses it
  pawld --lease-provider 'release/*=dynamodb:table=leases'   leases over several machines; see docs/providers
  pawld --mode distributed --node-id 7     ids like FR-7-001, unique across nodes without coordination
`;
}

function row(option: Pick<Option<unknown>, "flag" | "help"> & Partial<Option<unknown>>): string {
  const { flag, placeholder, default: value, help } = option;
  const shown =
    option.defaultText ?? (typeof value === "string" || typeof value === "number" ? value : undefined);
  const left = `  --${flag}${placeholder === undefined ? "" : ` ${placeholder}`}`;
  const right = `${help}${shown === undefined ? "" : ` [${shown}]`}`;
  return left.length < HELP_COLUMN
    ? `${left.padEnd(HELP_COLUMN)}${right}`
    : `${left}\n${" ".repeat(HELP_COLUMN)}${right}`;
}
