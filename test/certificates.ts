// Certificates for a test, of an authority that is made for it and forgotten with it.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** True if the program is there: Debian has it in openssl. */
export const HAS_OPENSSL = spawnSync("openssl", ["version"]).status === 0;
if (!HAS_OPENSSL)
  process.stderr.write("openssl is not installed (Debian: openssl); tests of TLS are skipped\n");

const DAYS = "2";

/** An authority in a directory: its certificate, and others that it signs. All are files in PEM. */
export class Authority {
  readonly ca: string;
  readonly #directory: string;
  readonly #name: string;

  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#name = name;
    this.ca = this.#path("ca.pem");
    const subject = ["-subj", `/CN=${name}`, "-days", DAYS];
    run("req", "-x509", ...NEW_KEY, "-keyout", this.#path("ca.key"), "-out", this.ca, ...subject);
  }

  /** A certificate for 127.0.0.1 and for whoever connects from there: etcd's gateway is a client of etcd. */
  sign(name: string): { ca: string; cert: string; key: string } {
    const [cert, key, request, extensions] = ["pem", "key", "csr", "ext"].map((ending) =>
      this.#path(`${name}.${ending}`),
    ) as [string, string, string, string];
    writeFileSync(extensions, "subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth, clientAuth\n");
    run("req", ...NEW_KEY, "-keyout", key, "-out", request, "-subj", `/CN=${name}`);
    const signer = ["-CA", this.ca, "-CAkey", this.#path("ca.key"), "-CAcreateserial", "-days", DAYS];
    run("x509", "-req", "-in", request, ...signer, "-extfile", extensions, "-out", cert);
    return { ca: this.ca, cert, key };
  }

  #path(file: string): string {
    return join(this.#directory, `${this.#name}-${file}`);
  }
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

function run(...args: string[]): void {
  const { status, stderr } = spawnSync("openssl", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`openssl ${args.join(" ")}: ${stderr}`);
}
