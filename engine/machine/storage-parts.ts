/** The disk controllers that a configuration asks for, beside the virtio ones: IDE, AHCI, NVMe, floppy. */
import type { IoSpace } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { type PciBus, PciFunction, type pciFunctionState } from '../bus/pci.ts';
import type { DeviceConfig, DriveConfig, MachineConfig } from '../contract/machine-config.ts';
import { AHCI_PORTS, ahciPortState, ahciState } from '../devices/ahci.ts';
import { AhciPci } from '../devices/ahci-pci.ts';
import { ataDriveState } from '../devices/ata.ts';
import { AtaDrive } from '../devices/ata-drive.ts';
import { FDC_DRIVES, FDC_IRQ, FDC_PORTS, Fdc, type FloppyMedium, fdcState } from '../devices/fdc.ts';
import type { I8237 } from '../devices/i8237.ts';
import { IdeChannel, ideChannelState } from '../devices/ide.ts';
import { IDE_PORTS, Piix3Ide } from '../devices/ide-piix3.ts';
import {
  NVME_BAR_BYTES,
  NVME_MDTS,
  NVME_MSIX_PBA_AT,
  NVME_MSIX_TABLE_AT,
  NVME_QUEUES_MAX,
  Nvme,
  nvmeState,
} from '../devices/nvme.ts';
import { type DiskErrorPolicy, underPolicy } from '../devices/virtio/disk.ts';
import { ScsiCdrom } from '../devices/virtio/scsi-cdrom.ts';
import { scsiUnitState } from '../devices/virtio/scsi-unit.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SharedState } from '../memory/shared-state.ts';
import type { View } from '../memory/struct.ts';
import type { DriveList, DrivePart, IoPart, MediumSlot } from './drive-list.ts';
import type { Plug } from './hotplug.ts';
import { BootError } from './linux-boot.ts';
import type { Placed, PluggedDevice, PlugList } from './plugged.ts';

export interface StorageWires {
  readonly shared: SharedState;
  readonly memory: GuestMemory;
  readonly bus: PciBus;
  readonly ports: IoSpace;
  readonly pciState: (name: string) => View<typeof pciFunctionState.fields>;
  readonly drives: DriveList;
  readonly plugs: PlugList;
  readonly irq: (n: number) => IrqLine;
  readonly dma: I8237;
  /** The kinds of the floppy drives are known now; see `Cmos.setFloppies`. */
  readonly floppyKinds: (kinds: readonly [number, number]) => void;
}

export const NVME = 'nvme';
/** Commands of a queue that are carried out before the next queue's turn. */
const BUDGET = 64;

const bad = (message: string): never => {
  throw new BootError('bad-config', 'drives', message);
};

/** A drive that is wanted somewhere: by its own interface, or by a device. */
export interface Wanted {
  readonly drive: DriveConfig;
  readonly device: DeviceConfig | undefined;
}

/** What a `wwn=` says, or undefined. */
export function wwnOf(device: DeviceConfig | undefined): bigint | undefined {
  const text = device?.properties.wwn;
  if (text === undefined) return undefined;
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text)) return bad(`${device?.driver}: wwn '${text}' is no 64-bit number`);
  return BigInt.asUintN(64, BigInt(text));
}

/** The slot of a CD drive whose guest looks by itself (ATAPI); `told` is called after a change. */
export function cdSlot(cdrom: ScsiCdrom, told: () => void = () => {}): MediumSlot {
  return {
    get trayOpen() {
      return cdrom.state.trayOpen !== 0;
    },
    get locked() {
      return cdrom.state.locked !== 0;
    },
    get loaded() {
      return cdrom.state.loaded !== 0;
    },
    eject(force) {
      const open = cdrom.eject(force);
      told();
      return open;
    },
    remove() {
      cdrom.remove();
      told();
    },
    insert(size) {
      cdrom.insert(size);
      told();
    },
  };
}

/** The medium of a floppy drive, with errors of the host decided on. */
function floppyMedium(part: DrivePart): FloppyMedium | undefined {
  const { disk } = part;
  if (disk === undefined) return undefined;
  const policy: DiskErrorPolicy = (error, operation) => part.failed(error, operation);
  return {
    readOnly: disk.readOnly,
    read: (offset, data) => underPolicy(policy, 'read', () => disk.read(offset, data)),
    write: (offset, data) => underPolicy(policy, 'write', () => disk.write(offset, data)),
  };
}

