/**
 * Power management: the ACPI fixed hardware and the ports beside it.
 * Intel 82371AB (PIIX4) data sheet 7.2 (I/O space registers) and 7.1 (APMC, APMS at 0xb2);
 * ACPI 6.4, 4.8.3 (PM1, PM timer) and 4.8.4 (general-purpose events).
 *
 * The timer does not tick: it is the machine time. Its overflow is worked out when somebody looks, and a clock timer
 * runs only while the guest wants an interrupt for it.
 */

import type { Clock, Timer } from '../bus/clock.ts';
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { f64, struct, u32, u32s, type View } from '../memory/struct.ts';

/** Counts a second of the PM timer. */
export const PM_TIMER_HZ = 3579545;
/** Ports of the power management block. */
export const ACPI_PM_PORTS = 64;
/** Ports of the general-purpose event block: two of status, two of enable. */
export const ACPI_GPE_PORTS = 4;
/** What the firmware writes to port 0xb2 to hand ACPI to the system and to take it back, unless wired otherwise. */
export const ACPI_ENABLE = 0xf1;
export const ACPI_DISABLE = 0xf0;

const PM1_STATUS = 0x00;
const PM1_CONTROL = 0x04;
const PM_TIMER = 0x08;
/** Offset of that block in the power management block. */
export const ACPI_GPE_OFFSET = 0x0c;
const GPE = ACPI_GPE_OFFSET;
/** Registers beyond the ACPI ones: kept, without effect (throttling, global and device events). */
const FIRST_KEPT = 0x10;
const LEVEL2 = 0x14;
const LEVEL3 = 0x15;

const STATUS_TIMER = 1 << 0;
const STATUS_GLOBAL = 1 << 5;
const STATUS_POWER_BUTTON = 1 << 8;
const STATUS_SLEEP_BUTTON = 1 << 9;
const STATUS_RTC = 1 << 10;
const STATUS_WAKE = 1 << 15;
const ENABLES = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER_BUTTON | STATUS_SLEEP_BUTTON | STATUS_RTC;

const CONTROL_SCI = 1 << 0;
const CONTROL_SLEEP = 1 << 13;
/** SCI_EN, BM_RLD, SLP_TYP; GBL_RLS and SLP_EN read as 0. */
const CONTROL_KEPT = 0x1c03;

export const acpiPmState = struct('acpi-pm', 1, {
  status: u32,
  enable: u32,
  control: u32,
  gpeStatus: u32,
  gpeEnable: u32,
  /** Changes of the timer's top bit that were acknowledged. */
  overflows: f64,
  apmCommand: u32,
  apmStatus: u32,
  resetControl: u32,
  /** Registers that have no effect here. */
  kept: u32s(12),
});

export interface AcpiPmWires {
  readonly clock: Clock;
  /** The system control interrupt: a level. */
  readonly sci: IrqLine;
  /** Width of the timer in bits, as the FADT says: 24 unless given. */
  readonly timerBits?: 24 | 32;
  /** SLP_TYP was written with SLP_EN: the machine knows from its DSDT which state that is. */
  sleep(type: number): void;
  /** A command came at port 0xb2 that is neither ACPI enable nor disable: an SMI, where there is SMM. */
  smi?(command: number): void;
  readonly acpiEnable?: number;
  readonly acpiDisable?: number;
  /** Port 0xcf9 asks for a reset: of everything, or of the CPUs alone. */
  reset?(hard: boolean): void;
}

export class AcpiPm {
  readonly #s: View<typeof acpiPmState.fields>;
  readonly #wires: AcpiPmWires;
  readonly #timer: Timer;
  readonly #bits: number;
  /** `ACPI_PM_PORTS` ports: PM1 event and control, timer, general-purpose events at 0x0c. */
  readonly block: IoHandler;
  /** `ACPI_GPE_PORTS` ports: the general-purpose events alone, for machines that have them elsewhere too. */
  readonly gpe: IoHandler;
  /** Two ports: 0xb2. */
  readonly apm: IoHandler;
  /** One port: 0xcf9, for chipsets whose bridge has none of its own. */
  readonly resetPort: IoHandler;

  constructor(state: View<typeof acpiPmState.fields>, wires: AcpiPmWires) {
    this.#s = state;
    this.#wires = wires;
    this.#bits = wires.timerBits ?? 24;
    this.#timer = wires.clock.timer('acpi-pm.overflow', () => this.#update());
    this.block = {
      read: (offset, size) => this.#readBlock(offset, size),
      write: (offset, size, value) => this.#writeBlock(offset, size, value),
    };
    this.gpe = {
      read: (offset, size) => this.#readBlock(GPE + (offset & 3), size),
      write: (offset, size, value) => this.#writeBlock(GPE + (offset & 3), size, value),
    };
    this.apm = {
      read: (offset) => (offset === 0 ? state.apmCommand : state.apmStatus),
      write: (offset, _size, value) => this.#writeApm(offset, value & 0xff),
    };
    this.resetPort = {
      read: () => state.resetControl,
      write: (_offset, _size, value) => {
        // Bit 2 starts the reset that bit 1 chooses.
        const starts = (value & 4) !== 0 && (state.resetControl & 4) === 0;
        state.resetControl = value & 0x0a;
        if (starts) wires.reset?.((value & 2) !== 0);
      },
    };
  }

