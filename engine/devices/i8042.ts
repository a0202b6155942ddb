/**
 * Keyboard controller with keyboard and auxiliary (mouse) interface, ports 0x60 and 0x64.
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller";
 * the translation from set 2 to set 1 is its table "Scan code translation".
 */
import type { IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

const STATUS_OUTPUT_FULL = 0x01;
const STATUS_SYSTEM = 0x04;
const STATUS_COMMAND = 0x08;
const STATUS_UNLOCKED = 0x10;
const STATUS_AUX_FULL = 0x20;

const COMMAND_KEYBOARD_IRQ = 0x01;
const COMMAND_AUX_IRQ = 0x02;
const COMMAND_SYSTEM = 0x04;
const COMMAND_KEYBOARD_OFF = 0x10;
const COMMAND_AUX_OFF = 0x20;
const COMMAND_TRANSLATE = 0x40;

const OUT_NO_RESET = 0x01;
const OUT_A20 = 0x02;
const OUT_KEYBOARD_FULL = 0x10;
const OUT_AUX_FULL = 0x20;
/** Bits without a function here: clock and data lines at rest. */
const OUT_ONES = 0xcc;

const FROM_NONE = 0;
const FROM_KEYBOARD = 1;
const FROM_AUX = 2;

export const i8042State = struct('i8042', 1, {
  /** Controller RAM; byte 0 is the command byte. */
  ram: bytes(32),
  /** STATUS_SYSTEM and STATUS_COMMAND. */
  status: u32,
  /** The command whose data byte comes next, or 0. */
  awaiting: u32,
  output: u32,
  /** Which device the byte in the output buffer is from; 0: it is empty. */
  from: u32,
  /** A reply of the controller that waits for the output buffer, and where it pretends to be from. */
  reply: u32,
  replyFrom: u32,
  /** Translation: F0 came, so the next code is a release. */
  release: u32,
});

/** A device on one of the two interfaces. */
export interface Ps2Device {
  readonly available: boolean;
  take(): number;
  write(value: number): void;
}

export interface I8042Wires {
  readonly keyboard: Ps2Device;
  /** Without one the auxiliary interface is there and silent. */
  readonly mouse?: Ps2Device;
  /** IRQ 1 and IRQ 12. */
  readonly keyboardIrq: IrqLine;
  readonly mouseIrq: IrqLine;
  /** The A20 gate, which port 0x92 shares. */
  readonly a20: { get(): boolean; set(enabled: boolean): void };
  /** Asks for a system reset. */
  reset(): void;
}

export class I8042 {
  readonly #s: View<typeof i8042State.fields>;
  readonly #wires: I8042Wires;
  /** One port: 0x60. */
  readonly data: IoHandler;
  /** One port: 0x64. */
  readonly command: IoHandler;

  constructor(state: View<typeof i8042State.fields>, wires: I8042Wires) {
    this.#s = state;
    this.#wires = wires;
    this.data = { read: () => this.#readData(), write: (_offset, _size, value) => this.#writeData(value & 0xff) };
    this.command = { read: () => this.#readStatus(), write: (_offset, _size, value) => this.#command(value & 0xff) };
  }

  /** As a power-on test leaves it: interrupts and translation on. */
  reset(): void {
    const s = this.#s;
    s.ram.fill(0);
    s.ram[0] = COMMAND_KEYBOARD_IRQ | COMMAND_AUX_IRQ | COMMAND_SYSTEM | COMMAND_TRANSLATE;
    s.status = STATUS_SYSTEM;
    s.awaiting = 0;
    s.output = 0;
    s.from = FROM_NONE;
    s.reply = 0;
    s.replyFrom = FROM_NONE;
    s.release = 0;
    this.#drive();
  }

  /** Moves the next byte to the output buffer where that is empty: a device has something to say, or may again. */
  update(): void {
    const s = this.#s;
    const { keyboard, mouse } = this.#wires;
    if (s.from === FROM_NONE && s.replyFrom !== FROM_NONE) {
      s.output = s.reply;
      s.from = s.replyFrom;
      s.replyFrom = FROM_NONE;
    }
    while (s.from === FROM_NONE && (s.ram[0] & COMMAND_KEYBOARD_OFF) === 0 && keyboard.available)
      this.#fromKeyboard(keyboard.take());
    if (s.from === FROM_NONE && mouse !== undefined && (s.ram[0] & COMMAND_AUX_OFF) === 0 && mouse.available) {
      s.output = mouse.take();
      s.from = FROM_AUX;
    }
    this.#drive();
  }

  #fromKeyboard(code: number): void {
    const s = this.#s;
    if ((s.ram[0] & COMMAND_TRANSLATE) === 0) {
      s.release = 0;
      s.output = code;
    } else if (code === 0xf0) {
      s.release = 0x80;
      return;
    } else {
      s.output = TRANSLATION[code] | s.release;
      s.release = 0;
    }
    s.from = FROM_KEYBOARD;
  }

  #drive(): void {
    const s = this.#s;
    this.#wires.keyboardIrq.set(s.from === FROM_KEYBOARD && (s.ram[0] & COMMAND_KEYBOARD_IRQ) !== 0);
    this.#wires.mouseIrq.set(s.from === FROM_AUX && (s.ram[0] & COMMAND_AUX_IRQ) !== 0);
  }

  #readStatus(): number {
    const s = this.#s;
    const full = s.from === FROM_NONE ? 0 : STATUS_OUTPUT_FULL | (s.from === FROM_AUX ? STATUS_AUX_FULL : 0);
    return s.status | STATUS_UNLOCKED | full;
  }

  #readData(): number {
    const s = this.#s;
    const value = s.output;
    if (s.from !== FROM_NONE) {
      s.from = FROM_NONE;
      // Both lines go low first, so that the next byte makes an edge.
      this.#drive();
      this.update();
    }
    return value;
  }

  #answer(value: number, from = FROM_KEYBOARD): void {
    this.#s.reply = value;
    this.#s.replyFrom = from;
  }

  #command(value: number): void {
    const s = this.#s;
    const { a20 } = this.#wires;
    s.status |= STATUS_COMMAND;
    s.awaiting = 0;
    if (value >= 0x20 && value < 0x40) this.#answer(s.ram[value & 0x1f]);
    else if (value >= 0x60 && value < 0x80) s.awaiting = value;
    // Pulse the output port's low bits that are 0; bit 0 is the reset line.
    else if (value >= 0xf0) {
      if ((value & 1) === 0) this.#wires.reset();
    } else {
      switch (value) {
        case 0xa4: // no password
          this.#answer(0xf1);
          break;
        case 0xa7:
          s.ram[0] |= COMMAND_AUX_OFF;
          break;
        case 0xa8:
          s.ram[0] &= ~COMMAND_AUX_OFF;
          break;
        case 0xa9:
        case 0xab: // interface tests: no error
          this.#answer(0);
          break;
        case 0xaa: // self-test
          s.ram[0] |= COMMAND_SYSTEM;
          s.status |= STATUS_SYSTEM;
          this.#answer(0x55);
          break;
        case 0xad:
          s.ram[0] |= COMMAND_KEYBOARD_OFF;
          break;
        case 0xae:
          s.ram[0] &= ~COMMAND_KEYBOARD_OFF;
          break;
        case 0xc0: // input port: keyboard not locked
          this.#answer(0x80);
          break;
        case 0xd0: {
          const full = s.from === FROM_KEYBOARD ? OUT_KEYBOARD_FULL : s.from === FROM_AUX ? OUT_AUX_FULL : 0;
          this.#answer(OUT_ONES | OUT_NO_RESET | (a20.get() ? OUT_A20 : 0) | full);
          break;
        }
        case 0xd1:
        case 0xd2:
        case 0xd3:
        case 0xd4:
          s.awaiting = value;
          break;
        case 0xdd:
        case 0xdf:
          a20.set(value === 0xdf);
          break;
        case 0xe0: // test inputs: both clocks high
          this.#answer(0x03);
          break;
      }
    }
    this.update();
  }

  #writeData(value: number): void {
    const s = this.#s;
    const { awaiting } = s;
    s.status &= ~STATUS_COMMAND;
    s.awaiting = 0;
    if (awaiting >= 0x60 && awaiting < 0x80) {
      s.ram[awaiting & 0x1f] = value;
      if (awaiting === 0x60) s.status = (s.status & ~STATUS_SYSTEM) | (value & COMMAND_SYSTEM);
    } else if (awaiting === 0xd1) {
      this.#wires.a20.set((value & OUT_A20) !== 0);
      if ((value & OUT_NO_RESET) === 0) this.#wires.reset();
    } else if (awaiting === 0xd2) this.#answer(value);
    else if (awaiting === 0xd3) this.#answer(value, FROM_AUX);
    else if (awaiting === 0xd4) {
      s.ram[0] &= ~COMMAND_AUX_OFF;
      this.#wires.mouse?.write(value);
    } else {
      // Sending to a device turns its interface on.
      s.ram[0] &= ~COMMAND_KEYBOARD_OFF;
      this.#wires.keyboard.write(value);
    }
    this.update();
  }
}

/** Set 2 to set 1. Codes from 0x80 on pass, but for F7 and Alt+SysRq. */
// biome-ignore format: sixteen a line
const TRANSLATION = Uint8Array.of(
  0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
  0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
  0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
  0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
  0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
  0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
  0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
  0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
  ...Array.from({ length: 128 }, (_, i) => (i === 3 ? 0x41 : i === 4 ? 0x54 : 0x80 + i)),
);