/** The slot of a floppy drive: nothing holds the medium. */
function floppySlot(fdc: Fdc, unit: number): MediumSlot {
  return {
    get trayOpen() {
      return fdc.tray(unit).open;
    },
    locked: false,
    get loaded() {
      return fdc.tray(unit).loaded;
    },
    eject() {
      fdc.setTray(unit, true);
      return true;
    },
    remove() {
      fdc.setMedium(unit, 0);
    },
    insert(bytes) {
      fdc.setMedium(unit, bytes);
      fdc.setTray(unit, false);
    },
  };
}

export class StorageParts {
  readonly ide: Piix3Ide | undefined;
  readonly ahci: AhciPci[] = [];
  readonly nvme: Nvme[] = [];
  readonly fdc: Fdc | undefined;
  /** Open Firmware paths of drives, as firmware names them in `bootorder`. */
  readonly bootPaths = new Map<DrivePart, string>();
  readonly #wires: StorageWires;
  #ataDrives = 0;
  readonly #placed = new Set<DriveConfig>();

  /** Throws a `BootError` for what cannot be put together. */
  constructor(config: MachineConfig, wires: StorageWires) {
    this.#wires = wires;
    const isPc = config.machine.type === 'pc';
    this.fdc = this.#floppies(config);
    if (isPc) this.ide = this.#piix3(this.#placeIde(config));
    this.#adapters(config, isPc);
    for (const device of config.devices) if (device.driver === NVME) this.#nvme(driveOfDevice(config, device), device);
    for (const drive of config.drives) if (drive.interface === NVME) this.#nvme(drive, undefined);
    for (const { drive, device } of ideDevices(config))
      if (!this.#placed.has(drive)) bad(`${device.driver}: there is no bus '${device.properties.bus ?? 'ide.0'}'`);
  }

  /** The four IDE places: drives by index, and `ide-hd`, `ide-cd` by bus and unit, or where there is room. */
  #placeIde(config: MachineConfig): (Wanted | undefined)[] {
    const places: (Wanted | undefined)[] = [undefined, undefined, undefined, undefined];
    const put = (wanted: Wanted, index: number | undefined): void => {
      const at = index ?? places.indexOf(undefined);
      if (at < 0 || at > 3) bad(`drive '${wanted.drive.id}': this machine has four IDE places`);
      if (places[at] !== undefined) bad(`drive '${wanted.drive.id}': IDE place ${at} is taken by '${places[at]?.drive.id}'`);
      places[at] = wanted;
    };
    const own = config.drives.filter((drive) => drive.interface === 'ide');
    for (const drive of own) if (drive.index !== undefined) put({ drive, device: undefined }, drive.index);
    for (const wanted of ideDevices(config)) {
      const { bus, unit } = wanted.device.properties;
      const match = /^ide\.([01])$/.exec(bus ?? '');
      if (bus !== undefined && match === null) continue;
      if (unit !== undefined && Number(unit) > 1) bad(`${wanted.device.driver}: an IDE bus has units 0 and 1, not ${unit}`);
      if (match === null && unit === undefined) put(wanted, undefined);
      else {
        const first = Number(match?.[1] ?? 0) * 2;
        put(wanted, unit === undefined ? (places[first] === undefined ? first : first + 1) : first + Number(unit));
      }
    }
    for (const drive of own) if (drive.index === undefined) put({ drive, device: undefined }, undefined);
    return places;
  }

