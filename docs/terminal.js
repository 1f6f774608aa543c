// @ts-check
// node docs/terminal.js [FILE]: runs a few commands of pawl with a daemon of their own, and writes what a terminal shows
// of them, by default to docs/terminal.svg.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const COLUMNS = 84;
const COMMANDS = [
  "pawl next FR",
  `pawl enqueue mail '{"to":"ada"}' --source-key welcome-ada`,
  `pawl work mail --drain -- sh -c 'echo "sending $(cat)"'`,
  "pawl queues",
  `pawl lock deploy -- sh -c 'echo "deploying with token $PAWL_FENCING_TOKEN"'`,
  `pawl item set FR-001 --stage 1_backlog --name "Sign in with a key"`,
  "pawl board",
];

const directory = mkdtempSync(path.join(tmpdir(), "pawl-terminal-"));
const env = {
  ...process.env,
  PAWL_SOCKET: path.join(directory, "pawl.sock"),
  XDG_STATE_HOME: directory,
  COLUMNS: String(COLUMNS),
  NO_COLOR: "1",
};
const daemon = spawn(process.execPath, [path.join(ROOT, "daemon/bin/pawld.js")], {
  env,
  stdio: ["ignore", "pipe", "inherit"],
});
try {
  for await (const line of createInterface({ input: daemon.stdout })) if (line.includes('"listening"')) break;
  const lines = COMMANDS.flatMap((command) => {
    const pawl = `${process.execPath} ${path.join(ROOT, "client/bin/pawl.js")}`;
    const shell = `${command.replace(/^pawl/, () => pawl)} 2>&1`;
    const output = execFileSync("bash", ["-c", shell], { env, cwd: directory, encoding: "utf8" });
    return [`$ ${command}`, ...output.trimEnd().split("\n"), ""];
  });
  writeFileSync(process.argv[2] ?? path.join(ROOT, "docs/terminal.svg"), picture(lines.slice(0, -1)));
} finally {
  daemon.kill();
  await once(daemon, "exit");
  rmSync(directory, { recursive: true });
}

/**
 * An SVG of a terminal's lines.
 * @param {string[]} lines
 */
function picture(lines) {
  const [lineHeight, columnWidth, margin] = [18, 8.4, 18];
  const [width, height] = [
    Math.ceil(COLUMNS * columnWidth) + 2 * margin,
    lines.length * lineHeight + 2 * margin,
  ];
  const texts = lines.map((line, index) => {
    const safe = line.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const color = line.startsWith("$ ") ? ' class="c"' : "";
    return `<text x="${margin}" y="${margin + 13 + index * lineHeight}"${color} xml:space="preserve">${safe}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>A terminal: ${COMMANDS.map((command) => command.split(" ").slice(0, 2).join(" ")).join(", ")}</title>
<style>
  rect { fill: #16181d }
  text { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #c9ced6 }
  .c { fill: #8fd18b }
</style>
<rect width="${width}" height="${height}" rx="8"/>
${texts.join("\n")}
</svg>
`;
}
