/**
 * Devices that come and go while the machine runs, as monitors ask for it (`device_add`, `device_del`). Runs on the
 * control thread; errors are worded as QEMU's.
 */
import { parseDevice } from '../cli/run/devices.ts';
import { withProperties } from '../cli/run/drives.ts';
import { OptionError } from '../cli/run/keyval.ts';
import type { DeviceConfig, DriveConfig } from '../contract/machine-config.ts';
import type { HostThread } from '../host/platform.ts';
import type { AddedNode } from '../monitor/block-control.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import type { MachineBlock } from './block.ts';
import type { IoPart } from './drive-list.ts';
import { BootError } from './linux-boot.ts';
import type { Machine } from './machine.ts';
import { type PluggedDevice, plugName } from './plugged.ts';
import { NVME } from './storage-parts.ts';

const PCI_DRIVERS = ['virtio-blk-pci', 'virtio-scsi-pci', 'virtio-rng-pci', NVME];
/** Drivers that are a drive each. */
const DRIVE_DRIVERS = ['virtio-blk-pci', NVME, 'scsi-hd', 'scsi-cd'];
const UNIT_DRIVERS = ['scsi-hd', 'scsi-cd'];
/** Drivers whose bus does not take devices while the machine runs, and the bus. */
const FIXED_BUSES: Readonly<Record<string, string>> = { 'ide-hd': 'ide.0', 'ide-cd': 'ide.0' };

export interface HotplugHost {
  /** Starts the thread of a controller that was plugged in. */
  startIo(index: number): HostThread;
  /** Takes such a thread over once it serves. */
  adopt(io: IoPart, thread: HostThread): void;
  emit(event: string, data: Readonly<Record<string, unknown>>): void;
}

