import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import { MAX_STATEMENTS_PER_CALL } from "./limits.js";
import { method, noun } from "./method.js";
import { instant, integer, label, named } from "./schemas.js";

export const hexadecimal = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `must be ${bytes * 2} lower-case hexadecimal digits`);
export const author = hexadecimal(32).meta({ description: "A node's Ed25519 public key." });
export const board = hexadecimal(16).meta({ description: "The id of a board, the same on all its nodes." });

const peerName = label.meta({ description: "A name for people, on this node." });

const AUTHOR = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

/** What a node says that it has, as pipeline.heads gives it and peer.seen takes it. */
export const statement = named(
  "Statement",
  "What one node has of the board, in its own words: other nodes know it by that, whoever passes it on.",
  z.strictObject({
    body: z.string().meta({
      description:
        "RFC 8785 canonical JSON of {at, author, board, heads, v: 1}: author has these changes, and all before them, at the time `at` of its own clock.",
    }),
    signature: z.string().meta({
      description:
        "Ed25519 by author over `pawl-board-heads-v1`, a NUL and the body: 128 lower-case hexadecimal digits.",
    }),
  }),
);

/** Why a statement can be refused. */
const STATEMENT_ERRORS = [
  "not_json",
  "not_canonical",
  "bad_shape",
  "unsupported_version",
  "wrong_board",
  "unknown_author",
  "revoked_author",
  "bad_signature",
  "clock_ahead",
  "weak_key",
] as const satisfies readonly ErrorKind[];

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

    seen: method({
      summary: "Keep what other nodes say that they have of the board",
      description:
        "As pipeline.heads of another node gives it; whoever syncs two nodes passes it on. A statement counts by its signature alone, and the last of each peer is kept. By it pipeline.compact knows what a peer has, and pipeline.repair what nobody has.",
      params: z.strictObject({
        statements: z
          .array(statement)
          .min(1)
          .max(MAX_STATEMENTS_PER_CALL)
          .meta({ description: "Of trusted peers; this node's own are passed over." }),
      }),
      result: z.strictObject({
        seen: integer.meta({ description: "How many said something new." }),
        rejected: z
          .array(
            named(
              "RejectedStatement",
              "A statement that was not kept, and why.",
              z.strictObject({
                author: author.nullable().meta({ description: "Null if the body does not say it." }),
                kind: z.enum(STATEMENT_ERRORS).meta({ description: "Why, as a kind of error." }),
              }),
            ),
          )
          .meta({ description: "Those that are not kept." }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "One of another board",
          params: {
            statements: [
              {
                body: `{"at":1750000000000,"author":"${AUTHOR}","board":"0f0e0d0c0b0a09080706050403020100","heads":[],"v":1}`,
                signature: "ab".repeat(64),
              },
            ],
          },
          result: { seen: 0, rejected: [{ author: AUTHOR, kind: "wrong_board" }] },
        },
      ],
    }),
  },
});
