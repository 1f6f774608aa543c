import { metricsText, readFigures } from "../metrics.js";
import { command } from "../terminal/command.js";

const metrics = command({
  args: "",
  summary: "Print figures for a monitoring system",
  options: {
    prometheus: {
      type: "flag",
      describe: "The older text of Prometheus, which a node exporter and promtool read",
    },
  },
  details:
    "The text is OpenMetrics, as Prometheus and its like read it; with --prometheus it is the older one, for the textfile collector of a node exporter. Counters begin at 0 with each start of the daemon and only go up: what increase() says of them holds over restarts. At most 200 queues are named, the first to which something happened and then those with the most batches; the others are summed as the queue other.",
  examples: [
    ["pawl metrics", "All of it"],
    [
      "pawl metrics --prometheus > pawl.prom.new && mv pawl.prom.new pawl.prom",
      "From a timer, into the collector's directory",
    ],
  ],
  async run({ prometheus }, { connect, output }) {
    const client = await connect();
    const figures = await readFigures(client);
    output.result(figures, () => metricsText(figures, prometheus ? "prometheus" : "openmetrics"));
    return undefined;
  },
});

export const commands = { metrics };
