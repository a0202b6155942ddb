/** What the two machine types differ in: host bridge, LPC or ISA bridge, power management, interrupt lines. */
import type { IoHandler, IoSpace } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { PciBus, pciFunctionState } from '../bus/pci.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import type { AcpiPm } from '../devices/acpi-pm.ts';
import { Ich9Lpc, ich9State, Q35Mch } from '../devices/ich9.ts';
import { I440fx, Piix3, Piix4Pm, piix3State } from '../devices/pci-host.ts';
import type { SharedState } from '../memory/shared-state.ts';
import type { View } from '../memory/struct.ts';

export interface Chipset {
  readonly host: I440fx | Q35Mch;
  /** The interrupt lines of the bus. */
  readonly pirqs: readonly IrqLine[];
  /** Port 0xcf9. */
  readonly resetControl: IoHandler;
  /** Where the enhanced configuration window is now, if there is one. */
  readonly ecam: { readonly base: number; readonly buses: number } | undefined;
  reset(): void;
  /**
   * What a firmware would have done, for a kernel that starts without one: shadow RAM, power management at `pmBase`,
   * interrupts. Returns the ISA interrupt of each line.
   */
  prepare(pmBase: number): readonly number[];
  /** For a firmware that would wait for SMM, which there is none of: as if that were set up already. */
  withoutSmm(): void;
  /** Whether a command at port 0xb2 raises an SMI. */
  readonly smiEnabled: boolean;
}

export interface ChipsetWires {
  readonly shared: SharedState;
  readonly bus: PciBus;
  readonly pciState: (name: string) => View<typeof pciFunctionState.fields>;
  readonly pm: AcpiPm;
  readonly irqs: readonly IrqLine[];
  /** IOAPIC pins 16 to 23. */
  readonly pins: readonly IrqLine[];
  reset(): void;
}

export const isQ35 = (config: MachineConfig): boolean => config.machine.type === 'q35';

/** Where a `q35` that starts a kernel directly has its enhanced configuration window. */
export const DIRECT_ECAM = 0xd0000000;

/** PIIX4, DEVACTB bits 24 to 31: APMC is enabled (bit 25). 82371AB 7.1.16. */
const APM_CONTROL = 0x5b;
const APM_ENABLED = 2;
/** ICH9, SMI_EN in the power management block: APMC_EN. 316972, 13.8.3.9. */
const SMI_ENABLE = 0x30;
const SMI_APM = 0x20;
/** GBL_SMI_EN. */
const SMI_GLOBAL = 1;

export function makeChipset(config: MachineConfig, wires: ChipsetWires): Chipset {
  return isQ35(config) ? q35(wires) : pc(wires);
}

function pc({ shared, bus, pciState, pm, irqs, reset }: ChipsetWires): Chipset {
  const host = new I440fx(pciState('i440fx'), bus);
  const piix3 = new Piix3(shared.struct(piix3State), pciState('piix3'), bus, { irqs, reset });
  const piix4 = new Piix4Pm(pciState('piix4-pm'), bus, { pm: pm.block });
  return {
    host,
    pirqs: piix3.pirqs,
    resetControl: piix3.resetControl,
    ecam: undefined,
    reset: () => piix3.reset(),
    prepare(pmBase) {
      const lines = [10, 10, 11, 11];
      host.openShadow();
      piix4.enablePm(pmBase);
      piix3.steer(lines);
      return lines;
    },
    withoutSmm: () => piix4.pci.writeConfig(APM_CONTROL, 1, APM_ENABLED),
    get smiEnabled() {
      return (piix4.pci.config[APM_CONTROL] & APM_ENABLED) !== 0;
    },
  };
}

function q35({ shared, bus, pciState, pm, irqs, pins, reset }: ChipsetWires): Chipset {
  const host = new Q35Mch(pciState('mch'), bus);
  const lpc = new Ich9Lpc(shared.struct(ich9State), pciState('ich9-lpc'), bus, { irqs, pins, pm: pm.block, reset });
  return {
    host,
    pirqs: lpc.pirqs,
    resetControl: lpc.resetControl,
    get ecam() {
      return host.ecam;
    },
    reset: () => lpc.reset(),
    prepare(pmBase) {
      const lines = [10, 10, 11, 11, 10, 10, 11, 11];
      host.openShadow();
      host.enableEcam(DIRECT_ECAM);
      lpc.enablePm(pmBase);
      lpc.steer(lines);
      return lines;
    },
    withoutSmm: () => pm.block.write(SMI_ENABLE, 4, SMI_APM),
    get smiEnabled() {
      return (pm.block.read(SMI_ENABLE, 4) & (SMI_APM | SMI_GLOBAL)) === (SMI_APM | SMI_GLOBAL);
    },
  };
}

/** Ports of the PCI configuration mechanism, with the reset control among them. */
export function mapConfigPorts(ports: IoSpace, bus: PciBus, chipset: Chipset): void {
  ports.map(0xcf8, 8, bus.mechanism1(chipset.resetControl), 'pci-config');
}
