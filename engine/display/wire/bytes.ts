/** A first-in, first-out queue of bytes with a bound, for input that arrives in any split. */
export class ByteQueue {
  readonly #limit: number;
  #buffer = new Uint8Array(256);
  #start = 0;
  #end = 0;

  /** `limit`: the most bytes held at once. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** How many more bytes fit. */
  get room(): number {
    return this.#limit - this.length;
  }

  /** Appends as many bytes of `data` from `offset` on as fit; returns how many. */
  push(data: Uint8Array, offset = 0): number {
    const count = Math.min(data.length - offset, this.room);
    if (this.#end + count > this.#buffer.length) this.#makeRoom(count);
    this.#buffer.set(data.subarray(offset, offset + count), this.#end);
    this.#end += count;
    return count;
  }

  /** The bytes held, as a view that is valid until the next `push` or `drop`. */
  view(): Uint8Array {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Removes the first `count` bytes (at most all). */
  drop(count: number): void {
    this.#start = Math.min(this.#end, this.#start + count);
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      if (this.#buffer.length > 65536) this.#buffer = new Uint8Array(256);
    }
  }

  #makeRoom(count: number): void {
    const length = this.length;
    let capacity = this.#buffer.length;
    while (capacity < length + count) capacity *= 2;
    const target = capacity === this.#buffer.length ? this.#buffer : new Uint8Array(capacity);
    target.set(this.view());
    this.#buffer = target;
    this.#start = 0;
    this.#end = length;
  }
}

/** A growing buffer of big-endian fields (RFC 6143 7: all multiple-byte integers are big endian). */
export class ByteWriter {
  #buffer: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  constructor(capacity = 1024) {
    this.#buffer = new Uint8Array(capacity);
    this.#view = new DataView(this.#buffer.buffer);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.reserve(1);
    this.#buffer[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.reserve(4);
    this.#view.setUint32(at, value);
    return this;
  }

  bytes(data: Uint8Array): this {
    const at = this.reserve(data.length);
    this.#buffer.set(data, at);
    return this;
  }

  zeros(count: number): this {
    const at = this.reserve(count);
    this.#buffer.fill(0, at, at + count);
    return this;
  }

  /** Adds `count` bytes of unspecified content; returns their offset in `target`. */
  reserve(count: number): number {
    const at = this.#length;
    if (at + count > this.#buffer.length) {
      let capacity = this.#buffer.length * 2;
      while (capacity < at + count) capacity *= 2;
      const buffer = new Uint8Array(capacity);
      buffer.set(this.#buffer.subarray(0, at));
      this.#buffer = buffer;
      this.#view = new DataView(buffer.buffer);
    }
    this.#length = at + count;
    return at;
  }

  /** The buffer itself; replaced when `reserve` grows it. */
  get target(): Uint8Array {
    return this.#buffer;
  }

  /** Overwrites two bytes written before. */
  setU16(at: number, value: number): void {
    this.#view.setUint16(at, value);
  }

  /** Overwrites four bytes written before. */
  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }

  /** Forgets what was written from `length` on. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }

  /** A copy of what was written; the writer is empty afterwards and keeps its buffer. */
  take(): Uint8Array<ArrayBuffer> {
    const result = this.#buffer.slice(0, this.#length);
    this.#length = 0;
    return result;
  }
}
