// Writes the man pages of pawl and pawld, and an example of pawld's config file, from what the programs say themselves
// with --help. `--check` only looks whether they are current, names those that are not, and then exits with 1.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { COMMANDS, commandNamed } from "../client/dist/cli/command-list.js";
import { help } from "../client/dist/cli/help.js";
import { helpText } from "../daemon/dist/config/help.js";
import { ALL_OPTIONS } from "../daemon/dist/config/options.js";

const REPOSITORY = join(import.meta.dirname, "..");
/** The rest of a row of a table stands at least so far in. */
const CONTINUED_COLUMNS = 12;

const { version } = JSON.parse(readFileSync(join(REPOSITORY, "package.json"), "utf8"));

/** The text that `pawl --help` prints, or that of a command: without colours, wherever this runs. */
function pawlHelp(name) {
  return help(commandNamed(name), { columns: undefined, styled: (_style, text) => text });
}

/**
 * A help text in parts: paragraphs, and sections of rows below a line that is not indented. A row is what stands
 * left, and the text that belongs to it, be it beside or below.
 */
function parts(help) {
  const found = [];
  const lines = help.trimEnd().split("\n");
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at];
    if (line === "") continue;
    const indent = line.search(/\S/);
    if (indent === 0) {
      const paragraph = found.at(-1);
      const goesOn = at > 0 && lines[at - 1] !== "" && paragraph?.rows.length === 0;
      if (goesOn) paragraph.text += ` ${line}`;
      else found.push({ text: line, rows: [] });
      continue;
    }
    const section = found.at(-1);
    const row = section.rows.at(-1);
    if (row !== undefined && (indent >= CONTINUED_COLUMNS || (indent > 2 && row.text === ""))) {
      row.text = `${row.text} ${line.trim()}`.trim();
    } else {
      const [, left, text = ""] = /^(\S.*?)(?:\s{2,}(\S.*))?$/.exec(
        line.trim().replace(/^(-\w,) {1,}/, "$1 "),
      );
      section.rows.push({ left, text });
    }
  }
  return found;
}

/** Text as roff takes it for text (groff_char(7)): no escapes, no requests, and dashes that can be copied. */
function roff(text) {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("'", "\\(aq")
    .replaceAll("`", "\\(ga")
    .replaceAll("^", "\\(ha")
    .replaceAll("~", "\\(ti")
    .replace(/^\./, "\\&.");
}

const paragraph = (text) => [".PP", roff(text)];
const rows = (each) =>
  each.flatMap(({ left, text }) => [
    ".TP",
    `.B "${roff(left).replaceAll('"', "\\(dq")}"`,
    roff(text) || "\\&",
  ]);
const section = (title) => `.SH ${title.toUpperCase()}`;
const sub = (title) => `.SS "${roff(title).replaceAll('"', "\\(dq")}"`;

function page(name, number, summary, body) {
  const lines = [
    `.\\" Written by man/write.js from what the programs say with \\-\\-help.`,
    `.TH ${name.toUpperCase()} ${number} "" "pawl ${version}" "pawl"`,
    section("Name"),
    `${name} \\- ${roff(summary)}`,
    ...body,
  ];
  return `${lines.join("\n")}\n`;
}

function pawld() {
  const [usage, what, ...rest] = parts(helpText());
  const options = rest.find(({ text }) => text.startsWith("Options"));
  const examples = rest.find(({ text }) => text.startsWith("Examples"));
  return page("pawld", 8, "the daemon of pawl", [
    section("Synopsis"),
    `.B ${roff(usage.text)}`,
    section("Description"),
    ...paragraph(what.text),
    section("Options"),
    ...paragraph(options.text),
    ...rows(options.rows),
    ...rest.filter((part) => part !== options && part !== examples).flatMap(({ text }) => paragraph(text)),
    section("Signals"),
    ...rows([
      {
        left: "SIGTERM, SIGINT",
        text: "Answers what was received, ends waits, and exits with 0. A second one exits at once.",
      },
      {
        left: "SIGHUP",
        text: "Reads the configuration again; on a terminal that is closed it ends, as by SIGTERM.",
      },
      { left: "SIGKILL", text: "Loses nothing that was answered, and needs no repair." },
    ]),
    section("Exit status"),
    ...rows([
      { left: "0", text: "Stopped in order, or idle for so long as was asked for." },
      { left: "1", text: "Ended by a failure, such as a disk that fails." },
      { left: "2", text: "Bad usage." },
      { left: "3", text: "Could not start; standard error says why." },
    ]),
    section("systemd"),
    ...paragraph(
      "Units for the machine and for a user are put in place by `pawl service install`. The daemon tells systemd when it serves, what it is doing, and that it is alive; it takes sockets that are passed to it: one called pawl (FileDescriptorName=), and one called read-only, which refuses what writes.",
    ),
    section("Examples"),
    ...rows(examples.rows),
    section("See also"),
    ".BR pawl (1),",
    ".BR systemd.socket (5)",
  ]);
}

