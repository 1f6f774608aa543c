// The provider of the documentation's example, with faults as a control file asks for them. Its first word:
//   fail   rejects without having done anything
//   drop   does what it was asked, and then rejects as if the answer had been lost
//   hang   never answers, whatever the signal says
//   throw  fails with something that is no refusal
//   low    grants with the fencing token 1
// and its second, if any, the one method that this is about. Without the file all is well.
import { appendFileSync, readFileSync } from "node:fs";
import { createLeaseProvider as createReal } from "../../docs/providers/directory-provider.js";

export async function createLeaseProvider(options) {
  const { directory } = options.params;
  const real = await createReal(options);
  const fault = (method) => {
    try {
      const [kind, only = method] = readFileSync(`${directory}.control`, "utf8").trim().split(" ");
      return only === method && kind !== "" ? kind : undefined;
    } catch {
      return undefined;
    }
  };
  const broken = () => Object.assign(new Error("made to fail"), { kind: "provider_unavailable" });
  const faulty = {};
  for (const method of [
    "acquire",
    "heartbeat",
    "release",
    "get",
    ...(options.params.force ? ["break"] : []),
  ]) {
    faulty[method] = async (...args) => {
      const kind = fault(method);
      appendFileSync(`${directory}.calls`, `${method} ${kind ?? "-"}\n`);
      if (kind === "fail") throw broken();
      if (kind === "hang") return await new Promise(() => {});
      if (kind === "throw") return undefined.name;
      const answer = await real[method](...args);
      if (kind === "drop") throw broken();
      return kind === "low" && answer.granted ? { ...answer, fencingToken: 1 } : answer;
    };
  }
  return faulty;
}
