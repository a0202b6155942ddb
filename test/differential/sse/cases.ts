/** Random cases: encodings of table rows, and register contents that floating point finds interesting. */
import type { Row } from '../../../engine/x86/decode/rows.ts';

/** A small generator with a seed (xorshift32), so that a case can be had again. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  bits(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(limit: number): number {
    return Math.floor((this.bits() / 4294967296) * limit);
  }
  chance(of: number): boolean {
    return this.below(of) === 0;
  }
  bits64(): bigint {
    return (BigInt(this.bits()) << 32n) | BigInt(this.bits());
  }
}

/** Guest memory in both worlds, and where the operands of memory forms lie. */
export const GUEST = 0x30000;
export const OPERAND = GUEST + 64;

const PREFIXES: Record<number, readonly number[]> = { 0: [], 1: [0x66], 2: [0xf3], 3: [0xf2] };
const MAPS = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];

/** Bytes of a random use of a row, in 64-bit mode. RSP is never an operand; memory is reached through RDI. */
export function encode(row: Row, random: Random): Uint8Array {
  const operands = row.operands;
  const wide = row.sized && random.chance(2);
  const vector = (kind: string): boolean => 'VWU'.includes(kind);
  const general = (): number => {
    const n = random.below(15);
    return n >= 4 ? n + 1 : n;
  };
  const registerFor = (kind: string): number =>
    vector(kind) ? random.below(16) : 'PQN'.includes(kind) ? random.below(8) : general();
  const rmOperand = operands.find(({ kind }) => 'ERMWUQN'.includes(kind));
  const regOperand = operands.find(({ kind }) => 'GVP'.includes(kind));
  const memory = rmOperand !== undefined && row.allowsMemory && (!row.allowsRegister || random.chance(2));
  let reg = row.digit ?? (regOperand === undefined ? 0 : registerFor(regOperand.kind));
  if (rmOperand === regOperand) reg = row.digit ?? 0;
  const bytes: number[] = [];
  let rex = (wide ? 8 : 0) | (reg >= 8 ? 4 : 0);
  const tail: number[] = [];
  if (rmOperand !== undefined) {
    if (memory) {
      const offset = random.chance(12) ? random.below(32) : 16 * random.below(4);
      tail.push(0x40 | ((reg & 7) << 3) | 7, offset);
    } else {
      const rm = registerFor(rmOperand.kind);
      if (rm >= 8) rex |= 1;
      tail.push(0xc0 | ((reg & 7) << 3) | (rm & 7));
    }
  }
  if (operands.some(({ kind }) => kind === 'I')) {
    // Shift counts mostly small; control bytes any.
    tail.push(row.digit !== undefined && !random.chance(4) ? random.below(66) : random.bits() & 0xff);
  }
  // Implicit addresses by EDI too.
  if (row.attributes.has('string') && random.chance(2)) bytes.push(0x67);
  bytes.push(...PREFIXES[row.prefix ?? 0]);
  if (rex !== 0) bytes.push(0x40 | rex);
  bytes.push(...MAPS[row.map], row.opcode, ...tail);
  return Uint8Array.from(bytes);
}

const SINGLES = [
  0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x00800001, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000,
  0x7fc00000, 0xffc00000, 0x7fa00001, 0xffa12345, 0x7fffffff, 0x3f800000, 0xbf800000, 0x3f800001, 0x3f000000, 0x3effffff,
  0x40200000, 0x4f000000, 0xcf000000, 0x4effffff, 0x5f000000, 0xdf000000, 0x4b7fffff, 0x4b000001, 0x1f800000, 0x20000000,
  0x5f7fffff,
];
const DOUBLES = [
  0n,
  1n << 63n,
  1n,
  0x000fffffffffffffn,
  0x800fffffffffffffn,
  0x0010000000000000n,
  0x0010000000000001n,
  0x7fefffffffffffffn,
  0xffefffffffffffffn,
  0x7ff0000000000000n,
  0xfff0000000000000n,
  0x7ff8000000000000n,
  0xfff8000000000000n,
  0x7ff4000000000001n,
  0xfff4000000abcdefn,
  0x3ff0000000000000n,
  0xbff0000000000000n,
  0x3ff0000000000001n,
  0x3fe0000000000000n,
  0x3fdfffffffffffffn,
  0x4004000000000000n,
  0x41e0000000000000n,
  0xc1e0000000000000n,
  0x41dfffffffc00000n,
  0x41dfffffffe00000n,
  0xc1e00000001fffffn,
  0x43e0000000000000n,
  0xc3e0000000000000n,
  0x43dfffffffffffffn,
  0x47efffffe0000000n,
  0x47effffff0000000n,
  0x3810000000000000n,
  0x380fffffffffffffn,
  0x36a0000000000000n,
  0x369fffffffffffffn,
  0x2000000000000000n,
  0x1ff0000000000000n,
  0x5fe0000000000000n,
];

