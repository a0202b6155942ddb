/** The virtio devices that a configuration asks for, on the PCI bus, and those that are plugged in while the machine runs. */
import type { PciBus } from '../bus/pci.ts';
import type { DeviceConfig, DriveConfig, MachineConfig } from '../contract/machine-config.ts';
import { VirtioBlk, virtioBlkState } from '../devices/virtio/blk.ts';
import { type ConsolePort, VirtioConsole, virtioConsoleState } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { type RngLimit, VirtioRng, virtioRngState } from '../devices/virtio/rng.ts';
import { VirtioScsi, virtioScsiState } from '../devices/virtio/scsi.ts';
import { ScsiCdrom } from '../devices/virtio/scsi-cdrom.ts';
import { ScsiDisk } from '../devices/virtio/scsi-disk.ts';
import { scsiUnitState } from '../devices/virtio/scsi-unit.ts';
import { virtioState } from '../devices/virtio/state.ts';
import { VirtioPci } from '../devices/virtio/transport-pci.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SharedState } from '../memory/shared-state.ts';
import { type CharLine, charRing, nowhere } from './char-line.ts';
import type { MachineClock } from './clock.ts';
import type { DriveList, DrivePart } from './drive-list.ts';
import type { Plug } from './hotplug.ts';
import { BootError } from './linux-boot.ts';
import type { Placed, PluggedDevice, PlugList } from './plugged.ts';
import { cdSlot, driveOfDevice, wwnOf } from './storage-parts.ts';

export interface VirtioWires {
  readonly shared: SharedState;
  readonly memory: GuestMemory;
  readonly clock: MachineClock;
  readonly bus: PciBus;
  readonly plugs: PlugList;
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
  readonly #wires: VirtioWires;

  /** Throws a `BootError` for what cannot be put together. */
  constructor(config: MachineConfig, wires: VirtioWires) {
    this.#wires = wires;
    const ports = config.devices.filter(({ driver }) => PORTS.includes(driver));
    const buses = config.devices.filter(({ driver }) => driver === SERIAL);
    if (ports.length > 0 && buses.length === 0) bad('devices', `${ports[0].driver}: there is no ${SERIAL} to put it on`);
    for (const device of config.devices) {
      if (device.driver === RNG) this.#rng(device);
      else if (device.driver === SERIAL) this.#serial(device, buses, ports);
      else if (device.driver === BLK) this.#drive(driveOfDevice(config, device), device);
    }
    for (const drive of config.drives) if (drive.interface === 'virtio') this.#drive(drive, undefined);
    this.#scsiAdapters(config);
  }

