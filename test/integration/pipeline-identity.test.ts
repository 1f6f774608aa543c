// The identity of a node: its key, the file that its database is in, and what happens when one of them is another.
// Not over shared names: the board is each node's own.

import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Place } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { refusedStart } from "../refusal.js";

const keyOf = ({ stateDir }: Place): string => join(stateDir, "identity.key");

function authorOf(pem: string): string {
  const { x } = createPublicKey(createPrivateKey(pem)).export({ format: "jwk" });
  return Buffer.from(x as string, "base64url").toString("hex");
}

/** A place where a node wrote one item and stopped; its author. */
async function used(): Promise<{ place: Place; author: string; incarnation: string }> {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
  const { author, incarnation } = await client.call("pipeline.identity", {});
  await daemon.end();
  return { place, author, incarnation };
}

async function identityAt(place: Place, args: string[] = []): Promise<Awaited<ReturnType<typeof identity>>> {
  const daemon = await place.start({ args });
  const found = await identity(await place.connect());
  await daemon.end();
  return found;
}

function identity(client: RawClient) {
  return client.call("pipeline.identity", {});
}

describe("the key", () => {
  test("is not there before it is needed", async () => {
    const place = new Place();
    const daemon = await place.start();
    const client = await place.connect();
    await client.call("pipeline.list", {});
    await client.call("pipeline.heads", {});
    await client.call("peer.list", {});
    expect(existsSync(keyOf(place))).toBe(false);
    const first = await identity(client);
    expect(existsSync(keyOf(place))).toBe(true);
    // Nothing has been kept yet, and yet it stays the same.
    expect(await identity(client)).toEqual(first);
    await daemon.end();
    expect(await identityAt(place)).toEqual(first);
  });

  test("is made once, in PKCS #8, for its owner alone, and signs as the author", async () => {
    const { place, author } = await used();
    const pem = readFileSync(keyOf(place), "utf8");
    expect(pem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(statSync(keyOf(place)).mode & 0o777).toBe(0o600);
    expect(authorOf(pem)).toBe(author);
    expect((await identityAt(place)).author).toBe(author);
    expect(readFileSync(keyOf(place), "utf8")).toBe(pem);
  });

  test("missing while the database has changes by it: no start, and no new one", async () => {
    const { place, author } = await used();
    rmSync(keyOf(place));
    const sentence = await refusedStart(place.spawn());
    expect(sentence).toContain("missing");
    expect(sentence).toContain("--accept-identity-change");
    expect(existsSync(keyOf(place))).toBe(false);
    // Accepted, the node goes on as another, and takes in what it wrote before.
    const changed = await identityAt(place, ["--accept-identity-change"]);
    expect(changed.author).not.toBe(author);
    const daemon = await place.start();
    const client = await place.connect();
    expect((await client.call("peer.list", {})).peers).toMatchObject([
      { author, name: "formerly this node" },
    ]);
    expect((await client.call("pipeline.read", { storyId: "A" })).item?.updatedBy).toBe(author);
    await client.call("pipeline.write", { storyId: "A", name: "x" });
    expect((await client.call("pipeline.read", { storyId: "A" })).item?.updatedBy).toBe(changed.author);
    await daemon.end();
  });

  test("missing where nothing was signed with it yet: a new one is made, and that is logged", async () => {
    const place = new Place();
    const { author } = await identityAt(place);
    rmSync(keyOf(place));
    const daemon = await place.start();
    const { author: second } = await identity(await place.connect());
    expect(second).not.toBe(author);
    await daemon.logged(({ msg, author: made }) => /identity key/.test(msg) && made === second);
  });

  const SPOILT: readonly [string, (path: string) => void, RegExp][] = [
    ["readable by the group", (path) => chmodSync(path, 0o640), /mode 0640.*0600/],
    ["empty", (path) => writeFileSync(path, ""), /not a private key/],
    ["cut short", (path) => writeFileSync(path, readFileSync(path).subarray(0, 60)), /not a private key/],
    ["of another kind", (path) => writeFileSync(path, pemOf("ec")), /not an unencrypted Ed25519 key/],
    ["a directory", makeDirectory, /cannot be read: EISDIR/],
  ];

  test("spoilt in any way: no start, and it stays as it is", async () => {
    const { place } = await used();
    const pem = readFileSync(keyOf(place));
    for (const [what, spoil, message] of SPOILT) {
      spoil(keyOf(place));
      const { mode, size } = statSync(keyOf(place));
      // Nor is one made in its place when a change of identity is accepted.
      for (const args of what === "empty" ? [[], ["--accept-identity-change"]] : [[]]) {
        expect(await refusedStart(place.spawn({ args })), what).toMatch(message);
        expect(statSync(keyOf(place))).toMatchObject({ mode, size });
      }
      rmSync(keyOf(place), { recursive: true });
      writeFileSync(keyOf(place), pem, { mode: 0o600 });
    }
    await identityAt(place);
  });

  test("of another node: no start, unless that is accepted", async () => {
    const [mine, other] = [await used(), await used()];
    copyFileSync(keyOf(other.place), keyOf(mine.place));
    const sentence = await refusedStart(mine.place.spawn());
    expect(sentence).toContain(mine.author);
    expect(sentence).toContain(other.author);
    const { author, incarnation } = await identityAt(mine.place, ["--accept-identity-change"]);
    expect(author).toBe(other.author);
    expect(incarnation).not.toBe(other.incarnation);
  });

  test("may lie in systemd's credentials directory", async () => {
    const place = new Place();
    const directory = join(place.directory, "credentials");
    mkdirSync(directory, { mode: 0o700 });
    const pem = pemOf("ed25519");
    // As systemd shows a file that it lets a service read by an access control list.
    writeFileSync(join(directory, "identity.key"), pem, { mode: 0o440 });
    const env = { CREDENTIALS_DIRECTORY: directory };
    const daemon = await place.start({ env });
    expect((await identity(await place.connect())).author).toBe(authorOf(pem));
    await daemon.end();
    expect(existsSync(keyOf(place))).toBe(false);
    chmodSync(join(directory, "identity.key"), 0o444);
    expect(await refusedStart(place.spawn({ env }))).toMatch(/mode 0404/);
  });
});

function makeDirectory(path: string): void {
  rmSync(path);
  mkdirSync(path, { mode: 0o700 });
}

function pemOf(type: "ec" | "ed25519"): string {
  const { privateKey } =
    type === "ec" ? generateKeyPairSync("ec", { namedCurve: "P-256" }) : generateKeyPairSync("ed25519");
  return privateKey.export({ format: "pem", type: "pkcs8" }) as string;
}

describe("the database", () => {
  test("in another file is a copy: the node goes on under a new incarnation, its log stays as it is", async () => {
    const { place, author, incarnation } = await used();
    const path = join(place.stateDir, "pawl.db");
    copyFileSync(path, `${path}.copy`);
    renameSync(`${path}.copy`, path);
    const daemon = await place.start();
    const client = await place.connect();
    const found = await identity(client);
    expect(found.author).toBe(author);
    expect(found.incarnation).not.toBe(incarnation);
    expect(found.heads).toMatchObject([{ author, incarnation, seq: 1 }]);
    expect(daemon.log.some(({ msg }) => /new incarnation/.test(msg))).toBe(true);
    await client.call("pipeline.write", { storyId: "A", name: "x" });
    const { heads } = await client.call("pipeline.heads", {});
    expect(heads.map((head) => [head.incarnation, head.seq]).sort()).toEqual(
      [
        [incarnation, 1],
        [found.incarnation, 1],
      ].sort(),
    );
    await daemon.end();
    expect((await identityAt(place)).incarnation).toBe(found.incarnation);
  });

  test("that is only moved stays the same", async () => {
    const { place, incarnation } = await used();
    const other = new Place();
    renameSync(place.stateDir, other.stateDir);
    expect((await identityAt(other)).incarnation).toBe(incarnation);
  });

  test("from a backup is a copy too", async () => {
    const place = new Place();
    await place.start();
    const client = await place.connect();
    await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
    const { author, incarnation } = await identity(client);
    const backup = join(place.directory, "backup.db");
    await client.call("daemon.backup", { path: backup });
    const restored = new Place();
    mkdirSync(restored.stateDir, { mode: 0o700 });
    copyFileSync(backup, join(restored.stateDir, "pawl.db"));
    expect(await refusedStart(restored.spawn())).toContain("missing");
    copyFileSync(keyOf(place), keyOf(restored));
    const found = await identityAt(restored);
    expect(found.author).toBe(author);
    expect(found.incarnation).not.toBe(incarnation);
  });
});
