/**
 * From the options of a command line to the configuration of a machine: what only the host can tell (files, memory,
 * ports, KVM) is checked here, through `HostInfo`, so that mistakes are found before anything starts.
 */
import type {
  BootConfig,
  DeviceConfig,
  DriveConfig,
  MachineConfig,
  SerialConfig,
  SocketsConfig,
} from '../../contract/machine-config.ts';
import { OptionError } from './keyval.ts';
import type { RunOptions, VncOptions } from './run-options.ts';

/** What the host is asked. */
export interface HostInfo {
  /** Bytes of memory that the host has, and that are free for programs now. */
  readonly totalMemory: number;
  readonly availableMemory: number;
  /** Why a regular file cannot be read, or undefined; `bytes` is its size. */
  file(path: string): { readonly bytes: number } | { readonly problem: string };
  /** Why KVM cannot be used, or undefined. */
  kvmProblem(): string | undefined;
  /** Whether a TCP port can be listened on. */
  portFree(host: string, port: number): Promise<boolean>;
}

/** A configuration, and what the person should be told beside it. */
export interface CheckedConfig {
  readonly config: MachineConfig;
  readonly notes: readonly string[];
}

const firmwareFolders = ['/usr/share/seabios', '/usr/share/qemu', '/usr/local/share/qemu', '/usr/share/qemu-system-x86'];
const MiB = 1 << 20;

function checkFile(host: HostInfo, option: string, path: string, what: string): void {
  const found = host.file(path);
  if ('problem' in found) throw new OptionError(`${option}: could not open ${what} '${path}': ${found.problem}`);
  if (found.bytes === 0) throw new OptionError(`${option}: ${what} '${path}' is empty`);
}

function bootConfig(options: RunOptions, host: HostInfo, notes: string[]): BootConfig {
  const { kernel, initrd, append = '' } = options;
  if (kernel !== undefined) {
    checkFile(host, '-kernel', kernel, 'kernel file');
    if (initrd !== undefined) checkFile(host, '-initrd', initrd, 'initial RAM disk');
    if (options.bios === undefined && options.flash.length === 0) return { kind: 'kernel', kernel, initrd, append };
  }
  const direct = kernel === undefined ? undefined : { kernel, initrd, append };
  const { order, once, menu } = options.boot;
  const [code, variables] = options.flash;
  if (code === undefined && variables === undefined)
    return { kind: 'firmware', image: firmware(options, host), order, once, menu, direct };
  if (code === undefined) throw new OptionError('-drive if=pflash,unit=1: there is no unit 0, which holds the firmware');
  if (options.bios !== undefined) throw new OptionError('-bios: cannot be used with -drive if=pflash');
  checkFile(host, '-drive if=pflash,unit=0', code.file, 'firmware');
  if (variables !== undefined) checkFile(host, '-drive if=pflash,unit=1', variables.file, 'variables');
  if (!code.readOnly && variables === undefined)
    notes.push(`warning: what the guest writes to the flash of '${code.file}' is lost: variables are kept in unit 1 only`);
  const variablesKept = variables === undefined ? undefined : !variables.readOnly && !variables.snapshot;
  return { kind: 'firmware', image: code.file, variables: variables?.file, variablesKept, order, once, menu, direct };
}

/** The drives as the machine has them. */
function driveConfigs(options: RunOptions, notes: string[]): DriveConfig[] {
  return options.drives.map(({ option, ...drive }) => {
    if (drive.format === 'auto' && drive.file !== '' && drive.media === 'disk')
      notes.push(
        `warning: ${option}: no format was given, so it is found out from the image; format=raw is safe for guests you do not trust`,
      );
    return drive;
  });
}

function firmware({ bios, firmwareFolders: own }: RunOptions, host: HostInfo): string {
  const folders = [...own, ...firmwareFolders];
  const readable = (path: string): boolean => !('problem' in host.file(path));
  if (bios !== undefined) {
    const found = [bios, ...folders.map((folder) => `${folder}/${bios}`)].find(readable);
    if (found === undefined)
      throw new OptionError(`-bios: could not load PC BIOS '${bios}': not found there, nor in ${folders.join(', ')}`);
    return found;
  }
  const found = folders.flatMap((folder) => [`${folder}/bios-256k.bin`, `${folder}/bios.bin`]).find(readable);
  if (found === undefined)
    throw new OptionError(`nothing to start: give -kernel FILE, or -bios FILE (no SeaBIOS was found in ${folders.join(', ')})`);
  return found;
}

function accelerator(options: RunOptions, host: HostInfo): 'auto' | 'jit' | 'kvm' {
  const [first, second] = options.accelerators;
  if (first === undefined) return 'auto';
  if (first === 'jit') return 'jit';
  const problem = host.kvmProblem();
  if (problem === undefined) return 'kvm';
  if (second === 'jit') return 'jit';
  throw new OptionError(`-accel kvm: ${problem}`);
}

