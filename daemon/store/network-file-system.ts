import { readFileSync, statfsSync, statSync } from "node:fs";

/** File systems that other machines have mounted too, by the magic numbers of statfs(2) in the kernel's headers. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [0x6969, "NFS"],
  [0xff534d42, "CIFS"],
  [0xfe534d42, "SMB"],
  [0x517b, "SMB"],
  [0x00c36400, "Ceph"],
  [0x5346414f, "AFS"],
  [0x6b414653, "AFS"],
  [0x01021997, "9P"],
  [0x0bd00bd0, "Lustre"],
  [0x19830326, "BeeGFS"],
  [0x47504653, "GPFS"],
  [0x20030528, "OrangeFS"],
  [0x73757245, "Coda"],
  [0x564c, "NCP"],
  [0x7461636f, "OCFS2"],
  [0x01161970, "GFS2"],
  [0x786f4256, "VirtualBox shared folders"],
  [0xbacbacbc, "VMware shared folders"],
  [0xaad7aaea, "PanFS"],
]);

/** The magic number of all file systems that a program of this machine serves, local ones among them. */
const FUSE = 0x65735546;
/** Those of them whose files are elsewhere, by their types in the table of mounts, without `fuse.` before them. */
const FUSE_NAMES = new Set(
  `sshfs s3fs rclone glusterfs gcsfuse goofys mount-s3 mountpoint-s3 ceph-fuse ceph curlftpfs davfs davfs2 mfs
  mfsmount lizardfs juicefs seaweedfs weed saunafs beegfs ossfs cosfs obsfs geesefs s3ql blobfuse blobfuse2 hdfs
  fuse_dfs smbnetfs fusesmb nfs xtreemfs orangefs gvfsd-fuse kio-fuse vmhgfs-fuse grpcfuse osxfs
  prl_fs virtiofs`.split(/\s+/),
);

/** The name of the network file system that a directory is on; undefined for one of this machine. */
export function networkFileSystem(directory: string): string | undefined {
  // The number is signed on some architectures.
  const magic = statfsSync(directory).type >>> 0;
  if (magic !== FUSE) return NAMES.get(magic);
  const type = mountedType(statSync(directory).dev)?.replace(/^fuse\./, "");
  return type !== undefined && FUSE_NAMES.has(type) ? type : undefined;
}

/** The type that a device was mounted as (proc_pid_mountinfo(5)); undefined without /proc. */
function mountedType(dev: number): string | undefined {
  try {
    const id = deviceId(BigInt(dev));
    for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
      if (line.split(" ", 3)[2] === id) return line.split(" - ")[1]?.split(" ")[0];
    }
  } catch {
    // Not Linux, or a container without /proc.
  }
  return undefined;
}

/** A device number as the kernel shows it (makedev(3)). */
function deviceId(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}