async function pawl() {
  const [usage, what, ...rest] = parts(await pawlHelp());
  const isTable = ({ text }) => text !== "Options" && text !== "Examples";
  const groups = rest.filter((part) => part.rows.length > 0 && isTable(part));
  const named = (name) => rest.find(({ text }) => text === name);
  const durations = rest.find(({ text }) => text.startsWith("DURATION"));
  const exit = rest.find(({ text }) => text.startsWith("Exit codes"));
  const each = await Promise.all(
    COMMANDS.map(async ({ name }) => {
      const [line, text, ...more] = parts(await pawlHelp(name));
      const own = more.find((part) => part.text === "Options");
      const examples = more.find((part) => part.text === "Examples");
      return [
        sub(line.text.replace(/^Usage: /, "")),
        ...paragraph(text.text),
        ...(own === undefined ? [] : rows(own.rows)),
        ...paragraph("Examples:"),
        ...rows(examples.rows),
      ];
    }),
  );
  return page("pawl", 1, "numbers, work, commands and leases for the processes of a machine", [
    section("Synopsis"),
    `.B ${roff(usage.text.replace(/^Usage: /, ""))}`,
    section("Description"),
    ...paragraph(what.text),
    section("Commands"),
    ...groups.flatMap(({ text, rows: table }) => [sub(text), ...rows(table)]),
    section("Options of every command"),
    ...rows(named("Options").rows),
    ...paragraph(durations.text),
    section("Exit status"),
    ...paragraph(exit.text),
    section("Each command"),
    ...each.flat(),
    section("Examples"),
    ...rows(named("Examples").rows),
    section("See also"),
    ".BR pawld (8)",
  ]);
}

/** A value for an option that has no default as people write it, by what its value is called in the help. */
const SAMPLES = {
  GID: "[1000]",
  MODE: '"0600"',
  N: "7",
  ID: "7",
  "PATTERN=SPEC": '["release/*=dynamodb:table=leases"]',
  "PATTERN=URL": '["build/*=postgresql://pawl@db.example/pawl"]',
  SECONDS: "600",
  UID: "[1000]",
  "centralized|distributed": '"distributed"',
};
/** Of these the help says where they are by default; each gets a place that suits it. */
const PLACES = {
  socket: "/run/pawl/default.sock",
  "socket-group": "pawl",
  "read-only-socket": "/run/pawl/read-only.sock",
  "state-dir": "/var/lib/pawl/default",
};

/** A config file with every option: with its default where that is a value, commented out all the same. */
function exampleConfig() {
  const each = ALL_OPTIONS.map(
    ([, { flag, placeholder, help: text, default: value, defaultText, reloadable }]) => {
      const isShown = typeof value === "string" || (typeof value === "number" && placeholder !== "MODE");
      const sample = flag in PLACES ? JSON.stringify(PLACES[flag]) : SAMPLES[placeholder];
      const shown = isShown ? JSON.stringify(value) : placeholder === undefined ? "true" : sample;
      if (shown === undefined) throw new Error(`man/write.js has no sample for --${flag} ${placeholder}`);
      const notes = [
        placeholder === undefined ? "default: false" : defaultText && `default: ${defaultText}`,
        reloadable && "read again on SIGHUP",
      ].filter(Boolean);
      return `# ${text}${notes.length === 0 ? "" : ` (${notes.join("; ")})`}\n#${flag} = ${shown}\n`;
    },
  );
  return `# Options of pawld, for --config FILE. Under systemd the file is /etc/pawl/default.toml, or ~/.config/pawl/default.toml for
# a user. A flag or a PAWL_* variable wins over what stands here; an unknown key is an error.

${each.join("\n")}`;
}

const pages = {
  "client/man/pawl.1": await pawl(),
  "daemon/man/pawld.8": pawld(),
  "docs/pawld.example.toml": exampleConfig(),
};
for (const [path, text] of Object.entries(pages)) {
  const file = join(REPOSITORY, path);
  if (process.argv.includes("--check")) {
    if (readFileSync(file, "utf8") === text) continue;
    process.stderr.write(`${path} is not current; npm run man writes it anew\n`);
    process.exitCode = 1;
  } else {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
