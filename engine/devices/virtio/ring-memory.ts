/**
 * A piece of guest memory that driver and device both touch while they run: ring indexes and descriptors.
 *
 * Single words are read and written in one access (the driver runs on another thread and must never see half an
 * index), and index words with sequential consistency, which gives the barriers that virtio 1.2, 2.7.13.4.1 and 2.7.7
 * ask for between publishing an index and looking at the other side's notification switch.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';

/** Below this address the chipset may swap RAM and ROM at any time, so views are not kept. */
const STABLE_FROM = 0x100000;

export class RingMemory {
  readonly address: number;
  readonly length: number;
  readonly #memory: GuestMemory;
  readonly #words: Uint16Array | undefined;
  readonly #dwords: Uint32Array | undefined;

  constructor(memory: GuestMemory, address: number, length: number) {
    this.address = address;
    this.length = length;
    this.#memory = memory;
    const view = address >= STABLE_FROM ? memory.view(address, length) : undefined;
    if (view !== undefined && view.byteOffset % 4 === 0) {
      this.#words = new Uint16Array(view.buffer, view.byteOffset, length >> 1);
      this.#dwords = new Uint32Array(view.buffer, view.byteOffset, length >> 2);
    }
  }

  #one(offset: number): Uint16Array | undefined {
    const view = this.#memory.view(this.address + offset, 2);
    return view !== undefined && view.byteOffset % 2 === 0 ? new Uint16Array(view.buffer, view.byteOffset, 1) : undefined;
  }

  /** Reads a 16-bit word at an even offset, ordered with all other accesses. */
  load16(offset: number): number {
    if (this.#words !== undefined) return Atomics.load(this.#words, offset >> 1);
    const one = this.#one(offset);
    return one === undefined ? this.#memory.read16(this.address + offset) : Atomics.load(one, 0);
  }

  /** Writes a 16-bit word at an even offset, ordered with all other accesses. */
  store16(offset: number, value: number): void {
    const at = this.address + offset;
    if (this.#words !== undefined) Atomics.store(this.#words, offset >> 1, value);
    else {
      const one = this.#one(offset);
      if (one === undefined) return this.#memory.write16(at, value);
      Atomics.store(one, 0, value);
    }
    this.#memory.written(at, 2);
  }

  /** Reads a 16-bit word that the other side does not change meanwhile. */
  get16(offset: number): number {
    return this.#words !== undefined ? this.#words[offset >> 1] : this.#memory.read16(this.address + offset);
  }

  /** Reads a 32-bit word at an offset that is a multiple of 4. */
  get32(offset: number): number {
    return this.#dwords !== undefined ? this.#dwords[offset >> 2] : this.#memory.read32(this.address + offset);
  }

  /** A 64-bit word; exact below 2^53, which every valid address is. */
  get64(offset: number): number {
    return this.get32(offset) + this.get32(offset + 4) * 2 ** 32;
  }

  set16(offset: number, value: number): void {
    this.#memory.write16(this.address + offset, value);
  }

  set32(offset: number, value: number): void {
    this.#memory.write32(this.address + offset, value);
  }
}
