/**
 * Real-time clock with 128 bytes of battery-backed RAM, ports 0x70 and 0x71.
 * Motorola MC146818A data sheet; Intel 82371SB (PIIX3) data sheet 2.5.5 (NMI enable in port 0x70).
 * Where firmware looks for the sizes of memory is as SeaBIOS and OVMF read them.
 *
 * The time is the host's plus an offset that changes when the guest sets the clock. While SET is on, or the divider
 * is stopped, the registers stand still in the RAM. Flags of register C are worked out when they are looked at; a
 * timer runs only while an interrupt is enabled whose flag is not up.
 */

import type { Clock, Timer } from '../bus/clock.ts';
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, f64, struct, u32, type View } from '../memory/struct.ts';

const SECONDS = 0x00;
const SECONDS_ALARM = 0x01;
const MINUTES = 0x02;
const MINUTES_ALARM = 0x03;
const HOURS = 0x04;
const HOURS_ALARM = 0x05;
const DAY_OF_WEEK = 0x06;
const DAY = 0x07;
const MONTH = 0x08;
const YEAR = 0x09;
const REG_A = 0x0a;
const REG_B = 0x0b;
const REG_C = 0x0c;
const REG_D = 0x0d;
const CENTURY = 0x32;
/** Where the PS/2 has the century: the same byte here. */
const CENTURY_PS2 = 0x37;

const A_UIP = 0x80;
const A_DIVIDER = 0x70;
const A_DIVIDER_RUNS = 0x20;
const B_SET = 0x80;
const B_PERIODIC = 0x40;
const B_ALARM = 0x20;
const B_UPDATE = 0x10;
const B_SQUARE_WAVE = 0x08;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const C_IRQ = 0x80;
const FLAGS = B_PERIODIC | B_ALARM | B_UPDATE;
const D_VALID = 0x80;
const PM = 0x80;

/** An update takes 1984 us and is announced 244 us before. MC146818A, "Update cycle". */
const UPDATE_MS = 2.228;
const CRYSTAL_HZ = 32768;
const DAY_SECONDS = 86400;

export const cmosState = struct('cmos', 1, {
  /** Nonzero once the RAM was filled: a system reset leaves it alone. */
  alive: u32,
  index: u32,
  nmiMasked: u32,
  ram: bytes(128),
  flags: u32,
  /** Milliseconds that the guest's time is ahead of the host's. */
  offset: f64,
  /** Until when the flags are worked out: guest time in whole seconds, and periods. */
  seconds: f64,
  periods: f64,
});

export interface CmosWires {
  readonly clock: Clock;
  /** IRQ 8. */
  readonly irq: IrqLine;
  /** Called when bit 7 of port 0x70 changes; true: NMIs are held back. */
  nmiMask?(masked: boolean): void;
}

/** What firmware reads from the RAM. */
export interface CmosContents {
  /** Bytes of RAM below 4 GiB, from 1 MiB on contiguous, and above 4 GiB. */
  readonly ramBelow4G: number;
  readonly ramAbove4G: number;
  readonly cpus: number;
  /** Boot devices in order, as SeaBIOS numbers them: 1 floppy, 2 hard disk, 3 CD, 4 network. At most 3. */
  readonly bootOrder: readonly number[];
  /** Skip the floppy's boot signature check. */
  readonly floppyBootUnchecked?: boolean;
  /** Types of the two floppy drives (4: 1.44 MB; 0: none). */
  readonly floppies?: readonly [number, number];
}

export class Cmos implements IoHandler {
  readonly #s: View<typeof cmosState.fields>;
  readonly #wires: CmosWires;
  readonly #timer: Timer;

  constructor(state: View<typeof cmosState.fields>, wires: CmosWires) {
    this.#s = state;
    this.#wires = wires;
    this.#timer = wires.clock.timer('rtc', () => this.#changed());
  }

