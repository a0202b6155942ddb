/** A byte ring in shared memory, one writer and one reader at a time (the writer holds the machine lock). */
import type { CharSink } from '../bus/chardev.ts';

const WRITE = 0;
const READ = 1;
const HEADER = 64;

export class ByteRing implements CharSink {
  static bytes(capacity: number): number {
    return HEADER + capacity;
  }
  readonly #words: Int32Array;
  readonly #data: Uint8Array;
  readonly #capacity: number;
  /** Rung after a write: whoever reads should look. */
  readonly #ring: () => void;

  /** `capacity` is a power of two. */
  constructor(buffer: ArrayBufferLike, at: number, capacity: number, ring: () => void) {
    this.#words = new Int32Array(buffer, at, HEADER / 4);
    this.#data = new Uint8Array(buffer, at + HEADER, capacity);
    this.#capacity = capacity;
    this.#ring = ring;
  }

  get used(): number {
    return (Atomics.load(this.#words, WRITE) - Atomics.load(this.#words, READ)) >>> 0;
  }

  write(data: Uint8Array): number {
    const at = Atomics.load(this.#words, WRITE) >>> 0;
    const count = Math.min(data.length, this.#capacity - this.used);
    for (let i = 0; i < count; i++) this.#data[(at + i) & (this.#capacity - 1)] = data[i];
    Atomics.store(this.#words, WRITE, (at + count) | 0);
    this.#ring();
    return count;
  }

  /** A copy of what is there, at most `limit` bytes; `consume` takes it off. */
  peek(limit: number): Uint8Array {
    const at = Atomics.load(this.#words, READ) >>> 0;
    const count = Math.min(limit, this.used);
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = this.#data[(at + i) & (this.#capacity - 1)];
    return out;
  }
  consume(count: number): void {
    Atomics.store(this.#words, READ, (Atomics.load(this.#words, READ) + count) | 0);
  }
}
