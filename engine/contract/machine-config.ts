/**
 * The configuration a VM process is started with: plain JSON, complete (nothing is looked up elsewhere but the files
 * it names), made by the app from a VM's definition or by `vivarium run` from QEMU's options.
 *
 * Paths are absolute, or relative to the working directory of the process.
 */
import type { ChardevOptions, SocketAddress } from '../host/chardev-types.ts';

export type { ChardevOptions, SocketAddress } from '../host/chardev-types.ts';

export interface MachineConfig {
  /** The version of this format. */
  readonly version: 1;
  /** `-name`; shown as the desktop's name. */
  readonly name: string;
  /** `-uuid`, in canonical form (lower case, with hyphens). */
  readonly uuid: string;
  /** RAM in MiB; from 1 up. Above what a 32-bit memory holds beside the devices, the machine uses memory64. */
  readonly memoryMiB: number;
  readonly cpus: CpuConfig;
  readonly machine: MachineTypeConfig;
  readonly boot: BootConfig;
  readonly drives: readonly DriveConfig[];
  readonly netdevs: readonly NetdevConfig[];
  readonly display: DisplayConfig;
  /** COM1 to COM4 in order. */
  readonly serial: readonly SerialConfig[];
  readonly rtc: RtcConfig;
  /** Character devices by id; `serial`, `devices` and `monitors` refer to them. */
  readonly chardevs: readonly ChardevOptions[];
  /** Monitors beside the session that the parent process has by itself. */
  readonly monitors: readonly MonitorConfig[];
  /** Devices beyond those that the machine type and the lists above bring, as `-device` names them. */
  readonly devices: readonly DeviceConfig[];
  /** Listening sockets. */
  readonly sockets: SocketsConfig;
  readonly lifecycle: LifecycleConfig;
  readonly debug: DebugConfig;
}

export interface CpuConfig {
  /** vCPUs; 1 to 64. */
  readonly count: number;
  /** Topology; where given, sockets * cores * threads is `count`. */
  readonly sockets?: number;
  readonly cores?: number;
  readonly threads?: number;
  /** `-cpu` name: `x86-64-v2` unless something else was asked for. */
  readonly model: string;
  /** `-cpu model,+feature,-feature`: CPUID features switched on or off, by their QEMU names. */
  readonly features?: Readonly<Record<string, boolean>>;
  /** `-cpu model,vendor=`: what CPUID names as the maker, 12 characters; the model's own unless given. */
  readonly vendor?: string;
}

export interface MachineTypeConfig {
  readonly type: 'pc' | 'q35' | 'microvm';
  /** What runs the vCPUs; `auto` takes KVM where it works, else the translator. */
  readonly accelerator: 'auto' | 'jit' | 'kvm';
  /** `-icount shift=N`: an instruction takes 2^N ns of machine time, and nothing else takes any. One vCPU only. */
  readonly icount?: {
    readonly shift: number;
    /** What comes from outside is written to a file, or read from it and from nowhere else. */
    readonly replay?: { readonly mode: 'record' | 'replay'; readonly file: string };
    /** For tests: from one instruction count to another a line of the log every so many instructions, of what the vCPU is like. */
    readonly checkpoints?: { readonly from: number; readonly to: number; readonly every: number };
  };
  /** `-machine name=value` beyond the two above. */
  readonly options?: Readonly<Record<string, string>>;
}

/** A kernel given directly: bzImage, multiboot image, or ELF with a PVH entry; no firmware runs. */
export interface KernelBoot {
  readonly kind: 'kernel';
  readonly kernel: string;
  readonly initrd?: string;
  /** The kernel's command line. */
  readonly append: string;
}

/** Firmware that starts the guest from its drives. */
export interface FirmwareBoot {
  readonly kind: 'firmware';
  /** The image mapped below 4 GiB (SeaBIOS `bios-256k.bin`, `OVMF_CODE.fd`). */
  readonly image: string;
  /** UEFI variables: flash below the image, kept in a file of this VM that the guest's writes go to. */
  readonly variables?: string;
  /** `false`: what the guest writes to the variables is lost with the machine. */
  readonly variablesKept?: boolean;
  /** Boot devices in order: `a` floppy, `c` disk, `d` CD, `n` network, as in `-boot order=`. */
  readonly order?: string;
  /** The same for the first start only; after a reset `order` holds. */
  readonly once?: string;
  /** Show the firmware's boot menu. */
  readonly menu?: boolean;
  /** Handed to the firmware through fw_cfg (`-kernel` with `-bios`). */
  readonly direct?: Omit<KernelBoot, 'kind'>;
}

export type BootConfig = KernelBoot | FirmwareBoot;

