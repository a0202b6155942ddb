/**
 * The two DMA controllers of a PC, with their page registers. Intel 8237A data sheet (231466); wiring and page registers of
 * the 82371SB (PIIX3, 290550), 2.5.1. Channels 0 to 3 move bytes, 5 to 7 words; 4 is the cascade.
 *
 * A device moves a stretch of its channel in one go: `write`, or `peek` and `skip`. Memory to memory transfers, rotating priority and compressed timing have no effect, as in the chipset.
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { struct, u32, u32s, type View } from '../memory/struct.ts';

/** Ports of the controllers: the first with one register a port, the second with one every two ports; pages. */
export const DMA_PORTS = {
  first: { base: 0x00, length: 16 },
  second: { base: 0xc0, length: 32 },
  pages: { base: 0x80, length: 16 },
} as const;

/** Page register of each channel, by offset from 0x80; the others keep what is written. */
const PAGE_OF = [7, 3, 1, 2, 15, 11, 9, 10];

const STATUS = 8;
const REQUEST = 9;
const SINGLE_MASK = 10;
const MODE = 11;
const CLEAR_FLIP_FLOP = 12;
const MASTER_CLEAR = 13;
const CLEAR_MASK = 14;
const ALL_MASK = 15;
const COMMAND_DISABLED = 4;

const MODE_KIND = 0x0c;
const MODE_WRITE = 0x04;
const MODE_READ = 0x08;
const MODE_AUTO = 0x10;
const MODE_DOWN = 0x20;

export const i8237State = struct('i8237', 1, {
  baseAddress: u32s(8),
  baseCount: u32s(8),
  address: u32s(8),
  /** Transfers left less one; -1 as 0xffff when none is left. */
  count: u32s(8),
  mode: u32s(8),
  pages: u32s(16),
  /** One bit a channel. */
  mask: u32,
  reached: u32,
  requested: u32,
  /** Of each controller. */
  flipFlop: u32s(2),
  command: u32s(2),
});

/** What a channel is programmed for: data to memory, from memory, or nothing moved. */
export type DmaKind = 'to-memory' | 'from-memory' | 'verify';

export class I8237 {
  readonly #s: View<typeof i8237State.fields>;
  readonly #memory: GuestMemory;
  /** The guest may have made a channel ready that was not. */
  unmasked: () => void = () => {};
  readonly first: IoHandler;
  readonly second: IoHandler;
  readonly pages: IoHandler;

  constructor(state: View<typeof i8237State.fields>, memory: GuestMemory) {
    this.#s = state;
    this.#memory = memory;
    const chip = (n: number, shift: number): IoHandler => ({
      read: (offset) => ((offset & ((1 << shift) - 1)) === 0 ? this.#read(n, offset >> shift) : 0xff),
      write: (offset, size, value) => {
        for (let i = 0; i < size; i++)
          if (((offset + i) & ((1 << shift) - 1)) === 0) this.#write(n, (offset + i) >> shift, (value >>> (8 * i)) & 0xff);
      },
    });
    this.first = chip(0, 0);
    this.second = chip(1, 1);
    this.pages = {
      read: (offset: number, size: AccessSize) => {
        let value = 0;
        for (let i = size - 1; i >= 0; i--) value = (value << 8) | (state.pages[(offset + i) & 15] & 0xff);
        return value >>> 0;
      },
      write: (offset: number, size: AccessSize, value: number) => {
        for (let i = 0; i < size; i++) state.pages[(offset + i) & 15] = (value >>> (8 * i)) & 0xff;
      },
    };
  }

  reset(): void {
    this.#clear(0);
    this.#clear(1);
    const s = this.#s;
    for (const field of ['baseAddress', 'baseCount', 'address', 'count', 'mode', 'pages'] as const) s[field].fill(0);
  }

  #clear(chip: number): void {
    const s = this.#s;
    s.flipFlop[chip] = 0;
    s.command[chip] = 0;
    s.mask |= 15 << (4 * chip);
    s.reached &= ~(15 << (4 * chip));
    s.requested &= ~(15 << (4 * chip));
  }

