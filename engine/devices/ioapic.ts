/**
 * I/O APIC with 24 pins and the EOI register of version 0x20.
 * Intel 82093AA data sheet (register model), ICH9 data sheet 13.5 (EOI register).
 *
 * Our lines are active high, whatever the board's real polarity: the polarity bit is kept and has no effect.
 */
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { struct, u32, u32s, type View } from '../memory/struct.ts';

export const IOAPIC_PINS = 24;
export const IOAPIC_DEFAULT_BASE = 0xfec00000;
/** Length of the register window in bytes. */
export const IOAPIC_WINDOW = 0x1000;

const VERSION = 0x20 | ((IOAPIC_PINS - 1) << 16);

const OFFSET_INDEX = 0x00;
const OFFSET_DATA = 0x10;
const OFFSET_EOI = 0x40;

const INDEX_ID = 0;
const INDEX_VERSION = 1;
const INDEX_ARBITRATION = 2;
const INDEX_TABLE = 0x10;

const ENTRY_LOGICAL = 1 << 11;
const ENTRY_REMOTE_IRR = 1 << 14;
const ENTRY_LEVEL = 1 << 15;
const ENTRY_MASKED = 1 << 16;
const ENTRY_WRITABLE = 0x1afff;

export const ioapicState = struct('ioapic', 1, {
  index: u32,
  id: u32,
  /** One bit for each pin that is asserted. */
  levels: u32,
  low: u32s(IOAPIC_PINS),
  high: u32s(IOAPIC_PINS),
});

export interface IoApicWires {
  /** Sends a message to the local APICs: `ApicBus.deliver`. True where one took it. */
  deliver(destination: number, logical: boolean, delivery: number, vector: number, level: boolean): boolean;
  /** The value of the id register at reset. */
  readonly id: number;
}

export class IoApic implements IoHandler {
  readonly #s: View<typeof ioapicState.fields>;
  readonly #wires: IoApicWires;
  /** The input pins, by number. */
  readonly pins: readonly IrqLine[];

  constructor(state: View<typeof ioapicState.fields>, wires: IoApicWires) {
    this.#s = state;
    this.#wires = wires;
    this.pins = Array.from({ length: IOAPIC_PINS }, (_, pin) => ({ set: (level: boolean) => this.#setPin(pin, level) }));
  }

  reset(): void {
    const s = this.#s;
    s.index = 0;
    s.id = this.#wires.id & 15;
    s.levels = 0;
    s.low.fill(ENTRY_MASKED);
    s.high.fill(0);
  }

  #setPin(pin: number, level: boolean): void {
    const s = this.#s;
    const bit = 1 << pin;
    const was = (s.levels & bit) !== 0;
    // A level that no APIC took is offered again whenever the device says so.
    if (was === level && (!level || (s.low[pin] & ENTRY_LEVEL) === 0)) return;
    s.levels = (level ? s.levels | bit : s.levels & ~bit) >>> 0;
    // An edge on a masked pin is lost (82093AA 3.2.4); a level is seen again when the mask goes.
    if (level) this.#service(pin);
  }

  /** Sends the pin's message where its entry allows. */
  #service(pin: number): void {
    const s = this.#s;
    const entry = s.low[pin];
    if ((entry & ENTRY_MASKED) !== 0) return;
    const delivery = (entry >> 8) & 7;
    const level = (entry & ENTRY_LEVEL) !== 0;
    // Only fixed and lowest priority have an EOI to wait for.
    const waits = level && delivery <= 1;
    if (waits && (entry & ENTRY_REMOTE_IRR) !== 0) return;
    if (delivery === 3 || delivery === 6) return;
    const high = s.high[pin];
    const destination = (high >>> 24) | (((high >>> 17) & 0x7f) << 8);
    const taken = this.#wires.deliver(destination, (entry & ENTRY_LOGICAL) !== 0, delivery, entry & 0xff, waits);
    // What nobody took will have no EOI.
    if (waits && taken) s.low[pin] = entry | ENTRY_REMOTE_IRR;
  }

  /** A local APIC, or the guest through the EOI register, finished a level-triggered vector. */
  eoi(vector: number): void {
    const s = this.#s;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = s.low[pin];
      if ((entry & 0xff) !== vector || (entry & ENTRY_REMOTE_IRR) === 0) continue;
      s.low[pin] = entry & ~ENTRY_REMOTE_IRR;
      if ((entry & ENTRY_LEVEL) !== 0 && (s.levels & (1 << pin)) !== 0) this.#service(pin);
    }
  }

  #readRegister(): number {
    const s = this.#s;
    const index = s.index;
    if (index >= INDEX_TABLE && index < INDEX_TABLE + 2 * IOAPIC_PINS) {
      const pin = (index - INDEX_TABLE) >> 1;
      return (index & 1) !== 0 ? s.high[pin] : s.low[pin];
    }
    if (index === INDEX_ID || index === INDEX_ARBITRATION) return (s.id << 24) >>> 0;
    return index === INDEX_VERSION ? VERSION : 0;
  }

  #writeRegister(value: number): void {
    const s = this.#s;
    const index = s.index;
    if (index === INDEX_ID) s.id = (value >>> 24) & 15;
    if (index < INDEX_TABLE || index >= INDEX_TABLE + 2 * IOAPIC_PINS) return;
    const pin = (index - INDEX_TABLE) >> 1;
    if ((index & 1) !== 0) {
      s.high[pin] = (value & 0xfffe0000) >>> 0;
      return;
    }
    let entry = value & ENTRY_WRITABLE;
    // Going to edge clears remote IRR: how older systems end a level interrupt without an EOI register.
    if ((entry & ENTRY_LEVEL) !== 0) entry |= s.low[pin] & ENTRY_REMOTE_IRR;
    s.low[pin] = entry;
    if ((entry & ENTRY_LEVEL) !== 0 && (s.levels & (1 << pin)) !== 0) this.#service(pin);
  }

  read(offset: number, size: AccessSize): number {
    if ((offset & 3) + size > 4) return allOnes(size);
    const base = offset & ~3;
    const value = base === OFFSET_INDEX ? this.#s.index : base === OFFSET_DATA ? this.#readRegister() : 0;
    return (value >>> ((offset & 3) * 8)) & allOnes(size);
  }

  write(offset: number, _size: AccessSize, value: number): void {
    if (offset === OFFSET_INDEX) this.#s.index = value & 0xff;
    else if (offset === OFFSET_DATA) this.#writeRegister(value);
    else if (offset === OFFSET_EOI) this.eoi(value & 0xff);
  }

  /** Redirection entries as text, for `info pic`. */
  describe(): string {
    const s = this.#s;
    const lines: string[] = [`ioapic0: id=${s.id} levels=0x${s.levels.toString(16)}`];
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = s.low[pin];
      const flags = [
        (entry & ENTRY_LEVEL) !== 0 ? 'level' : 'edge',
        (entry & ENTRY_LOGICAL) !== 0 ? 'logical' : 'physical',
        ...((entry & ENTRY_MASKED) !== 0 ? ['masked'] : []),
        ...((entry & ENTRY_REMOTE_IRR) !== 0 ? ['irr'] : []),
      ];
      lines.push(
        `  pin ${pin}: vector 0x${(entry & 0xff).toString(16)} mode ${(entry >> 8) & 7} to ${s.high[pin] >>> 24} ${flags.join(' ')}`,
      );
    }
    return lines.join('\n');
  }
}
