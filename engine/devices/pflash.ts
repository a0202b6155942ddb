/**
 * Parallel NOR flash with Intel's command set, as a PC keeps its firmware's variables in. Common Flash Interface, JEDEC
 * JESD68.01 and JEP137; Intel StrataFlash J3 data sheet, chapters 9 to 11 (commands and status).
 *
 * One chip, eight bits wide. What it holds lies in memory that its owner gives; which part of that was changed is told
 * through `dirty`, for whoever keeps it in a file.
 */
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

const BLOCK = 4096;
const BUFFER = 32;

/** Modes: what reads give, or what the next write means. */
const ARRAY = 0;
const STATUS = 1;
const ID = 2;
const CFI = 3;
const PROGRAM = 4;
const ERASE = 5;
const BUFFER_COUNT = 6;
const BUFFER_DATA = 7;
const BUFFER_CONFIRM = 8;
const LOCK = 9;

/**
 * Status register: ready, and errors of programming and erasing. A real chip shows READY whenever it is idle; OVMF, whose
 * only such chip is an emulated one, takes a status of zero after CLEAR STATUS for the sign that this is flash.
 */
const READY = 0x80;
const ERASE_ERROR = 0x20;
const PROGRAM_ERROR = 0x10;
const LOCKED = 0x02;

export const pflashState = struct('pflash', 1, {
  mode: u32,
  status: u32,
  /** A buffered write: first address, how many bytes are to come, and what came. */
  start: u32,
  left: u32,
  count: u32,
  buffer: bytes(BUFFER),
});

/** First changed byte and end of what was changed since it was last kept; end 0: nothing. */
export const pflashDirty = struct('pflash-dirty', 1, { first: u32, end: u32 }, 'host');

export interface PflashWires {
  /** The whole contents; a multiple of 4 KiB. */
  readonly contents: Uint8Array;
  readonly readOnly?: boolean;
  readonly dirty: View<typeof pflashDirty.fields>;
  /** The guest has ended a change. */
  changed(): void;
}

export class Pflash implements IoHandler {
  readonly #s: View<typeof pflashState.fields>;
  readonly #wires: PflashWires;

  constructor(state: View<typeof pflashState.fields>, wires: PflashWires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    this.#s.mode = ARRAY;
    this.#s.status = 0;
    this.#s.left = 0;
  }

  read(offset: number, size: AccessSize): number {
    const s = this.#s;
    if (s.mode === ARRAY) {
      const { contents } = this.#wires;
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + (contents[offset + i] ?? 0xff);
      return value >>> 0;
    }
    if (s.mode === ID) {
      // Manufacturer Intel, a J3 of 32 Mbit, block not locked.
      return [0x89, 0x16, 0][offset & 0xff] ?? 0;
    }
    if (s.mode === CFI) return cfiByte(offset & 0xff, this.#wires.contents.length);
    // Status on every lane that is read.
    return (s.status * 0x01010101) & allOnes(size);
  }

  write(offset: number, size: AccessSize, value: number): void {
    const s = this.#s;
    const byte = value & 0xff;
    switch (s.mode) {
      case PROGRAM:
        for (let i = 0; i < size; i++) this.#program(offset + i, (value >>> (8 * i)) & 0xff);
        s.status |= READY;
        s.mode = STATUS;
        return;
      case ERASE:
        if (byte === 0xd0) this.#erase(offset);
        else s.status |= ERASE_ERROR | PROGRAM_ERROR;
        s.status |= READY;
        s.mode = STATUS;
        return;
      case LOCK: // set and clear lock bits: there are none to keep
        if (byte !== 0x01 && byte !== 0xd0) s.status |= ERASE_ERROR | PROGRAM_ERROR;
        s.status |= READY;
        s.mode = STATUS;
        return;
      case BUFFER_COUNT:
        s.left = byte + 1;
        s.count = 0;
        if (s.left > BUFFER) {
          s.status |= PROGRAM_ERROR;
          s.mode = STATUS;
        } else s.mode = BUFFER_DATA;
        return;
      case BUFFER_DATA:
        if (s.count === 0) s.start = offset;
        for (let i = 0; i < size && s.left > 0; i++, s.left--) s.buffer[s.count++] = (value >>> (8 * i)) & 0xff;
        if (s.left === 0) s.mode = BUFFER_CONFIRM;
        return;
      case BUFFER_CONFIRM:
        if (byte === 0xd0) for (let i = 0; i < s.count; i++) this.#program(s.start + i, s.buffer[i]);
        else s.status |= PROGRAM_ERROR;
        s.status |= READY;
        s.mode = STATUS;
        return;
    }
    this.#command(byte);
  }

  #command(byte: number): void {
    const s = this.#s;
    switch (byte) {
      case 0x10:
      case 0x40:
        s.mode = PROGRAM;
        return;
      case 0x20:
      case 0x28:
        s.mode = ERASE;
        return;
      case 0x50:
        s.status = 0;
        s.mode = ARRAY;
        return;
      case 0x60:
        s.mode = LOCK;
        return;
      case 0x70:
        s.mode = STATUS;
        return;
      case 0x90:
        s.mode = ID;
        return;
      case 0x98:
        s.mode = CFI;
        return;
      case 0xe8:
        s.mode = BUFFER_COUNT;
        s.status |= READY;
        return;
      default:
        // Read array, and what is no command.
        s.mode = ARRAY;
        if (this.#wires.dirty.end !== 0) this.#wires.changed();
    }
  }

  /** Programming clears bits; it sets none. */
  #program(offset: number, byte: number): void {
    const { contents, readOnly } = this.#wires;
    if (readOnly === true) this.#s.status |= PROGRAM_ERROR | LOCKED;
    else if (offset < contents.length) {
      contents[offset] &= byte;
      this.#touch(offset, offset + 1);
    }
  }

  #erase(offset: number): void {
    const { contents, readOnly } = this.#wires;
    const first = Math.floor(offset / BLOCK) * BLOCK;
    if (readOnly === true) {
      this.#s.status |= ERASE_ERROR | LOCKED;
      return;
    }
    contents.fill(0xff, first, first + BLOCK);
    this.#touch(first, Math.min(contents.length, first + BLOCK));
  }

  #touch(first: number, end: number): void {
    const { dirty } = this.#wires;
    dirty.first = dirty.end === 0 ? first : Math.min(dirty.first, first);
    dirty.end = Math.max(dirty.end, end);
  }
}

/** The query structure. JESD68.01, 4; device geometry: JEP137. */
function cfiByte(at: number, size: number): number {
  const blocks = size / BLOCK - 1;
  const table: Readonly<Record<number, number>> = {
    16: 0x51, // QRY
    17: 0x52,
    18: 0x59,
    19: 0x01, // Intel's command set
    21: 0x31,
    27: 0x45, // 4.5 V to 5.5 V
    28: 0x55,
    31: 0x07, // typical times, as powers of two
    32: 0x07,
    33: 0x0a,
    39: Math.ceil(Math.log2(size)),
    42: Math.log2(BUFFER),
    44: 0x01, // one region of equal blocks
    45: blocks & 0xff,
    46: (blocks >> 8) & 0xff,
    47: (BLOCK >> 8) & 0xff,
    48: BLOCK >> 16,
    49: 0x50, // PRI, version 1.0
    50: 0x52,
    51: 0x49,
    52: 0x31,
    53: 0x30,
  };
  return table[at] ?? 0;
}