export interface DriveConfig {
  readonly id: string;
  /** Empty: no medium, which a CD or floppy drive may be without. */
  readonly file: string;
  readonly format: 'raw' | 'qcow2' | 'auto' | 'luks' | 'vmdk' | 'vdi' | 'vhdx' | 'vpc';
  readonly media: 'disk' | 'cdrom' | 'floppy';
  /**
   * What the machine connects it to by itself; `none`: a back end that `devices` refer to. `ide` is AHCI on a q35, as
   * `sata` is everywhere; `scsi` is a virtio-scsi adapter; `nvme` a controller of its own.
   */
  readonly interface: 'virtio' | 'ide' | 'sata' | 'scsi' | 'nvme' | 'floppy' | 'none';
  /** Place on its interface: with IDE 0 to 3, two on each channel. The first that is free unless given. */
  readonly index?: number;
  /** Place among what is started from, 0 first; goes before `boot.order`. */
  readonly bootIndex?: number;
  readonly readOnly: boolean;
  /** Writes go to a temporary overlay that ends with the machine. */
  readonly snapshot: boolean;
  readonly cache: 'writeback' | 'writethrough' | 'none' | 'unsafe';
  /** What happens to blocks that the guest discards. */
  readonly discard: 'unmap' | 'ignore';
  /** Zeros that the guest writes are written as zeros without storage (`on`), or as discards (`unmap`). */
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  readonly serial?: string;
  /** `node-name=`: what block commands call the image; `#block<n>` unless given. */
  readonly nodeName?: string;
  /** `rerror=`, `werror=`: what becomes of a request when the host fails; `report` and `enospc` unless given. */
  readonly onReadError?: Exclude<DriveErrorAction, 'enospc'>;
  readonly onWriteError?: DriveErrorAction;
  /** `throttling.*`: limits of the drive, see `DriveLimits`. */
  readonly limits?: DriveLimits;
}

/** `stop` pauses the machine and tries again when it goes on; `enospc`: stop when the host is full, else report. */
export type DriveErrorAction = 'report' | 'ignore' | 'stop' | 'enospc';

/** Bytes and operations a second; 0 or absent: no limit. `total` and `read`/`write` of one kind exclude each other. */
export interface DriveLimits {
  readonly bps?: number;
  readonly bpsRead?: number;
  readonly bpsWrite?: number;
  readonly iops?: number;
  readonly iopsRead?: number;
  readonly iopsWrite?: number;
}

export interface NetdevConfig {
  readonly id: string;
  readonly backend: 'user' | 'tap' | 'socket' | 'hub';
  /** The front end, or undefined where `devices` has it. */
  readonly model?: 'virtio-net-pci' | 'e1000' | 'rtl8139';
  /** `52:54:00:xx:xx:xx`. */
  readonly mac?: string;
  /** Back-end options by their `-netdev` names (`hostfwd` may hold several, separated by line feeds). */
  readonly options: Readonly<Record<string, string>>;
}

export interface DisplayConfig {
  /** `std`: VGA with Bochs VBE; `none`: no display adapter. */
  readonly adapter: 'std' | 'none';
  /** Video memory; a power of two. */
  readonly memoryMiB: number;
  /** The mode that EDID prefers. */
  readonly width?: number;
  readonly height?: number;
}

/**
 * A serial port's other end: `port`, the streams that the parent hands over with `{type: 'port', kind: 'serial'}`
 * (any number at once; what the guest sends goes to all, a newcomer first gets the last 256 KiB); a character device;
 * or nothing is connected.
 */
export type SerialConfig =
  | { readonly connect: 'port' }
  | { readonly connect: 'chardev'; readonly chardev: string }
  | { readonly connect: 'none' };

export interface RtcConfig {
  /** What the guest's clock shows at start: UTC, the host's local time, or an instant in ISO 8601. */
  readonly base: 'utc' | 'localtime' | string;
  /** `host` follows the host's clock; `vm` stands while the machine is stopped. */
  readonly clock: 'host' | 'vm';
}

export interface MonitorConfig {
  readonly mode: 'qmp' | 'human';
  readonly chardev: string;
  readonly pretty?: boolean;
}

export interface DeviceConfig {
  /** `isa-debug-exit`, `virtio-rng-pci` ... */
  readonly driver: string;
  readonly id?: string;
  readonly properties: Readonly<Record<string, string>>;
}

export interface SocketsConfig {
  /** `-qmp unix:...`, and the app's own control socket. A Unix socket is made with mode 0600. */
  readonly qmp: readonly SocketAddress[];
  readonly vnc?: VncConfig;
  readonly gdb?: SocketAddress;
}

export interface VncConfig {
  readonly address: SocketAddress;
  /** Clients must give this password; at most 8 bytes count. */
  readonly password?: string;
}

export interface LifecycleConfig {
  /** `-S`: the machine waits for `cont`. */
  readonly paused: boolean;
  /** Go on from what was saved (`-incoming file:`) or from a snapshot (`-loadvm`) instead of booting. */
  readonly restore?: { readonly kind: 'file'; readonly path: string } | { readonly kind: 'snapshot'; readonly name: string };
  /** `exit`: a guest that resets ends the process, as with `-no-reboot`. */
  readonly onReboot: 'reset' | 'exit';
  /** `pause`: a guest that powers off leaves the machine stopped, as with `-no-shutdown`. */
  readonly onPoweroff: 'exit' | 'pause';
}

export interface DebugConfig {
  /** Globs of trace events to be written (`-trace`). */
  readonly trace: readonly string[];
  /** Items of `-d`. */
  readonly items: readonly string[];
  /** `-dfilter`: linear addresses, both ends included, as `0x` and hexadecimal digits; what is translated elsewhere is not logged. */
  readonly ranges?: readonly { readonly first: string; readonly last: string }[];
  /** `-D FILE`; standard error unless given. */
  readonly logFile?: string;
}
