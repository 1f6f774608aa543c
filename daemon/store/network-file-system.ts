import { statfsSync } from "node:fs";

/** File systems that other machines have mounted too, by the magic numbers of statfs(2) in the kernel's headers. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [0x6969, "NFS"],
  [0xff534d42, "CIFS"],
  [0xfe534d42, "SMB"],
  [0x517b, "SMB"],
  [0x00c36400, "Ceph"],
  [0x5346414f, "AFS"],
  [0x01021997, "9P"],
  [0x0bd00bd0, "Lustre"],
  [0x73757245, "Coda"],
  [0x564c, "NCP"],
  [0x7461636f, "OCFS2"],
  [0x01161970, "GFS2"],
  [0x786f4256, "VirtualBox shared folders"],
  [0xaad7aaea, "PanFS"],
]);

/** The name of the network file system that a directory is on; undefined for one of this machine. */
export function networkFileSystem(directory: string): string | undefined {
  // The number is signed on some architectures.
  return NAMES.get(statfsSync(directory).type >>> 0);
}
