import { z } from "zod";
import { method, noun } from "./method.js";
import { instant, label } from "./schemas.js";

export const hexadecimal = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `must be ${bytes * 2} lower-case hexadecimal digits`);
export const author = hexadecimal(32).meta({ description: "A node's Ed25519 public key." });
export const board = hexadecimal(16).meta({ description: "The id of a board, the same on all its nodes." });

export const PEER = noun("peer", {
  methods: {
    trust: method({
      summary: "Accept the changes of an author",
      description:
        "A node that has no changes and no board yet adopts the board of the first peer that it trusts.",
      params: z.strictObject({
        author,
        name: label,
        board: board.optional().meta({ description: "The peer's board, if it has one yet." }),
      }),
      result: z.strictObject({ author, name: label }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["weak_key", "duplicate_key", "wrong_board"],
    }),

    revoke: method({
      summary: "Accept no more changes of an author; those accepted stay",
      params: z.strictObject({ author }),
      result: z.strictObject({ revoked: z.boolean() }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    list: method({
      summary: "The authors whose changes are or were accepted",
      params: z.strictObject({}),
      result: z.strictObject({
        peers: z.array(
          z.strictObject({ author, name: label, trustedAt: instant, revokedAt: instant.optional() }),
        ),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),
  },
});
