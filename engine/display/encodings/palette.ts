/** The distinct colours of a rectangle, up to a limit, in the order they are first seen; a small open hash table. */
export class Palette {
  readonly colours = new Uint32Array(256);
  #size = 0;
  #limit = 256;
  #stamp = 0;
  readonly #keys = new Uint32Array(1024);
  readonly #stamps = new Uint32Array(1024);
  readonly #indexes = new Uint8Array(1024);

  get size(): number {
    return this.#size;
  }

  /** Empties it; from now on it takes `limit` colours (at most 256). */
  reset(limit: number): void {
    this.#size = 0;
    this.#limit = Math.min(limit, 256);
    this.#stamp = (this.#stamp + 1) >>> 0;
  }

  /** The index of a colour, which is added when it is new; -1 where the palette is full. */
  add(colour: number): number {
    let slot = (Math.imul(colour, 0x9e3779b1) >>> 22) & 1023;
    while (this.#stamps[slot] === this.#stamp) {
      if (this.#keys[slot] === colour) return this.#indexes[slot];
      slot = (slot + 1) & 1023;
    }
    if (this.#size >= this.#limit) return -1;
    this.#stamps[slot] = this.#stamp;
    this.#keys[slot] = colour;
    this.#indexes[slot] = this.#size;
    this.colours[this.#size] = colour;
    return this.#size++;
  }
}