function single(random: Random): number {
  switch (random.below(6)) {
    case 0:
      return SINGLES[random.below(SINGLES.length)];
    case 1:
      return random.bits();
    case 2: {
      // A small integer or a quarter of one.
      const value = new Float32Array([(random.below(2000) - 1000) / (random.chance(2) ? 4 : 1)]);
      return new Uint32Array(value.buffer)[0];
    }
    case 3:
      return (
        ((random.bits() & 0x80000000) | ((random.below(6) + (random.chance(2) ? 0 : 24)) << 23) | (random.bits() & 0x7fffff)) >>>
        0
      );
    case 4:
      return (
        ((random.bits() & 0x80000000) |
          ((random.below(40) + 120) << 23) |
          (random.bits() & (random.chance(2) ? 0x7fffff : 0x700000))) >>>
        0
      );
    default:
      return ((random.bits() & 0x80000000) | ((random.below(12) + 243) << 23) | (random.bits() & 0x7fffff)) >>> 0;
  }
}

function double(random: Random): bigint {
  const sign = random.chance(2) ? 1n << 63n : 0n;
  const fraction = random.bits64() & 0xfffffffffffffn;
  switch (random.below(7)) {
    case 0:
      return DOUBLES[random.below(DOUBLES.length)];
    case 1:
      return random.bits64();
    case 2: {
      const value = new Float64Array([(random.below(2000) - 1000) / (random.chance(2) ? 4 : 1)]);
      return new BigUint64Array(value.buffer)[0];
    }
    case 3:
      return sign | (BigInt(random.below(6) + (random.chance(2) ? 0 : 53)) << 52n) | fraction;
    case 4:
      return sign | (BigInt(random.below(70) + 1015) << 52n) | (random.chance(2) ? fraction : fraction & 0xfff0000000000n);
    case 5:
      // About the limits of a single.
      return sign | (BigInt(random.below(30) + (random.chance(2) ? 865 : 1140)) << 52n) | fraction;
    default:
      return sign | (BigInt(random.below(12) + 2035) << 52n) | fraction;
  }
}

/** Fills 16 bytes at `at`: integers, strings with zeros, singles, doubles. */
export function fillVector(view: DataView, at: number, random: Random): void {
  switch (random.below(5)) {
    case 0:
      for (let n = 0; n < 16; n += 4) view.setUint32(at + n, random.bits(), true);
      break;
    case 1:
      // Few different small values: compares hit, and strings end.
      for (let n = 0; n < 16; n++)
        view.setUint8(at + n, random.chance(10) ? 0 : random.chance(8) ? 0x80 + random.below(3) : 0x60 + random.below(4));
      break;
    case 2:
      for (let n = 0; n < 16; n += 8) view.setBigUint64(at + n, double(random), true);
      break;
    case 3:
      for (let n = 0; n < 16; n += 4) view.setUint32(at + n, single(random), true);
      break;
    default:
      // Shift counts and saturating words.
      for (let n = 0; n < 16; n += 2)
        view.setUint16(
          at + n,
          n > 0 && n < 8 ? 0 : random.chance(3) ? random.below(70) : [0x7fff, 0x8000, 0xffff, 0, 1][random.below(5)],
          true,
        );
  }
}

/** MXCSR: the usual ones, or any mode with masks that are mostly set. */
export function randomMxcsr(random: Random): number {
  if (random.chance(3)) return 0x1fa0;
  if (random.chance(3)) return 0x1f80;
  let value = (random.below(4) << 13) | (random.chance(3) ? 0x40 : 0) | (random.chance(3) ? 0x8000 : 0) | (random.bits() & 0x3f);
  value |= random.chance(3) ? random.bits() & 0x1f80 : 0x1f80;
  // A flag that is set and unmasked raises nothing by itself; keep both kinds.
  return value;
}
