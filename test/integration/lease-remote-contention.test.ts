// Two daemons with databases of their own contend for one name through each provider, while daemons are
// stopped past the ttl and killed, holders are killed, the provider ends and starts again, etcd loses its leader,
// and a proxy loses answers to what the provider has done. Each of these once always; with PAWL_TORTURE=1 for a
// minute, in any order.
// Not over shared names: a provider keeps these names.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { createTable } from "../../daemon/dist/remote/load.js";
import { type DynamoDbSpecification, parseProvider } from "../../daemon/dist/remote/specification.js";
import { type AtEnd, type DaemonProcess, Place, privateDirectory } from "../daemon.js";
import { AWS_ENV, Dynalite, signHere } from "../dynalite.js";
import { EtcdCluster, HAS_ETCD } from "../etcd.js";
import { sized, TORTURE } from "../long-form.js";
import { LossyProxy } from "../lossy-proxy.js";

const LONGER_MS = sized(60_000, 0);
/** Long beside a stall of the machine: a holder keeps a fifth of it as its margin. */
const TTL_MS = TORTURE ? 3000 : 2500;
const DAEMONS = 2;
const HOLDERS_PER_DAEMON = 2;
const LOST_ANSWERS = 0.2;
const LOSSES = 8;
const GRANTS_BETWEEN_FAULTS = 5;
const WORKER = join(import.meta.dirname, "../workers/lease.js");
const FAULTY = join(import.meta.dirname, "../workers/faulty-provider.js");

/** The store of a provider, as far as it can be made to fail. */
interface Ground {
  /** The specification that the daemons are configured with. */
  readonly specification: string;
  /** Ends it, starts it again. */
  restart(): Promise<void>;
  /** Loses answers to what was done, until so many are lost. */
  loseAnswers(): Promise<void>;
  /** Kills the member that leads, and starts it again. */
  killLeader?(): Promise<void>;
}

async function loseThrough(proxies: readonly LossyProxy[]): Promise<void> {
  const lost = (): number => proxies.reduce((sum, proxy) => sum + proxy.lost, 0);
  const enough = lost() + LOSSES;
  for (const proxy of proxies) proxy.lostAnswers = LOST_ANSWERS;
  while (lost() < enough) await sleep(10);
  for (const proxy of proxies) proxy.lostAnswers = 0;
}

const GROUNDS: Record<string, { there: boolean; make: (atEnd: AtEnd) => Promise<Ground> }> = {
  dynamodb: {
    there: true,
    make: async (atEnd) => {
      signHere(atEnd);
      const dynalite = await Dynalite.start(atEnd);
      const proxy = await LossyProxy.start(dynalite.port, atEnd);
      const specification = `dynamodb:table=leases,endpoint=http://127.0.0.1:${proxy.port}`;
      await createTable(parseProvider(specification) as DynamoDbSpecification, sleep);
      return {
        specification,
        restart: async () => {
          await dynalite.stop();
          await sleep(Math.random() * TTL_MS);
          await dynalite.start();
        },
        loseAnswers: () => loseThrough([proxy]),
      };
    },
  },
  etcd: {
    there: HAS_ETCD,
    make: async (atEnd) => {
      const cluster = await EtcdCluster.start(3, atEnd);
      const proxies = await Promise.all(
        cluster.endpoints.map((endpoint) => LossyProxy.start(Number(new URL(endpoint).port), atEnd)),
      );
      return {
        specification: `etcd:endpoints=${proxies.map(({ port }) => `http://127.0.0.1:${port}`).join(",")}`,
        restart: async () => {
          await cluster.stop();
          await sleep(Math.random() * TTL_MS);
          await cluster.startAll();
        },
        loseAnswers: () => loseThrough(proxies),
        killLeader: async () => {
          const leader = await cluster.leader();
          await cluster.kill(leader);
          expect(await cluster.leader()).not.toBe(leader);
          await cluster.startAll();
        },
      };
    },
  },
  custom: {
    there: true,
    make: async (atEnd) => {
      const directory = join(privateDirectory(atEnd), "leases");
      const control = (fault: string): void => {
        writeFileSync(`${directory}.new`, fault);
        renameSync(`${directory}.new`, `${directory}.control`);
      };
      return {
        specification: `custom:${FAULTY},directory=${directory}`,
        restart: async () => {
          control("fail");
          await sleep(Math.random() * TTL_MS);
          control("");
        },
        loseAnswers: async () => {
          const lost = (): number =>
            readFileSync(`${directory}.calls`, "utf8")
              .split("\n")
              .filter((line) => line.endsWith("drop")).length;
          const enough = lost() + LOSSES;
          // Each for a moment, so that some get through.
          while (lost() < enough) {
            control("drop");
            await sleep(10);
            control("");
            await sleep(30);
          }
        },
      };
    },
  },
};

/** A daemon with those who use it. */
interface Camp {
  readonly place: Place;
  daemon: DaemonProcess;
  readonly holders: Map<string, ChildProcess>;
}

/** A line of the log that all holders write. */
interface Entry {
  readonly word: string;
  readonly owner: string;
  readonly token: number;
}

function readLog(path: string): Entry[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => {
      const [word = "", owner = "", token] = line.split(" ");
      return { word, owner, token: Number(token) };
    });
}

