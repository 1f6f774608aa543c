// A real etcd cluster on loopback, its members processes of their own that can be killed and started again.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type AtEnd, privateDirectory } from "./daemon.js";
import { freePorts } from "./ports.js";

/** True if the program is there: Debian has it in etcd-server. */
export const HAS_ETCD = spawnSync("etcd", ["--version"]).status === 0;
if (!HAS_ETCD) process.stderr.write("etcd is not installed (Debian: etcd-server); its tests are skipped\n");

/** Half of etcd's own defaults: a lease lasts a second at least, and a leader is missed after half a second. */
const HEARTBEAT_MS = 50;
const ELECTION_MS = 500;

interface Member {
  readonly name: string;
  readonly client: string;
  /** Where it also tells of itself, without TLS. */
  readonly metrics: string;
  readonly peer: string;
  child: ChildProcess | undefined;
}

/** Files in PEM. */
export interface EtcdTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export class EtcdCluster {
  readonly members: readonly Member[];
  readonly #directory: string;
  readonly #tls: EtcdTls | undefined;

  private constructor(members: readonly Member[], directory: string, tls: EtcdTls | undefined) {
    this.members = members;
    this.#directory = directory;
    this.#tls = tls;
  }

  /** With `tls` its members serve clients by TLS alone, and only clients with a certificate of the same authority. */
  static async start(size: number, atEnd: AtEnd, tls?: EtcdTls): Promise<EtcdCluster> {
    const ports = await freePorts(size * 3);
    const members = Array.from({ length: size }, (_, index) => ({
      name: `m${index}`,
      client: `${tls === undefined ? "http" : "https"}://127.0.0.1:${ports[index * 3]}`,
      peer: `http://127.0.0.1:${ports[index * 3 + 1]}`,
      metrics: `http://127.0.0.1:${ports[index * 3 + 2]}`,
      child: undefined,
    }));
    const cluster = new EtcdCluster(members, privateDirectory(atEnd), tls);
    atEnd(() => cluster.stop());
    await cluster.startAll();
    return cluster;
  }

  get endpoints(): string[] {
    return this.members.map(({ client }) => client);
  }

  /** Starts those that do not run, and resolves once there is a leader. */
  async startAll(): Promise<void> {
    for (const member of this.members) if (member.child === undefined) this.#start(member);
    if (this.#tls === undefined) await this.leader();
    else await Promise.all(this.members.map((member) => this.#healthy(member)));
  }

  /** Resolves once a member serves, which it says where no certificate is asked for. */
  async #healthy(member: Member): Promise<void> {
    for (;;) {
      const answer = await fetch(`${member.metrics}/health`).catch(() => undefined);
      if (answer?.ok) return;
      this.#checkRuns(member);
      await sleep(20);
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => this.kill(member)));
  }

  async kill(member: Member): Promise<void> {
    const { child } = member;
    member.child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  /** The member that leads, once most agree on one that runs. */
  async leader(): Promise<Member> {
    for (;;) {
      const running = this.members.filter(({ child }) => child !== undefined);
      const answers = await Promise.all(running.map((member) => statusOf(member)));
      const leaders = answers.flatMap((answer) => (answer === undefined ? [] : [answer.leader]));
      const [leader = "0"] = leaders;
      const index = answers.findIndex((answer) => answer?.member === leader);
      const agreed = leaders.filter((each) => each === leader).length > this.members.length / 2;
      if (leader !== "0" && index >= 0 && agreed) return running[index] as Member;
      for (const member of running) this.#checkRuns(member);
      await sleep(20);
    }
  }

  #checkRuns({ name, child }: Member): void {
    if (child?.exitCode != null) throw new Error(`etcd ended: ${readFileSync(this.#logOf(name), "utf8")}`);
  }

  #logOf(name: string): string {
    return join(this.#directory, `${name}.log`);
  }

  #start(member: Member): void {
    const { name, client, metrics, peer } = member;
    const tls = this.#tls;
    const child = spawn(
      "etcd",
      [
        ["--name", name],
        ["--data-dir", join(this.#directory, name)],
        ["--listen-client-urls", client],
        ["--advertise-client-urls", client],
        ["--listen-metrics-urls", metrics],
        ...(tls === undefined
          ? []
          : [
              ["--client-cert-auth"],
              ["--trusted-ca-file", tls.ca],
              ["--cert-file", tls.cert],
              ["--key-file", tls.key],
            ]),
        ["--listen-peer-urls", peer],
        ["--initial-advertise-peer-urls", peer],
        ["--initial-cluster", this.members.map((each) => `${each.name}=${each.peer}`).join(",")],
        ["--initial-cluster-token", this.#directory],
        ["--heartbeat-interval", String(HEARTBEAT_MS)],
        ["--election-timeout", String(ELECTION_MS)],
        // Everything that it answered is in the page cache, which outlives the process.
        ["--unsafe-no-fsync"],
      ].flat(),
      { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ETCD_UNSUPPORTED_ARCH: process.arch } },
    );
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => appendFileSync(this.#logOf(name), chunk));
    }
    member.child = child;
  }
}

async function statusOf({ client }: Member): Promise<{ leader: string; member: string } | undefined> {
  try {
    const response = await fetch(`${client}/v3/maintenance/status`, {
      method: "POST",
      body: "{}",
      signal: AbortSignal.timeout(1000),
    });
    const { leader = "0", header } = (await response.json()) as {
      leader?: string;
      header: { member_id: string };
    };
    return { leader, member: header.member_id };
  } catch {
    return undefined;
  }
}