  #read(chip: number, register: number): number {
    const s = this.#s;
    if (register < 8) {
      const channel = chip * 4 + (register >> 1);
      const value = (register & 1) === 0 ? s.address[channel] : s.count[channel];
      const high = s.flipFlop[chip];
      s.flipFlop[chip] ^= 1;
      return (value >> (8 * high)) & 0xff;
    }
    if (register === STATUS) {
      const value = ((s.reached >> (4 * chip)) & 15) | (((s.requested >> (4 * chip)) & 15) << 4);
      s.reached &= ~(15 << (4 * chip));
      return value;
    }
    if (register === ALL_MASK) return 0xf0 | ((s.mask >> (4 * chip)) & 15);
    return 0;
  }

  #write(chip: number, register: number, value: number): void {
    const s = this.#s;
    const bit = (n: number): number => 1 << (4 * chip + n);
    if (register < 8) {
      const channel = chip * 4 + (register >> 1);
      const [base, current] = (register & 1) === 0 ? [s.baseAddress, s.address] : [s.baseCount, s.count];
      const shift = 8 * s.flipFlop[chip];
      s.flipFlop[chip] ^= 1;
      base[channel] = (base[channel] & ~(0xff << shift)) | (value << shift);
      current[channel] = base[channel];
      return;
    }
    switch (register) {
      case STATUS:
        s.command[chip] = value;
        break;
      case REQUEST:
        if ((value & 4) !== 0) s.requested |= bit(value & 3);
        else s.requested &= ~bit(value & 3);
        return;
      case SINGLE_MASK:
        if ((value & 4) !== 0) s.mask |= bit(value & 3);
        else s.mask &= ~bit(value & 3);
        break;
      case MODE:
        s.mode[chip * 4 + (value & 3)] = value;
        return;
      case CLEAR_FLIP_FLOP:
        s.flipFlop[chip] = 0;
        return;
      case MASTER_CLEAR:
        this.#clear(chip);
        return;
      case CLEAR_MASK:
        s.mask &= ~(15 << (4 * chip));
        break;
      default:
        s.mask = (s.mask & ~(15 << (4 * chip))) | ((value & 15) << (4 * chip));
    }
    this.unmasked();
  }

  // --- what devices use, with the machine lock held -----------------------------------------------------------------------

  /** Whether a channel would answer a request. */
  ready(channel: number): boolean {
    const s = this.#s;
    return ((s.mask >> channel) & 1) === 0 && (s.command[channel >> 2] & COMMAND_DISABLED) === 0;
  }

  kind(channel: number): DmaKind {
    const kind = this.#s.mode[channel] & MODE_KIND;
    return kind === MODE_WRITE ? 'to-memory' : kind === MODE_READ ? 'from-memory' : 'verify';
  }

  /** Bytes until the terminal count. */
  left(channel: number): number {
    return (this.#s.count[channel] + 1) * (channel < 4 ? 1 : 2);
  }

  /** Moves data into memory, at most `left` bytes; true where that was the last: the terminal count. */
  write(channel: number, source: Uint8Array): boolean {
    const data = (this.#s.mode[channel] & MODE_DOWN) === 0 ? source : source.toReversed();
    this.#pieces(channel, data.length, (address, at, length) => this.#memory.write(address, data.subarray(at, at + length)));
    return this.#moved(channel, data.length);
  }

  /** Takes data from memory without counting it: `skip` does, once it is known how much was used. */
  peek(channel: number, data: Uint8Array): void {
    this.#pieces(channel, data.length, (address, at, length) => this.#memory.read(address, data.subarray(at, at + length)));
    if ((this.#s.mode[channel] & MODE_DOWN) !== 0) data.reverse();
  }

  /** Counts bytes, as moved or as not to be moved; true where the last of them was counted. */
  skip(channel: number, bytes: number): boolean {
    return this.#moved(channel, bytes);
  }

  /** The stretches of memory that the next `length` bytes lie in; addresses stay inside their page of 64 or 128 KiB. */
  #pieces(channel: number, length: number, use: (address: number, at: number, length: number) => void): void {
    const s = this.#s;
    const wide = channel >= 4;
    const page = s.pages[PAGE_OF[channel]];
    const base = (wide ? page & 0xfe : page) * 0x10000;
    const span = wide ? 0x20000 : 0x10000;
    let from = s.address[channel] * (wide ? 2 : 1);
    if ((s.mode[channel] & MODE_DOWN) !== 0) {
      // Downwards: the last byte lies lowest. Turned round, it is a stretch upwards that ends here.
      from = (((from - length + 1) % span) + span) % span;
    }
    for (let at = 0; at < length; ) {
      const here = (from + at) % span;
      const part = Math.min(length - at, span - here);
      use(base + here, at, part);
      at += part;
    }
  }

  #moved(channel: number, bytes: number): boolean {
    const s = this.#s;
    const steps = channel < 4 ? bytes : Math.floor(bytes / 2);
    const down = (s.mode[channel] & MODE_DOWN) !== 0;
    const last = steps > s.count[channel];
    s.address[channel] = (s.address[channel] + (down ? -steps : steps)) & 0xffff;
    s.count[channel] = (s.count[channel] - steps) & 0xffff;
    if (!last) return false;
    s.reached |= 1 << channel;
    if ((s.mode[channel] & MODE_AUTO) !== 0) {
      s.address[channel] = s.baseAddress[channel];
      s.count[channel] = s.baseCount[channel];
    } else s.mask |= 1 << channel;
    return true;
  }
}
