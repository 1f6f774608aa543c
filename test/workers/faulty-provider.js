// The provider of the documentation's example, with faults as a control file asks for them. Its first word:
//   fail   rejects without having done anything
//   drop   does what it was asked, and then rejects as if the answer had been lost
//   hang   never answers, whatever the signal says
//   throw  fails with something that is no refusal
//   low    grants with the fencing token 1
//   quote  fails with a text that quotes what it was configured with
//   answer answers what follows the method, as JSON or `undefined`, without having done anything
//   reject rejects with that
//   soon   says of a name that is held that it is worth asking again at once
// and its second, if any, the one method that this is about. Without the file all is well.
//
// Parameters: directory; force=1 for `break`; forgetful=1 for no `inspect`; eager=1 for a `watch` that
// tells of nothing; whatever else is secret.
import { appendFileSync, readFileSync } from "node:fs";
import { createLeaseProvider as createReal } from "../../docs/providers/directory-provider.js";

export async function createLeaseProvider(options) {
  const { directory, force, forgetful, eager } = options.params;
  const real = await createReal(options);
  const fault = (method) => {
    try {
      const [kind, only = method, ...rest] = readFileSync(`${directory}.control`, "utf8").trim().split(" ");
      return only === method && kind !== "" ? { kind, rest: rest.join(" ") } : {};
    } catch {
      return {};
    }
  };
  const parsed = (text) => (text === "undefined" ? undefined : JSON.parse(text));
  const broken = () => Object.assign(new Error("made to fail"), { kind: "provider_unavailable" });
  const faulty = {};
  for (const method of [
    "acquire",
    "heartbeat",
    "release",
    "get",
    ...(forgetful ? [] : ["inspect"]),
    ...(force ? ["break"] : []),
  ]) {
    faulty[method] = async (...args) => {
      const { kind, rest } = fault(method);
      appendFileSync(`${directory}.calls`, `${method} ${kind ?? "-"}\n`);
      if (kind === "fail") throw broken();
      if (kind === "hang") return await new Promise(() => {});
      if (kind === "throw") return undefined.name;
      if (kind === "answer") return parsed(rest);
      if (kind === "reject") throw parsed(rest);
      if (kind === "quote") {
        const said = `no route to postgres://admin:tiger@db/leases, with ${JSON.stringify(options.params)}`;
        throw Object.assign(new Error(said, { cause: new Error(`for ${args[0].leaseId}`) }), {
          code: "ECONNREFUSED",
        });
      }
      const answer = await real[method](...args);
      if (kind === "drop") throw broken();
      if (kind === "soon") return answer.granted ? answer : { ...answer, retryMs: 0 };
      return kind === "low" && answer.granted ? { ...answer, fencingToken: 1 } : answer;
    };
  }
  if (eager) faulty.watch = async () => {};
  return faulty;
}