for (const [kind, { there, make }] of Object.entries(GROUNDS)) {
  test(`${kind}: one holder at a time, rising tokens, and whoever lost it was told before`, {
    concurrent: true,
    skip: !there,
    timeout: TORTURE ? 300_000 : 120_000,
  }, async ({ onTestFinished: atEnd }) => {
    const log = join(privateDirectory(atEnd), "shared.log");
    writeFileSync(log, "");
    const ground = await make(atEnd);
    const args = ["--lease-provider", `*=${ground.specification}`];
    const options = { args, env: AWS_ENV };
    let started = 0;
    let failed = "";
    const startHolder = (camp: Camp): void => {
      started += 1;
      const owner = `h${started}`;
      const line = [camp.place.socket, "contended", log, owner, TTL_MS].map(String);
      const child = spawn(process.execPath, [WORKER, ...line], { stdio: ["ignore", "ignore", "pipe"] });
      child.stderr?.on("data", (chunk) => {
        failed += chunk;
      });
      camp.holders.set(owner, child);
      atEnd(() => void child.kill("SIGKILL"));
    };
    const camps: Camp[] = await Promise.all(
      Array.from({ length: DAEMONS }, async () => {
        const place = new Place(undefined, atEnd);
        return { place, daemon: await place.start(options), holders: new Map() };
      }),
    );
    for (const camp of camps) for (let count = 0; count < HOLDERS_PER_DAEMON; count += 1) startHolder(camp);

    /** Resolves after so many more have begun to hold it. */
    const grants = async (more: number): Promise<void> => {
      const count = (): number => readLog(log).filter(({ word }) => word === "begin").length;
      for (const enough = count() + more; count() < enough; ) await sleep(10);
    };
    /** Waits for somebody who holds it, does something while it is held on to, and lets it go then. */
    const whileHeld = async (perform: (camp: Camp, owner: string) => Promise<void>): Promise<void> => {
      writeFileSync(`${log}.hold`, "");
      try {
        for (;;) {
          const last = readLog(log).findLast(({ word }) => word !== "refused");
          const camp = camps.find(({ holders }) => last !== undefined && holders.has(last.owner));
          if (last?.word === "begin" && camp !== undefined) return await perform(camp, last.owner);
          await sleep(5);
        }
      } finally {
        rmSync(`${log}.hold`);
      }
    };
    const faults: Record<string, () => Promise<void>> = {
      "answers are lost": () => ground.loseAnswers(),
      "the daemon of the holder is stopped past the ttl": () =>
        whileHeld(async ({ daemon }) => {
          daemon.child.kill("SIGSTOP");
          await sleep(TTL_MS * 1.1);
          daemon.child.kill("SIGCONT");
        }),
      "the daemon of the holder is killed": () =>
        whileHeld(async (camp) => {
          await camp.daemon.end("SIGKILL");
          await sleep(Math.random() * TTL_MS);
          camp.daemon = await camp.place.start(options);
        }),
      "the holder is killed": () =>
        whileHeld(async (camp, owner) => {
          const child = camp.holders.get(owner) as ChildProcess;
          camp.holders.delete(owner);
          // Anything that it writes after this line counts for nothing.
          appendFileSync(log, `kill ${owner}\n`);
          child.kill("SIGKILL");
          await once(child, "exit");
          startHolder(camp);
        }),
      "the provider is ended and started again": () => whileHeld(() => ground.restart()),
      ...(ground.killLeader && {
        "its leader is killed": () => whileHeld(async () => ground.killLeader?.()),
      }),
    };

    await grants(GRANTS_BETWEEN_FAULTS);
    for (const fault of Object.values(faults)) {
      await fault();
      await grants(GRANTS_BETWEEN_FAULTS);
    }
    const names = Object.keys(faults);
    for (const end = performance.now() + LONGER_MS; performance.now() < end; ) {
      await faults[names[Math.floor(Math.random() * names.length)] as string]?.();
      await grants(GRANTS_BETWEEN_FAULTS);
    }
    for (const { holders } of camps) for (const child of holders.values()) child.kill("SIGKILL");
    expect(failed).toBe("");

    const entries = readLog(log);
    const killed = new Set<string>();
    const told = new Set<number>();
    let holding: Entry | undefined;
    let highest = 0;
    for (const [index, entry] of entries.entries()) {
      const { word, owner, token } = entry;
      const where = `line ${index + 1}: ${word} ${owner} ${token}`;
      if (word === "kill") {
        killed.add(owner);
        if (holding?.owner === owner) holding = undefined;
      }
      if (killed.has(owner)) continue;
      if (word === "begin") {
        expect(holding, where).toBeUndefined();
        expect(token, where).toBeGreaterThan(highest);
        highest = token;
        holding = entry;
      }
      if (word === "end" || word === "told") {
        expect(holding?.token, where).toBe(token);
        holding = undefined;
      }
      if (word === "told") told.add(token);
    }
    expect(entries.filter(({ word }) => word === "end").length).toBeGreaterThan(GRANTS_BETWEEN_FAULTS);
    // Stopped past its ttl, a daemon cannot have renewed.
    expect(told.size).toBeGreaterThan(0);
    if (TORTURE) {
      const count = (word: string): number => entries.filter((entry) => entry.word === word).length;
      const words = ["begin", "end", "told", "kill", "refused"].map((word) => `${count(word)} ${word}`);
      process.stdout.write(`${kind}: ${words.join(", ")}; highest token ${highest}\n`);
    }
    for (const { daemon } of camps) {
      // Refusals because the provider fails, and no defects.
      expect(daemon.log.filter(({ level }) => !["info", "warn"].includes(level))).toEqual([]);
    }
  });
}
