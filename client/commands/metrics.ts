import { openMetrics, readFigures } from "../metrics.js";
import { command } from "../terminal/command.js";

const metrics = command({
  args: "",
  summary: "Print figures for a monitoring system",
  options: {},
  details:
    "The text is OpenMetrics, as Prometheus and its like read it, for the textfile collector of a node exporter. Counters go up from the start of the daemon. At most 200 queues are named, those with the most batches; the others are summed as the queue other.",
  examples: [
    ["pawl metrics", "All of it"],
    [
      "pawl metrics > pawl.prom.new && mv pawl.prom.new pawl.prom",
      "From a timer, into the collector's directory",
    ],
  ],
  async run(_args, { connect, output }) {
    const client = await connect();
    const figures = await readFigures(client);
    output.result(figures, () => openMetrics(figures));
    return undefined;
  },
});

export const commands = { metrics };