async function vncAddress(options: RunOptions, vnc: VncOptions, host: HostInfo, notes: string[]): Promise<SocketsConfig['vnc']> {
  const { address } = vnc;
  // With password=on nobody comes in before a monitor has set one.
  const password = vnc.password ? '' : undefined;
  if (address.type === 'unix') return { address, password };
  for (let display = address.display; display <= Math.max(address.display, address.to); display++) {
    const port = 5900 + display;
    if (!(await host.portFree(address.host, port))) continue;
    if (options.vncByDefault) notes.push(`VNC server running on ${address.host}:${port}`);
    return { address: { type: 'tcp', host: address.host, port }, password };
  }
  if (options.vncByDefault) {
    notes.push('no VNC server: every port from 5900 to 5999 is in use');
    return undefined;
  }
  const where = `${address.host}:${address.display}`;
  throw new OptionError(
    `-vnc ${where}: port ${5900 + address.display} is in use by another program; take another display, or add to=N to try the next ones`,
  );
}

function checkMemory({ memoryBytes }: RunOptions, host: HostInfo, notes: string[]): void {
  const inMiB = (bytes: number): string => `${Math.floor(bytes / MiB)} MiB`;
  if (memoryBytes > host.totalMemory)
    throw new OptionError(
      `-m: cannot set up guest memory: ${inMiB(memoryBytes)} is more than this host has (${inMiB(host.totalMemory)})`,
    );
  if (memoryBytes > host.availableMemory)
    notes.push(
      `warning: the guest's ${inMiB(memoryBytes)} are more than is free on this host now (${inMiB(host.availableMemory)})`,
    );
}

function deviceConfigs(options: RunOptions): DeviceConfig[] {
  const text = (value: string | number | boolean): string =>
    typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
  const devices = options.devices.map(({ model, id, properties }) => {
    // Every source of entropy is the host's own, so its name says nothing to the machine.
    const kept = Object.entries(properties).filter(
      ([key]) => key !== 'iothread' && key !== 'share-rw' && !(model === 'virtio-rng-pci' && key === 'rng'),
    );
    return { driver: model, id, properties: Object.fromEntries(kept.map(([key, value]) => [key, text(value)])) };
  });
  if (options.debugcon !== undefined)
    devices.push({ driver: 'isa-debugcon', id: undefined, properties: { chardev: options.debugcon, iobase: '233' } });
  return devices;
}

/** Checks the options against the host. Rejects with an OptionError. */
export async function toMachineConfig(options: RunOptions, host: HostInfo): Promise<CheckedConfig> {
  const notes: string[] = [];
  const { cpus, sockets, cores, threads } = options.smp;
  if (options.memoryBytes % MiB !== 0) throw new OptionError('-m: a whole number of megabytes expected');
  checkMemory(options, host, notes);
  const boot = bootConfig(options, host, notes);
  const devices = options.devices.filter(({ model }) => model === 'VGA');
  if (devices.length > 0 && options.vga !== 'none')
    throw new OptionError('-device VGA: the machine has a VGA adapter already; add -vga none');
  const vga = devices[0];
  if (devices.length > 1) throw new OptionError('-device VGA: a machine has one VGA adapter at most');
  const memoryMiB = Number(vga?.properties.vgamem_mb ?? 16);
  if (memoryMiB < 1 || memoryMiB > 256 || (memoryMiB & (memoryMiB - 1)) !== 0)
    throw new OptionError('-device VGA: vgamem_mb expects a power of two up to 256');
  const serial: SerialConfig[] = options.serials.map((id) =>
    id === undefined ? { connect: 'none' } : { connect: 'chardev', chardev: id },
  );
  while (serial.at(-1)?.connect === 'none') serial.pop();
  const config: MachineConfig = {
    version: 1,
    name: options.name ?? '',
    uuid: options.uuid,
    memoryMiB: options.memoryBytes / MiB,
    cpus: {
      count: cpus,
      sockets,
      cores,
      threads,
      model: options.cpu.model,
      features: Object.fromEntries(options.cpu.features.map(({ name, on }) => [name, on])),
      ...(options.cpu.vendor === undefined ? {} : { vendor: options.cpu.vendor }),
    },
    machine: {
      type: options.machine,
      accelerator: accelerator(options, host),
      ...(options.icount === undefined ? {} : { icount: options.icount }),
      options: options.machineProperties,
    },
    boot,
    drives: driveConfigs(options, notes),
    netdevs: [],
    display: { adapter: vga !== undefined ? 'std' : options.vga, memoryMiB },
    serial,
    rtc: options.rtc,
    chardevs: options.chardevs,
    monitors: options.monitors.map(({ chardev, mode, pretty }) => ({
      mode: mode === 'control' ? 'qmp' : 'human',
      chardev,
      pretty,
    })),
    devices: deviceConfigs(options).filter(({ driver }) => driver !== 'VGA'),
    sockets: {
      qmp: [],
      ...(options.gdb === undefined ? {} : { gdb: options.gdb }),
      vnc: options.vnc === undefined ? undefined : await vncAddress(options, options.vnc, host, notes),
    },
    lifecycle: {
      paused: options.startPaused,
      ...(options.restore === undefined ? {} : { restore: options.restore }),
      onReboot: options.onReboot === 'shutdown' ? 'exit' : 'reset',
      onPoweroff: options.onShutdown === 'pause' ? 'pause' : 'exit',
    },
    debug: {
      trace: options.trace,
      items: options.logItems,
      ...(options.logRanges.length === 0
        ? {}
        : {
            ranges: options.logRanges.map(({ first, last }) => ({
              first: `0x${first.toString(16)}`,
              last: `0x${last.toString(16)}`,
            })),
          }),
      logFile: options.logFile,
    },
  };
  return { config, notes };
}
