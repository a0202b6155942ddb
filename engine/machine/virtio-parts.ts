/** The virtio devices that a configuration asks for, on the PCI bus. */
import type { PciBus, pciFunctionState } from '../bus/pci.ts';
import type { DeviceConfig, DriveConfig, MachineConfig } from '../contract/machine-config.ts';
import { VirtioBlk, virtioBlkState } from '../devices/virtio/blk.ts';
import { type ConsolePort, VirtioConsole, virtioConsoleState } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioRng } from '../devices/virtio/rng.ts';
import { VirtioScsi, virtioScsiState } from '../devices/virtio/scsi.ts';
import { ScsiCdrom } from '../devices/virtio/scsi-cdrom.ts';
import { ScsiDisk } from '../devices/virtio/scsi-disk.ts';
import { scsiUnitState } from '../devices/virtio/scsi-unit.ts';
import { virtioState } from '../devices/virtio/state.ts';
import { VirtioPci } from '../devices/virtio/transport-pci.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SharedState } from '../memory/shared-state.ts';
import type { View } from '../memory/struct.ts';
import { type CharLine, charRing, nowhere } from './char-line.ts';
import type { DriveList, DrivePart } from './drive-list.ts';
import { BootError } from './linux-boot.ts';
import { cdSlot, driveOfDevice, wwnOf } from './storage-parts.ts';

export interface VirtioWires {
  readonly shared: SharedState;
  readonly memory: GuestMemory;
  readonly bus: PciBus;
  readonly pciState: (name: string) => View<typeof pciFunctionState.fields>;
  readonly drives: DriveList;
  readonly fillRandom: (target: Uint8Array) => void;
  readonly ringControl: () => void;
  readonly trace: (message: string) => void;
}

const RNG = 'virtio-rng-pci';
const SERIAL = 'virtio-serial-pci';
const BLK = 'virtio-blk-pci';
const SCSI = 'virtio-scsi-pci';
const UNITS = ['scsi-hd', 'scsi-cd'];
/** Requests that a queue is served at once. */
const BUDGET = 64;
const PORTS = ['virtconsole', 'virtserialport'];

const bad = (field: string, message: string): never => {
  throw new BootError('bad-config', field, message);
};

export class VirtioParts {
  readonly functions: VirtioPci[] = [];
  readonly lines: CharLine[] = [];
  /** Open Firmware paths of drives, as firmware names them in `bootorder`. */
  readonly bootPaths = new Map<DrivePart, string>();
  readonly #slots: number[] = [];
  readonly #wires: VirtioWires;

  /** Throws a `BootError` for what cannot be put together. */
  constructor(config: MachineConfig, wires: VirtioWires) {
    this.#wires = wires;
    const ports = config.devices.filter(({ driver }) => PORTS.includes(driver));
    const buses = config.devices.filter(({ driver }) => driver === SERIAL);
    if (ports.length > 0 && buses.length === 0) bad('devices', `${ports[0].driver}: there is no ${SERIAL} to put it on`);
    for (const device of config.devices) {
      if (device.driver === RNG) this.#add(device, new VirtioRng(wires.fillRandom));
      else if (device.driver === SERIAL) this.#serial(device, buses, ports);
      else if (device.driver === BLK) this.#drive(driveOfDevice(config, device), device);
    }
    for (const drive of config.drives) if (drive.interface === 'virtio') this.#drive(drive, undefined);
    this.#scsiAdapters(config);
  }

