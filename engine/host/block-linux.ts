import { createRequire } from 'node:module';

/**
 * What Node's fs does not offer and Linux does: open-file-description locks, holes, preallocation.
 * Through koffi, which is optional: without it `linuxFile` returns null and the callers degrade.
 *
 * Image locks follow the byte scheme QEMU documents (docs/system/images, "Image locking"; bytes 100.. say "I use this
 * permission", bytes 200.. say "I do not share this permission"), all taken as shared record locks and probed with
 * F_OFD_GETLK, so that we and QEMU keep each other out. fcntl(2), fallocate(2), lseek(2) for the rest.
 */
export interface LinuxFile {
  /** Locks as a reader or writer; `share` lets others write. Returns what another process holds, or null. */
  lockImage(write: boolean, share: boolean): string | null;
  punchHole(offset: number, length: number): boolean;
  zeroRange(offset: number, length: number): boolean;
  preallocate(offset: number, length: number): 'ok' | 'no-space' | 'no';
  seekEnd(): number | undefined;
  /** The next data at or after `offset`; Infinity if there is none; undefined if the host cannot say. */
  nextData(offset: number): number | undefined;
  nextHole(offset: number): number | undefined;
}

type Call = (...args: unknown[]) => number;
interface Library {
  fcntl: Call;
  fallocate: Call;
  lseek: Call;
  errno(): number;
}

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 16;
const ENXIO = 6;
const ENOSPC = 28;

const PERM_BASE = 100;
const UNSHARED_BASE = 200;
/** Bits of a QEMU block permission, by number. */
const PERMISSIONS = ['consistent read', 'write', 'write unchanged', 'resize'];
const CONSISTENT_READ = 1;
const WRITE = 2;
const RESIZE = 8;
const ALL = 15;

let library: Library | null | undefined;

function load(): Library | null {
  if (library !== undefined) return library;
  library = null;
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) return null;
  try {
    const koffi = createRequire(import.meta.url)('koffi');
    const libc = koffi.load(null);
    library = {
      fcntl: libc.func('int fcntl(int fd, int cmd, void *lock)'),
      fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
      lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)'),
      errno: () => koffi.errno(),
    };
  } catch {
    // No koffi, or no libc it can find: the callers say what is lost.
  }
  return library;
}

/** struct flock of 64-bit Linux: short type, short whence, (pad) long start, long length, int pid. */
function flock(type: number, start: number): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(start), true);
  view.setBigInt64(16, 1n, true);
  return bytes;
}

/** The Linux extras for an open descriptor, or null where they cannot be had. */
export function linuxFile(fd: number): LinuxFile | null {
  const lib = load();
  if (!lib) return null;
  const lockByte = (byte: number) => lib.fcntl(fd, F_OFD_SETLK, flock(F_RDLCK, byte)) === 0;
  /** Does anyone else hold this byte? */
  const heldByOther = (byte: number) => {
    const probe = flock(F_WRLCK, byte);
    if (lib.fcntl(fd, F_OFD_GETLK, probe) !== 0) return false;
    return new DataView(probe.buffer).getInt16(0, true) !== F_UNLCK;
  };
  const seek = (offset: number, whence: number): number | undefined => {
    const at = Number(lib.lseek(fd, offset, whence));
    if (at >= 0) return at;
    return lib.errno() === ENXIO ? Number.POSITIVE_INFINITY : undefined;
  };
  return {
    lockImage(write, share) {
      const perm = write ? CONSISTENT_READ | WRITE | RESIZE : CONSISTENT_READ;
      const shared = share ? ALL : write ? CONSISTENT_READ : ALL & ~(WRITE | RESIZE);
      const unshared = ALL & ~shared;
      for (let bit = 0; bit < PERMISSIONS.length; bit++) {
        // A file system without locks (EINVAL, ENOLCK) cannot exclude anyone; that is the host's choice.
        if (perm & (1 << bit) && !lockByte(PERM_BASE + bit)) return null;
        if (unshared & (1 << bit) && !lockByte(UNSHARED_BASE + bit)) return null;
      }
      for (let bit = 0; bit < PERMISSIONS.length; bit++) {
        if (perm & (1 << bit) && heldByOther(UNSHARED_BASE + bit)) return `"${PERMISSIONS[bit]}"`;
        if (unshared & (1 << bit) && heldByOther(PERM_BASE + bit)) return `shared "${PERMISSIONS[bit]}"`;
      }
      return null;
    },
    punchHole: (offset, length) => lib.fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset, length) === 0,
    zeroRange: (offset, length) => lib.fallocate(fd, FALLOC_ZERO_RANGE, offset, length) === 0,
    preallocate(offset, length) {
      if (lib.fallocate(fd, 0, offset, length) === 0) return 'ok';
      return lib.errno() === ENOSPC ? 'no-space' : 'no';
    },
    seekEnd: () => seek(0, SEEK_END),
    nextData: (offset) => seek(offset, SEEK_DATA),
    nextHole: (offset) => seek(offset, SEEK_HOLE),
  };
}
