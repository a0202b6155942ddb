/**
 * The functions of the `pc` chipset: 82441FX host bridge (i440FX), PIIX3 ISA bridge, PIIX4 power management;
 * and the part of a firmware's work that a machine started without one needs.
 *
 * Intel 82441FX data sheet (290549), 82371SB PIIX3 (290550), 82371AB PIIX4 (290562).
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { type PciBus, PciFunction, type pciFunctionState } from '../bus/pci.ts';
import { struct, u32, type View } from '../memory/struct.ts';

type FunctionState = View<typeof pciFunctionState.fields>;

const PAM_FIRST = 0x59;
const PAM_LAST = 0x5f;
const SMRAM = 0x72;

/** Start and length of the thirteen ranges that the PAM registers steer, in order of address. 82441FX 3.2.15. */
export const PAM_RANGES: readonly { readonly base: number; readonly length: number }[] = [
  ...Array.from({ length: 12 }, (_, i) => ({ base: 0xc0000 + i * 0x4000, length: 0x4000 })),
  { base: 0xf0000, length: 0x10000 },
];

/** What an access to a PAM range reaches: RAM where true, the ROM or bus behind it where false. */
export interface PamSetting {
  readonly read: boolean;
  readonly write: boolean;
}

export interface SmramSetting {
  /** SMRAM at 0xa0000 is visible outside of SMM. */
  readonly open: boolean;
  readonly locked: boolean;
  /** SMM sees RAM at 0xa0000. */
  readonly enabled: boolean;
}

/** 8086:1237. Memory steering registers raise the PCI generation; read them in `PciBusWires.synced`. */
export class I440fx {
  readonly pci: PciFunction;

  constructor(state: FunctionState, bus: PciBus) {
    this.pci = new PciFunction(
      state,
      {
        name: 'i440fx',
        vendor: 0x8086,
        device: 0x1237,
        revision: 2,
        classCode: 0x060000,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        commandFixed: 0x0006,
        registers: [
          { offset: 0x50, bytes: [0, 0], writable: [0xff, 0xff] },
          { offset: PAM_FIRST, bytes: [0, 0, 0, 0, 0, 0, 0], writable: [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33] },
          { offset: SMRAM, bytes: [0x02], writable: [0x78] },
        ],
        mapping: { first: PAM_FIRST, last: SMRAM },
        configWrite: (offset, size) => this.#written(offset, size),
      },
      bus,
      0,
    );
  }

  #written(offset: number, size: AccessSize): void {
    if (offset > SMRAM || offset + size <= SMRAM) return;
    const c = this.pci.config;
    // D_LCK (bit 4) closes the range, and stays until reset. 82441FX 3.2.21. Once set, the copy in bit 7 keeps it.
    const locked = (c[0x73] & 1) !== 0;
    if (locked) c[SMRAM] = (c[SMRAM] & ~0x40) | 0x10;
    else if ((c[SMRAM] & 0x10) !== 0) {
      c[SMRAM] &= ~0x40;
      c[0x73] |= 1;
    }
  }

  /** The setting of a range of `PAM_RANGES`, by index. */
  pam(index: number): PamSetting {
    const c = this.pci.config;
    // PAM0's high half is the BIOS range; after it each register holds two 16 KiB ranges, the lower one in the low half.
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
    for (let at = PAM_FIRST + 1; at <= PAM_LAST; at++) this.pci.writeConfig(at, 1, 0x33);
  }
}

const PIRQ_FIRST = 0x60;
const PIRQ_OFF = 0x80;
/** IRQs to which a PIRQ may be steered. 82371SB 2.2.7. */
const PIRQ_IRQS = 0xdef8;

export const piix3State = struct('piix3', 1, {
  /** One bit for each of PIRQA to PIRQD. */
  levels: u32,
  resetControl: u32,
});

export interface Piix3Wires {
  /** ISA interrupts 0 to 15, for those the PIRQs are steered to. */
  readonly irqs: readonly IrqLine[];
  /** Where PIRQs also reach IOAPIC pins of their own (16 to 19), those lines. */
  readonly direct?: readonly IrqLine[];
  /** Port 0xcf9 asks for a system reset. */
  reset(): void;
}

/** 8086:7000, function 0 of slot 1. Its `pirqs` are the host bridge's INTx lines. */
export class Piix3 {
  readonly pci: PciFunction;
  readonly pirqs: readonly IrqLine[];
  readonly #s: View<typeof piix3State.fields>;
  readonly #wires: Piix3Wires;

