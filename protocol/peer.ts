import { z } from "zod";
import { method, noun } from "./method.js";
import { instant, label, named } from "./schemas.js";

export const hexadecimal = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `must be ${bytes * 2} lower-case hexadecimal digits`);
export const author = hexadecimal(32).meta({ description: "A node's Ed25519 public key." });
export const board = hexadecimal(16).meta({ description: "The id of a board, the same on all its nodes." });

const peerName = label.meta({ description: "A name for people, on this node." });

export const PEER = noun("peer", {
  description: "The other nodes whose changes of the board are accepted.",
  methods: {
    trust: method({
      summary: "Accept the changes of an author",
      description:
        "A node that has no changes and no board yet adopts the board of the first peer that it trusts.",
      params: z.strictObject({
        author,
        name: peerName,
        board: board.optional().meta({ description: "The peer's board, if it has one yet." }),
      }),
      result: z.strictObject({ author, name: peerName }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["weak_key", "duplicate_key", "wrong_board"],
      examples: [
        {
          name: "A laptop",
          params: {
            author: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            name: "laptop",
          },
          result: {
            author: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            name: "laptop",
          },
        },
      ],
    }),

    revoke: method({
      summary: "Accept no more changes of an author; those accepted stay",
      params: z.strictObject({ author }),
      result: z.strictObject({
        revoked: z.boolean().meta({ description: "False if it was not trusted." }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "A laptop that was lost",
          params: { author: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c" },
          result: { revoked: true },
        },
      ],
    }),

    list: method({
      summary: "The authors whose changes are or were accepted",
      params: z.strictObject({}),
      result: z.strictObject({
        peers: z
          .array(
            named(
              "Peer",
              "An author whose changes are or were accepted.",
              z.strictObject({
                author,
                name: peerName,
                trustedAt: instant.meta({ description: "Since when, in milliseconds since the Unix epoch." }),
                revokedAt: instant.optional().meta({
                  description: "Until when, in milliseconds since the Unix epoch; absent while it is.",
                }),
              }),
            ),
          )
          .meta({ description: "One for each key, those that were revoked included." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "One that is trusted no more",
          params: {},
          result: {
            peers: [
              {
                author: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                name: "laptop",
                trustedAt: 1_750_000_000_000,
                revokedAt: 1_750_086_400_000,
              },
            ],
          },
        },
      ],
    }),
  },
});
