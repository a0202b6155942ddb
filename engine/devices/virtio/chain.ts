/**
 * A descriptor chain that was taken from a queue: the buffers of one request, device-readable ones first.
 * virtio 1.2, 2.6 and 2.7.4.2.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';

/** The most buffers in one chain, the table that an indirect descriptor points to included. */
export const CHAIN_BUFFERS_MAX = 1024;
/** The most bytes in one chain. virtio 1.2, 2.7.5.2. */
export const CHAIN_BYTES_MAX = 2 ** 32;

/** A contiguous run of guest-physical addresses. */
export interface Segment {
  readonly address: number;
  readonly length: number;
}

export class Chain {
  /** What the used ring names this chain by: the head's index (split) or the buffer id (packed). */
  id = 0;
  /** How many entries of the ring it takes. */
  entries = 1;
  /** The device's reset count when it was taken: a reset in between makes it void. */
  epoch = 0;
  readonly readable: Segment[] = [];
  readonly writable: Segment[] = [];
  readableBytes = 0;
  writableBytes = 0;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Adds a buffer; returns what is wrong with it, or undefined. */
  add(address: number, length: number, writable: boolean): string | undefined {
    if (this.readable.length + this.writable.length >= CHAIN_BUFFERS_MAX) return 'chain of too many buffers';
    if (address + length > 2 ** 52) return 'buffer beyond the address space';
    if (this.readableBytes + this.writableBytes + length > CHAIN_BYTES_MAX) return 'chain of more than 4 GiB';
    if (writable) {
      if (length > 0) this.writable.push({ address, length });
      this.writableBytes += length;
      return undefined;
    }
    if (this.writableBytes > 0 || this.writable.length > 0) return 'readable buffer after a writable one';
    if (length > 0) this.readable.push({ address, length });
    this.readableBytes += length;
    return undefined;
  }

  /** Copies from the readable part at `offset`; returns how many bytes there were. */
  read(offset: number, target: Uint8Array): number {
    let done = 0;
    for (const { address, length } of part(this.readable, offset, target.length)) {
      this.#memory.read(address, target.subarray(done, done + length));
      done += length;
    }
    return done;
  }

  /** The first `limit` bytes of the readable part at `offset`, as a copy. */
  readBytes(offset: number, limit: number): Uint8Array {
    const target = new Uint8Array(Math.max(0, Math.min(limit, this.readableBytes - offset)));
    this.read(offset, target);
    return target;
  }

  /** Copies into the writable part at `offset`; returns how many bytes fitted. */
  write(offset: number, source: Uint8Array): number {
    let done = 0;
    for (const { address, length } of part(this.writable, offset, source.length)) {
      this.#memory.write(address, source.subarray(done, done + length));
      done += length;
    }
    return done;
  }

  /**
   * Calls `use` with `length` bytes of the readable part from `offset`, piece by piece and with no copy where guest
   * memory is contiguous. Pieces have at most `PIECE_MAX` bytes. `use` may throw what its back end throws.
   */
  eachReadable(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    let at = 0;
    for (const segment of pieces(this.readable, offset, length)) {
      let data = this.#memory.view(segment.address, segment.length);
      if (data === undefined) {
        data = new Uint8Array(segment.length);
        this.#memory.read(segment.address, data);
      }
      use(data, at);
      at += segment.length;
    }
  }

  /** The same for the writable part: `fill` stores into each piece. */
  eachWritable(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    let at = 0;
    for (const segment of pieces(this.writable, offset, length)) {
      const view = this.#memory.view(segment.address, segment.length);
      if (view !== undefined) {
        fill(view, at);
        this.#memory.written(segment.address, segment.length);
      } else {
        const data = new Uint8Array(segment.length);
        fill(data, at);
        this.#memory.write(segment.address, data);
      }
      at += segment.length;
    }
  }
}

/** Bytes that one call of a back end gets at most, so that no request holds a copy of more. */
export const PIECE_MAX = 2 ** 20;

/** The segments of `length` bytes from `offset`, cut to what there is. */
export function part(segments: readonly Segment[], offset: number, length: number): Segment[] {
  const found: Segment[] = [];
  let skip = offset;
  let left = length;
  for (const segment of segments) {
    if (left <= 0) break;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const count = Math.min(left, segment.length - skip);
    found.push({ address: segment.address + skip, length: count });
    skip = 0;
    left -= count;
  }
  return found;
}

/** `part` in pieces of at most `PIECE_MAX`. */
function* pieces(segments: readonly Segment[], offset: number, length: number): Generator<Segment> {
  for (const segment of part(segments, offset, length)) {
    for (let done = 0; done < segment.length; done += PIECE_MAX)
      yield { address: segment.address + done, length: Math.min(PIECE_MAX, segment.length - done) };
  }
}
