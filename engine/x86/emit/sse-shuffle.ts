/**
 * Rearrangement: shuffles, unpacking, blends, insertion and extraction, widening (SDM 2 for each).
 *
 * Where an immediate chooses lanes, a vector of byte indices is computed from it for a swizzle, whose indices of 16
 * and more give zero. Where the immediate is a constant, the lanes are a static shuffle.
 */
import type { Value } from '../../ir/builder.ts';
import type { Emitter, Instruction } from './context.ts';
import {
  atMost,
  blendMask,
  checkAligned,
  halfImmediate,
  immediate,
  isMmxOperand,
  known,
  lanes,
  readVector,
  writeVector,
  zero,
} from './sse-context.ts';
import { join, pick } from './sse-integer.ts';

const IOTA = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

const shuffle = (i: Instruction, x: Value, y: Value, pattern: readonly number[]): Value =>
  i.b.op('i8x16.shuffle', [x, y], pattern);
const swizzle = (i: Instruction, x: Value, control: Value): Value => i.b.op('i8x16.swizzle', [x, control]);

/** A static shuffle of destination and source. */
const interleave =
  (bytes: number, order: readonly number[]): Emitter =>
  (i) => {
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    writeVector(i, 0, shuffle(i, x, y, pick(bytes, order)));
  };
/** Low or high halves, interleaved; the high half of an MMX register begins at its byte 4. */
const unpack =
  (bytes: number, high: boolean): Emitter =>
  (i) => {
    const count = 16 / bytes;
    const first = high ? (isMmxOperand(i, 0) ? count / 4 : count / 2) : 0;
    const order = Array.from({ length: count }, (_, n) => first + (n >> 1) + (n & 1) * count);
    // What lies past an MMX register's end is cut off; keep the indices legal.
    interleave(bytes, order)(i);
  };

/** Two-bit lane numbers of 32-bit lanes from the immediate, as byte indices. */
function control32(i: Instruction, imm: Value): Value {
  const { b } = i;
  const spread = b.op('i32x4.mul', [b.op('i32x4.splat', [imm]), lanes(b, 32, [64, 16, 4, 1])]);
  const index = b.op('v128.and', [b.op('i32x4.shr_u', [spread, b.i32(6)]), lanes(b, 32, [3, 3, 3, 3])]);
  const four = 0x04040404;
  const base = 0x03020100;
  return b.op('i32x4.add', [
    b.op('i32x4.mul', [index, lanes(b, 32, [four, four, four, four])]),
    lanes(b, 32, [base, base, base, base]),
  ]);
}
const twoBits = (imm: number): number[] => [imm & 3, (imm >> 2) & 3, (imm >> 4) & 3, (imm >> 6) & 3];

/** PSHUFLW and PSHUFHW: four words of one half; the other half stays. */
const shuffleWords =
  (high: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const x = readVector(i, 1);
    const imm = immediate(i);
    const constant = known(imm);
    const order = (words: readonly number[]): number[] =>
      high ? [0, 1, 2, 3, ...words.map((n) => n + 4)] : [...words, 4, 5, 6, 7];
    if (constant !== undefined) {
      writeVector(i, 0, shuffle(i, x, x, pick(2, order(twoBits(constant)))));
      return;
    }
    const none = [0, 0, 0, 0];
    const factors = [64, 16, 4, 1];
    const bases = [0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a, 0x0d0c, 0x0f0e];
    const first = [high ? 0x0908 : 0x0100];
    const chosen = [...first, ...first, ...first, ...first];
    const spread = b.op('i16x8.mul', [
      b.op('i16x8.splat', [imm]),
      lanes(b, 16, high ? [...none, ...factors] : [...factors, ...none]),
    ]);
    const index = b.op('v128.and', [b.op('i16x8.shr_u', [spread, b.i32(6)]), b.op('i16x8.splat', [b.i32(3)])]);
    const control = b.op('i16x8.add', [
      b.op('i16x8.mul', [index, b.op('i16x8.splat', [b.i32(0x0202)])]),
      lanes(b, 16, high ? [...bases.slice(0, 4), ...chosen] : [...chosen, ...bases.slice(4)]),
    ]);
    writeVector(i, 0, swizzle(i, x, control));
  };