export class MachineHotplug {
  readonly #machine: Machine;
  readonly #block: MachineBlock;
  readonly #host: HotplugHost;
  /** One at a time. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(machine: Machine, block: MachineBlock, host: HotplugHost) {
    this.#machine = machine;
    this.#block = block;
    this.#host = host;
  }

  #alone<T>(body: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(body);
    this.#queue = result.catch(() => {});
    return result;
  }

  get #devices(): readonly PluggedDevice[] {
    return this.#machine.plugs.devices;
  }

  /** Whether a device of the machine has this id, however it came. */
  #taken(id: string): boolean {
    const gone = this.#gone.has(id);
    return (
      this.#devices.some((device) => device.id === id) || (!gone && this.#machine.config.devices.some((each) => each.id === id))
    );
  }
  /** Ids of devices of the configuration that were taken away. */
  readonly #gone = new Set<string>();

  // --- coming -----------------------------------------------------------------------------------------------------------

  add(args: Readonly<Record<string, unknown>>): Promise<void> {
    return this.#alone(() => this.#add(args));
  }

  async #add(args: Readonly<Record<string, unknown>>): Promise<void> {
    const device = checked(args);
    const { driver, id } = device;
    if (id !== undefined && this.#taken(id)) throw new MonitorError(`Duplicate device ID '${id}'`);
    const { virtio } = this.#machine;
    const isUnit = UNIT_DRIVERS.includes(driver);
    const adapter = isUnit ? virtio.adapterOf(device) : undefined;
    const { bus } = device.properties;
    if (isUnit && adapter === undefined)
      throw new MonitorError(bus === undefined ? `No 'SCSI' bus found for device '${driver}'` : `Bus '${bus}' not found`);
    if (!isUnit && bus !== undefined && bus !== 'pci.0' && bus !== 'pcie.0') throw new MonitorError(`Bus '${bus}' not found`);
    const taken = this.#takeDrive(device);
    try {
      await this.#plug(this.#placed(device, adapter), taken?.drive, adapter);
    } catch (error) {
      if (taken?.node !== undefined) this.#block.addNode(taken.node);
      if (error instanceof BootError) throw new MonitorError(error.message);
      throw error;
    }
  }

  /** The device with its place said, so that no thread chooses another. */
  #placed(device: DeviceConfig, adapter: PluggedDevice | undefined): DeviceConfig {
    const { virtio, pci } = this.#machine;
    if (adapter !== undefined) {
      const { target, lun } = virtio.scsiAddress(adapter, device);
      const { bus: _, ...rest } = device.properties;
      const own = adapter.id === undefined ? 'scsi.0' : `${adapter.id}.0`;
      return { ...device, properties: { ...rest, bus: own, 'scsi-id': String(target), lun: String(lun) } };
    }
    const asked = device.properties.addr;
    const slot = asked === undefined ? pci.freeSlot(3) : Number.parseInt(asked, 16);
    const other = pci.functions.find((each) => each.slot === slot);
    if (asked !== undefined && other !== undefined)
      throw new MonitorError(
        `PCI: slot ${slot} function 0 not available for ${device.driver}, in use by ${other.spec.name},id=${this.#devices.find((each) => each.slot === slot)?.id ?? ''}`,
      );
    if (slot < 0) throw new MonitorError(`PCI: no slot/function available for ${device.driver}, all in use or reserved`);
    if (!(slot >= 3 && slot < 32)) throw new MonitorError(`Property '${device.driver}.addr': there is no slot ${asked}`);
    return { ...device, properties: { ...device.properties, addr: slot.toString(16) } };
  }

  /** The drive that a device names: a node that was added, or a `-drive` that nothing uses. */
  #takeDrive(device: DeviceConfig): { readonly drive: DriveConfig; readonly node: AddedNode | undefined } | undefined {
    const { driver, id, properties } = device;
    const isCd = driver === 'scsi-cd';
    if (!DRIVE_DRIVERS.includes(driver)) return undefined;
    const name = properties.drive;
    const option = `device_add ${driver}`;
    const finish = (drive: DriveConfig): DriveConfig => {
      const { option: _, ...made } = said(() => withProperties({ ...drive, option }, properties, option, isCd));
      return made;
    };
    if (name === undefined) {
      if (!isCd) throw new MonitorError(`Parameter 'drive' is missing`);
      return { drive: finish({ ...EMPTY, id: id ?? `empty-${this.#machine.drives.freeDrive}` }), node: undefined };
    }
    if (this.#block.parts.some(({ config }) => config.id === name || config.nodeName === name))
      throw new MonitorError(`Drive '${name}' is already in use by another block device`);
    const own = this.#machine.config.drives.find((drive) => drive.id === name && drive.interface === 'none');
    const used = this.#machine.config.devices.some((each) => each.properties.drive === name && !this.#gone.has(each.id ?? ''));
    if (own !== undefined && !used) return { drive: finish(own), node: undefined };
    let node: AddedNode;
    try {
      node = this.#block.takeNode(name);
    } catch (error) {
      if (this.#block.hasNode(name)) throw error;
      throw new MonitorError(`Property '${driver}.drive' can't find value '${name}'`);
    }
    try {
      if (node.backing !== undefined)
        throw new MonitorError(
          `Node '${name}' was added with a 'backing' of its own: a device takes the one that the image names`,
        );
      return { drive: finish(driveOfNode(node)), node };
    } catch (error) {
      this.#block.addNode(node);
      throw error;
    }
  }

  async #plug(device: DeviceConfig, drive: DriveConfig | undefined, adapter: PluggedDevice | undefined): Promise<void> {
    const { shared, hotplug, pci, drives, pciHotplug } = this.#machine;
    const place = hotplug.free();
    if (place < 0) throw new MonitorError('Too many devices were plugged in and taken away: restart the machine');
    const ioIndex = adapter?.io?.index ?? drives.freeThread;
    const plug = { device, drive, driveIndex: drives.freeDrive, ioIndex };
    if (!hotplug.fits({ plug })) throw new MonitorError('What is said of the device is too long');
    // Here first: what cannot be put together is told before another thread hears of it.
    const made = shared.lock.hold(() => {
      pci.sync();
      const own = this.#machine.plug(place, plug);
      // Another device may have been there before.
      const all = new Uint8Array(this.#machine.buffer);
      for (const { id, address, bytes } of shared.entries()) if (own.structs.includes(id)) all.fill(0, address, address + bytes);
      if (own.io !== undefined) {
        for (const word of [own.io.state.ended, own.io.state.active]) Atomics.store(word, 0, 0);
      }
      own.pci?.reset();
      return own;
    });
    const { io, part, unit } = made;
    shared.lock.hold(() => {
      hotplug.write(place, { plug });
      hotplug.own(place);
      pci.changed();
    });
    try {
      if (io !== undefined) {
        const thread = this.#host.startIo(io.index);
        await thread.ready;
        this.#host.adopt(io, thread);
      } else if (part !== undefined) await this.#block.links.askThread(part.io, part.index, 'attach');
    } catch (error) {
      shared.lock.hold(() => this.#forget(made));
      throw new MonitorError((error as Error).message);
    }
    shared.lock.hold(() => {
      pci.sync();
      if (made.slot !== undefined) pciHotplug.plugged(made.slot);
      else if (unit !== undefined) {
        made.scsi?.unit(unit.target, unit.lun)?.reset();
        made.scsi?.announce(unit.target, unit.lun, 'added');
      }
    });
  }

  // --- going ------------------------------------------------------------------------------------------------------------

  /** Asks a device to go: a SCSI unit goes at once, a PCI device when the guest lets it. */
  remove(name: string): Promise<void> {
    return this.#alone(() => this.#remove(name));
  }

  async #remove(name: string): Promise<void> {
    const id = name.startsWith('/machine/peripheral/') ? name.slice('/machine/peripheral/'.length) : name;
    const { shared, pciHotplug } = this.#machine;
    const device = this.#devices.find((each) => plugName(each) === id);
    if (device === undefined) {
      const fixed = this.#machine.config.devices.find((each) => each.id === id);
      if (fixed === undefined) throw new MonitorError(`Device '${id}' not found`, 'DeviceNotFound');
      const bus = FIXED_BUSES[fixed.driver];
      throw new MonitorError(
        bus === undefined ? `Device '${fixed.driver}' does not support hotplugging` : `Bus '${bus}' does not support hotplugging`,
      );
    }
    for (const { config } of this.#drivesOf(device)) {
      const job = this.#block.jobs().find((each) => each.drive === config.id && each.status !== 'concluded');
      if (job !== undefined) throw new MonitorError(`Device '${id}' is busy: block device is in use by block job: ${job.type}`);
    }
    const { slot, unit } = device;
    if (unit !== undefined) {
      shared.lock.hold(() => device.scsi?.announce(unit.target, unit.lun, 'removed'));
      await this.#take(device);
    } else if (slot !== undefined) {
      if (pciHotplug.leaving(slot)) throw new MonitorError(`Device ${id} is already in the process of unplug`);
      shared.lock.hold(() => pciHotplug.request(slot));
    }
  }

  #drivesOf(device: PluggedDevice) {
    const units = device.unit === undefined ? this.#devices.filter(({ unit }) => unit?.adapter === device) : [];
    return [device, ...units].flatMap(({ part }) => part ?? []);
  }

  /** Takes away what the guest has let go. Called when the control thread was rung. */
  serve(): void {
    const { shared, pciHotplug } = this.#machine;
    const ejected = shared.lock.hold(() => pciHotplug.takeEjected());
    if (ejected !== 0) this.#takeSlots(ejected);
  }

  /** A reset has the effect of an eject for devices that were asked to go. To be called before the devices are reset. */
  async reset(): Promise<void> {
    const { pciHotplug } = this.#machine;
    let leaving = 0;
    for (const { slot } of this.#devices) if (slot !== undefined && pciHotplug.leaving(slot)) leaving |= 1 << slot;
    if (leaving !== 0) await this.#takeSlots(leaving);
  }

  async #takeSlots(slots: number): Promise<void> {
    await this.#alone(async () => {
      for (const device of this.#devices.filter(({ slot }) => slot !== undefined && ((slots >>> slot) & 1) !== 0))
        await this.#take(device);
    });
  }

  /** Takes a device off all threads, on this one at once. The lock is held. */
  #forget(device: PluggedDevice): void {
    const { hotplug, plugs, pci, pciHotplug } = this.#machine;
    const { place, slot, io } = device;
    // What hangs on it goes with it.
    for (const { unit, place: own } of this.#devices)
      if (unit?.adapter === device && own !== undefined) hotplug.write(own, undefined);
    if (place !== undefined) hotplug.write(place, undefined);
    else {
      const name = plugName(device) ?? '';
      this.#gone.add(name);
      const free = hotplug.free();
      if (free >= 0) hotplug.write(free, { gone: name });
    }
    hotplug.changes();
    plugs.unplug(device);
    if (slot !== undefined) pciHotplug.gone(slot);
    pci.changed();
    if (io !== undefined) Atomics.store(io.state.ended, 0, 1);
    io?.ring();
  }

  async #take(device: PluggedDevice): Promise<void> {
    const { shared, hotplug } = this.#machine;
    if (device.place === undefined && hotplug.free() < 0) return;
    const { links } = this.#block;
    const drives = this.#drivesOf(device);
    const names = [
      ...(device.unit === undefined ? this.#devices.filter(({ unit }) => unit?.adapter === device) : []),
      device,
    ].flatMap((each) => plugName(each) ?? []);
    const nodes: AddedNode[] = [];
    for (const part of drives) {
      const { options } = await links.ask(part.index, 'describe', {});
      const { nodeName, snapshot } = part.config;
      if (options !== undefined && nodeName !== undefined && !snapshot)
        nodes.push({
          ...{ nodeName, file: options.file, format: options.format, readOnly: options.readOnly },
          ...{ cache: part.config.cache, unmap: options.unmap ?? false },
        });
      this.#block.forget(part);
    }
    const ended = device.io === undefined ? undefined : links.threadOf(device.io)?.ended;
    shared.lock.hold(() => this.#forget(device));
    if (ended !== undefined) await ended;
    else for (const part of drives) await links.askThread(part.io, part.index, 'detach');
    // A node that was added outlives the device that used it.
    for (const node of nodes) this.#block.addNode(node);
    for (const name of names) this.#host.emit('DEVICE_DELETED', { device: name, path: `/machine/peripheral/${name}` });
  }
}

