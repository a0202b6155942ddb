/**
 * Programmable interval timer with port 0x61 beside it.
 * Intel 8254 data sheet (231164-005): control word, modes, latch and read-back commands;
 * Intel 82371SB (PIIX3) data sheet 2.5.4.1: NMI status and control register at 0x61.
 *
 * Nothing ticks: a counter is what the time since it was loaded makes of it. Only channel 0, whose output is
 * IRQ 0, has a timer. Deadlines are multiples of the period from the load, so they do not drift. A host that is
 * late makes up for at most 20 ms of lost ticks, half a period apart so that the guest can take each; the rest is
 * dropped. No more than one interrupt in 50 us is made whatever the guest programs.
 */

import type { Clock, Timer } from '../bus/clock.ts';
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { f64, f64s, struct, u32, u32s, type View } from '../memory/struct.ts';

/** Counts a second. */
export const PIT_HZ = 1193182;
const NS_PER_TICK = 1e9 / PIT_HZ;
const MAX_BACKLOG_NS = 20e6;
const MIN_INTERVAL_NS = 50e3;
/** The refresh request, which bit 4 of port 0x61 shows divided by two, comes every 15 us. */
const REFRESH_NS = 15085;

const ACCESS_LATCH = 0;
const ACCESS_LOW = 1;
const ACCESS_HIGH = 2;
const ACCESS_BOTH = 3;

const PORT61_GATE = 1;
const PORT61_SPEAKER = 2;
const PORT61_WRITABLE = 0x0f;

export const i8254State = struct('i8254', 1, {
  mode: u32s(3),
  bcd: u32s(3),
  access: u32s(3),
  /** 1 to 65536; 0 while none was written since the control word. */
  count: u32s(3),
  /** A count that takes effect when the period ends (modes 2 and 3); 0: none. */
  next: u32s(3),
  gate: u32s(3),
  /** Nonzero: the high byte comes next. */
  writeHigh: u32s(3),
  writeLow: u32s(3),
  readHigh: u32s(3),
  latched: u32s(3),
  latch: u32s(3),
  statusLatched: u32s(3),
  status: u32s(3),
  /** When the count was loaded, ns; Infinity where a trigger is awaited. */
  start: f64s(3),
  /** Ticks counted when the gate went low; -1 while counting. */
  held: f64s(3),
  /** The edge of channel 0 that the timer is to make, ns; Infinity: none. */
  edge: f64,
  port61: u32,
});

export interface I8254Wires {
  readonly clock: Clock;
  /** OUT of channel 0: IRQ 0. */
  readonly irq: IrqLine;
}

export class I8254 implements IoHandler {
  readonly #s: View<typeof i8254State.fields>;
  readonly #wires: I8254Wires;
  readonly #timer: Timer;
  /** One port: 0x61. */
  readonly port61: IoHandler;