  #piix3(places: readonly (Wanted | undefined)[]): Piix3Ide {
    const { shared, memory, bus, ports, pciState, irq } = this.#wires;
    const channels = [0, 1].map((n) => {
      const parts = [0, 1].map((unit) => {
        const wanted = places[n * 2 + unit];
        if (wanted === undefined) return undefined;
        const made = this.ataDrive(wanted, false, (locked) => channel.process(unit, locked));
        this.bootPaths.set(made.part, `/pci@i0cf8/ide@1,1/drive@${n}/disk@${unit}`);
        return made;
      });
      const channel: IdeChannel = new IdeChannel(shared.struct(ideChannelState, `ide${n}`), {
        memory,
        irq: irq(IDE_PORTS[n].irq),
        drives: parts.map((part) => part?.ata),
        ring: (unit) => parts[unit]?.io.ring(),
      });
      return channel;
    });
    return new Piix3Ide(pciState('piix3-ide'), bus, channels, ports);
  }

  /** AHCI: a q35's own, those that are named, and one that `sata` drives of a `pc` need. */
  #adapters(config: MachineConfig, isPc: boolean): void {
    const named = config.devices.filter(({ driver }) => driver === 'ich9-ahci');
    const own = config.drives.filter((drive) => drive.interface === 'sata' || (!isPc && drive.interface === 'ide'));
    const adapters: { readonly device: DeviceConfig | undefined; readonly bus: string }[] = [];
    if (!isPc) adapters.push({ device: undefined, bus: 'ide' });
    else if (own.length > 0 && named.length === 0) adapters.push({ device: undefined, bus: 'sata' });
    for (const device of named) adapters.push({ device, bus: device.id ?? 'ahci' });
    for (const [n, { device, bus }] of adapters.entries()) {
      const ports: (Wanted | undefined)[] = Array.from({ length: AHCI_PORTS }, () => undefined);
      const put = (wanted: Wanted, port: number): void => {
        if (!(port >= 0 && port < AHCI_PORTS))
          bad(`drive '${wanted.drive.id}': an AHCI adapter has ports 0 to ${AHCI_PORTS - 1}`);
        if (ports[port] !== undefined)
          bad(`drive '${wanted.drive.id}': AHCI port ${port} is taken by '${ports[port]?.drive.id}'`);
        ports[port] = wanted;
      };
      const free = (): number => ports.indexOf(undefined);
      if (n === 0) for (const drive of own) if (drive.index !== undefined) put({ drive, device: undefined }, drive.index);
      for (const wanted of ideDevices(config)) {
        const at = wanted.device.properties.bus;
        if (this.#placed.has(wanted.drive)) continue;
        const dot = at?.lastIndexOf('.') ?? -1;
        if (at === undefined ? !isPc && n === 0 : at.slice(0, dot) === bus)
          put(wanted, at === undefined ? free() : Number(at.slice(dot + 1)));
      }
      if (n === 0) for (const drive of own) if (drive.index === undefined) put({ drive, device: undefined }, free());
      this.#ahci(device, n, ports, !isPc && n === 0);
    }
  }

  #ahci(device: DeviceConfig | undefined, n: number, places: readonly (Wanted | undefined)[], own: boolean): void {
    const { shared, memory, bus, pciState } = this.#wires;
    const slot = own ? 0x1f : pciSlot(bus, device, 'ich9-ahci');
    const fn = own ? 2 : 0;
    const parts = places.map((wanted, port) => {
      if (wanted === undefined) return undefined;
      const made = this.ataDrive(wanted, true, (locked) => adapter.ahci.process(port, locked));
      const where = fn === 0 ? slot.toString(16) : `${slot.toString(16)},${fn}`;
      this.bootPaths.set(made.part, `/pci@i0cf8/pci8086,2922@${where}/drive@${port}/disk@0`);
      return made;
    });
    const adapter: AhciPci = new AhciPci(
      shared.struct(ahciState, `ahci${n}`),
      places.map((_, port) => shared.struct(ahciPortState, `ahci${n}-port${port}`)),
      pciState(`ahci${n}`),
      { bus, slot, fn, name: 'ich9-ahci' },
      { memory, drives: parts.map((part) => part?.ata), ring: (port) => parts[port]?.io.ring() },
    );
    this.ahci.push(adapter);
  }

  /** Makes an NVMe controller that came by a place of the table; see `Machine.plug`. */
  plug(place: number, { device, drive, driveIndex, ioIndex }: Plug): PluggedDevice {
    if (drive === undefined) return bad(`${device.driver}: there is no drive`);
    return this.#nvme(drive, device, { place, driveIndex, ioIndex });
  }

  #nvme(drive: DriveConfig, device: DeviceConfig | undefined, at?: Placed): PluggedDevice {
    const { memory, bus, drives, plugs } = this.#wires;
    const slot = pciSlot(bus, device, NVME);
    // What a guest knows it by: those of the start are counted, the others have their slot.
    const n = at === undefined ? this.nvme.length + 1 : 0x80 + slot;
    const structs: string[] = [];
    const queues = Math.min(NVME_QUEUES_MAX, Math.max(2, Number(device?.properties.max_ioqpairs ?? 64) + 1));
    const blockSize = Number(device?.properties.logical_block_size ?? 512);
    if (blockSize > 4096) bad(`nvme: blocks of ${blockSize} bytes are more than 4096`);
    const io = drives.thread((locked) => nvme.process(BUDGET, locked), at?.ioIndex);
    const serial = drive.serial ?? device?.properties.serial ?? `VV${String(n).padStart(5, '0')}`;
    const nvme: Nvme = new Nvme(
      plugs.struct(structs, nvmeState, `nvme@${slot}`),
      {
        identity: {
          ...{ serial, model: 'Vivarium NVMe Ctrl', revision: '1.0', mdts: NVME_MDTS, readOnly: drive.readOnly },
          discard: !drive.readOnly && drive.discard === 'unmap',
          eui64: Uint8Array.of(0x52, 0x54, 0, 0x56, 0x56, 0, 0, n),
        },
        ...{ queues, blockSize, readOnly: drive.readOnly, disk: () => part.disk },
        errorPolicy: (error, operation) => part.failed(error, operation),
      },
      {
        memory,
        ring: () => io.ring(),
        irq: (level) => pci.setIntx(level),
        message: (vector) => pci.notifyMsix(vector),
        messages: () => pci.msixEnabled,
      },
    );
    const pci: PciFunction = new PciFunction(
      plugs.pciState(structs, `nvme@${slot}`),
      {
        ...{ name: NVME, vendor: 0x1b36, device: 0x0010, revision: 2, classCode: 0x010802 },
        ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, pin: 1 },
        bars: [{ index: 0, kind: 'mem64', size: NVME_BAR_BYTES, handler: nvme }],
        msix: { vectors: queues, bar: 0, tableOffset: NVME_MSIX_TABLE_AT, pbaOffset: NVME_MSIX_PBA_AT },
      },
      bus,
      slot,
    );
    this.nvme.push(nvme);
    const front = { device: device?.id ?? drive.id, putsBack: true, setSize: (bytes: number) => nvme.setSize(bytes) };
    const part: DrivePart = drives.drive(drive, io, front, at?.driveIndex);
    this.bootPaths.set(part, `/pci@i0cf8/pci1b36,10@${slot.toString(16)}/namespace@1,0`);
    const reset = (): void => {
      pci.reset();
      nvme.reset();
    };
    return plugs.keep(device, NVME, {
      ...{ place: at?.place, slot, pci: { function: pci, reset }, io, part, structs },
      left: () => void this.nvme.splice(this.nvme.indexOf(nvme), 1),
    });
  }

  /** A floppy controller, where there are drives for it. */
  #floppies(config: MachineConfig): Fdc | undefined {
    const { shared, drives, ports, irq, dma, floppyKinds } = this.#wires;
    const own = config.drives.filter((drive) => drive.interface === 'floppy');
    if (own.length === 0) return undefined;
    const places: (DriveConfig | undefined)[] = Array.from({ length: FDC_DRIVES }, () => undefined);
    for (const drive of own) {
      const at = drive.index ?? places.indexOf(undefined);
      if (!(at >= 0 && at < FDC_DRIVES) || places[at] !== undefined)
        bad(`drive '${drive.id}': there is no such floppy drive, or another has its place`);
      places[at] = drive;
    }
    const media: (FloppyMedium | undefined)[] = [];
    const io = drives.thread((locked) => {
      for (const [unit, part] of parts.entries()) media[unit] = part === undefined ? undefined : floppyMedium(part);
      return fdc.process(media, locked);
    });
    const fdc: Fdc = new Fdc(shared.struct(fdcState), {
      irq: irq(FDC_IRQ),
      dma,
      drives: places.map((drive) => drive !== undefined),
      ring: () => io.ring(),
    });
    const parts = places.map((drive, unit): DrivePart | undefined => {
      if (drive === undefined) return undefined;
      let known = false;
      const part = drives.drive(drive, io, {
        device: drive.id,
        slot: floppySlot(fdc, unit),
        setSize(bytes) {
          if (known) return fdc.setMedium(unit, bytes);
          known = true;
          fdc.setFirstMedium(unit, bytes);
          floppyKinds(fdc.kinds);
        },
      });
      this.bootPaths.set(part, `/pci@i0cf8/isa@${config.machine.type === 'pc' ? '1' : '1f'}/fdc@03f0/floppy@${unit}`);
      return part;
    });
    ports.map(FDC_PORTS.base, FDC_PORTS.length, fdc.ports, 'fdc');
    ports.map(FDC_PORTS.last, 1, fdc.lastPort, 'fdc-last');
    return fdc;
  }

  /** A disk or CD drive behind an ATA adapter, with a thread of its own that calls `process`. */
  ataDrive(
    { drive, device }: Wanted,
    sata: boolean,
    process: IoPart['process'],
  ): { readonly ata: AtaDrive; readonly io: IoPart; readonly part: DrivePart } {
    const { shared, drives } = this.#wires;
    const n = this.#ataDrives++;
    this.#placed.add(drive);
    const isCd = device === undefined ? drive.media === 'cdrom' : device.driver === 'ide-cd';
    const io = drives.thread(process);
    const serial = drive.serial ?? device?.properties.serial ?? `VV${String(n + 1).padStart(5, '0')}`;
    const wires = {
      disk: () => part.disk,
      errorPolicy: (error: unknown, operation: 'read' | 'write') => part.failed(error, operation),
    };
    const cdrom = isCd
      ? new ScsiCdrom(shared.struct(scsiUnitState, `ata${n}-unit`), { serial, product: 'DVD-ROM', interface: 2, ...wires })
      : undefined;
    const rate = device?.properties.rotation_rate;
    const ata: AtaDrive = new AtaDrive(shared.struct(ataDriveState, `ata${n}`), {
      identity: {
        model: device?.properties.model ?? (isCd ? 'VIVARIUM DVD-ROM' : 'VIVARIUM HARDDISK'),
        serial,
        revision: device?.properties.ver ?? '1.0',
        wwn: wwnOf(device),
        readOnly: drive.readOnly,
        sata,
        trim: !isCd && !drive.readOnly && drive.discard === 'unmap',
        rotationRate: rate === undefined ? 1 : Number(rate),
      },
      cdrom,
      ...wires,
    });
    const part = drives.drive(drive, io, {
      device: device?.id ?? drive.id,
      putsBack: true,
      slot: cdrom === undefined ? undefined : cdSlot(cdrom),
      setSize: (bytes) => ata.setSize(bytes),
    });
    return { ata, io, part };
  }

  reset(): void {
    this.ide?.reset();
    for (const each of this.ahci) each.reset();
    for (const each of this.nvme) each.reset();
    this.fdc?.reset();
  }
}

/** The slot that `addr=` names, or the first that is free. */
export function pciSlot(bus: PciBus, device: DeviceConfig | undefined, name: string): number {
  const address = device?.properties.addr;
  const slot = address === undefined ? bus.freeSlot(3) : Number.parseInt(address, 16);
  if (!(slot >= 3 && slot < 31) || bus.functions.some((other) => other.slot === slot))
    bad(`${name}: ${address === undefined ? 'no PCI slot is free' : `PCI slot ${address} is not free`}`);
  return slot;
}

/** The drive that a device names. */
export function driveOfDevice(config: MachineConfig, device: DeviceConfig): DriveConfig {
  const drive = config.drives.find(({ id }) => id === device.properties.drive);
  if (drive !== undefined) return drive;
  throw new BootError('bad-config', 'devices', `${device.driver}: there is no drive '${device.properties.drive ?? ''}'`);
}

/** `ide-hd` and `ide-cd` devices with their drives. */
export function ideDevices(config: MachineConfig): { readonly drive: DriveConfig; readonly device: DeviceConfig }[] {
  return config.devices
    .filter(({ driver }) => driver === 'ide-hd' || driver === 'ide-cd')
    .map((device) => ({ device, drive: driveOfDevice(config, device) }));
}