  /** System reset: interrupts off; the RAM and the time stay, as the battery keeps them. */
  reset(): void {
    const s = this.#s;
    if (s.alive === 0) {
      s.alive = 1;
      s.offset = 0;
      s.ram.fill(0);
      s.ram[REG_A] = A_DIVIDER_RUNS | 6;
      s.ram[REG_B] = B_24_HOURS;
    }
    s.index = 0;
    s.nmiMasked = 0;
    s.ram[REG_B] &= ~(FLAGS | B_SQUARE_WAVE);
    s.flags = 0;
    s.seconds = this.#nowSeconds();
    s.periods = this.#nowPeriods();
    this.#wires.nmiMask?.(false);
    this.#changed();
  }

  /** Fills in what the firmware wants to know of the machine. After `reset`. */
  configure(contents: CmosContents): void {
    const ram = this.#s.ram;
    const put16 = (at: number, value: number): void => {
      ram[at] = value & 0xff;
      ram[at + 1] = (value >> 8) & 0xff;
    };
    const { ramBelow4G, ramAbove4G, bootOrder } = contents;
    put16(0x15, Math.min(640, Math.floor(ramBelow4G / 1024)));
    const extended = Math.min(65535, Math.max(0, Math.floor(ramBelow4G / 1024) - 1024));
    put16(0x17, extended);
    put16(0x30, extended);
    put16(0x34, Math.min(65535, Math.max(0, Math.floor((ramBelow4G - 2 ** 24) / 65536))));
    const above = Math.floor(ramAbove4G / 65536);
    put16(0x5b, above & 0xffff);
    ram[0x5d] = Math.min(255, Math.floor(above / 65536));
    ram[0x5f] = Math.min(255, contents.cpus - 1);
    ram[0x3d] = (bootOrder[0] ?? 0) | ((bootOrder[1] ?? 0) << 4);
    ram[0x38] = ((bootOrder[2] ?? 0) << 4) | (contents.floppyBootUnchecked ? 1 : 0);
    this.setFloppies(contents.floppies ?? [0, 0]);
  }

  /** Types of the two floppy drives: 4 for 1.44 MB, 5 for 2.88 MB, 0 for none. */
  setFloppies([first, second]: readonly [number, number]): void {
    const { ram } = this.#s;
    ram[0x10] = (first << 4) | second;
    const drives = (first !== 0 ? 1 : 0) + (second !== 0 ? 1 : 0);
    // FPU, PS/2 mouse, and the number of drives.
    ram[0x14] = 0x06 | (drives > 0 ? 1 | ((drives - 1) << 6) : 0);
    // The checksum that covers 0x10 to 0x2d.
    let sum = 0;
    for (let at = 0x10; at < 0x2e; at++) sum += ram[at];
    ram[0x2e] = (sum >> 8) & 0xff;
    ram[0x2f] = sum & 0xff;
  }

  /** Whether bit 7 of port 0x70 holds NMIs back. */
  get nmiMasked(): boolean {
    return this.#s.nmiMasked !== 0;
  }

  /** The guest's time less the host's, in milliseconds: what the `RTC_CHANGE` event tells in seconds. */
  get offsetMs(): number {
    return this.#s.offset;
  }

