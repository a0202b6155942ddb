/**
 * The `q35` chipset: MCH host bridge (Intel 3 Series chipset data sheet, 316966, chapter 5) and the LPC bridge of the
 * ICH9 (316972, chapter 13).
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { type PciBus, PciFunction, type pciFunctionState } from '../bus/pci.ts';
import { struct, u32, type View } from '../memory/struct.ts';
import type { PamSetting, SmramSetting } from './pci-host.ts';

type FunctionState = View<typeof pciFunctionState.fields>;

const PCIEXBAR = 0x60;
const PAM_FIRST = 0x90;
const SMRAM = 0x9d;
const ESMRAMC = 0x9e;
const ECAM_BUSES = [256, 128, 64, 0] as const;

/** 8086:29c0. Registers that steer memory raise the PCI generation, as those of the i440FX do. */
export class Q35Mch {
  readonly pci: PciFunction;

  constructor(state: FunctionState, bus: PciBus) {
    const ecam = bus.ecam();
    this.pci = new PciFunction(
      state,
      {
        name: 'mch',
        vendor: 0x8086,
        device: 0x29c0,
        classCode: 0x060000,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        commandFixed: 0x0006,
        registers: [
          { offset: PCIEXBAR, bytes: [0, 0, 0, 0, 0, 0, 0, 0], writable: [0x07, 0, 0, 0xfe, 0x0f, 0, 0, 0] },
          { offset: PAM_FIRST, bytes: [0, 0, 0, 0, 0, 0, 0], writable: [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33] },
          { offset: SMRAM, bytes: [0x02, 0x38], writable: [0x78, 0x87] },
        ],
        mapping: { first: PCIEXBAR, last: ESMRAMC },
        mapExtra: (map) => {
          const found = this.ecam;
          if (found !== undefined) map.memory(found.base, found.buses * 2 ** 20, ecam, 'ecam');
        },
        configWrite: (offset, size) => this.#written(offset, size),
      },
      bus,
      0,
    );
  }

  #written(offset: number, size: AccessSize): void {
    if (offset > SMRAM || offset + size <= SMRAM) return;
    // D_LCK closes the range and stays until reset; a copy that nobody can write keeps it. 5.1.23.
    const c = this.pci.config;
    if ((c[SMRAM + 2] & 1) !== 0) c[SMRAM] = (c[SMRAM] & ~0x40) | 0x10;
    else if ((c[SMRAM] & 0x10) !== 0) {
      c[SMRAM] &= ~0x40;
      c[SMRAM + 2] |= 1;
    }
  }

  /** Where the enhanced configuration window is decoded, or undefined. 5.1.15. */
  get ecam(): { readonly base: number; readonly buses: number } | undefined {
    const c = this.pci.config;
    const buses = ECAM_BUSES[(c[PCIEXBAR] >> 1) & 3];
    const high = c[PCIEXBAR + 4] & 0xf;
    const base = high * 2 ** 32 + c[PCIEXBAR + 3] * 2 ** 24;
    if ((c[PCIEXBAR] & 1) === 0 || buses === 0 || base === 0) return undefined;
    return { base: Math.floor(base / (buses * 2 ** 20)) * buses * 2 ** 20, buses };
  }

  pam(index: number): PamSetting {
    const c = this.pci.config;
    const bits = index === 12 ? c[PAM_FIRST] >> 4 : c[PAM_FIRST + 1 + (index >> 1)] >> ((index & 1) * 4);
    return { read: (bits & 1) !== 0, write: (bits & 2) !== 0 };
  }

  get smram(): SmramSetting {
    const value = this.pci.config[SMRAM];
    return { open: (value & 0x48) === 0x48, locked: (value & 0x10) !== 0, enabled: (value & 0x08) !== 0 };
  }

  /** Without firmware: all of 0xc0000 to 0xfffff is RAM. */
  openShadow(): void {
    this.pci.writeConfig(PAM_FIRST, 1, 0x30);
    for (let n = 1; n <= 6; n++) this.pci.writeConfig(PAM_FIRST + n, 1, 0x33);
  }

  /** Without firmware: decodes the window at `base`, all 256 buses. */
  enableEcam(base: number): void {
    this.pci.writeConfig(PCIEXBAR, 4, base | 1);
  }
}

const PMBASE = 0x40;
const ACPI_CNTL = 0x44;
const PIRQ_A = 0x60;
const PIRQ_E = 0x68;
const RCBA = 0xf0;
const PIRQ_OFF = 0x80;
/** IRQs to which a PIRQ may be steered. 13.1.17. */
const PIRQ_IRQS = 0xdef8;
const LINES = 8;

export const ich9State = struct('ich9', 1, {
  /** One bit for each of PIRQA to PIRQH. */
  levels: u32,
  resetControl: u32,
});

export interface Ich9Wires {
  /** ISA interrupts 0 to 15. */
  readonly irqs: readonly IrqLine[];
  /** IOAPIC pins 16 to 23, which the PIRQs reach as well. */
  readonly pins: readonly IrqLine[];
  /** The ports of the power management block. */
  readonly pm: IoHandler;
  /** Port 0xcf9 asks for a system reset. */
  reset(): void;
}

/** Bytes of the power management block. */
export const ICH9_PM_PORTS = 128;

