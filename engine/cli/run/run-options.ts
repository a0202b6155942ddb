/** What a `vivarium run` command line says, checked but not yet put to the host. */
import type { ChardevOptions, SocketAddress } from '../../host/chardev-types.ts';
import type { DriveOptions, FlashOptions } from './drives.ts';

export interface DeviceOptions {
  /** The model by its own name, not an alias. */
  readonly model: string;
  readonly id: string | undefined;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
}

export interface MonitorOptions {
  readonly chardev: string;
  /** `control` is QMP, `readline` the human monitor. */
  readonly mode: 'readline' | 'control';
  readonly pretty: boolean;
}

export interface VncOptions {
  /** A display number on a host (TCP port 5900 and up), or a Unix socket. */
  readonly address:
    | { readonly type: 'tcp'; readonly host: string; readonly display: number; readonly to: number }
    | { readonly type: 'unix'; readonly path: string };
  /** A password must be set through a monitor before anyone can connect. */
  readonly password: boolean;
}

export interface SmpOptions {
  readonly cpus: number;
  readonly sockets: number;
  readonly cores: number;
  readonly threads: number;
}

export type Accelerator = 'jit' | 'kvm';

export interface RunOptions {
  name: string | undefined;
  /** Canonical form; all zeros when none was given. */
  uuid: string;
  machine: 'pc' | 'q35';
  machineProperties: Record<string, string>;
  /** In order of preference; empty: the best that works. */
  accelerators: Accelerator[];
  /** Where a gdb may connect. */
  gdb?: SocketAddress;
  cpu: { model: string; features: { name: string; on: boolean }[]; vendor?: string };
  memoryBytes: number;
  smp: SmpOptions;
  kernel: string | undefined;
  initrd: string | undefined;
  append: string | undefined;
  bios: string | undefined;
  /** Folders to look for firmware in, before the usual ones. */
  firmwareFolders: string[];
  /** Boot devices by letter, and the firmware's menu; undefined: as the firmware likes. */
  boot: { order: string | undefined; once: string | undefined; menu: boolean };
  drives: DriveOptions[];
  /** Firmware flash by unit: 0 the code, 1 the variables. */
  flash: (FlashOptions | undefined)[];
  rtc: { base: string; clock: 'host' | 'vm' };
  icount: { shift: number; replay?: { mode: 'record' | 'replay'; file: string } } | undefined;
  chardevs: ChardevOptions[];
  /** COM1 to COM4: the character device, or undefined for a port that is not there. */
  serials: (string | undefined)[];
  debugcon: string | undefined;
  monitors: MonitorOptions[];
  devices: DeviceOptions[];
  /** Ids of the sources of entropy; all stand for the host's own generator. */
  rngs: string[];
  /** Ids of `-object iothread`. */
  ioThreads: string[];
  vga: 'std' | 'none';
  vnc: VncOptions | undefined;
  /** The VNC server was not asked for: it comes by default, and may be missing where no port is free. */
  vncByDefault: boolean;
  onReboot: 'reset' | 'shutdown';
  onShutdown: 'poweroff' | 'pause';
  startPaused: boolean;
  /** `-loadvm`, `-incoming`. */
  restore: { kind: 'file'; path: string } | { kind: 'snapshot'; name: string } | undefined;
  pidfile: string | undefined;
  logItems: string[];
  /** Linear addresses, both ends included; empty: all. */
  logRanges: { first: bigint; last: bigint }[];
  logFile: string | undefined;
  trace: string[];
  /** The escape character of multiplexers, as its code. */
  escape: number;
}