  /** The register that the index port chose. */
  get #index(): number {
    const { index } = this.#s;
    return index === CENTURY_PS2 ? CENTURY : index;
  }

  read(offset: number, size: AccessSize): number {
    if (offset !== 1 || size !== 1) return allOnes(size);
    const s = this.#s;
    const { ram } = s;
    const index = this.#index;
    switch (index) {
      case REG_A:
        return (ram[REG_A] & ~A_UIP) | (this.#updating() ? A_UIP : 0);
      case REG_C: {
        this.#sync();
        const value = s.flags | ((s.flags & ram[REG_B] & FLAGS) !== 0 ? C_IRQ : 0);
        s.flags = 0;
        this.#changed();
        return value;
      }
      case REG_D:
        return D_VALID;
      default:
        if (isTime(index) && this.#runs) this.#store(this.#guestMs());
        return ram[index];
    }
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset === 0) {
      this.#s.index = value & 0x7f;
      const masked = (value >> 7) & 1;
      if (masked !== this.#s.nmiMasked) {
        this.#s.nmiMasked = masked;
        this.#wires.nmiMask?.(masked !== 0);
      }
      // One 16-bit access is index and data.
      if (size === 2) this.#writeRegister((value >> 8) & 0xff);
    } else this.#writeRegister(value & 0xff);
  }

  #writeRegister(value: number): void {
    const s = this.#s;
    const { ram } = s;
    const index = this.#index;
    this.#sync();
    switch (index) {
      case REG_A:
      case REG_B: {
        const ran = this.#runs;
        if (ran) this.#store(this.#guestMs());
        const halted = (ram[REG_A] & A_DIVIDER) !== A_DIVIDER_RUNS;
        if (index === REG_A) ram[REG_A] = value & ~A_UIP;
        // SET ends update interrupts. MC146818A, register B.
        else ram[REG_B] = (value & B_SET) !== 0 ? value & ~B_UPDATE : value;
        if (ran || !this.#runs) break;
        // A divider that was let go makes its first update half a second later; SET alone leaves it counting.
        const phase = halted ? 500 : positive(this.#wires.clock.wallTime() + s.offset, 1000);
        s.offset = this.#registersMs() + phase - this.#wires.clock.wallTime();
        s.seconds = this.#nowSeconds();
        break;
      }
      case REG_C:
      case REG_D:
        return;
      default:
        if (isTime(index) && this.#runs) {
          const before = this.#guestMs();
          this.#store(before);
          ram[index] = value;
          s.offset += this.#registersMs() + positive(before, 1000) - before;
          s.seconds = this.#nowSeconds();
        } else ram[index] = value;
    }
    s.periods = this.#nowPeriods();
    this.#changed();
  }

  // Time.

  get #runs(): boolean {
    const ram = this.#s.ram;
    return (ram[REG_B] & B_SET) === 0 && (ram[REG_A] & A_DIVIDER) === A_DIVIDER_RUNS;
  }

  #guestMs(): number {
    return this.#wires.clock.wallTime() + this.#s.offset;
  }

  #nowSeconds(): number {
    return Math.floor(this.#guestMs() / 1000);
  }

  #updating(): boolean {
    return this.#runs && positive(this.#guestMs(), 1000) >= 1000 - UPDATE_MS;
  }

  #encode(value: number): number {
    return (this.#s.ram[REG_B] & B_BINARY) !== 0 ? value : ((Math.floor(value / 10) << 4) | (value % 10)) & 0xff;
  }

  #decode(value: number): number {
    return (this.#s.ram[REG_B] & B_BINARY) !== 0 ? value : (value >> 4) * 10 + (value & 15);
  }

  #encodeHour(hour: number): number {
    if ((this.#s.ram[REG_B] & B_24_HOURS) !== 0) return this.#encode(hour);
    return this.#encode(hour % 12 === 0 ? 12 : hour % 12) | (hour >= 12 ? PM : 0);
  }

  #decodeHour(value: number): number {
    if ((this.#s.ram[REG_B] & B_24_HOURS) !== 0) return this.#decode(value);
    return (this.#decode(value & 0x7f) % 12) + ((value & PM) !== 0 ? 12 : 0);
  }

  /** Writes a time to the registers, milliseconds since the epoch. */
  #store(ms: number): void {
    const ram = this.#s.ram;
    const date = new Date(Math.floor(ms / 1000) * 1000);
    if (Number.isNaN(date.getTime())) return;
    const year = date.getUTCFullYear();
    ram[SECONDS] = this.#encode(date.getUTCSeconds());
    ram[MINUTES] = this.#encode(date.getUTCMinutes());
    ram[HOURS] = this.#encodeHour(date.getUTCHours());
    ram[DAY_OF_WEEK] = this.#encode(date.getUTCDay() + 1);
    ram[DAY] = this.#encode(date.getUTCDate());
    ram[MONTH] = this.#encode(date.getUTCMonth() + 1);
    ram[YEAR] = this.#encode(positive(year, 100));
    ram[CENTURY] = this.#encode(Math.floor(year / 100) % 100);
  }

  /** The time in the registers, milliseconds since the epoch. Values out of range carry over, as in a date. */
  #registersMs(): number {
    const ram = this.#s.ram;
    const century = this.#decode(ram[CENTURY]);
    const year = this.#decode(ram[YEAR]);
    const [month, day] = [this.#decode(ram[MONTH]), this.#decode(ram[DAY])];
    const date = new Date(0);
    date.setUTCFullYear(century * 100 + year, month - 1, day);
    date.setUTCHours(this.#decodeHour(ram[HOURS]), this.#decode(ram[MINUTES]), this.#decode(ram[SECONDS]), 0);
    return date.getTime();
  }

  // Interrupts.

  /** Length of a periodic interrupt's period in crystal ticks, 0 where it is off. */
  get #periodTicks(): number {
    const a = this.#s.ram[REG_A];
    const rate = a & 15;
    if (rate === 0 || (a & A_DIVIDER) !== A_DIVIDER_RUNS) return 0;
    return rate <= 2 ? 64 << rate : 1 << (rate - 1);
  }

  #nowPeriods(): number {
    const ticks = this.#periodTicks;
    return ticks === 0 ? 0 : Math.floor((this.#wires.clock.now() / 1e9) * (CRYSTAL_HZ / ticks) + 1e-6);
  }

  /** Seconds from `from` (exclusive) to the next alarm, 1 to 86400; Infinity where no time matches. */
  #secondsToAlarm(from: number): number {
    const ram = this.#s.ram;
    const any = (value: number): boolean => (value & 0xc0) === 0xc0;
    const [hour, minute, second] = [ram[HOURS_ALARM], ram[MINUTES_ALARM], ram[SECONDS_ALARM]];
    for (let step = 1; step <= DAY_SECONDS; ) {
      const time = positive(from + step, DAY_SECONDS);
      if (!any(hour) && this.#decodeHour(hour) !== Math.floor(time / 3600)) step += 3600 - (time % 3600);
      else if (!any(minute) && this.#decode(minute) !== Math.floor(time / 60) % 60) step += 60 - (time % 60);
      else if (!any(second) && this.#decode(second) !== time % 60) step++;
      else return step;
    }
    return Infinity;
  }

  /** Brings the flags up to now. */
  #sync(): void {
    const s = this.#s;
    const periods = this.#nowPeriods();
    if (periods !== s.periods && this.#periodTicks !== 0) s.flags |= B_PERIODIC;
    s.periods = periods;
    if (!this.#runs) return;
    const seconds = this.#nowSeconds();
    const passed = seconds - s.seconds;
    if (passed === 0) return;
    s.flags |= B_UPDATE;
    if (passed > 0 && this.#secondsToAlarm(s.seconds) <= passed) s.flags |= B_ALARM;
    s.seconds = seconds;
  }

  /** Drives the line and sets the timer for the next flag that would raise it. */
  #changed(): void {
    const s = this.#s;
    this.#sync();
    const enabled = s.ram[REG_B] & FLAGS;
    const raised = (s.flags & enabled) !== 0;
    this.#wires.irq.set(raised);
    if (raised || enabled === 0) {
      this.#timer.disarm();
      return;
    }
    const now = this.#wires.clock.now();
    let deadline = Infinity;
    const ticks = this.#periodTicks;
    if ((enabled & B_PERIODIC) !== 0 && ticks !== 0) deadline = Math.ceil(((s.periods + 1) * ticks * 1e9) / CRYSTAL_HZ);
    if ((enabled & (B_UPDATE | B_ALARM)) !== 0 && this.#runs) {
      const seconds = (enabled & B_UPDATE) !== 0 ? 1 : this.#secondsToAlarm(s.seconds);
      const ms = (s.seconds + seconds) * 1000 - this.#guestMs();
      // At least 1 ms: host time need not keep step with machine time.
      deadline = Math.min(deadline, now + Math.max(1, ms) * 1e6);
    }
    if (deadline === Infinity) this.#timer.disarm();
    else this.#timer.arm(deadline);
  }
}

const isTime = (index: number): boolean =>
  index === SECONDS || index === MINUTES || index === HOURS || (index >= DAY_OF_WEEK && index <= YEAR) || index === CENTURY;

/** The remainder that is never negative. */
const positive = (value: number, modulus: number): number => ((value % modulus) + modulus) % modulus;