  constructor(state: View<typeof i8254State.fields>, wires: I8254Wires) {
    this.#s = state;
    this.#wires = wires;
    this.#timer = wires.clock.timer('pit.channel0', () => this.#fire());
    this.port61 = { read: () => this.#read61(), write: (_offset, _size, value) => this.#write61(value & 0xff) };
  }

  reset(): void {
    const s = this.#s;
    for (const field of [s.bcd, s.count, s.next, s.writeHigh, s.writeLow, s.readHigh, s.latched, s.latch]) field.fill(0);
    for (const field of [s.statusLatched, s.status]) field.fill(0);
    s.mode.fill(3);
    s.access.fill(ACCESS_BOTH);
    s.gate.fill(1);
    s.gate[2] = 0;
    s.start.fill(Infinity);
    s.held.fill(-1);
    s.port61 = 0;
    s.edge = Infinity;
    this.#timer.disarm();
    this.#wires.irq.set(false);
  }

  /** The tone that the speaker makes, in Hz; 0 while it is silent. */
  get speakerHz(): number {
    const s = this.#s;
    if ((s.port61 & (PORT61_GATE | PORT61_SPEAKER)) !== (PORT61_GATE | PORT61_SPEAKER)) return 0;
    return s.mode[2] === 3 && s.count[2] > 1 ? PIT_HZ / s.count[2] : 0;
  }

  read(offset: number, size: AccessSize): number {
    if (offset === 3 || size !== 1) return allOnes(size);
    return this.#readCounter(offset);
  }

  write(offset: number, _size: AccessSize, value: number): void {
    if (offset === 3) this.#control(value & 0xff);
    else this.#writeCounter(offset, value & 0xff);
  }

  // Counting.

  /** Ticks since the load, or -1 where the channel does not count. */
  #ticks(channel: number): number {
    const s = this.#s;
    if (s.count[channel] === 0) return -1;
    if (s.held[channel] >= 0) return s.held[channel];
    if (s.start[channel] === Infinity) return -1;
    return Math.max(0, Math.floor((this.#wires.clock.now() - s.start[channel]) / NS_PER_TICK + 1e-6));
  }

  /** Brings a count in that waited for the end of a period. */
  #sync(channel: number): void {
    const s = this.#s;
    const mode = s.mode[channel];
    if (s.next[channel] === 0 || (mode !== 2 && mode !== 3) || this.#ticks(channel) < s.count[channel]) return;
    // The period in which the count was written is the first after `start`: see #load.
    s.start[channel] += s.count[channel] * NS_PER_TICK;
    s.count[channel] = s.next[channel];
    s.next[channel] = 0;
  }

  #out(channel: number): boolean {
    this.#sync(channel);
    const s = this.#s;
    const ticks = this.#ticks(channel);
    const count = s.count[channel];
    switch (s.mode[channel]) {
      case 0:
        return ticks >= count && count !== 0;
      case 1:
        return ticks < 0 || ticks >= count;
      case 2:
        return ticks < 0 || s.gate[channel] === 0 || ticks % count !== count - 1;
      case 3:
        return ticks < 0 || s.gate[channel] === 0 || ticks % count < (count + 1) >> 1;
      default:
        return ticks !== count;
    }
  }

  /** The counting element's value, in the channel's number format. */
  #value(channel: number): number {
    this.#sync(channel);
    const s = this.#s;
    const modulus = s.bcd[channel] !== 0 ? 10000 : 0x10000;
    const ticks = this.#ticks(channel);
    const count = s.count[channel];
    let value: number;
    if (ticks < 0) value = count;
    else if (s.mode[channel] === 2) value = count - (ticks % count);
    else if (s.mode[channel] === 3) value = (count & ~1) - ((2 * (ticks % count)) % Math.max(2, count & ~1));
    else value = (((count - ticks) % modulus) + modulus) % modulus;
    value %= modulus;
    return s.bcd[channel] !== 0 ? toBcd(value) : value;
  }

  // Programming.

  #control(value: number): void {
    const s = this.#s;
    const channel = value >> 6;
    if (channel === 3) {
      // Read-back: bits 1 to 3 select channels; bit 5 low latches counts, bit 4 low latches status.
      for (let each = 0; each < 3; each++) {
        if ((value & (2 << each)) === 0) continue;
        if ((value & 0x20) === 0) this.#latchCount(each);
        if ((value & 0x10) === 0 && s.statusLatched[each] === 0) {
          s.statusLatched[each] = 1;
          s.status[each] = this.#statusOf(each);
        }
      }
      return;
    }
    const access = (value >> 4) & 3;
    if (access === ACCESS_LATCH) {
      this.#latchCount(channel);
      return;
    }
    const mode = (value >> 1) & 7;
    s.access[channel] = access;
    s.mode[channel] = mode > 5 ? mode & 3 : mode;
    s.bcd[channel] = value & 1;
    s.count[channel] = 0;
    s.next[channel] = 0;
    s.start[channel] = Infinity;
    s.held[channel] = -1;
    for (const field of [s.writeHigh, s.readHigh, s.latched, s.statusLatched]) field[channel] = 0;
    if (channel === 0) this.#drive();
  }

