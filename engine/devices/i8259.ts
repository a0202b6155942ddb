/**
 * The PC's two interrupt controllers, the second on input 2 of the first.
 * Intel 8259A data sheet (231468-003): ICW1-4, OCW1-3, fully nested and special modes, poll;
 * Intel 82371SB (PIIX3) data sheet 2.5.2 and 2.5.12: the edge/level control registers.
 *
 * An edge stays latched when its line falls before the acknowledge (the chip proper would then give IRQ 7):
 * some of our devices pulse their line. What a level-triggered line does is as the data sheet says.
 */
import { allOnes, type IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, struct, type View } from '../memory/struct.ts';

const MASTER = 0;
const SLAVE = 1;
const CASCADE_BIT = 1 << 2;

const ICW1_SELECT = 0x10;
const ICW1_NEEDS_ICW4 = 0x01;
const ICW1_SINGLE = 0x02;
const ICW4_AUTO_EOI = 0x02;
const ICW4_SPECIAL_NESTED = 0x10;

const OCW3_SELECT = 0x08;
const OCW3_POLL = 0x04;
const OCW3_READ_COMMAND = 0x02;
const OCW3_READ_ISR = 0x01;
const OCW3_MASK_COMMAND = 0x40;
const OCW3_SPECIAL_MASK = 0x20;

/** Inputs that may be level triggered: not the timer, keyboard, cascade, RTC and FPU. */
const ELCR_WRITABLE = [0xf8, 0xde];

/** What the next write to the odd port is. */
const EXPECT_MASK = 0;
const EXPECT_ICW2 = 1;
const EXPECT_ICW3 = 2;
const EXPECT_ICW4 = 3;

/** Each field holds the first chip's value, then the second's. */
export const i8259State = struct('i8259', 1, {
  irr: bytes(2),
  isr: bytes(2),
  imr: bytes(2),
  /** The inputs' levels as they are, and as the edge detectors remember them. */
  lines: bytes(2),
  sensed: bytes(2),
  elcr: bytes(2),
  vector: bytes(2),
  expect: bytes(2),
  needsIcw4: bytes(2),
  single: bytes(2),
  autoEoi: bytes(2),
  rotateOnAutoEoi: bytes(2),
  specialNested: bytes(2),
  specialMask: bytes(2),
  readIsr: bytes(2),
  poll: bytes(2),
  /** The input of highest priority. */
  top: bytes(2),
});

export interface I8259Wires {
  /** INTR: to the first CPU, or to LINT0 of the local APICs. */
  readonly intr: IrqLine;
}

export class I8259 {
  readonly #s: View<typeof i8259State.fields>;
  readonly #wires: I8259Wires;
  /** The inputs IRQ0 to IRQ15. Input 2 is the cascade: setting it has no effect. */
  readonly lines: readonly IrqLine[];
  /** Two ports: 0x20. */
  readonly master: IoHandler;
  /** Two ports: 0xa0. */
  readonly slave: IoHandler;
  /** Two ports: 0x4d0. */
  readonly elcr: IoHandler;

  constructor(state: View<typeof i8259State.fields>, wires: I8259Wires) {
    this.#s = state;
    this.#wires = wires;
    this.lines = Array.from({ length: 16 }, (_, line) => ({
      set: (level: boolean): void => {
        if (line === 2) return;
        this.#setLine(line >> 3, 1 << (line & 7), level);
        this.#update();
      },
    }));
    this.master = this.#ports(MASTER);
    this.slave = this.#ports(SLAVE);
    this.elcr = {
      read: (offset, size) => (size === 2 && offset === 0 ? state.elcr[0] | (state.elcr[1] << 8) : state.elcr[offset & 1]),
      write: (offset, size, value) => {
        for (let i = 0; i < size && offset + i < 2; i++) this.#setElcr(offset + i, (value >>> (8 * i)) & 0xff);
        this.#update();
      },
    };
  }

  reset(): void {
    for (const chip of [MASTER, SLAVE]) {
      this.#s.elcr[chip] = 0;
      this.#s.lines[chip] = 0;
      this.#initialise(chip);
      this.#s.irr[chip] = 0;
      this.#s.expect[chip] = EXPECT_MASK;
    }
    this.#wires.intr.set(false);
  }