/**
 * Which PIRQ a function's pin is wired to: slots up to 24 are staggered over E to H, the chipset's own are on A to D.
 * The routing registers of the root complex, which could change the latter, are not decoded.
 */
export const ich9Line = (slot: number, pin: number): number => (slot < 25 ? 4 + ((slot + pin - 1) & 3) : (pin - 1) & 3);

/** 8086:2918, function 0 of slot 31. Its `pirqs` are the host bridge's eight lines. */
export class Ich9Lpc {
  readonly pci: PciFunction;
  readonly pirqs: readonly IrqLine[];
  readonly #s: View<typeof ich9State.fields>;
  readonly #wires: Ich9Wires;

  constructor(state: View<typeof ich9State.fields>, functionState: FunctionState, bus: PciBus, wires: Ich9Wires) {
    this.#s = state;
    this.#wires = wires;
    this.pirqs = Array.from({ length: LINES }, (_, line) => ({ set: (level: boolean) => this.#setPirq(line, level) }));
    const off = [PIRQ_OFF, PIRQ_OFF, PIRQ_OFF, PIRQ_OFF];
    const steer = [0x8f, 0x8f, 0x8f, 0x8f];
    this.pci = new PciFunction(
      functionState,
      {
        name: 'ich9-lpc',
        vendor: 0x8086,
        device: 0x2918,
        revision: 2,
        classCode: 0x060100,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        multifunction: true,
        commandFixed: 0x0007,
        registers: [
          { offset: PMBASE, bytes: [1, 0, 0, 0], writable: [0x80, 0xff, 0, 0] },
          { offset: ACPI_CNTL, bytes: [0], writable: [0x87] },
          { offset: PIRQ_A, bytes: off, writable: steer },
          { offset: PIRQ_E, bytes: off, writable: steer },
          { offset: 0x80, bytes: [0, 0, 0, 0], writable: [0x77, 0x13, 0x0f, 0x3f] }, // what the bridge decodes of ISA
          { offset: 0xa0, bytes: [0, 0], writable: [0xff, 0x07] }, // power management configuration
          { offset: RCBA, bytes: [0, 0, 0, 0], writable: [1, 0xc0, 0xff, 0xff] },
        ],
        mapping: { first: PMBASE, last: ACPI_CNTL },
        mapExtra: (map) => {
          const base = this.pmBase;
          if (base !== undefined) map.io(base, ICH9_PM_PORTS, wires.pm, 'acpi-pm');
        },
        configWrite: (offset, size) => {
          if (offset < PIRQ_E + 4 && offset + size > PIRQ_A) this.#route();
        },
      },
      bus,
      31,
    );
  }

  reset(): void {
    this.#s.levels = 0;
    this.#s.resetControl = 0;
    this.#route();
  }

  /** Where the power management ports are decoded, or undefined. */
  get pmBase(): number | undefined {
    const c = this.pci.config;
    const base = (c[PMBASE] & 0x80) | (c[PMBASE + 1] << 8);
    return (c[ACPI_CNTL] & 0x80) !== 0 && base !== 0 ? base : undefined;
  }

  /** Without firmware: decodes the power management ports at `base` (a multiple of 128). */
  enablePm(base: number): void {
    this.pci.writeConfig(PMBASE, 2, base | 1);
    this.pci.writeConfig(ACPI_CNTL, 1, 0x80);
  }

  /** Without firmware: steers PIRQA to PIRQH to these interrupts. */
  steer(irqs: readonly number[]): void {
    irqs.slice(0, LINES).forEach((irq, line) => {
      this.pci.writeConfig(register(line), 1, irq);
    });
  }

  /** The ISA interrupt of a PIRQ, or -1 where it goes nowhere. */
  irqOf(line: number): number {
    const value = this.pci.config[register(line)];
    const irq = value & 15;
    return (value & PIRQ_OFF) === 0 && (PIRQ_IRQS & (1 << irq)) !== 0 ? irq : -1;
  }

  #setPirq(line: number, level: boolean): void {
    const s = this.#s;
    const bit = 1 << line;
    s.levels = level ? s.levels | bit : s.levels & ~bit;
    this.#wires.pins[line]?.set(level);
    const irq = this.irqOf(line);
    if (irq >= 0) this.#driveIrq(irq);
  }

  #driveIrq(irq: number): void {
    let level = false;
    for (let line = 0; line < LINES; line++) if (this.irqOf(line) === irq && (this.#s.levels & (1 << line)) !== 0) level = true;
    this.#wires.irqs[irq]?.set(level);
  }

  #route(): void {
    for (let irq = 0; irq < 16; irq++) if ((PIRQ_IRQS & (1 << irq)) !== 0) this.#driveIrq(irq);
  }

  /** Port 0xcf9, given to `PciBus.mechanism1`. 13.7.5: bit 1 chooses a full reset, bit 2 starts it when it rises. */
  get resetControl(): IoHandler {
    return {
      read: () => this.#s.resetControl,
      write: (_offset, _size, value) => {
        const rises = (value & 4) !== 0 && (this.#s.resetControl & 4) === 0;
        this.#s.resetControl = value & 0x0a;
        if (rises) this.#wires.reset();
      },
    };
  }
}

const register = (line: number): number => (line < 4 ? PIRQ_A + line : PIRQ_E + line - 4);