/** Whole-register byte shifts. */
const byteShift =
  (left: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const x = readVector(i, 0);
    const count = atMost(b, immediate(i), 16);
    const constant = known(count);
    if (constant !== undefined) {
      const pattern = IOTA.map((n) => (left ? (n < constant ? 16 : n - constant) : n + constant > 15 ? 16 : n + constant));
      writeVector(i, 0, shuffle(i, x, zero(b), pattern));
      return;
    }
    const distance = b.op('i8x16.splat', [count]);
    writeVector(i, 0, swizzle(i, x, b.op(left ? 'i8x16.sub' : 'i8x16.add', [lanes(b, 8, IOTA), distance])));
  };

/** Lanes of y where the mask has ones, of x elsewhere. */
const choose = (i: Instruction, mask: Value, x: Value, y: Value): Value => i.b.op('v128.bitselect', [y, x, mask]);

/** Blends by bits of the immediate, one a lane. */
const blendImmediate =
  (shape: 'i16x8' | 'i32x4' | 'i64x2'): Emitter =>
  (i) => {
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    // The wide forms of words use the same eight bits twice.
    const bits = shape === 'i16x8' ? immediate(i) : halfImmediate(i, shape === 'i32x4' ? 4 : 2);
    writeVector(i, 0, choose(i, laneMask(i, shape, bits), x, y));
  };

/** All ones in lane n where bit n of `bits` is set. */
export function laneMask(i: Instruction, shape: 'i16x8' | 'i32x4' | 'i64x2', bits: Value): Value {
  const { b } = i;
  const width = shape === 'i16x8' ? 16 : shape === 'i32x4' ? 32 : 64;
  const each = lanes(
    b,
    width,
    Array.from({ length: 128 / width }, (_, n) => 1 << n),
  );
  const splat = b.op(`${shape}.splat`, [width === 64 ? b.zext(bits) : bits]);
  return b.op(`${shape}.eq`, [b.op('v128.and', [splat, each]), each]);
}

/** Blends by the top bits of XMM0's lanes. */
const blendRegister =
  (shape: string, width: number): Emitter =>
  (i) => {
    const { b } = i;
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const mask = b.op(`${shape}.shr_s`, [blendMask(i), b.i32(width - 1)]);
    writeVector(i, 0, choose(i, mask, x, y));
  };

/** Widens the low lanes once for each name. */
const widen =
  (...names: readonly string[]): Emitter =>
  (i) => {
    let value = readVector(i, 1);
    for (const [n, name] of names.entries())
      value = i.b.op(i.half === 1 && n === names.length - 1 ? name.replace('_low_', '_high_') : name, [value]);
    writeVector(i, 0, value);
  };
const widenings = (suffix: 's' | 'u'): Record<string, Emitter> => {
  const [w, d, q] = [`i16x8.extend_low_i8x16_${suffix}`, `i32x4.extend_low_i16x8_${suffix}`, `i64x2.extend_low_i32x4_${suffix}`];
  const name = suffix === 's' ? 'PMOVSX' : 'PMOVZX';
  return {
    [`${name}BW`]: widen(w),
    [`${name}BD`]: widen(w, d),
    [`${name}BQ`]: widen(w, d, q),
    [`${name}WD`]: widen(d),
    [`${name}WQ`]: widen(d, q),
    [`${name}DQ`]: widen(q),
  };
};

const SHAPE = { 1: 'i8x16', 2: 'i16x8', 4: 'i32x4', 8: 'i64x2' } as const;
type LaneBytes = keyof typeof SHAPE;

/** Lane of `bytes` that the immediate names, zero-extended. */
function extract(i: Instruction, x: Value, bytes: LaneBytes, count: number): Value {
  const { b } = i;
  const lane = b.and(b.field('imm'), b.i32(count - 1));
  const name = `${SHAPE[bytes]}.extract_lane${bytes < 4 ? '_u' : ''}`;
  const constant = known(lane);
  if (constant !== undefined) return b.op(name, [x], [constant]);
  const first = b.op('i8x16.splat', [b.mul(lane, b.i32(bytes))]);
  const control = b.op('i8x16.add', [first, lanes(b, 8, IOTA)]);
  return b.op(name, [swizzle(i, x, control)], [0]);
}