  /** True while INTR is asserted. */
  get pending(): boolean {
    return this.#winner(MASTER) >= 0;
  }

  /** The interrupt acknowledge cycle: the vector of the interrupt that is taken now. 8259A, "Interrupt sequence". */
  acknowledge(): number {
    const s = this.#s;
    const input = this.#winner(MASTER);
    if (input < 0) {
      this.#update();
      return s.vector[MASTER] | 7; // nothing asks any more: a spurious interrupt, with no bit in service
    }
    this.#take(MASTER, input);
    if (input !== 2 || s.single[MASTER] !== 0) {
      this.#update();
      return s.vector[MASTER] | input;
    }
    const second = this.#winner(SLAVE);
    if (second >= 0) this.#take(SLAVE, second);
    // The second chip drops its output between two requests, so that the first sees an edge for each.
    this.#setLine(MASTER, CASCADE_BIT, false);
    this.#update();
    return s.vector[SLAVE] | (second < 0 ? 7 : second);
  }

  #setLine(chip: number, bit: number, level: boolean): void {
    const s = this.#s;
    if (level) {
      if ((s.elcr[chip] & bit) !== 0 || (s.sensed[chip] & bit) === 0) s.irr[chip] |= bit;
      s.lines[chip] |= bit;
      s.sensed[chip] |= bit;
    } else {
      if ((s.elcr[chip] & bit) !== 0) s.irr[chip] &= ~bit;
      s.lines[chip] &= ~bit;
      s.sensed[chip] &= ~bit;
    }
  }

  #setElcr(chip: number, value: number): void {
    const s = this.#s;
    s.elcr[chip] = value & ELCR_WRITABLE[chip];
    // Level inputs follow their line from now on.
    s.irr[chip] = (s.irr[chip] & ~s.elcr[chip]) | (s.lines[chip] & s.elcr[chip]);
  }

  /** The bit of highest priority in `set` by its distance from the top, 8 where it is empty. */
  #rank(chip: number, set: number): number {
    const top = this.#s.top[chip];
    for (let rank = 0; rank < 8; rank++) if ((set & (1 << ((top + rank) & 7))) !== 0) return rank;
    return 8;
  }

  /** The input that asks for service now, or -1. */
  #winner(chip: number): number {
    const s = this.#s;
    const rank = this.#rank(chip, s.irr[chip] & ~s.imr[chip]);
    if (rank === 8) return -1;
    let serving = s.isr[chip];
    if (s.specialMask[chip] !== 0) serving &= ~s.imr[chip];
    if (s.specialNested[chip] !== 0 && chip === MASTER) serving &= ~CASCADE_BIT;
    return rank < this.#rank(chip, serving) ? (s.top[chip] + rank) & 7 : -1;
  }

  #take(chip: number, input: number): void {
    const s = this.#s;
    const bit = 1 << input;
    if ((s.elcr[chip] & bit) === 0) s.irr[chip] &= ~bit;
    if (s.autoEoi[chip] === 0) s.isr[chip] |= bit;
    else if (s.rotateOnAutoEoi[chip] !== 0) s.top[chip] = (input + 1) & 7;
  }

  #update(): void {
    const asks = this.#winner(SLAVE) >= 0;
    if (asks !== ((this.#s.lines[MASTER] & CASCADE_BIT) !== 0)) this.#setLine(MASTER, CASCADE_BIT, asks);
    // A slave that stopped asking before the acknowledge takes its request back.
    if (!asks) this.#s.irr[MASTER] &= ~CASCADE_BIT;
    this.#wires.intr.set(this.#winner(MASTER) >= 0);
  }

  /** ICW1: everything but ELCR and the lines starts afresh. */
  #initialise(chip: number): void {
    const s = this.#s;
    s.sensed[chip] = 0;
    s.irr[chip] &= s.elcr[chip];
    for (const field of [s.isr, s.imr, s.vector, s.autoEoi, s.rotateOnAutoEoi, s.specialNested, s.specialMask]) field[chip] = 0;
    for (const field of [s.readIsr, s.poll, s.top, s.needsIcw4, s.single]) field[chip] = 0;
    if (chip === MASTER) s.lines[MASTER] &= ~CASCADE_BIT;
  }

  #ports(chip: number): IoHandler {
    return {
      read: (offset, size) => (size === 1 ? this.#read(chip, offset) : allOnes(size)),
      write: (offset, _size, value) => {
        if (offset === 0) this.#writeEven(chip, value & 0xff);
        else this.#writeOdd(chip, value & 0xff);
        this.#update();
      },
    };
  }

  #read(chip: number, offset: number): number {
    const s = this.#s;
    if (s.poll[chip] !== 0) {
      s.poll[chip] = 0;
      const input = this.#winner(chip);
      if (input < 0) return 0;
      this.#take(chip, input);
      if (chip === SLAVE) this.#setLine(MASTER, CASCADE_BIT, false);
      this.#update();
      return 0x80 | input;
    }
    if (offset === 1) return s.imr[chip];
    return s.readIsr[chip] !== 0 ? s.isr[chip] : s.irr[chip];
  }

  #writeEven(chip: number, value: number): void {
    const s = this.#s;
    if ((value & ICW1_SELECT) !== 0) {
      this.#initialise(chip);
      s.needsIcw4[chip] = value & ICW1_NEEDS_ICW4;
      s.single[chip] = value & ICW1_SINGLE;
      s.expect[chip] = EXPECT_ICW2;
    } else if ((value & OCW3_SELECT) !== 0) {
      if ((value & OCW3_POLL) !== 0) s.poll[chip] = 1;
      if ((value & OCW3_READ_COMMAND) !== 0) s.readIsr[chip] = value & OCW3_READ_ISR;
      if ((value & OCW3_MASK_COMMAND) !== 0) s.specialMask[chip] = value & OCW3_SPECIAL_MASK;
    } else this.#ocw2(chip, value >> 5, value & 7);
  }

  /** OCW2: `command` is R, SL, EOI. */
  #ocw2(chip: number, command: number, level: number): void {
    const s = this.#s;
    switch (command) {
      case 0:
      case 4:
        s.rotateOnAutoEoi[chip] = command >> 2;
        break;
      case 1:
      case 5: {
        // In special mask mode a masked level is not ended by an EOI that does not name it.
        const rank = this.#rank(chip, s.specialMask[chip] !== 0 ? s.isr[chip] & ~s.imr[chip] : s.isr[chip]);
        if (rank === 8) break;
        const input = (s.top[chip] + rank) & 7;
        s.isr[chip] &= ~(1 << input);
        if (command === 5) s.top[chip] = (input + 1) & 7;
        break;
      }
      case 3:
      case 7:
        s.isr[chip] &= ~(1 << level);
        if (command === 7) s.top[chip] = (level + 1) & 7;
        break;
      case 6:
        s.top[chip] = (level + 1) & 7;
        break;
    }
  }

  #writeOdd(chip: number, value: number): void {
    const s = this.#s;
    switch (s.expect[chip]) {
      case EXPECT_ICW2:
        s.vector[chip] = value & 0xf8;
        s.expect[chip] = s.single[chip] === 0 ? EXPECT_ICW3 : s.needsIcw4[chip] !== 0 ? EXPECT_ICW4 : EXPECT_MASK;
        break;
      case EXPECT_ICW3: // the wiring is fixed
        s.expect[chip] = s.needsIcw4[chip] !== 0 ? EXPECT_ICW4 : EXPECT_MASK;
        break;
      case EXPECT_ICW4:
        s.autoEoi[chip] = value & ICW4_AUTO_EOI;
        s.specialNested[chip] = value & ICW4_SPECIAL_NESTED;
        s.expect[chip] = EXPECT_MASK;
        break;
      default:
        s.imr[chip] = value;
    }
  }

  /** Registers as text, for `info pic`. */
  describe(): string {
    const s = this.#s;
    const hex = (value: number): string => value.toString(16).padStart(2, '0');
    return [MASTER, SLAVE]
      .map(
        (chip) =>
          `pic${chip}: irr=${hex(s.irr[chip])} imr=${hex(s.imr[chip])} isr=${hex(s.isr[chip])} vector=0x${hex(s.vector[chip])} ` +
          `elcr=${hex(s.elcr[chip])} top=${s.top[chip]}${s.autoEoi[chip] !== 0 ? ' auto-eoi' : ''}`,
      )
      .join('\n');
  }
}
