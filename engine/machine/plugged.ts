/** The devices of a machine that can be taken away while it runs, as each thread knows them, and their state structs. */
import { type PciBus, type PciFunction, pciFunctionState } from '../bus/pci.ts';
import type { DeviceConfig } from '../contract/machine-config.ts';
import type { VirtioScsi } from '../devices/virtio/scsi.ts';
import type { SharedState } from '../memory/shared-state.ts';
import type { StructType, View } from '../memory/struct.ts';
import type { MachineClock } from './clock.ts';
import type { DriveList, DrivePart, IoPart } from './drive-list.ts';

/** A device on the PCI bus. */
export interface PluggedFunction {
  readonly function: PciFunction;
  /** To what it is at power-on. */
  reset(): void;
}

/** A device that can be unplugged. */
export interface PluggedDevice {
  /** As monitors name it. */
  readonly id: string | undefined;
  readonly driver: string;
  /** The place of the table that it came by; undefined where the machine was started with it. */
  readonly place: number | undefined;
  /** On the PCI bus. */
  readonly slot: number | undefined;
  readonly pci: PluggedFunction | undefined;
  /** On the bus of an adapter. */
  readonly unit: { readonly adapter: PluggedDevice; readonly target: number; readonly lun: number } | undefined;
  readonly scsi: VirtioScsi | undefined;
  /** Its own I/O thread. */
  readonly io: IoPart | undefined;
  /** Its drive. */
  part: DrivePart | undefined;
  /** Name of its timer. */
  readonly timer: string | undefined;
  /** Ids of its state structs. */
  readonly structs: readonly string[];
  /** What its makers do when it goes. */
  readonly left: (() => void) | undefined;
}

/** Where a device that came while the machine ran has its place. */
export interface Placed {
  readonly place: number;
  readonly driveIndex: number;
  readonly ioIndex: number;
}

/** What a device that can be unplugged is called: its id, or its drive's where the machine made the device by itself. */
export const plugName = ({ id, part }: PluggedDevice): string | undefined => id ?? part?.device;

export interface PlugWires {
  readonly shared: SharedState;
  readonly clock: MachineClock;
  readonly bus: PciBus;
  readonly drives: DriveList;
}

export class PlugList {
  readonly devices: PluggedDevice[] = [];
  /** State structs of devices that were taken away: they are no part of the machine any more. */
  readonly absent = new Set<string>();
  readonly #wires: PlugWires;

  constructor(wires: PlugWires) {
    this.#wires = wires;
  }

  /** State of a device whose ids `structs` gathers; named by its place, so that it is found again however it came there. */
  struct<T extends StructType>(structs: string[], type: T, id: string): ReturnType<T['at']> {
    this.#counts(structs, id);
    return this.#wires.shared.struct(type, id);
  }

  /** State of a function of the PCI bus. */
  pciState(structs: string[], name: string): View<typeof pciFunctionState.fields> {
    return this.struct(structs, pciFunctionState, `pci:${name}`);
  }

  /** A timer of that name is the device's. */
  timer(structs: string[], name: string): string {
    this.#counts(structs, `timer:${name}`);
    return name;
  }

  #counts(structs: string[], id: string): void {
    structs.push(id);
    this.absent.delete(id);
  }

  /** Takes note of a device. */
  keep(device: DeviceConfig | undefined, driver: string, more: Partial<PluggedDevice>): PluggedDevice {
    const none = { place: undefined, slot: undefined, pci: undefined, unit: undefined, scsi: undefined, timer: undefined };
    const kept = { ...none, io: undefined, part: undefined, structs: [], left: undefined, id: device?.id, driver, ...more };
    this.devices.push(kept);
    return kept;
  }

  /** Takes a device away on this thread, with all that hangs on it. */
  unplug(device: PluggedDevice): void {
    const { bus, drives, clock } = this.#wires;
    const { unit, part, pci, io, timer } = device;
    if (unit === undefined) for (const each of this.devices.filter((other) => other.unit?.adapter === device)) this.unplug(each);
    this.devices.splice(this.devices.indexOf(device), 1);
    for (const id of device.structs) this.absent.add(id);
    device.left?.();
    if (timer !== undefined) clock.forget(timer);
    if (part !== undefined) drives.removeDrive(part);
    if (pci !== undefined) bus.detach(pci.function);
    if (io !== undefined) drives.removeThread(io);
  }
}
