import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { PawlError, shown } from "@pawl/protocol/errors";

/** A pattern of names, and the provider that keeps their leases. */
export interface LeaseRule {
  /** A name, in which `*` stands for any characters, none included. */
  readonly pattern: string;
  readonly provider: ProviderSpecification;
}

/** A provider as it was configured. `text` tells providers apart, also over restarts. */
export type ProviderSpecification =
  | { readonly kind: "local"; readonly text: "local" }
  | DynamoDbSpecification
  | EtcdSpecification
  | CustomSpecification;

export interface DynamoDbSpecification {
  readonly kind: "dynamodb";
  readonly text: string;
  readonly table: string;
  readonly endpoint: string | undefined;
  readonly region: string | undefined;
}

export interface EtcdSpecification {
  readonly kind: "etcd";
  readonly text: string;
  readonly endpoints: readonly string[];
  /** The prefix of all its keys. */
  readonly prefix: string;
  /** Files in PEM: the authority to trust, the daemon's certificate and its key. */
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

export interface CustomSpecification {
  readonly kind: "custom";
  readonly text: string;
  readonly module: string;
  readonly params: Readonly<Record<string, string>>;
}

/** A table's name, or its ARN in another account. */
const TABLE = /^([\w.-]{1,255}|arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:\d{12}:table\/[\w.-]{3,255})$/;
const REGION = /^[a-z0-9-]{1,63}$/;

/** Hexadecimal digits by which the parameters of two modules are told apart. */
const DIGEST_LENGTH = 32;

const DEFAULT_ETCD_PREFIX = "pawl/";

/** The parameters that a provider takes; the first is required. */
const PARAMS = {
  dynamodb: ["table", "endpoint", "region"],
  etcd: ["endpoints", "prefix", "ca", "cert", "key"],
} as const;

const FORMS = "local, dynamodb:table=NAME, etcd:endpoints=URL,... or custom:./module.js";

/**
 * Reads `PATTERN=SPEC`, as `--lease-provider` takes it. Throws `invalid_params` with the part that is wrong.
 */
export function parseLeaseRule(text: string): LeaseRule {
  const equals = text.indexOf("=");
  const pattern = text.slice(0, Math.max(equals, 0));
  if (pattern === "") {
    throw wrong(`${shown(text)} is no PATTERN=SPEC, such as 'release/*=dynamodb:table=leases'`);
  }
  return { pattern, provider: parseProvider(text.slice(equals + 1)) };
}

/** Reads `kind:key=value,...`. A part without a key belongs to the value before it: `endpoints=URL,URL`. */
export function parseProvider(text: string): ProviderSpecification {
  if (text === "local") return { kind: "local", text };
  const [, kind, rest = ""] = /^(dynamodb|etcd|custom):(.*)$/s.exec(text) ?? [];
  if (kind === undefined) throw wrong(`${shown(text)} is no provider; known are ${FORMS}`);
  if (kind === "custom") {
    const [module = "", ...params] = rest.split(",");
    if (module === "") throw wrong(`${shown(text)} names no module: custom:./module.js`);
    // The parameters may be secret, and `text` is shown where others read it, and kept in the database and its backups.
    const named = `custom:${module}`;
    const digest = createHash("sha256").update(params.join(",")).digest("hex").slice(0, DIGEST_LENGTH);
    return {
      kind,
      text: params.length === 0 ? named : `${named}#${digest}`,
      module: resolve(module),
      params: parseParams(named, params),
    };
  }

  const params = parseParams(text, rest.split(","));
  const known: readonly string[] = PARAMS[kind as "dynamodb" | "etcd"];
  const unknown = Object.keys(params).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw wrong(`${shown(text)} has the unknown parameter ${shown(unknown)}; known are ${known.join(", ")}`);
  }
  const required = params[known[0] as string];
  if (required === undefined) throw wrong(`${shown(text)} lacks ${known[0]}=`);
  if (kind === "dynamodb") {
    const { endpoint, region } = params;
    if (!TABLE.test(required)) {
      throw wrong(
        `${shown(text)} has table=${required}, which no table can be called: only letters, digits, and _ . - are allowed`,
      );
    }
    if (region !== undefined && !REGION.test(region)) {
      throw wrong(`${shown(text)} has region=${region}, which is no region such as eu-central-1`);
    }
    if (endpoint !== undefined) checkUrl(text, endpoint);
    return { kind, text, table: required, endpoint, region };
  }
  const endpoints = required.split(",");
  for (const endpoint of endpoints) checkUrl(text, endpoint);
  const { prefix = DEFAULT_ETCD_PREFIX, ca, cert, key } = params;
  if ((cert === undefined) !== (key === undefined))
    throw wrong(`${shown(text)} needs cert= and key= together`);
  return { kind: "etcd", text, endpoints, prefix, ca, cert, key };
}

function parseParams(text: string, parts: readonly string[]): Record<string, string> {
  const params: Record<string, string> = Object.create(null);
  let last: string | undefined;
  for (const part of parts) {
    const [, key, value] = /^([A-Za-z][\w-]*)=(.*)$/s.exec(part) ?? [];
    if (key === undefined) {
      if (last === undefined || part === "")
        throw wrong(`${shown(text)} has ${shown(part)} where key=value belongs`);
      params[last] += `,${part}`;
      continue;
    }
    if (key in params) throw wrong(`${shown(text)} has ${key}= twice`);
    if (value === "") throw wrong(`${shown(text)} has no value for ${key}=`);
    params[key] = value as string;
    last = key;
  }
  return params;
}

function checkUrl(text: string, value: string): void {
  const { protocol, username, password } = URL.canParse(value) ? new URL(value) : NO_URL;
  // Others can read command lines, and the specification is logged.
  if (username !== "" || password !== "")
    throw wrong("A URL of --lease-provider holds a user name or a password; credentials do not belong there");
  if (protocol !== "http:" && protocol !== "https:") {
    throw wrong(`${shown(text)} has ${shown(value)} where an http:// or https:// URL belongs`);
  }
}

const NO_URL = { protocol: undefined, username: "", password: "" };

function wrong(what: string): PawlError {
  return new PawlError("invalid_params", `${what}.`);
}
