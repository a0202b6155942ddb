/**
 * The registers by which ACPI methods and the machine agree on PCI devices that come and go: ports 0xae00 of a PC as
 * QEMU's ACPI PCI hot plug interface has them (docs/specs/acpi_pci_hotplug). One bit a slot of bus 0.
 *
 *     0x00 read   slots that something was put into since the last read
 *     0x04 read   slots whose device is asked to go; they stay set until it went
 *     0x08 write  the guest lets these slots go
 *     0x0c read   slots whose device can go
 *
 * The machine sets bits and raises general-purpose event 1; the guest's eject is only noted here: who put the device in
 * takes it away.
 */
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import { struct, u32, type View } from '../memory/struct.ts';

export const PCI_HOTPLUG_PORTS = 0x14;
/** The general-purpose event that says that the registers changed. */
export const PCI_HOTPLUG_EVENT = 1;

const UP = 0x00;
const DOWN = 0x04;
const EJECT = 0x08;
const REMOVABLE = 0x0c;

export const pciHotplugState = struct('pci-hotplug', 1, { up: u32, down: u32, ejected: u32 });

export interface PciHotplugWires {
  /** Slots whose device can go, one bit each. */
  removable(): number;
  /** The guest let slots go: `takeEjected` says which. */
  ejected(): void;
  /** Raises the general-purpose event. */
  raise(): void;
}

export class PciHotplug implements IoHandler {
  readonly #s: View<typeof pciHotplugState.fields>;
  readonly #wires: PciHotplugWires;

  constructor(state: View<typeof pciHotplugState.fields>, wires: PciHotplugWires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    this.#s.up = 0;
    this.#s.down = 0;
    this.#s.ejected = 0;
  }

  /** Something was put into a slot. */
  plugged(slot: number): void {
    this.#s.up = (this.#s.up | (1 << slot)) >>> 0;
    this.#wires.raise();
  }

  /** The device of a slot is asked to go. */
  request(slot: number): void {
    this.#s.down = (this.#s.down | (1 << slot)) >>> 0;
    this.#wires.raise();
  }

  /** Whether it was asked to and has not gone yet. */
  leaving(slot: number): boolean {
    return ((this.#s.down >>> slot) & 1) !== 0;
  }

  /** A slot is empty now. */
  gone(slot: number): void {
    this.#s.up = (this.#s.up & ~(1 << slot)) >>> 0;
    this.#s.down = (this.#s.down & ~(1 << slot)) >>> 0;
  }

  /** The slots that the guest let go since this was asked last. */
  takeEjected(): number {
    const { ejected } = this.#s;
    this.#s.ejected = 0;
    return ejected;
  }

  read(offset: number, size: AccessSize): number {
    if (size !== 4 || (offset & 3) !== 0) return allOnes(size);
    if (offset === UP) {
      const { up } = this.#s;
      this.#s.up = 0;
      return up;
    }
    if (offset === DOWN) return this.#s.down;
    if (offset === REMOVABLE) return this.#wires.removable() >>> 0;
    return 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset !== EJECT || size !== 4) return;
    this.#s.ejected = (this.#s.ejected | (value & this.#wires.removable())) >>> 0;
    if (this.#s.ejected !== 0) this.#wires.ejected();
  }
}
