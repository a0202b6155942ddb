/** The AHCI function of the ICH9: 8086:2922. Intel I/O Controller Hub 9 data sheet (316972), chapter 15. */
import { type PciBus, PciFunction, type pciFunctionState } from '../bus/pci.ts';
import type { View } from '../memory/struct.ts';
import { AHCI_BAR_BYTES, Ahci, type AhciWires, type ahciPortState, type ahciState } from './ahci.ts';

export class AhciPci {
  readonly pci: PciFunction;
  readonly ahci: Ahci;

  constructor(
    state: View<typeof ahciState.fields>,
    ports: readonly View<typeof ahciPortState.fields>[],
    functionState: View<typeof pciFunctionState.fields>,
    place: { readonly bus: PciBus; readonly slot: number; readonly fn: number; readonly name: string },
    wires: Omit<AhciWires, 'irq' | 'message'>,
  ) {
    this.ahci = new Ahci(state, ports, {
      ...wires,
      irq: (level) => this.pci.setIntx(level),
      message: () => this.pci.notifyMsi(),
    });
    this.pci = new PciFunction(
      functionState,
      {
        name: place.name,
        vendor: 0x8086,
        device: 0x2922,
        revision: 2,
        classCode: 0x010601,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        pin: 1,
        bars: [{ index: 5, kind: 'mem32', size: AHCI_BAR_BYTES, handler: this.ahci }],
        // Mode select: AHCI.
        registers: [{ offset: 0x90, bytes: [0x40, 0], writable: [0, 0] }],
        msi: { vectors: 1 },
      },
      place.bus,
      place.slot,
      place.fn,
    );
  }

  reset(): void {
    this.ahci.reset();
  }
}
