// `pawl reserve`, `pawl paths` and `withPaths`: paths that are held while a command or a function runs.
import { once } from "node:events";
import { mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { connect, type PawlClient } from "@pawl/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { privateDirectory, sharedDaemon } from "../daemon.js";
import { startPawl } from "./cli-program.js";

const daemon = sharedDaemon();

/** A work tree of its own, with a directory in it. */
function workTree(): { tree: string; src: string } {
  const tree = realpathSync(privateDirectory());
  const src = join(tree, "src");
  for (const each of [src, join(tree, ".git")]) mkdirSync(each);
  return { tree, src };
}

const start = (args: string[], cwd?: string) =>
  startPawl(args, { socket: daemon().place.socket, ...(cwd === undefined ? {} : { cwd }) });

async function client(): Promise<PawlClient> {
  const connected = await connect({ socket: daemon().place.socket });
  onTestFinished(() => connected.close());
  return connected;
}

describe("pawl reserve", () => {
  test("runs its command under the reservation, which others see and are refused by", async () => {
    const { tree, src } = workTree();
    const script = 'echo "$PAWL_ROOT $PAWL_FENCING_TOKEN $PAWL_RESERVATION"; exec sleep 600';
    const held = start(["reserve", "a/", "*.ts", "--note", "types", "--", "sh", "-c", script], src);
    await held.printed(/\n/);
    expect(held.stdout).toMatch(new RegExp(`^${tree} 1 path_[0-9a-f]{32}\n$`));

    const other = await start(["reserve", "src/index.*", "--root", tree, "--", "echo", "never"]).ended;
    expect(other).toMatchObject({ code: 1, stdout: "" });
    expect(other.stderr).toMatch(
      /held by sh:\d+ \(types\) as src\/\*\.ts, for .* Wait with --wait, or see pawl paths\./,
    );
    const coded = await start(["reserve", "**", "-E", "42", "--root", tree, "--", "true"]).ended;
    expect(coded.code).toBe(42);

    const listed = await start(["paths", "--root", tree]).ended;
    expect(listed.stdout).toMatch(/src\/a\/ +write +sh:\d+[\s\S]*src\/\*\.ts +write/);
    const json = JSON.parse((await start(["paths", "--root", tree, "--json"]).ended).stdout);
    expect(json.reservations).toMatchObject([
      { root: tree, patterns: ["src/a/", "src/*.ts"], note: "types" },
    ]);

    const waits = start(["reserve", "src/", "--wait", "1m", "--root", tree, "--", "echo", "in turn"]);
    await held.end("SIGTERM");
    expect(await waits.ended).toMatchObject({ code: 0, stdout: "in turn\n" });
    expect((await start(["paths", "--root", tree]).ended).stderr).toMatch(/No paths are reserved/);
  });

  test("shares what is read, and says what is wrong with a pattern", async () => {
    const { tree } = workTree();
    const pawl = await client();
    await pawl.path.reserve({ root: tree, patterns: ["docs/"], owner: "reader", mode: "read" });
    expect(await start(["reserve", "**", "--read", "--", "echo", "both"], tree).ended).toMatchObject({
      stdout: "both\n",
    });
    const wrong = await start(["reserve", "{a,b}", "--", "true"], tree).ended;
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toMatch(/brace/);
  });
});

describe("withPaths", () => {
  test("holds the paths while its function runs, renews them, and gives them back", async () => {
    const [pawl, other] = [await client(), await client()];
    const { tree: root } = workTree();
    const result = await pawl.withPaths(
      { root, patterns: ["src/"], files: ["[id].ts"] },
      async ({ patterns, mode, owner, fencingToken, reservationId, signal }) => {
        expect({ patterns, mode, owner, fencingToken }).toEqual({
          patterns: ["src/", "[[]id].ts"],
          mode: "write",
          owner: "me",
          fencingToken: 1,
        });
        expect(signal.aborted).toBe(false);
        expect(await pawl.path.check({ root, path: "src/a", reservationId })).toMatchObject({
          allowed: true,
        });
        expect(await other.path.check({ root, path: "src/a" })).toMatchObject({ allowed: false });
        // Longer than its ttl: it is renewed.
        await new Promise((resolve) => setTimeout(resolve, 2500));
        return "done";
      },
      { owner: "me", ttlMs: 1000 },
    );
    expect(result).toBe("done");
    expect(await other.path.check({ root, path: "src/a" })).toMatchObject({ allowed: true });
  });

  test("aborts its function when the reservation is lost, and rejects", async () => {
    const [pawl, other] = [await client(), await client()];
    const { tree: root } = workTree();
    const lost = pawl.withPaths(
      { root, patterns: ["**"] },
      async ({ reservationId, signal }) => {
        await other.path.release({ reservationId });
        await once(signal, "abort");
        return "too late";
      },
      { ttlMs: 300 },
    );
    await expect(lost).rejects.toMatchObject({ kind: "lease_lost" });
    await other.path.reserve({ root, patterns: ["a"], owner: "other" });
    await expect(pawl.withPaths({ root, patterns: ["a"] }, () => {})).rejects.toMatchObject({
      kind: "lease_held",
    });
  });
});
