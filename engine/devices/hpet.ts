/**
 * High precision event timers: three comparators on a 64-bit counter of 100 MHz, memory mapped, 1 KiB.
 * IA-PC HPET Specification 1.0a, 2.3 (registers) and 2.2 (legacy replacement routing).
 *
 * The counter is the machine time. For each comparator the machine time of its next match is kept; a clock timer runs
 * only where that match interrupts. A host that is late makes up for at most 20 ms of lost periods, half a period
 * apart; no comparator interrupts more often than once in 50 us. Messages (FSB delivery) are not offered.
 */

import type { Clock, Timer } from '../bus/clock.ts';
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { f64, f64s, struct, u32, u32s, type View } from '../memory/struct.ts';

export const HPET_DEFAULT_BASE = 0xfed00000;
/** Length of the register window in bytes. */
export const HPET_WINDOW = 0x400;
export const HPET_TIMERS = 3;
/** Pins of the I/O APIC that a timer may be routed to, unless wired otherwise: 2, as PCs have it. */
export const HPET_DEFAULT_ROUTES = 0x00000004;

const NS_PER_TICK = 10;
const PERIOD_FS = 10_000_000;
/** Revision 1, three timers, 64 bits, legacy replacement, vendor 8086. */
const CAPABILITIES = 0x8086a201;
const MAX_BACKLOG_NS = 20e6;
const MIN_INTERVAL_NS = 50e3;

const REG_CAPABILITIES = 0x000;
const REG_CONFIG = 0x010;
const REG_STATUS = 0x020;
const REG_COUNTER = 0x0f0;
const REG_TIMERS = 0x100;
const TIMER_CONFIG = 0x00;
const TIMER_COMPARATOR = 0x08;

const CONFIG_ENABLE = 1;
const CONFIG_LEGACY = 2;

const TIMER_LEVEL = 1 << 1;
const TIMER_INTERRUPT = 1 << 2;
const TIMER_PERIODIC = 1 << 3;
const TIMER_CAN_PERIODIC = 1 << 4;
const TIMER_CAN_64 = 1 << 5;
const TIMER_SET_VALUE = 1 << 6;
const TIMER_32 = 1 << 8;
const TIMER_ROUTE = 0x1f << 9;
const TIMER_WRITABLE = TIMER_LEVEL | TIMER_INTERRUPT | TIMER_PERIODIC | TIMER_SET_VALUE | TIMER_32 | TIMER_ROUTE;

const MASK_64 = 0xffffffffffffffffn;
const MASK_32 = 0xffffffffn;

export const hpetState = struct('hpet', 1, {
  config: u32,
  status: u32,
  /** The counter while it stands, or what it was when it was started. */
  counterLow: u32,
  counterHigh: u32,
  /** Machine time at which it was started; -1 while it stands. */
  started: f64,
  timerConfig: u32s(HPET_TIMERS),
  comparatorLow: u32s(HPET_TIMERS),
  comparatorHigh: u32s(HPET_TIMERS),
  periodLow: u32s(HPET_TIMERS),
  periodHigh: u32s(HPET_TIMERS),
  /** One bit a timer: the low half was just written with VAL_SET, so the high half goes to the comparator too. */
  setHigh: u32,
  /** Machine time of the next match, ns; Infinity while the counter stands. */
  due: f64s(HPET_TIMERS),
});

export interface HpetWires {
  readonly clock: Clock;
  /** The I/O APIC's pins by number; those of `routes` must be there. */
  readonly lines: readonly IrqLine[];
  readonly routes?: number;
  /** Where timers 0 and 1 go in legacy replacement: the inputs of the PIT and of the RTC. */
  readonly irq0: IrqLine;
  readonly irq8: IrqLine;
  /** Legacy replacement went on or off: the PIT and the RTC lose their lines, or have them back. */
  legacyChanged?(on: boolean): void;
}