  #statusOf(channel: number): number {
    const s = this.#s;
    const isNull = s.count[channel] === 0 || s.next[channel] !== 0;
    const shape = (s.access[channel] << 4) | (s.mode[channel] << 1) | s.bcd[channel];
    return (this.#out(channel) ? 0x80 : 0) | (isNull ? 0x40 : 0) | shape;
  }

  #latchCount(channel: number): void {
    const s = this.#s;
    if (s.latched[channel] !== 0) return;
    s.latch[channel] = this.#value(channel);
    s.latched[channel] = s.access[channel] === ACCESS_BOTH ? 2 : 1;
  }

  #readCounter(channel: number): number {
    const s = this.#s;
    if (s.statusLatched[channel] !== 0) {
      s.statusLatched[channel] = 0;
      return s.status[channel];
    }
    const value = s.latched[channel] !== 0 ? s.latch[channel] : this.#value(channel);
    if (s.latched[channel] !== 0) s.latched[channel]--;
    if (s.access[channel] === ACCESS_LOW) return value & 0xff;
    if (s.access[channel] === ACCESS_HIGH) return value >> 8;
    const high = s.readHigh[channel];
    s.readHigh[channel] = high ^ 1;
    return high !== 0 ? value >> 8 : value & 0xff;
  }

  #writeCounter(channel: number, value: number): void {
    const s = this.#s;
    if (s.access[channel] === ACCESS_LOW) this.#load(channel, value);
    else if (s.access[channel] === ACCESS_HIGH) this.#load(channel, value << 8);
    else if (s.writeHigh[channel] === 0) {
      s.writeHigh[channel] = 1;
      s.writeLow[channel] = value;
      // In mode 0 the first byte stops the counting. 8254, "Mode 0".
      if (s.mode[channel] === 0) {
        s.count[channel] = 0;
        if (channel === 0) this.#drive();
      }
    } else {
      s.writeHigh[channel] = 0;
      this.#load(channel, s.writeLow[channel] | (value << 8));
    }
  }

  #load(channel: number, written: number): void {
    const s = this.#s;
    const mode = s.mode[channel];
    const count = s.bcd[channel] !== 0 ? fromBcd(written) || 10000 : written || 0x10000;
    const now = this.#wires.clock.now();
    const ticks = this.#ticks(channel);
    if (mode === 1 || mode === 5) {
      // Taken at the next trigger; nothing runs before the first.
      if (s.start[channel] === Infinity || ticks >= s.count[channel]) s.start[channel] = Infinity;
      if (s.start[channel] === Infinity) s.count[channel] = count;
      else s.next[channel] = count;
      return;
    }
    if ((mode === 2 || mode === 3) && ticks >= 0 && s.gate[channel] !== 0) {
      this.#sync(channel);
      // Makes the period that runs now the first, so that #sync finds its end.
      const done = Math.floor(this.#ticks(channel) / s.count[channel]);
      s.start[channel] += done * s.count[channel] * NS_PER_TICK;
      s.next[channel] = count;
      return;
    }
    s.count[channel] = count;
    s.next[channel] = 0;
    s.start[channel] = now;
    s.held[channel] = s.gate[channel] !== 0 ? -1 : 0;
    if (channel === 0) this.#drive();
  }

  /** The gate input of a channel. 8254, table "Gate pin operations". */
  #setGate(channel: number, level: boolean): void {
    const s = this.#s;
    const rises = level && s.gate[channel] === 0;
    const falls = !level && s.gate[channel] !== 0;
    const mode = s.mode[channel];
    this.#sync(channel);
    const ticks = this.#ticks(channel);
    const now = this.#wires.clock.now();
    s.gate[channel] = level ? 1 : 0;
    if (s.count[channel] === 0) return;
    if (mode === 0 || mode === 4) {
      if (falls && ticks >= 0) s.held[channel] = ticks;
      else if (rises && s.held[channel] >= 0) {
        s.start[channel] = now - s.held[channel] * NS_PER_TICK;
        s.held[channel] = -1;
      }
    } else if (rises) {
      if (s.next[channel] !== 0) s.count[channel] = s.next[channel];
      s.next[channel] = 0;
      s.start[channel] = now;
      s.held[channel] = -1;
    } else if (falls && mode !== 1 && mode !== 5 && ticks >= 0) s.held[channel] = ticks % s.count[channel];
  }

  // Channel 0's interrupt.

  /** Sets IRQ 0 to the output as it is now, and the timer to the next rising edge. */
  #drive(): void {
    const s = this.#s;
    const { clock, irq } = this.#wires;
    const mode = s.mode[0];
    const out = this.#out(0);
    // The low phases of modes 2 to 4 are made when their end is due: a pulse, with one event a period.
    irq.set(out || (mode !== 0 && mode !== 1));
    const now = clock.now();
    let edge = Infinity;
    if (s.count[0] !== 0 && s.start[0] !== Infinity) {
      if (mode === 2 || mode === 3) edge = this.#nextBoundary(now);
      else if (mode === 0 && !out) edge = s.start[0] + s.count[0] * NS_PER_TICK;
      else if (mode === 4 && this.#ticks(0) <= s.count[0]) edge = s.start[0] + (s.count[0] + 1) * NS_PER_TICK;
    }
    this.#arm(edge);
  }

  #arm(edge: number): void {
    this.#s.edge = edge;
    if (edge === Infinity) this.#timer.disarm();
    else this.#timer.arm(Math.ceil(edge));
  }

  /** The first end of a period after `time`. */
  #nextBoundary(time: number): number {
    const s = this.#s;
    const period = s.count[0] * NS_PER_TICK;
    return s.start[0] + Math.max(1, Math.floor((time - s.start[0]) / period + 1e-9) + 1) * period;
  }

  #fire(): void {
    const s = this.#s;
    const { clock, irq } = this.#wires;
    const edge = s.edge;
    const now = clock.now();
    if (now < edge) {
      // Re-armed by another thread while this call was on its way.
      this.#arm(edge);
      return;
    }
    const mode = s.mode[0];
    irq.set(false);
    irq.set(true);
    if (mode !== 2 && mode !== 3) {
      this.#arm(Infinity);
      return;
    }
    // A count that was written during the period starts with it.
    if (s.next[0] !== 0 && edge >= s.start[0] + s.count[0] * NS_PER_TICK - 1) {
      s.start[0] += s.count[0] * NS_PER_TICK;
      s.count[0] = s.next[0];
      s.next[0] = 0;
    }
    const period = s.count[0] * NS_PER_TICK;
    const next = this.#nextBoundary(Math.max(edge, now - MAX_BACKLOG_NS));
    if (next >= now + MIN_INTERVAL_NS) this.#arm(next);
    else {
      s.edge = next;
      this.#timer.arm(Math.ceil(now + Math.max(MIN_INTERVAL_NS, period / 2)));
    }
  }

  // Port 0x61.

  #read61(): number {
    const s = this.#s;
    const refresh = Math.floor(this.#wires.clock.now() / REFRESH_NS) & 1;
    return s.port61 | (refresh << 4) | (this.#out(2) ? 0x20 : 0);
  }

  #write61(value: number): void {
    this.#s.port61 = value & PORT61_WRITABLE;
    this.#setGate(2, (value & PORT61_GATE) !== 0);
  }
}

const toBcd = (value: number): number =>
  (value % 10) | ((Math.floor(value / 10) % 10) << 4) | ((Math.floor(value / 100) % 10) << 8) | (Math.floor(value / 1000) << 12);
const fromBcd = (value: number): number =>
  (value & 15) + ((value >> 4) & 15) * 10 + ((value >> 8) & 15) * 100 + ((value >> 12) & 15) * 1000;
