import { connectToOneOf } from "../connect.js";
import { defaultInstance } from "../connection/socket-path.js";
import { metricsText, readFigures } from "../metrics.js";
import { command, UsageError } from "../terminal/command.js";
import { packageOfPage } from "./packages.js";

/** The daemon is to answer the page in so long. */
const ANSWER_MS = 10_000;

const web = command({
  args: "",
  patient: () => true,
  endsBySignal: true,
  summary: "Serve a page that shows what the daemon does, live",
  options: {
    listen: {
      type: "text",
      value: "HOST:PORT",
      describe: "Where: a port of this machine, or the path of a Unix socket",
      default: "127.0.0.1:7295",
    },
    "read-only": { type: "flag", describe: "Only look: whatever changes something is refused" },
    open: { type: "flag", describe: "Open it in the browser" },
    "token-file": {
      type: "text",
      value: "FILE",
      describe: "Keep the token here, so that the address is the same after a restart",
    },
    "allow-host": {
      type: "text",
      value: "HOST",
      describe: "Also answer by this Host, as pawl.example.org behind a proxy",
    },
    "tls-cert": { type: "text", value: "FILE", describe: "Serve by TLS, with this certificate" },
    "tls-key": { type: "text", value: "FILE", describe: "The key of the certificate" },
  },
  details:
    "The address that is printed has a token, which the browser keeps as a cookie; without it nothing is shown. With --read-only there is no token, unless --token-file names one, or --listen lets other machines connect. /metrics has what `pawl metrics` prints, for Prometheus and its like (with a token as `Authorization: Bearer TOKEN`), and /healthz says whether the daemon answers. Without a daemon the page says so, and goes on when there is one. The page is the package @pawl/web.",
  examples: [
    ["pawl web --open", "Look, and act"],
    ["pawl web --read-only", "Only look; everybody on this machine may"],
    ["pawl web --listen 127.0.0.1:0 --instance ci", "On a port that is free, for another daemon"],
    ["pawl web --listen 0.0.0.0:7295 --tls-cert c.pem --tls-key k.pem", "For other machines"],
  ],
  async run(values, { output, instance, env, socketPaths }) {
    const { "tls-cert": cert, "tls-key": key } = values;
    if ((cert === undefined) !== (key === undefined)) {
      throw new UsageError("--tls-cert and --tls-key belong together.");
    }
    const { CannotServe, openInBrowser, serveWeb } = await packageOfPage();
    const connect = () =>
      connectToOneOf(socketPaths(), instance ?? defaultInstance(env), {
        reconnectMs: 0,
        timeoutMs: ANSWER_MS,
      });
    const server = await serveWeb({
      connect,
      metrics: async (client) => metricsText(await readFigures(client), "openmetrics"),
      listen: values.listen,
      readOnly: values["read-only"],
      tokenFile: values["token-file"],
      allowHost: values["allow-host"],
      tls: cert === undefined || key === undefined ? undefined : { cert, key },
    }).catch((error: unknown) => {
      throw error instanceof CannotServe ? new UsageError(error.message) : error;
    });
    if (server.warning !== undefined) output.complain(server.warning);
    output.result({ url: server.url, readOnly: values["read-only"] }, () => server.url);
    if (values.open) openInBrowser(server.url);
    // A signal ends it, and the kernel closes what is open.
    return await new Promise<never>(() => {});
  },
});

export const commands = { web };
