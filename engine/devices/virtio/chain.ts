/**
 * A descriptor chain that was taken from a queue: the buffers of one request, device-readable ones first.
 * virtio 1.2, 2.6 and 2.7.4.2.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { ScatterList, type Segment } from '../scatter.ts';

/** The most buffers in one chain, the table that an indirect descriptor points to included. */
export const CHAIN_BUFFERS_MAX = 1024;
/** The most bytes in one chain. virtio 1.2, 2.7.5.2. */
export const CHAIN_BYTES_MAX = 2 ** 32;

export class Chain {
  /** What the used ring names this chain by: the head's index (split) or the buffer id (packed). */
  id = 0;
  /** How many entries of the ring it takes. */
  entries = 1;
  /** The device's reset count when it was taken: a reset in between makes it void. */
  epoch = 0;
  readonly #readable: ScatterList;
  readonly #writable: ScatterList;
  #buffers = 0;

  constructor(memory: GuestMemory) {
    this.#readable = new ScatterList(memory);
    this.#writable = new ScatterList(memory);
  }

  get readable(): readonly Segment[] {
    return this.#readable.segments;
  }
  get writable(): readonly Segment[] {
    return this.#writable.segments;
  }
  get readableBytes(): number {
    return this.#readable.bytes;
  }
  get writableBytes(): number {
    return this.#writable.bytes;
  }

  /** Adds a buffer; returns what is wrong with it, or undefined. */
  add(address: number, length: number, writable: boolean): string | undefined {
    if (++this.#buffers > CHAIN_BUFFERS_MAX) return 'chain of too many buffers';
    if (address + length > 2 ** 52) return 'buffer beyond the address space';
    if (this.readableBytes + this.writableBytes + length > CHAIN_BYTES_MAX) return 'chain of more than 4 GiB';
    if (!writable && this.writableBytes > 0) return 'readable buffer after a writable one';
    (writable ? this.#writable : this.#readable).add(address, length);
    return undefined;
  }

  /** Copies from the readable part at `offset`; returns how many bytes there were. */
  read(offset: number, target: Uint8Array): number {
    return this.#readable.read(offset, target);
  }

  /** The first `limit` bytes of the readable part at `offset`, as a copy. */
  readBytes(offset: number, limit: number): Uint8Array {
    const target = new Uint8Array(Math.max(0, Math.min(limit, this.readableBytes - offset)));
    this.read(offset, target);
    return target;
  }

  /** Copies into the writable part at `offset`; returns how many bytes fitted. */
  write(offset: number, source: Uint8Array): number {
    return this.#writable.write(offset, source);
  }

  /** Calls `use` with `length` bytes of the readable part from `offset`, see `ScatterList.each`. */
  eachReadable(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    this.#readable.each(offset, length, use);
  }

  /** The same for the writable part: `fill` stores into each piece. */
  eachWritable(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    this.#writable.eachInto(offset, length, fill);
  }
}