  reset(): void {
    const s = this.#s;
    for (const field of ['status', 'enable', 'control', 'gpeStatus', 'gpeEnable', 'apmCommand', 'apmStatus'] as const)
      s[field] = 0;
    s.resetControl = 0;
    s.kept.fill(0);
    s.overflows = this.#overflows();
    this.#update();
  }

  /** Turns ACPI mode on, for machines that start a system without firmware. */
  enableAcpi(): void {
    this.#s.control |= CONTROL_SCI;
    this.#update();
  }

  /** Whether the guest has taken power events over: a press of the power button will be noticed. */
  get acpiEnabled(): boolean {
    return (this.#s.control & CONTROL_SCI) !== 0;
  }

  /** Somebody pressed the power button. */
  powerButton(): void {
    this.#s.status |= STATUS_POWER_BUTTON;
    this.#update();
  }

  /** Somebody pressed the sleep button. */
  sleepButton(): void {
    this.#s.status |= STATUS_SLEEP_BUTTON;
    this.#update();
  }

  /** Raises general-purpose event `index`, 0 to 15: hot plug and its like. */
  raiseEvent(index: number): void {
    this.#s.gpeStatus |= 1 << (index & 15);
    this.#update();
  }

  /** The machine goes on after a sleep: what the guest finds when it looks for the reason. */
  woken(byRtc = false): void {
    this.#s.status |= STATUS_WAKE | (byRtc ? STATUS_RTC : STATUS_POWER_BUTTON);
    this.#update();
  }

  // Timer.

  #ticks(): number {
    return Math.floor((this.#wires.clock.now() * PM_TIMER_HZ) / 1e9 + 1e-6);
  }

  /** How often the top bit has changed. */
  #overflows(): number {
    return Math.floor(this.#ticks() / 2 ** (this.#bits - 1));
  }

  #status(): number {
    const s = this.#s;
    return s.status | (this.#overflows() !== s.overflows ? STATUS_TIMER : 0);
  }

  #update(): void {
    const s = this.#s;
    const status = this.#status();
    const asks = (status & s.enable & ENABLES) !== 0 || (s.gpeStatus & s.gpeEnable) !== 0;
    this.#wires.sci.set(asks && (s.control & CONTROL_SCI) !== 0);
    if ((s.enable & STATUS_TIMER) !== 0 && (status & STATUS_TIMER) === 0) {
      const next = (this.#overflows() + 1) * 2 ** (this.#bits - 1);
      this.#timer.arm(Math.ceil((next * 1e9) / PM_TIMER_HZ));
    } else this.#timer.disarm();
  }

  // Registers.

  /** The dword of registers at `offset` (a multiple of 4). */
  #dword(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case PM1_STATUS:
        return (this.#status() | (s.enable << 16)) >>> 0;
      case PM1_CONTROL:
        return s.control;
      case PM_TIMER:
        return this.#ticks() % 2 ** this.#bits;
      case GPE:
        return (s.gpeStatus | (s.gpeEnable << 16)) >>> 0;
      default:
        return s.kept[(offset - FIRST_KEPT) >> 2];
    }
  }

  #readBlock(offset: number, size: AccessSize): number {
    if ((offset & 3) + size > 4 || offset >= ACPI_PM_PORTS) return allOnes(size);
    // Reading these stops the clock for a moment, which nobody sees.
    if (size === 1 && (offset === LEVEL2 || offset === LEVEL3)) return 0;
    return ((this.#dword(offset & ~3) >>> ((offset & 3) * 8)) & allOnes(size)) >>> 0;
  }

  #writeBlock(offset: number, size: AccessSize, value: number): void {
    if ((offset & 3) + size > 4 || offset >= ACPI_PM_PORTS) return;
    const shift = (offset & 3) * 8;
    const bits = (value << shift) >>> 0;
    const mask = (allOnes(size) << shift) >>> 0;
    const s = this.#s;
    switch (offset & ~3) {
      case PM1_STATUS: {
        // Status bits are cleared by writing ones.
        if ((bits & STATUS_TIMER) !== 0) s.overflows = this.#overflows();
        s.status &= ~(bits & mask & 0xffff);
        const [high, highMask] = [bits >>> 16, mask >>> 16];
        s.enable = ((s.enable & ~highMask) | (high & highMask)) & ENABLES;
        break;
      }
      case PM1_CONTROL:
        s.control = ((s.control & ~mask) | (bits & mask)) & CONTROL_KEPT;
        this.#update();
        if ((bits & CONTROL_SLEEP) !== 0) this.#wires.sleep((s.control >> 10) & 7);
        return;
      case PM_TIMER:
        return;
      case GPE: {
        s.gpeStatus &= ~(bits & mask & 0xffff);
        const [high, highMask] = [bits >>> 16, mask >>> 16];
        s.gpeEnable = (s.gpeEnable & ~highMask) | (high & highMask);
        break;
      }
      default: {
        const at = ((offset & ~3) - FIRST_KEPT) >> 2;
        s.kept[at] = (s.kept[at] & ~mask) | (bits & mask);
      }
    }
    this.#update();
  }

  #writeApm(offset: number, value: number): void {
    const s = this.#s;
    if (offset !== 0) {
      s.apmStatus = value;
      return;
    }
    s.apmCommand = value;
    if (value === (this.#wires.acpiEnable ?? ACPI_ENABLE)) this.enableAcpi();
    else if (value === (this.#wires.acpiDisable ?? ACPI_DISABLE)) {
      s.control &= ~CONTROL_SCI;
      this.#update();
    } else this.#wires.smi?.(value);
  }
}