  /** The slot that a device asks for, or the first that is free. */
  #slot(device: DeviceConfig | undefined, name: string): number {
    const { bus } = this.#wires;
    const address = device?.properties.addr;
    const slot = address === undefined ? bus.freeSlot(3) : Number.parseInt(address, 16);
    if (!(slot >= 3 && slot < 32) || bus.functions.some((other) => other.slot === slot))
      bad('devices', `${name}: ${address === undefined ? 'no PCI slot is free' : `PCI slot ${address} is not free`}`);
    return slot;
  }

  #add(
    device: DeviceConfig | undefined,
    slot: number,
    part: VirtioDevice,
    structs: string[],
  ): Pick<PluggedDevice, 'pci' | 'left'> {
    const { memory, bus, plugs, trace } = this.#wires;
    const name = `virtio@${slot}`;
    const made = new VirtioPci(plugs.struct(structs, virtioState, name), plugs.pciState(structs, name), part, {
      bus,
      slot,
      memory,
      trace: (message) => trace(`${device?.id ?? part.name}: ${message}`),
    });
    this.functions.push(made);
    return { pci: made, left: () => void this.functions.splice(this.functions.indexOf(made), 1) };
  }

  #rng(device: DeviceConfig, place?: number): PluggedDevice {
    const structs: string[] = [];
    const slot = this.#slot(device, RNG);
    const { fillRandom, clock, plugs } = this.#wires;
    const { 'max-bytes': most, period = '65536' } = device.properties;
    if (!(Number(period) > 0)) bad('devices', `${RNG}: 'period' parameter expects a positive integer`);
    const limited = (name: string): RngLimit => ({
      ...{ clock, bytes: Number(most), periodNs: Number(period) * 1e6 },
      state: plugs.struct(structs, virtioRngState, name),
      timer: plugs.timer(structs, name),
    });
    const limit = most === undefined ? undefined : limited(`virtio-rng@${slot}`);
    const more = this.#add(device, slot, new VirtioRng(fillRandom, limit), structs);
    return plugs.keep(device, RNG, { place, slot, structs, timer: limit?.timer, ...more });
  }

  // --- devices that come and go -----------------------------------------------------------------------------------------

  /** Makes a device that came by a place of the table. Throws a `BootError` for what cannot be put together, with nothing left. */
  plug(place: number, { device, drive, driveIndex, ioIndex }: Plug): PluggedDevice {
    const at = { place, driveIndex, ioIndex };
    if (device.driver === RNG) return this.#rng(device, place);
    if (device.driver === SCSI) return this.#scsi(device, [], at);
    if (drive === undefined) return bad('devices', `${device.driver}: there is no drive`);
    if (device.driver === BLK) return this.#drive(drive, device, at);
    const adapter = this.adapterOf(device);
    if (adapter === undefined) return bad('devices', `${device.driver}: there is no bus '${device.properties.bus}'`);
    return this.#scsiUnit(adapter, drive, device, undefined, at);
  }

  /** The adapter on whose bus a SCSI unit is to be: the one that it names, or the first. */
  adapterOf({ properties: { bus } }: DeviceConfig): PluggedDevice | undefined {
    return this.#wires.plugs.devices.find(
      ({ scsi, unit, id }) => scsi !== undefined && unit === undefined && (bus === undefined || bus === `${id ?? 'scsi'}.0`),
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
    const slot = this.#slot(device, SERIAL);
    const state = shared.struct(virtioConsoleState, `virtio-console@${slot}`);
    try {
      console = new VirtioConsole(
        state,
        made.map(({ port }) => port),
        maxPorts,
      );
    } catch (error) {
      return bad('devices', (error as Error).message);
    }
    this.#add(device, slot, console, []);
    this.lines.push(...made.map(({ line }) => line));
  }

  #drive(config: DriveConfig, device: DeviceConfig | undefined, at?: Placed): PluggedDevice {
    const { drives } = this.#wires;
    const structs: string[] = [];
    const slot = this.#slot(device, BLK);
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
    const io = drives.thread((locked) => {
      let more = false;
      const { disk } = part;
      if (disk === undefined) return false;
      for (let queue = 0; queue < blk.queueSizes.length; queue++) more = blk.process(queue, BUDGET, disk, locked) || more;
      return more;
    }, at?.ioIndex);
    const blk: VirtioBlk = new VirtioBlk(this.#wires.plugs.struct(structs, virtioBlkState, `virtio-blk@${slot}`), options, io);
    const more = this.#add(device, slot, blk, structs);
    const front = { device: device?.id ?? config.id, putsBack: true, setSize: (bytes: number) => blk.setSize(bytes) };
    const part: DrivePart = drives.drive(config, io, front, at?.driveIndex);
    this.bootPaths.set(part, `/pci@i0cf8/scsi@${slot.toString(16)}/disk@0,0`);
    return this.#wires.plugs.keep(device, BLK, { place: at?.place, slot, io, part, structs, ...more });
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
      this.#scsi(device, [
        ...(n === 0 ? own.map((drive) => ({ drive, unit: undefined })) : []),
        ...here.map((unit) => ({ drive: driveOfDevice(config, unit), unit })),
      ]);
    }
    for (const { driver, properties } of left) bad('devices', `${driver}: there is no bus '${properties.bus}'`);
  }

  #scsi(
    device: DeviceConfig | undefined,
    units: readonly { readonly drive: DriveConfig; readonly unit: DeviceConfig | undefined }[],
    at?: Placed,
  ): PluggedDevice {
    const { drives } = this.#wires;
    const structs: string[] = [];
    const number = (name: string, fallback: number): number => Number(device?.properties[name] ?? fallback);
    const queues = Math.min(64, Math.max(1, number('num_queues', 1)));
    const queueSize = number('virtqueue_size', 256);
    if (queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0)
      bad('devices', `${SCSI}: virtqueue_size ${queueSize} is no power of two from 4 to 1024`);
    const slot = this.#slot(device, SCSI);
    const io = drives.thread((locked) => {
      let more = false;
      for (let queue = 0; queue < queues + 2; queue++) more = scsi.process(queue, BUDGET, locked) || more;
      return more;
    }, at?.ioIndex);
    const options = { queues, queueSize, maxSectors: number('max_sectors', 0xffff), cmdPerLun: number('cmd_per_lun', 128) };
    const scsi: VirtioScsi = new VirtioScsi(
      this.#wires.plugs.struct(structs, virtioScsiState, `virtio-scsi@${slot}`),
      options,
      io,
    );
    const more = this.#add(device, slot, scsi, structs);
    const adapter = this.#wires.plugs.keep(device, SCSI, { place: at?.place, slot, scsi, io, structs, ...more });
    for (const { drive, unit } of units) this.#scsiUnit(adapter, drive, unit, unit === undefined ? drive.index : undefined);
    return adapter;
  }

  /** Target and unit number that a device asks for; the next target that nothing is at, unless it or its drive names one. */
  scsiAddress(
    { scsi }: PluggedDevice,
    device: DeviceConfig | undefined,
    own?: number,
  ): { readonly target: number; readonly lun: number } {
    const { properties = {}, driver } = device ?? {};
    if (Number(properties.channel ?? 0) !== 0) bad('devices', `${driver}: there is channel 0 only`);
    const lun = Number(properties.lun ?? 0);
    const asked = properties['scsi-id'] ?? own;
    let target = Number(asked ?? 0);
    while (asked === undefined && scsi?.unit(target, lun) !== undefined) target++;
    return { target, lun };
  }

  #scsiUnit(
    adapter: PluggedDevice,
    drive: DriveConfig,
    device: DeviceConfig | undefined,
    own?: number,
    at?: Placed,
  ): PluggedDevice {
    const { drives } = this.#wires;
    const { scsi, io, slot = 0 } = adapter;
    if (scsi === undefined || io === undefined) return bad('devices', `${device?.driver}: this is no adapter`);
    const { target, lun } = this.scsiAddress(adapter, device, own);
    const structs: string[] = [];
    const isCd = device === undefined ? drive.media === 'cdrom' : device.driver === 'scsi-cd';
    const { properties = {} } = device ?? {};
    const serial = drive.serial ?? properties.serial;
    const number = (key: string): number | undefined => (properties[key] === undefined ? undefined : Number(properties[key]));
    const state = this.#wires.plugs.struct(structs, scsiUnitState, `scsi@${slot}-${target}-${lun}`);
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
    const setFirstSize = (bytes: number): void => {
      if (cdrom !== undefined && bytes > 0) cdrom.insert(bytes);
      disk?.setSize(bytes);
    };
    const front = {
      ...{ device: device?.id ?? drive.id, putsBack: true, setFirstSize },
      slot: cdrom === undefined ? undefined : cdSlot(cdrom, changed),
      setSize: (bytes: number) => {
        setFirstSize(bytes);
        changed();
      },
    };
    const part: DrivePart = drives.drive(drive, io, front, at?.driveIndex);
    const where = `/pci@i0cf8/scsi@${slot.toString(16)}/channel@0`;
    this.bootPaths.set(part, `${where}/disk@${target.toString(16)},${lun.toString(16)}`);
    return this.#wires.plugs.keep(device, isCd ? 'scsi-cd' : 'scsi-hd', {
      ...{ place: at?.place, part, structs, scsi, unit: { adapter, target, lun } },
      left: () => scsi.detachUnit(target, lun),
    });
  }

  reset(): void {
    for (const each of this.functions) each.reset();
  }
}

/** Why the drives of a configuration cannot be what it says, in words; undefined: they can. */
export function unservedDrive(config: MachineConfig): string | undefined {
  const served = ['virtio', 'ide', 'sata', 'scsi', 'nvme', 'floppy', 'none'];
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