  constructor(state: View<typeof piix3State.fields>, functionState: FunctionState, bus: PciBus, wires: Piix3Wires) {
    this.#s = state;
    this.#wires = wires;
    this.pirqs = [0, 1, 2, 3].map((line) => ({ set: (level: boolean) => this.#setPirq(line, level) }));
    this.pci = new PciFunction(
      functionState,
      {
        name: 'piix3',
        vendor: 0x8086,
        device: 0x7000,
        classCode: 0x060100,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        multifunction: true,
        commandFixed: 0x0007,
        registers: [
          { offset: 0x4c, bytes: [0x4d], writable: [0x7f] }, // I/O recovery timer
          { offset: 0x4e, bytes: [0x03, 0x00], writable: [0xff, 0x01] }, // X-bus chip select
          { offset: PIRQ_FIRST, bytes: [0x80, 0x80, 0x80, 0x80], writable: [0x8f, 0x8f, 0x8f, 0x8f] },
          { offset: 0x69, bytes: [0x02], writable: [0xfe] }, // top of memory
          { offset: 0x70, bytes: [0x80], writable: [0xcf] }, // motherboard IRQ
          { offset: 0x82, bytes: [0x00], writable: [0x0f] },
        ],
        configWrite: (offset, size) => {
          if (offset < PIRQ_FIRST + 4 && offset + size > PIRQ_FIRST) this.#route();
        },
      },
      bus,
      1,
    );
  }

  reset(): void {
    this.#s.levels = 0;
    this.#s.resetControl = 0;
    this.#route();
  }

  /** Without firmware: steers PIRQA to PIRQD to these interrupts. The PIC's ELCR must have them as level-triggered. */
  steer(irqs: readonly number[]): void {
    irqs.forEach((irq, line) => {
      this.pci.writeConfig(PIRQ_FIRST + (line & 3), 1, irq);
    });
  }

  /** The ISA interrupt of a PIRQ, or -1 where it goes nowhere. */
  irqOf(line: number): number {
    const value = this.pci.config[PIRQ_FIRST + line];
    const irq = value & 15;
    return (value & PIRQ_OFF) === 0 && (PIRQ_IRQS & (1 << irq)) !== 0 ? irq : -1;
  }

  #setPirq(line: number, level: boolean): void {
    const s = this.#s;
    const bit = 1 << line;
    s.levels = level ? s.levels | bit : s.levels & ~bit;
    this.#wires.direct?.[line]?.set(level);
    const irq = this.irqOf(line);
    if (irq >= 0) this.#driveIrq(irq);
  }

  #driveIrq(irq: number): void {
    let level = false;
    for (let line = 0; line < 4; line++) {
      if (this.irqOf(line) === irq && (this.#s.levels & (1 << line)) !== 0) level = true;
    }
    this.#wires.irqs[irq]?.set(level);
  }

  #route(): void {
    for (let irq = 0; irq < 16; irq++) {
      if ((PIRQ_IRQS & (1 << irq)) !== 0) this.#driveIrq(irq);
    }
  }

  /** Port 0xcf9, given to `PciBus.mechanism1`. 82371SB 2.5.5: bit 1 hard reset, bit 2 starts it when it rises. */
  get resetControl(): IoHandler {
    return {
      read: () => this.#s.resetControl,
      write: (_offset, _size, value) => {
        const rises = (value & 4) !== 0 && (this.#s.resetControl & 4) === 0;
        this.#s.resetControl = value & 2;
        if (rises) this.#wires.reset();
      },
    };
  }
}

const PMBASE = 0x40;
const PMREGMISC = 0x80;
const SMBBASE = 0x90;
const SMBHSTCFG = 0xd2;

export interface Piix4PmWires {
  /** The 64 ports of the power management block (PM1 event and control, timer, GPE ...). */
  readonly pm: IoHandler;
  /** The 16 ports of the SMBus host. */
  readonly smbus?: IoHandler;
}

/** 8086:7113, function 3 of slot 1: decodes the ACPI ports where its PMBASE says. */
export class Piix4Pm {
  readonly pci: PciFunction;

  constructor(state: FunctionState, bus: PciBus, wires: Piix4PmWires) {
    this.pci = new PciFunction(
      state,
      {
        name: 'piix4-pm',
        vendor: 0x8086,
        device: 0x7113,
        revision: 3,
        classCode: 0x068000,
        subsystemVendor: 0x1af4,
        subsystem: 0x1100,
        pin: 1,
        registers: [
          { offset: PMBASE, bytes: [1, 0, 0, 0], writable: [0xc0, 0xff, 0, 0] },
          { offset: 0x58, bytes: [0, 0, 0, 0], writable: [0xff, 0xff, 0xff, 0xff] },
          { offset: 0x5f, bytes: [0x10], writable: [0xff] },
          { offset: 0x63, bytes: [0x60], writable: [0xff] },
          { offset: 0x67, bytes: [0x98], writable: [0xff] },
          { offset: PMREGMISC, bytes: [0], writable: [1] },
          { offset: SMBBASE, bytes: [1, 0, 0, 0], writable: [0xf0, 0xff, 0, 0] },
          { offset: SMBHSTCFG, bytes: [0], writable: [0x0f] },
        ],
        mapping: { first: PMBASE, last: SMBHSTCFG },
        mapExtra: (map) => {
          const c = this.pci.config;
          const base = this.pmBase;
          if (base !== undefined) map.io(base, 64, wires.pm, 'acpi-pm');
          const smbus = (c[SMBBASE] & 0xf0) | (c[SMBBASE + 1] << 8);
          if (wires.smbus !== undefined && (c[SMBHSTCFG] & 1) !== 0 && smbus !== 0) map.io(smbus, 16, wires.smbus, 'smbus');
        },
      },
      bus,
      1,
      3,
    );
  }

  /** Where the power management ports are decoded, or undefined. */
  get pmBase(): number | undefined {
    const c = this.pci.config;
    const base = (c[PMBASE] & 0xc0) | (c[PMBASE + 1] << 8);
    return (c[PMREGMISC] & 1) !== 0 && base !== 0 ? base : undefined;
  }

  /** Without firmware: decodes the power management ports at `base` (a multiple of 64). */
  enablePm(base: number): void {
    this.pci.writeConfig(PMBASE, 2, base | 1);
    this.pci.writeConfig(PMREGMISC, 1, 1);
    this.pci.writeConfig(0x3c, 1, 9);
  }
}

export interface PciWindows {
  /** First port and end of the range that BARs may take. */
  readonly io: { readonly first: number; readonly end: number };
  readonly memory: { readonly first: number; readonly end: number };
  /** For 64-bit prefetchable BARs of 256 MiB and more. */
  readonly memory64?: { readonly first: number; readonly end: number };
}

/**
 * What a firmware does to the bus: addresses for all BARs (largest first, so alignment wastes nothing), decoding
 * on, interrupt lines as `irqOfLine` says for PIRQA to PIRQD. Returns the names of functions for which there was no room.
 */
export function assignResources(bus: PciBus, windows: PciWindows, irqOfLine: readonly number[]): string[] {
  const wanted = bus.functions.flatMap((each) => (each.spec.bars ?? []).map((bar) => ({ each, bar })));
  wanted.sort((a, b) => b.bar.size - a.bar.size);
  const next = { io: windows.io.first, memory: windows.memory.first, memory64: windows.memory64?.first ?? 0 };
  const failed = new Set<string>();
  for (const { each, bar } of wanted) {
    const large = bar.kind === 'mem64' && bar.size >= 2 ** 28 && windows.memory64 !== undefined;
    const kind = bar.kind === 'io' ? 'io' : large ? 'memory64' : 'memory';
    const window = windows[kind];
    const size = kind === 'io' ? bar.size : Math.max(bar.size, 4096);
    const base = Math.ceil(next[kind] / size) * size;
    if (window === undefined || base + size > window.end) {
      failed.add(each.spec.name);
      continue;
    }
    next[kind] = base + size;
    each.writeConfig(0x10 + bar.index * 4, 4, base % 2 ** 32);
    if (bar.kind === 'mem64') each.writeConfig(0x14 + bar.index * 4, 4, Math.floor(base / 2 ** 32));
  }
  for (const each of bus.functions) {
    const bars = each.spec.bars ?? [];
    if (!failed.has(each.spec.name)) {
      const command = (bars.some((bar) => bar.kind === 'io') ? 1 : 0) | (bars.some((bar) => bar.kind !== 'io') ? 2 : 0);
      each.writeConfig(4, 1, each.readConfig(4, 1) | command);
    }
    // A line that was set already (the power management function's IRQ 9) stays.
    if (each.spec.pin && each.readConfig(0x3c, 1) === 0) each.writeConfig(0x3c, 1, irqOfLine[bus.intxOf(each)] ?? 0);
  }
  return [...failed];
}
