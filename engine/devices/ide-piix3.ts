/** The IDE function of the PIIX3: two channels at their legacy ports. 82371SB (290550), 2.3 and 2.7. */
import type { AccessSize, IoHandler, IoSpace } from '../bus/io.ts';
import { type PciBus, PciFunction, type pciFunctionState } from '../bus/pci.ts';
import type { View } from '../memory/struct.ts';
import type { IdeChannel } from './ide.ts';

/** Command block, control block and interrupt of the two channels. */
export const IDE_PORTS: readonly { readonly command: number; readonly control: number; readonly irq: number }[] = [
  { command: 0x1f0, control: 0x3f6, irq: 14 },
  { command: 0x170, control: 0x376, irq: 15 },
];

const IDETIM = 0x40;

/** 8086:7010, function 1 of slot 1. */
export class Piix3Ide {
  readonly pci: PciFunction;
  readonly channels: readonly IdeChannel[];

  constructor(state: View<typeof pciFunctionState.fields>, bus: PciBus, channels: readonly IdeChannel[], ports: IoSpace) {
    this.channels = channels;
    const busMaster: IoHandler = {
      read: (offset: number, size: AccessSize) => channels[offset >> 3].busMaster.read(offset & 7, size),
      write: (offset: number, size: AccessSize, value: number) => channels[offset >> 3].busMaster.write(offset & 7, size, value),
    };
    this.pci = new PciFunction(
      state,
      {
        name: 'piix3-ide',
        vendor: 0x8086,
        device: 0x7010,
        classCode: 0x010180,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        bars: [{ index: 4, kind: 'io', size: 16, handler: busMaster }],
        // Both channels are enabled, as a firmware would leave them.
        registers: [{ offset: IDETIM, bytes: [0, 0x80, 0, 0x80, 0], writable: [0xff, 0xff, 0xff, 0xff, 0xff] }],
      },
      bus,
      1,
      1,
    );
    for (const [n, channel] of channels.entries()) {
      ports.map(IDE_PORTS[n].command, 8, channel.commandBlock, `ide${n}`);
      ports.map(IDE_PORTS[n].control, 1, channel.controlBlock, `ide${n}-control`);
    }
  }

  reset(): void {
    for (const channel of this.channels) channel.reset();
  }
}