export class Hpet implements IoHandler {
  readonly #s: View<typeof hpetState.fields>;
  readonly #wires: HpetWires;
  readonly #timers: readonly Timer[];
  readonly #routes: number;

  constructor(state: View<typeof hpetState.fields>, wires: HpetWires) {
    this.#s = state;
    this.#wires = wires;
    this.#routes = wires.routes ?? HPET_DEFAULT_ROUTES;
    this.#timers = [0, 1, 2].map((n) => wires.clock.timer(`hpet.timer${n}`, () => this.#fire(n)));
  }

  reset(): void {
    const s = this.#s;
    for (let n = 0; n < HPET_TIMERS; n++) this.#lower(n);
    s.config = 0;
    s.status = 0;
    s.counterLow = 0;
    s.counterHigh = 0;
    s.started = -1;
    s.setHigh = 0;
    for (const field of [s.timerConfig, s.periodLow, s.periodHigh]) field.fill(0);
    s.comparatorLow.fill(0xffffffff);
    s.comparatorHigh.fill(0xffffffff);
    s.due.fill(Infinity);
    for (const timer of this.#timers) timer.disarm();
    this.#wires.legacyChanged?.(false);
  }

  /** Whether timers 0 and 1 stand in for the PIT and the RTC. */
  get legacy(): boolean {
    return (this.#s.config & CONFIG_LEGACY) !== 0;
  }

  // Time.

  /** Ticks since the counter was started. */
  #elapsed(): number {
    const { started } = this.#s;
    return started < 0 ? 0 : Math.max(0, Math.floor((this.#wires.clock.now() - started) / NS_PER_TICK));
  }

  #counterLow(): number {
    return (this.#s.counterLow + this.#elapsed()) % 2 ** 32;
  }

  #counterHigh(): number {
    return (this.#s.counterHigh + Math.floor((this.#s.counterLow + this.#elapsed()) / 2 ** 32)) % 2 ** 32;
  }

  #is32(n: number): boolean {
    return (this.#s.timerConfig[n] & TIMER_32) !== 0;
  }

  #comparator(n: number): bigint {
    return (BigInt(this.#s.comparatorHigh[n]) << 32n) | BigInt(this.#s.comparatorLow[n]);
  }

  /** The period in ticks; 0 for one shot. */
  #period(n: number): number {
    const s = this.#s;
    if ((s.timerConfig[n] & TIMER_PERIODIC) === 0) return 0;
    return this.#is32(n) ? s.periodLow[n] : s.periodHigh[n] * 2 ** 32 + s.periodLow[n];
  }

  /** Works the time of the next match out afresh: after a write to the counter, the comparator or the mode. */
  #schedule(n: number): void {
    const s = this.#s;
    if (s.started < 0) s.due[n] = Infinity;
    else {
      const counter = (BigInt(this.#counterHigh()) << 32n) | BigInt(this.#counterLow());
      const mask = this.#is32(n) ? MASK_32 : MASK_64;
      const ticks = Number((this.#comparator(n) - counter) & mask);
      s.due[n] = s.started + (this.#elapsed() + ticks) * NS_PER_TICK;
    }
    this.#arm(n);
  }

  #arm(n: number): void {
    const s = this.#s;
    const due = s.due[n];
    if (due === Infinity || (s.timerConfig[n] & TIMER_INTERRUPT) === 0) this.#timers[n].disarm();
    else this.#timers[n].arm(Math.max(due, 0));
  }

  /** Moves a match that lies before `time` (or on it) to the first one after, as the chip's adder does. */
  #advance(n: number, time: number): void {
    const s = this.#s;
    if (s.due[n] > time) return;
    const period = this.#period(n);
    // A one-shot matches again when the counter has gone all the way round.
    const step = period > 0 ? period : this.#is32(n) ? 2 ** 32 : 2 ** 64;
    const count = Math.floor((time - s.due[n]) / (step * NS_PER_TICK)) + 1;
    s.due[n] += count * step * NS_PER_TICK;
    if (period === 0) return;
    const next = this.#comparator(n) + BigInt(count) * BigInt(period);
    s.comparatorLow[n] = Number(next & MASK_32);
    s.comparatorHigh[n] = this.#is32(n) ? 0 : Number((next >> 32n) & MASK_32);
  }

  #fire(n: number): void {
    const s = this.#s;
    const now = this.#wires.clock.now();
    if (s.due[n] > now || (s.timerConfig[n] & TIMER_INTERRUPT) === 0) {
      this.#arm(n);
      return;
    }
    this.#raise(n);
    const { due } = s;
    this.#advance(n, Math.max(due[n], now - MAX_BACKLOG_NS));
    if (due[n] >= now + MIN_INTERVAL_NS) this.#arm(n);
    else this.#timers[n].arm(now + Math.max(MIN_INTERVAL_NS, (this.#period(n) * NS_PER_TICK) / 2));
  }

  // Interrupts.

  #line(n: number): IrqLine | undefined {
    if (this.legacy && n < 2) return n === 0 ? this.#wires.irq0 : this.#wires.irq8;
    const route = (this.#s.timerConfig[n] & TIMER_ROUTE) >> 9;
    return ((this.#routes >>> route) & 1) !== 0 ? this.#wires.lines[route] : undefined;
  }

  #raise(n: number): void {
    const s = this.#s;
    const line = this.#line(n);
    if ((s.timerConfig[n] & TIMER_LEVEL) !== 0) {
      s.status |= 1 << n;
      line?.set(true);
    } else if (line !== undefined && !this.#holds(line)) {
      line.set(true);
      line.set(false);
    }
  }

  /** Whether a level-triggered timer holds `line`. */
  #holds(line: IrqLine): boolean {
    for (let n = 0; n < HPET_TIMERS; n++) if ((this.#s.status & (1 << n)) !== 0 && this.#line(n) === line) return true;
    return false;
  }

  /** Takes a level interrupt back. */
  #lower(n: number): void {
    const s = this.#s;
    if ((s.status & (1 << n)) === 0) return;
    s.status &= ~(1 << n);
    const line = this.#line(n);
    if (line !== undefined && !this.#holds(line)) line.set(false);
  }

  // Registers.

  read(offset: number, size: AccessSize): number {
    if ((offset & 3) + size > 4) return allOnes(size);
    return ((this.#dword(offset & ~3) >>> ((offset & 3) * 8)) & allOnes(size)) >>> 0;
  }

  #dword(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case REG_CAPABILITIES:
        return CAPABILITIES;
      case REG_CAPABILITIES + 4:
        return PERIOD_FS;
      case REG_CONFIG:
        return s.config;
      case REG_STATUS:
        return s.status;
      case REG_COUNTER:
        return this.#counterLow();
      case REG_COUNTER + 4:
        return this.#counterHigh();
    }
    const n = (offset - REG_TIMERS) >> 5;
    if (offset < REG_TIMERS || n >= HPET_TIMERS) return 0;
    switch (offset & 0x1f) {
      case TIMER_CONFIG:
        return s.timerConfig[n] | TIMER_CAN_PERIODIC | TIMER_CAN_64;
      case TIMER_CONFIG + 4:
        return this.#routes;
      case TIMER_COMPARATOR:
      case TIMER_COMPARATOR + 4:
        // A match that interrupts is moved on when it has interrupted.
        if ((s.timerConfig[n] & TIMER_INTERRUPT) === 0) this.#advance(n, this.#wires.clock.now());
        if ((offset & 4) === 0) return s.comparatorLow[n];
        return this.#is32(n) ? 0 : s.comparatorHigh[n];
      default:
        return 0;
    }
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) return; // accesses are of 32 or 64 bits. 2.3.1
    const s = this.#s;
    switch (offset) {
      case REG_CONFIG:
        this.#writeConfig(value & (CONFIG_ENABLE | CONFIG_LEGACY));
        return;
      case REG_STATUS:
        for (let n = 0; n < HPET_TIMERS; n++) if ((value & (1 << n)) !== 0) this.#lower(n);
        return;
      case REG_COUNTER:
      case REG_COUNTER + 4: {
        // The other half goes on from what it is now.
        const [low, high] = [this.#counterLow(), this.#counterHigh()];
        s.counterLow = offset === REG_COUNTER ? value : low;
        s.counterHigh = offset === REG_COUNTER ? high : value;
        if (s.started >= 0) s.started = this.#wires.clock.now();
        for (let n = 0; n < HPET_TIMERS; n++) this.#schedule(n);
        return;
      }
    }
    const n = (offset - REG_TIMERS) >> 5;
    if (offset < REG_TIMERS || n >= HPET_TIMERS) return;
    const register = offset & 0x1f;
    if (register === TIMER_CONFIG) this.#writeTimerConfig(n, value);
    else if (register === TIMER_COMPARATOR || register === TIMER_COMPARATOR + 4)
      this.#writeComparator(n, register !== TIMER_COMPARATOR, value);
  }

  #writeConfig(value: number): void {
    const s = this.#s;
    const changed = s.config ^ value;
    if ((changed & CONFIG_LEGACY) !== 0) for (let n = 0; n < 2; n++) this.#lower(n);
    if ((changed & CONFIG_ENABLE) !== 0) {
      for (let n = 0; n < HPET_TIMERS; n++) this.#advance(n, this.#wires.clock.now());
      if ((value & CONFIG_ENABLE) !== 0) s.started = this.#wires.clock.now();
      else {
        const [low, high] = [this.#counterLow(), this.#counterHigh()];
        s.counterLow = low;
        s.counterHigh = high;
        s.started = -1;
      }
    }
    s.config = value;
    if ((changed & CONFIG_LEGACY) !== 0) this.#wires.legacyChanged?.((value & CONFIG_LEGACY) !== 0);
    if ((changed & CONFIG_ENABLE) !== 0) for (let n = 0; n < HPET_TIMERS; n++) this.#schedule(n);
  }

  #writeTimerConfig(n: number, value: number): void {
    const s = this.#s;
    const before = s.timerConfig[n];
    const after = value & TIMER_WRITABLE;
    if (((before ^ after) & TIMER_ROUTE) !== 0 || (after & TIMER_LEVEL) === 0 || (after & TIMER_INTERRUPT) === 0) this.#lower(n);
    // Matches that passed unseen are past before an interrupt is made of them.
    if ((before & TIMER_INTERRUPT) === 0) this.#advance(n, this.#wires.clock.now());
    s.timerConfig[n] = after;
    if ((after & TIMER_32) !== 0) {
      s.comparatorHigh[n] = 0;
      s.periodHigh[n] = 0;
    }
    if (((before ^ after) & (TIMER_32 | TIMER_PERIODIC)) !== 0) this.#schedule(n);
    else this.#arm(n);
  }

  /** 2.3.9.2.2: with VAL_SET a periodic timer's comparator is written, else only its period. */
  #writeComparator(n: number, high: boolean, value: number): void {
    const s = this.#s;
    if (high && this.#is32(n)) return;
    const periodic = (s.timerConfig[n] & TIMER_PERIODIC) !== 0;
    const bit = 1 << n;
    if (!high) s.setHigh = (s.timerConfig[n] & TIMER_SET_VALUE) !== 0 ? s.setHigh | bit : s.setHigh & ~bit;
    const sets = !periodic || (s.setHigh & bit) !== 0 || (s.timerConfig[n] & TIMER_SET_VALUE) !== 0;
    s.timerConfig[n] &= ~TIMER_SET_VALUE;
    if (periodic) (high ? s.periodHigh : s.periodLow)[n] = value;
    if (!sets) return;
    (high ? s.comparatorHigh : s.comparatorLow)[n] = value;
    this.#schedule(n);
  }
}
