/** A small generator of random numbers that gives the same for the same seed (sfc32), with values that instructions trip over. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #n = 1;

  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 2 ** 32) ^ stream ^ 0x9e3779b9;
    this.#c = Math.imul(stream + 1, 0x85ebca6b);
    for (let n = 0; n < 15; n++) this.word();
  }

  /** 32 bits, signed. */
  word(): number {
    const sum = (this.#a + this.#b + this.#n++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum;
  }
  /** 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor(((this.word() >>> 0) / 4294967296) * end);
  }
  chance(part: number): boolean {
    return (this.word() >>> 0) / 4294967296 < part;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }

  /** A 64-bit integer, biased to edges, into words `at` and `at` + 1. */
  integer(into: Uint32Array, at: number): void {
    const kind = this.below(10);
    let low = this.word();
    let high = this.word();
    if (kind < 2) {
      low = this.below(256);
      high = 0;
    } else if (kind < 5) {
      const edge = this.pick(EDGES);
      low = edge;
      high = this.chance(0.5) ? edge >> 31 : this.pick(EDGES);
    } else if (kind < 7) {
      low = low >> this.below(32);
      high = low >> 31;
    }
    into[at] = low;
    into[at + 1] = high;
  }

  /** 16 bytes as vectors have them: integers, floats and doubles with their special values. */
  vector(into: Uint32Array, at: number): void {
    switch (this.below(4)) {
      case 0:
        for (let n = 0; n < 4; n++) into[at + n] = this.word();
        break;
      case 1:
        for (let n = 0; n < 4; n++) into[at + n] = this.#single();
        break;
      case 2:
        for (let n = 0; n < 4; n += 2) this.#double(into, at + n);
        break;
      default:
        this.integer(into, at);
        this.integer(into, at + 2);
    }
  }

  #single(): number {
    const sign = this.word() & 0x80000000;
    const fraction = this.chance(0.5) ? this.word() & 0x7fffff : this.pick(FRACTIONS);
    const exponent = this.chance(0.3) ? this.pick([0, 0, 1, 254, 255, 255]) : 117 + this.below(40);
    return sign | (exponent << 23) | fraction;
  }
  #double(into: Uint32Array, at: number): void {
    const sign = this.word() & 0x80000000;
    const fraction = this.chance(0.5) ? this.word() & 0xfffff : this.pick(FRACTIONS) >> 3;
    const exponent = this.chance(0.3) ? this.pick([0, 0, 1, 2046, 2047, 2047, 896, 897, 873, 1150, 1151]) : 1013 + this.below(70);
    into[at] = this.chance(0.5) ? this.word() : this.pick([0, 1, -1, 0x10000000, 0x20000000]);
    into[at + 1] = sign | (exponent << 20) | fraction;
  }
}

const EDGES = [
  0, 1, -1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, -0x80000000, -0x80, -0x8000, 0x40000000, 31,
  32, 33, 63, 64,
];
const FRACTIONS = [0, 0, 1, 0x7fffff, 0x400000, 0x3fffff, 0x400001, 0x600000];
