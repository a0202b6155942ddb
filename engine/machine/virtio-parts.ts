/** The virtio devices that a configuration asks for, on the PCI bus. */
import type { PciBus, pciFunctionState } from '../bus/pci.ts';
import type { DeviceConfig, DriveConfig, MachineConfig } from '../contract/machine-config.ts';
import { VirtioBlk, virtioBlkState } from '../devices/virtio/blk.ts';
import { type ConsolePort, VirtioConsole, virtioConsoleState } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioRng } from '../devices/virtio/rng.ts';
import { virtioState } from '../devices/virtio/state.ts';
import { VirtioPci } from '../devices/virtio/transport-pci.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { SharedState } from '../memory/shared-state.ts';
import type { View } from '../memory/struct.ts';
import { type CharLine, charRing, nowhere } from './char-line.ts';
import type { DriveList } from './drive-list.ts';
import { BootError } from './linux-boot.ts';

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
/** Requests that a queue is served at once. */
const BUDGET = 64;
const PORTS = ['virtconsole', 'virtserialport'];

const bad = (field: string, message: string): never => {
  throw new BootError('bad-config', field, message);
};

export class VirtioParts {
  readonly functions: VirtioPci[] = [];
  readonly lines: CharLine[] = [];
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
      else if (device.driver === BLK) {
        const drive = config.drives.find(({ id }) => id === device.properties.drive);
        if (drive === undefined) bad('devices', `${BLK}: there is no drive '${device.properties.drive ?? ''}'`);
        else this.#drive(drive, device);
      }
    }
    for (const drive of config.drives) if (drive.interface === 'virtio') this.#drive(drive, undefined);
  }

  #add(device: DeviceConfig | undefined, part: VirtioDevice): void {
    const { shared, memory, bus, pciState, trace } = this.#wires;
    const name = `virtio${this.functions.length}`;
    const address = device?.properties.addr;
    const slot = address === undefined ? bus.freeSlot(3) : Number.parseInt(address, 16);
    if (!(slot >= 3 && slot < 32) || bus.functions.some((other) => other.slot === slot))
      bad('devices', `${part.name}: ${address === undefined ? 'no PCI slot is free' : `PCI slot ${address} is not free`}`);
    const state = shared.struct(virtioState, name);
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
    const options = {
      serial: config.serial ?? device?.properties.serial,
      readOnly: config.readOnly,
      errorPolicy: (error: unknown, operation: 'read' | 'write') => part.failed(error, operation),
    };
    const blk: VirtioBlk = new VirtioBlk(shared.struct(virtioBlkState, `virtio-blk${io.index}`), options, io);
    this.#add(device, blk);
    const part = drives.drive(config, io, {
      device: device?.id ?? `virtio${io.index}`,
      putsBack: true,
      setSize: (bytes) => blk.setSize(bytes),
    });
  }

  reset(): void {
    for (const each of this.functions) each.reset();
  }
}

/** Why the drives of a configuration cannot be what it says, in words; undefined: they can. */
export function unservedDrive(config: MachineConfig): string | undefined {
  const served = ['virtio', 'ide', 'sata', 'none'];
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