/** x with the lane that the immediate names replaced. */
function insert(i: Instruction, x: Value, value: Value, bytes: LaneBytes, count: number): Value {
  const { b } = i;
  const shape = SHAPE[bytes];
  const lane = b.and(b.field('imm'), b.i32(count - 1));
  const constant = known(lane);
  if (constant !== undefined) return b.op(`${shape}.replace_lane`, [x, value], [constant]);
  const numbers = lanes(
    b,
    8,
    IOTA.map((n) => Math.floor(n / bytes)),
  );
  const mask = b.op('i8x16.eq', [b.op('i8x16.splat', [lane]), numbers]);
  return choose(i, mask, x, b.op(`${shape}.splat`, [value]));
}

const extractTo =
  (bytes: LaneBytes, count: number): Emitter =>
  (i) => {
    i.write(0, extract(i, readVector(i, 1), bytes, count));
  };
const insertFrom =
  (bytes: LaneBytes, count: number): Emitter =>
  (i) => {
    const value = i.read(1);
    writeVector(i, 0, insert(i, readVector(i, 0), value, bytes, isMmxOperand(i, 0) ? count / 2 : count));
  };

export const sseShuffles: Record<string, Emitter> = {
  PUNPCKLBW: unpack(1, false),
  PUNPCKLWD: unpack(2, false),
  PUNPCKLDQ: unpack(4, false),
  PUNPCKLQDQ: unpack(8, false),
  PUNPCKHBW: unpack(1, true),
  PUNPCKHWD: unpack(2, true),
  PUNPCKHDQ: unpack(4, true),
  PUNPCKHQDQ: unpack(8, true),
  UNPCKLPS: unpack(4, false),
  UNPCKLPD: unpack(8, false),
  UNPCKHPS: unpack(4, true),
  UNPCKHPD: unpack(8, true),
  PSHUFD(i) {
    const x = readVector(i, 1);
    const imm = immediate(i);
    const constant = known(imm);
    if (constant !== undefined) writeVector(i, 0, shuffle(i, x, x, pick(4, twoBits(constant))));
    else writeVector(i, 0, swizzle(i, x, control32(i, imm)));
  },
  PSHUFLW: shuffleWords(false),
  PSHUFW: shuffleWords(false),
  PSHUFHW: shuffleWords(true),
  SHUFPS(i) {
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const imm = immediate(i);
    const constant = known(imm);
    if (constant !== undefined) {
      const [a, c, d, e] = twoBits(constant);
      writeVector(i, 0, shuffle(i, x, y, pick(4, [a, c, d + 4, e + 4])));
      return;
    }
    const control = control32(i, imm);
    writeVector(i, 0, shuffle(i, swizzle(i, x, control), swizzle(i, y, control), pick(4, [0, 1, 6, 7])));
  },
  SHUFPD(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const imm = halfImmediate(i, 2);
    const constant = known(imm);
    if (constant !== undefined) {
      writeVector(i, 0, shuffle(i, x, y, pick(8, [constant & 1, 2 + ((constant >> 1) & 1)])));
      return;
    }
    // Both lanes of each for the bit that chooses, then halves together.
    const side = (v: Value, bit: number): Value => {
      const high = b.and(imm, b.i32(bit));
      return b.op('v128.select', [shuffle(i, v, v, pick(8, [1, 1])), shuffle(i, v, v, pick(8, [0, 0])), high]);
    };
    writeVector(i, 0, shuffle(i, side(x, 1), side(y, 2), pick(8, [0, 3])));
  },
  PSHUFB(i) {
    const { b } = i;
    const control = readVector(i, 1);
    const x = readVector(i, 0);
    // The top bit clears; of the others only the lane number counts.
    const kept = b.op('v128.and', [control, b.op('i8x16.splat', [b.i32(isMmxOperand(i, 0) ? 0x87 : 0x8f)])]);
    writeVector(i, 0, swizzle(i, x, kept));
  },
  PALIGNR(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const iota = lanes(b, 8, IOTA);
    if (isMmxOperand(i, 0)) {
      const distance = b.op('i8x16.splat', [atMost(b, immediate(i), 16)]);
      writeVector(i, 0, swizzle(i, join(b, y, x), b.op('i8x16.add', [iota, distance])));
      return;
    }
    const count = atMost(b, immediate(i), 32);
    const constant = known(count);
    if (constant !== undefined) {
      if (constant <= 16)
        writeVector(
          i,
          0,
          shuffle(
            i,
            y,
            x,
            IOTA.map((n) => n + constant),
          ),
        );
      else
        writeVector(
          i,
          0,
          shuffle(
            i,
            x,
            zero(b),
            IOTA.map((n) => n + constant - 16),
          ),
        );
      return;
    }
    const low = b.op('i8x16.add', [iota, b.op('i8x16.splat', [count])]);
    const high = b.op('i8x16.sub', [low, b.op('i8x16.splat', [b.i32(16)])]);
    writeVector(i, 0, b.op('v128.or', [swizzle(i, y, low), swizzle(i, x, high)]));
  },
  PSLLDQ: byteShift(true),
  PSRLDQ: byteShift(false),
  PBLENDW: blendImmediate('i16x8'),
  BLENDPS: blendImmediate('i32x4'),
  BLENDPD: blendImmediate('i64x2'),
  PBLENDVB: blendRegister('i8x16', 8),
  BLENDVPS: blendRegister('i32x4', 32),
  BLENDVPD: blendRegister('i64x2', 64),
  ...widenings('s'),
  ...widenings('u'),
  PEXTRB: extractTo(1, 16),
  PEXTRW(i) {
    i.write(0, extract(i, readVector(i, 1), 2, isMmxOperand(i, 1) ? 4 : 8));
  },
  PEXTR(i) {
    extractTo(i.size(0) === 64 ? 8 : 4, i.size(0) === 64 ? 2 : 4)(i);
  },
  EXTRACTPS: extractTo(4, 4),
  PINSRB: insertFrom(1, 16),
  PINSRW: insertFrom(2, 8),
  PINSR(i) {
    insertFrom(i.size(1) === 64 ? 8 : 4, i.size(1) === 64 ? 2 : 4)(i);
  },
  /** Bits 7:6 choose the source lane (of a register), 5:4 the destination lane, 3:0 lanes to clear. */
  INSERTPS(i) {
    const { b } = i;
    const imm = immediate(i);
    const y = readVector(i, 1);
    const source = i.isMemory(1) ? b.i32(0) : b.and(b.shrU(imm, b.i32(4)), b.i32(12));
    const control = b.op('i8x16.add', [
      b.op('i8x16.splat', [source]),
      lanes(
        b,
        8,
        IOTA.map((n) => n & 3),
      ),
    ]);
    const value = swizzle(i, y, control);
    const lane = b.op('i32x4.splat', [b.and(b.shrU(imm, b.i32(4)), b.i32(3))]);
    const mask = b.op('i32x4.eq', [lane, lanes(b, 32, [0, 1, 2, 3])]);
    const inserted = choose(i, mask, readVector(i, 0), value);
    writeVector(i, 0, b.op('v128.andnot', [inserted, laneMask(i, 'i32x4', imm)]));
  },
  /** Sums of absolute differences of four bytes of the source with eight runs of four bytes of the destination. */
  MPSADBW(i) {
    const { b } = i;
    if (i.isMemory(1) && !i.form.row.vex) checkAligned(i);
    const y = readVector(i, 1, true);
    const x = readVector(i, 0);
    const imm = halfImmediate(i, 3);
    const from = b.op('i8x16.add', [lanes(b, 8, IOTA), b.op('i8x16.splat', [b.and(imm, b.i32(4))])]);
    const block = b.op('i8x16.splat', [b.shl(b.and(imm, b.i32(3)), b.i32(2))]);
    let sum = zero(b);
    for (let k = 0; k < 4; k++) {
      const step = b.op('i8x16.splat', [b.i32(k)]);
      const u = swizzle(i, x, b.op('i8x16.add', [from, step]));
      const v = swizzle(i, y, b.op('i8x16.add', [block, step]));
      const difference = b.op('i8x16.sub', [b.op('i8x16.max_u', [u, v]), b.op('i8x16.min_u', [u, v])]);
      sum = b.op('i16x8.add', [sum, b.op('i16x8.extend_low_i8x16_u', [difference])]);
    }
    writeVector(i, 0, sum);
  },
};
