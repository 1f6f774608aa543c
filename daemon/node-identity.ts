import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { findAuthor, type Renamed, recognizeNode } from "./domain/board/author.js";
import { authorOf, newIdentity, openIdentity } from "./identity/key.js";
import { OnlyReads } from "./store/failure.js";
import { nameNewFile, syncDirectory } from "./store/new-file.js";
import type { OpenDatabase } from "./store/open-database.js";
import type { Store } from "./store/store.js";
import type { Identity } from "./turns/operation.js";

const KEY_FILE = "identity.key";
const KEY_BYTES = 32;
/**
 * systemd may grant a service its credentials by an access control list, whose mask a file's mode shows as
 * permissions of the group; the directory lets nobody else in (systemd.exec(5), LoadCredential=).
 */
const GROUP_READ_MODE = 0o040;

export interface IdentityOptions {
  stateDir: string;
  /** `$CREDENTIALS_DIRECTORY`, where systemd puts a key that it was given for the service. */
  credentialsDirectory: string | undefined;
  /** Goes on as another author than the one the database was written by. */
  acceptChange: boolean;
}

/** The identity of this node, and what its operator should know of that once the daemon has started. */
export interface NodeIdentity {
  readonly identity: () => Identity;
  readonly renamed: Renamed;
}

/**
 * This node's key: read, or made when it is first needed, and compared with the database (`recognizeNode`). Refuses
 * with `key_mode`, with `key_unreadable` also when the key is missing and the database has changes by it, and
 * with `invalid_state` when the key is another than that of the database.
 *
 * @param onMade is told of the author whose key was made.
 */
export function openNodeIdentity(
  database: OpenDatabase,
  options: IdentityOptions,
  onMade: (author: string) => void,
): NodeIdentity {
  const { acceptChange } = options;
  const path = keyFile(options);
  const databaseFile = database.fileId;
  let known = existsSync(path) ? { ...read(path, options), databaseFile } : undefined;
  const identity = (): Identity => {
    if (known === undefined) {
      known = { ...make(join(options.stateDir, KEY_FILE), options), databaseFile };
      onMade(known.author);
    }
    return known;
  };

  const { store, clock } = database;
  const { wallMs } = clock.read();
  const recognize = (): NodeIdentity => {
    const used = store.perform(findAuthor());
    if (used === undefined) return { identity, renamed: undefined };
    if (known === undefined && used.hasChanges && !acceptChange) {
      throw new PawlError(
        "key_unreadable",
        `The identity key ${path} is missing, and the database has changes that were signed with it. Restore it from a copy, or begin anew under another key with --accept-identity-change; peers must then trust that.`,
        { author: used.author },
      );
    }
    const { author } = identity();
    const given = { author, file: databaseFile, acceptChange };
    const renamed = store.perform(recognizeNode(given, { wallMs, random: randomBytes }));
    if (renamed instanceof PawlError) throw renamed;
    return { identity, renamed };
  };
  return readingOrWriting(store, recognize);
}

/** Only a start that changes something waits for those who have locked the database. */
function readingOrWriting<T>(store: Store, perform: () => T): T {
  const within = (begin: () => void): T => {
    begin();
    try {
      const result = perform();
      store.commit();
      return result;
    } finally {
      store.rollback();
    }
  };
  try {
    return within(() => store.beginToRead());
  } catch (error) {
    if (!(error instanceof OnlyReads)) throw error;
    return within(() => store.begin());
  }
}

type Key = Omit<Identity, "databaseFile">;

function keyFile({ stateDir, credentialsDirectory }: IdentityOptions): string {
  const credential = credentialsDirectory === undefined ? undefined : join(credentialsDirectory, KEY_FILE);
  return credential !== undefined && existsSync(credential) ? credential : join(stateDir, KEY_FILE);
}

function read(path: string, { credentialsDirectory }: IdentityOptions): Key {
  let pem: string;
  let mode: number;
  const isCredential = dirname(path) === credentialsDirectory;
  try {
    // The directory of credentials is the supervisor's, who may put links there.
    const file = openSync(path, constants.O_RDONLY | (isCredential ? 0 : constants.O_NOFOLLOW));
    try {
      mode = fstatSync(file).mode;
      pem = readFileSync(file, "utf8");
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw refuse("key_unreadable", `The identity key ${path} cannot be read: ${code}.`);
  }
  const key = openIdentity(pem, isCredential ? mode & ~GROUP_READ_MODE : mode);
  if (key instanceof PawlError) throw refuse(key.kind, `${key.message} It is ${path}.`);
  return { author: authorOf(key), privateKey: key };
}

/**
 * Makes a key. It gets its name only when it is whole and on disk, and never in place of another, so whatever
 * moment the machine stops at, there is no key or a good one.
 */
function make(path: string, options: IdentityOptions): Key {
  const partial = `${path}.${randomBytes(8).toString("hex")}`;
  const file = openSync(partial, "wx", 0o600);
  try {
    writeFileSync(file, newIdentity(randomBytes(KEY_BYTES)));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  nameNewFile(partial, path);
  syncDirectory(dirname(path));
  return read(path, options);
}