const EMPTY: DriveConfig = {
  ...{ id: '', file: '', format: 'auto', media: 'cdrom', interface: 'none' },
  ...{ readOnly: true, snapshot: false, cache: 'writeback', discard: 'ignore' },
};

const driveOfNode = ({ nodeName, file, format, readOnly, cache, unmap }: AddedNode): DriveConfig => ({
  ...{ id: nodeName, nodeName, file, readOnly, snapshot: false, media: 'disk', interface: 'none' },
  format: (format ?? 'auto') as DriveConfig['format'],
  cache: cache === 'directsync' ? 'none' : cache,
  discard: unmap ? 'unmap' : 'ignore',
});

/** Runs what speaks of options, with its errors in a monitor's words. */
function said<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    throw new MonitorError(error.message.replace(/^(-device \{.*\}|device_add \S+): /s, ''));
  }
}

/** The arguments of `device_add` as a device; they are what `-device` takes as JSON. */
function checked(args: Readonly<Record<string, unknown>>): DeviceConfig {
  if (typeof args.driver !== 'string') throw new MonitorError("Parameter 'driver' is missing");
  for (const [key, value] of Object.entries(args))
    if (typeof value === 'object') throw new MonitorError(`Invalid parameter type for '${key}', expected: string`);
  if (args.id !== undefined && !/^[A-Za-z][\w.-]*$/.test(String(args.id)))
    throw new MonitorError("Parameter 'id' expects an identifier");
  const { model, id, properties } = said(() => parseDevice(JSON.stringify(args)));
  const fixed = FIXED_BUSES[model];
  const bus = fixed === undefined ? undefined : (properties.bus ?? fixed);
  if (bus !== undefined) throw new MonitorError(`Bus '${bus}' does not support hotplugging`);
  if (!PCI_DRIVERS.includes(model) && !UNIT_DRIVERS.includes(model))
    throw new MonitorError(`Device '${model}' does not support hotplugging`);
  const text = (value: string | number | boolean): string =>
    typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
  const kept = Object.entries(properties).filter(([key]) => !['iothread', 'share-rw', 'rng'].includes(key));
  return { driver: model, id, properties: Object.fromEntries(kept.map(([key, value]) => [key, text(value)])) };
}
