// The rules of every backing of the `Dispenser` interface, wherever the numbers are kept.
import type { Dispenser, Mode } from "@pawl/client";
import { describe, expect, test } from "vitest";

/** Numbers kept somewhere. */
export interface Backing {
  dispenser: Dispenser;
  /** Ends what keeps them, however roughly, and opens them again; undefined where nothing outlives it. */
  reopen: (() => Promise<Dispenser>) | undefined;
}

/** @param open makes fresh numbers for one test, which also ends them. */
export function dispenserSuite(name: string, open: (mode: Mode) => Promise<Backing>): void {
  const centralized = async (): Promise<Dispenser> => (await open({ kind: "centralized" })).dispenser;

  describe(`a dispenser backed by ${name}`, () => {
    test("counts up from 1 without gaps", async () => {
      const dispenser = await centralized();
      for (let expected = 1; expected <= 20; expected++) expect(await dispenser.next("FR")).toBe(expected);
    });

    test("counts each type by itself, and upper and lower case as one", async () => {
      const dispenser = await centralized();
      expect(await dispenser.next("FR")).toBe(1);
      expect(await dispenser.next("BUG")).toBe(1);
      expect(await dispenser.next("fr")).toBe(2);
      expect(await dispenser.next("Fr")).toBe(3);
      expect(await dispenser.nextId("bug")).toBe("BUG-002");
    });

    test("shows the next number without taking it", async () => {
      const dispenser = await centralized();
      expect(await dispenser.peek("FR")).toBe(1);
      expect(await dispenser.peek("FR")).toBe(1);
      expect(await dispenser.next("FR")).toBe(1);
      expect(await dispenser.peek("fr")).toBe(2);
      // A type that was only looked at does not exist.
      expect(await dispenser.peek("BUG")).toBe(1);
      expect((await dispenser.state()).sequences).toEqual({ FR: 1 });
    });

    test("tells the mode and the last number of each type", async () => {
      const dispenser = await centralized();
      expect(await dispenser.state()).toEqual({ mode: { kind: "centralized" }, sequences: {}, granted: {} });
      await dispenser.next("FR");
      await dispenser.nextId("fr");
      await dispenser.next("BUG");
      expect(await dispenser.state()).toEqual({
        mode: { kind: "centralized" },
        sequences: { BUG: 1, FR: 2 },
        granted: {},
      });
    });

    test("pads ids to three digits and lets them grow", async () => {
      const dispenser = await centralized();
      expect(await dispenser.nextId("FR")).toBe("FR-001");
      expect(await dispenser.formatId("fr", 42)).toBe("FR-042");
      expect(await dispenser.formatId("FR", 999)).toBe("FR-999");
      expect(await dispenser.formatId("FR", 1000)).toBe("FR-1000");
      expect(await dispenser.formatId("FR", Number.MAX_SAFE_INTEGER)).toBe("FR-9007199254740991");
    });

    test("puts the node into ids where numbers are of a node", async () => {
      const { dispenser } = await open({ kind: "distributed", nodeId: 7 });
      expect(await dispenser.next("FR")).toBe(1);
      expect(await dispenser.nextId("FR")).toBe("FR-7-002");
      expect(await dispenser.formatId("BUG", 5)).toBe("BUG-7-005");
      expect(await dispenser.state()).toEqual({
        mode: { kind: "distributed", nodeId: 7 },
        sequences: { FR: 2 },
        granted: {},
      });
    });

    test("puts the name of the node into ids where it has one", async () => {
      const { dispenser, reopen } = await open({ kind: "distributed", nodeId: "JM" });
      expect(await dispenser.nextId("FR")).toBe("FR-JM-001");
      expect((await dispenser.state()).mode).toEqual({ kind: "distributed", nodeId: "JM" });
      if (reopen !== undefined) expect(await (await reopen()).nextId("fr")).toBe("FR-JM-002");
    });

    test("gives calls that are made at once their numbers in the order of the calls", async () => {
      const dispenser = await centralized();
      const numbers = await Promise.all(Array.from({ length: 500 }, () => dispenser.next("FR")));
      expect(numbers).toEqual(Array.from({ length: 500 }, (_, index) => index + 1));
    });

    test("refuses what is no type, and takes nothing", async () => {
      const dispenser = await centralized();
      for (const type of ["", "F-R", "1FR", "F R", "FÜR", "F".repeat(33), "FR\0"]) {
        await refused(dispenser.next(type));
        await refused(dispenser.nextId(type));
        await refused(dispenser.peek(type));
        await refused(dispenser.formatId(type, 1));
      }
      expect((await dispenser.state()).sequences).toEqual({});
    });

    test("refuses to make an id of what no sequence reaches", async () => {
      const dispenser = await centralized();
      for (const seq of [0, -1, 1.5, Number.NaN, 2 ** 53]) await refused(dispenser.formatId("FR", seq));
    });

    test("goes on after the last number when it is opened again", async () => {
      const { dispenser, reopen } = await open({ kind: "centralized" });
      expect(await dispenser.next("FR")).toBe(1);
      expect(await dispenser.next("FR")).toBe(2);
      if (reopen === undefined) return;
      const again = await reopen();
      expect(await again.peek("FR")).toBe(3);
      expect(await again.nextId("FR")).toBe("FR-003");
      expect(await again.state()).toEqual({
        mode: { kind: "centralized" },
        sequences: { FR: 3 },
        granted: {},
      });
    });
  });
}

async function refused(call: Promise<unknown>): Promise<void> {
  await expect(call).rejects.toMatchObject({ name: "PawlError", kind: "invalid_params" });
}
