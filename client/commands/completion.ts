import { command, UsageError } from "../terminal/command.js";

const SHELLS: readonly string[] = ["bash", "zsh", "fish"];

const completion = command({
  args: "[shell]",
  summary: "Print a script that completes commands in your shell",
  options: {},
  details:
    "Types, queues and other names are completed too, as the daemon has them. SHELL is bash, zsh or fish.",
  examples: [
    ["pawl completion bash >> ~/.bashrc", "For new shells; `source <(pawl completion bash)` for this one"],
    ["pawl completion zsh >> ~/.zshrc", "The same for zsh"],
    ["pawl completion fish > ~/.config/fish/completions/pawl.fish", "The same for fish"],
  ],
  words: { shell: SHELLS },
  async run({ shell }, { output, env }) {
    if (shell !== undefined && !SHELLS.includes(shell)) {
      throw new UsageError(`SHELL is bash, zsh or fish, not ${JSON.stringify(shell)}.`);
    }
    const ofUser = env.SHELL?.split("/").at(-1) ?? "";
    const { completionScript } = await import("../terminal/yargs.js");
    output.write(completionScript(shell ?? (SHELLS.includes(ofUser) ? ofUser : "bash")));
    return undefined;
  },
});

export const commands = { completion };