  #add(device: DeviceConfig | undefined, part: VirtioDevice): void {
    const { shared, memory, bus, pciState, trace } = this.#wires;
    const name = `virtio${this.functions.length}`;
    const address = device?.properties.addr;
    const slot = address === undefined ? bus.freeSlot(3) : Number.parseInt(address, 16);
    if (!(slot >= 3 && slot < 32) || bus.functions.some((other) => other.slot === slot))
      bad('devices', `${part.name}: ${address === undefined ? 'no PCI slot is free' : `PCI slot ${address} is not free`}`);
    const state = shared.struct(virtioState, name);
    this.#slots.push(slot);
    this.functions.push(
      new VirtioPci(state, pciState(name), part, {
        bus,
        slot,
        memory,
        trace: (message) => trace(`${device?.id ?? part.name}: ${message}`),
      }),
    );
  }

  /** A bus of ports: virtconsoles from 0 on, virtserialports from 1 on, unless they say which number they have. */
  #serial(device: DeviceConfig, buses: readonly DeviceConfig[], all: readonly DeviceConfig[]): void {
    const { shared, ringControl } = this.#wires;
    const own = all.filter(({ properties: { bus } }) => (bus === undefined ? device === buses[0] : bus === `${device.id}.0`));
    const taken = new Set(own.flatMap(({ properties }) => (properties.nr === undefined ? [] : [Number(properties.nr)])));
    const made: { readonly port: ConsolePort; readonly line: CharLine }[] = [];
    let console: VirtioConsole | undefined;
    for (const { driver, properties } of own) {
      const kind = driver === 'virtconsole' ? 'console' : 'serial';
      let number = kind === 'console' ? 0 : 1;
      if (properties.nr !== undefined) number = Number(properties.nr);
      else while (taken.has(number)) number++;
      taken.add(number);
      const name = `virtio-port${this.lines.length + made.length}`;
      const ring = charRing(shared, name, ringControl);
      const { chardev } = properties;
      made.push({
        port: { number, kind, name: properties.name, sink: chardev === undefined ? nowhere : ring, roomy: ringControl },
        line: {
          name,
          ring,
          chardev,
          front: {
            room: () => console?.frontend(number).room() ?? 0,
            receive: (data) => console?.frontend(number).receive(data),
            drained: () => console?.frontend(number).drained(),
            setOpen: (open) => console?.frontend(number).setOpen?.(open),
          },
        },
      });
    }
    const maxPorts = Math.max(1, Math.min(31, Number(device.properties.max_ports ?? 31)));
    const state = shared.struct(virtioConsoleState, `virtio-console${this.functions.length}`);
    try {
      console = new VirtioConsole(
        state,
        made.map(({ port }) => port),
        maxPorts,
      );
    } catch (error) {
      return bad('devices', (error as Error).message);
    }
    this.#add(device, console);
    this.lines.push(...made.map(({ line }) => line));
  }

  #drive(config: DriveConfig, device: DeviceConfig | undefined): void {
    const { shared, drives } = this.#wires;
    const io = drives.thread((locked) => {
      let more = false;
      const { disk } = part;
      if (disk === undefined) return false;
      for (let queue = 0; queue < blk.queueSizes.length; queue++) more = blk.process(queue, BUDGET, disk, locked) || more;
      return more;
    });
    const size = (name: string): number | undefined => {
      const value = device?.properties[name];
      return value === undefined ? undefined : Number(value);
    };
    const physical = size('physical_block_size');
    const logical = size('logical_block_size');
    const queues = Math.min(64, Math.max(1, size('num-queues') ?? 1));
    const queueSize = size('queue-size') ?? 256;
    if (queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0)
      bad('devices', `${BLK}: queue-size ${queueSize} is no power of two from 4 to 1024`);
    const options = {
      queues,
      queueSize,
      logicalBlockSize: logical,
      physicalBlockSize: physical === undefined ? undefined : Math.max(physical, logical ?? 512),
      minIoSize: size('min_io_size'),
      optIoSize: size('opt_io_size'),
      discard: device?.properties.discard !== 'off',
      writeZeroes: device?.properties['write-zeroes'] !== 'off',
      serial: config.serial ?? device?.properties.serial,
      readOnly: config.readOnly,
      errorPolicy: (error: unknown, operation: 'read' | 'write') => part.failed(error, operation),
    };
    const blk: VirtioBlk = new VirtioBlk(shared.struct(virtioBlkState, `virtio-blk${io.index}`), options, io);
    this.#add(device, blk);
    const part = drives.drive(config, io, {
      device: device?.id ?? config.id,
      putsBack: true,
      setSize: (bytes) => blk.setSize(bytes),
    });
    this.bootPaths.set(part, `/pci@i0cf8/scsi@${this.#slots.at(-1)?.toString(16)}/disk@0,0`);
  }

  /** Adapters that are named, and one for `scsi` drives where there is none; each with its units. */
  #scsiAdapters(config: MachineConfig): void {
    const own = config.drives.filter((drive) => drive.interface === 'scsi');
    const units = config.devices.filter(({ driver }) => UNITS.includes(driver));
    const named: (DeviceConfig | undefined)[] = config.devices.filter(({ driver }) => driver === SCSI);
    if (named.length === 0 && own.length > 0) named.push(undefined);
    if (named.length === 0 && units.length > 0) bad('devices', `${units[0].driver}: there is no ${SCSI} to put it on`);
    const left = new Set(units);
    for (const [n, device] of named.entries()) {
      const bus = device?.id ?? 'scsi';
      const here = [...left].filter(({ properties }) => {
        const wanted = properties.bus;
        return wanted === undefined ? n === 0 : wanted === `${bus}.0` || wanted === bus;
      });
      for (const unit of here) left.delete(unit);
      this.#scsi(device, n, [
        ...(n === 0 ? own.map((drive) => ({ drive, unit: undefined })) : []),
        ...here.map((unit) => ({ drive: driveOfDevice(config, unit), unit })),
      ]);
    }
    for (const { driver, properties } of left) bad('devices', `${driver}: there is no bus '${properties.bus}'`);
  }

  #scsi(
    device: DeviceConfig | undefined,
    n: number,
    units: readonly { readonly drive: DriveConfig; readonly unit: DeviceConfig | undefined }[],
  ): void {
    const { shared, drives } = this.#wires;
    const number = (name: string, fallback: number): number => Number(device?.properties[name] ?? fallback);
    const queues = Math.min(64, Math.max(1, number('num_queues', 1)));
    const queueSize = number('virtqueue_size', 256);
    if (queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0)
      bad('devices', `${SCSI}: virtqueue_size ${queueSize} is no power of two from 4 to 1024`);
    const io = drives.thread((locked) => {
      let more = false;
      for (let queue = 0; queue < queues + 2; queue++) more = scsi.process(queue, BUDGET, locked) || more;
      return more;
    });
    const options = { queues, queueSize, maxSectors: number('max_sectors', 0xffff), cmdPerLun: number('cmd_per_lun', 128) };
    const scsi: VirtioScsi = new VirtioScsi(shared.struct(virtioScsiState, `virtio-scsi${n}`), options, io);
    this.#add(device, scsi);
    const slot = this.#slots.at(-1)?.toString(16);
    /** The next target that nothing is at. */
    let next = 0;
    for (const { drive, unit } of units) {
      const own = unit === undefined ? drive.index : undefined;
      const lun = Number(unit?.properties.lun ?? 0);
      const asked = unit?.properties['scsi-id'] ?? own;
      if (Number(unit?.properties.channel ?? 0) !== 0) bad('devices', `${unit?.driver}: there is channel 0 only`);
      while (asked === undefined && scsi.unit(next, lun) !== undefined) next++;
      const target = Number(asked ?? next);
      const part = this.#scsiUnit(scsi, io, drive, unit, target, lun, `scsi${n}-${target}-${lun}`);
      this.bootPaths.set(part, `/pci@i0cf8/scsi@${slot}/channel@0/disk@${target.toString(16)},${lun.toString(16)}`);
    }
  }

  #scsiUnit(
    scsi: VirtioScsi,
    io: DrivePart['io'],
    drive: DriveConfig,
    device: DeviceConfig | undefined,
    target: number,
    lun: number,
    name: string,
  ): DrivePart {
    const { shared, drives } = this.#wires;
    const isCd = device === undefined ? drive.media === 'cdrom' : device.driver === 'scsi-cd';
    const { properties = {} } = device ?? {};
    const serial = drive.serial ?? properties.serial;
    const number = (key: string): number | undefined => (properties[key] === undefined ? undefined : Number(properties[key]));
    const state = shared.struct(scsiUnitState, name);
    const options = {
      ...{ vendor: properties.vendor, product: properties.product, revision: properties.ver, serial, wwn: wwnOf(device) },
      deviceId: properties.device_id ?? serial ?? drive.id,
      disk: () => part.disk,
      errorPolicy: (error: unknown, operation: 'read' | 'write') => part.failed(error, operation),
    };
    const cdrom = isCd ? new ScsiCdrom(state, options) : undefined;
    const disk = isCd
      ? undefined
      : new ScsiDisk(state, {
          ...options,
          readOnly: drive.readOnly,
          removable: properties.removable === 'on',
          rotationRate: number('rotation_rate') ?? 1,
          logicalBlockSize: number('logical_block_size'),
          physicalBlockSize: number('physical_block_size'),
          minIoSize: number('min_io_size'),
          optIoSize: number('opt_io_size'),
        });
    const unit = cdrom ?? disk;
    try {
      if (unit !== undefined) scsi.attachUnit(target, lun, unit);
    } catch (error) {
      bad('devices', `${device?.driver ?? drive.id}: ${(error as Error).message}`);
    }
    const changed = (): void => scsi.changed(target, lun);
    const part: DrivePart = drives.drive(drive, io, {
      device: device?.id ?? drive.id,
      putsBack: true,
      slot: cdrom === undefined ? undefined : cdSlot(cdrom, changed),
      setSize: (bytes) => {
        if (cdrom !== undefined && bytes > 0) cdrom.insert(bytes);
        disk?.setSize(bytes);
        changed();
      },
    });
    return part;
  }

  reset(): void {
    for (const each of this.functions) each.reset();
  }
}

/** Why the drives of a configuration cannot be what it says, in words; undefined: they can. */
export function unservedDrive(config: MachineConfig): string | undefined {
  const served = ['virtio', 'ide', 'sata', 'scsi', 'none'];
  for (const drive of config.drives) {
    const users = config.devices.filter(({ properties }) => properties.drive === drive.id);
    if (drive.interface !== 'none' && users.length > 0)
      return `drive '${drive.id}' has a place already (${drive.interface}): give it if=none, or leave its -device out`;
    if (users.length > 1) return `drive '${drive.id}' is used by more than one device`;
    if (!served.includes(drive.interface)) return `drive '${drive.id}': this version has no ${drive.interface} disks`;
    if (drive.interface !== 'none' && drive.file === '' && drive.media === 'disk') return `drive '${drive.id}' has no file`;
  }
  return undefined;
}
