/**
 * Fused multiply-add and half-precision conversions (SDM 1, 14.4 and 14.5): rounded once, by a helper, or inline by the
 * host's own instruction; where it has none, with sums and products of two doubles where numbers are of usual size. The three digits in
 * a name tell which operands are multiplied, and which is added: 1 is the destination, 2 VEX.vvvv, 3 r/m.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { fusesMultiplyAdd } from '../../ir/ops.ts';
import { Fused } from '../fpu/sse-float.ts';
import type { Emitter, Instruction } from './context.ts';
import { halvesOf, immediate, readHalves, readVector, writeHalves } from './sse-context.ts';
import { callFloat, isFixed, lane0, leaveUnlessTame, Numbers, plainMode, RESULT, resultHalves } from './sse-float-context.ts';
import { join, pick } from './sse-integer.ts';

const SIGNS = {
  FMADD: 0,
  FMSUB: Fused.SUBTRACT,
  FNMADD: Fused.NEGATE_PRODUCT,
  FNMSUB: Fused.NEGATE_PRODUCT | Fused.SUBTRACT,
  FMADDSUB: Fused.SUBTRACT_EVEN,
  FMSUBADD: Fused.SUBTRACT_ODD,
} as const;

/** The destination's own halves. */
const destination = (i: Instruction, packed: boolean): Value[] =>
  (packed ? halvesOf(i) : [0]).map((half) => i.b.getSlot(i.slot(0), 128, false, 'v128', 16 * half));

const SPLIT = 0x41a0000002000000n; // 2^27 + 1
const LEAST = 0x26f0000000000000n; // 2^-400
const MOST = 0x58f0000000000000n; // 2^400

/** Sums and products of vectors of two doubles with their errors (Dekker 1971; Knuth, TAOCP 2, 4.2.2). */
class Pairs {
  readonly b: Builder;
  constructor(b: Builder) {
    this.b = b;
  }
  op(verb: string, x: Value, y: Value): Value {
    return this.b.op(`f64x2.${verb}`, [x, y]);
  }
  constant(pattern: bigint): Value {
    return this.b.v128(pattern, pattern);
  }
  sum(x: Value, y: Value): { sum: Value; error: Value } {
    const sum = this.op('add', x, y);
    const back = this.op('sub', sum, x);
    const error = this.op('add', this.op('sub', x, this.op('sub', sum, back)), this.op('sub', y, back));
    return { sum, error };
  }
  product(x: Value, y: Value): { product: Value; error: Value } {
    const halves = (v: Value): [Value, Value] => {
      const scaled = this.op('mul', v, this.constant(SPLIT));
      const high = this.op('sub', scaled, this.op('sub', scaled, v));
      return [high, this.op('sub', v, high)];
    };
    const product = this.op('mul', x, y);
    const [xh, xl] = halves(x);
    const [yh, yl] = halves(y);
    let rest = this.op('sub', product, this.op('mul', xh, yh));
    rest = this.op('sub', rest, this.op('mul', xl, yh));
    rest = this.op('sub', rest, this.op('mul', xh, yl));
    return { product, error: this.op('sub', this.op('mul', xl, yl), rest) };
  }
  /** x + y rounded to odd: the neighbour whose last bit is one where it is inexact. */
  sumToOdd(x: Value, y: Value): Value {
    const { b } = this;
    const { sum, error } = this.sum(x, y);
    const inexact = this.op('ne', error, this.constant(0n));
    const even = b.op('i64x2.eq', [b.op('v128.and', [sum, this.constant(1n)]), this.constant(0n)]);
    // Up where both have one sign, else down: 1 or -1.
    const opposite = b.op('i64x2.shr_s', [b.xor(sum, error), b.i32(63)]);
    const step = b.or(opposite, this.constant(1n));
    return b.op('i64x2.add', [sum, b.and(b.and(inexact, even), step)]);
  }
}

/** x * y + z of doubles, and a mask of the lanes in which it is right: numbers of usual size whose sum is not zero. */
function doubles(b: Builder, x: Value, y: Value, z: Value): { result: Value; good: Value } {
  const p = new Pairs(b);
  const { product, error } = p.product(x, y);
  const first = p.sum(z, error);
  const second = p.sum(product, first.sum);
  // Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008.
  const result = p.op('add', second.sum, p.sumToOdd(second.error, first.error));
  const usual = (v: Value): Value => {
    const magnitude = b.op('f64x2.abs', [v]);
    const zero = p.op('eq', v, p.constant(0n));
    return b.or(b.and(p.op('ge', magnitude, p.constant(LEAST)), p.op('lt', magnitude, p.constant(MOST))), zero);
  };
  const good = b.and(b.and(usual(x), usual(y)), b.and(usual(z), p.op('ne', result, p.constant(0n))));
  return { result, good };
}

/** The same of four singles, in doubles: their product is exact, and the sum rounded to odd can be rounded again. */
function singles(b: Builder, x: Value, y: Value, z: Value, both: boolean): { result: Value; good: Value } {
  const p = new Pairs(b);
  const part = (high: boolean): Value => {
    const wide = (v: Value): Value => {
      const low = high ? b.op('i8x16.shuffle', [v, v], pick(8, [1, 1])) : v;
      return b.op('f64x2.promote_low_f32x4', [low]);
    };
    return b.op('f32x4.demote_f64x2_zero', [p.sumToOdd(p.op('mul', wide(x), wide(y)), wide(z))]);
  };
  const low = part(false);
  const result = both ? join(b, low, part(true)) : low;
  const constant = (pattern: bigint): Value => {
    const pair = pattern | (pattern << 32n);
    return b.v128(pair, pair);
  };
  const normal = (v: Value, least: 'ge' | 'gt'): Value => {
    const magnitude = b.op('f32x4.abs', [v]);
    const small = b.op(`f32x4.${least}`, [magnitude, constant(0x00800000n)]);
    return b.and(small, b.op('f32x4.lt', [magnitude, constant(0x7f800000n)]));
  };
  const usual = (v: Value): Value => b.or(normal(v, 'ge'), b.op('f32x4.eq', [v, constant(0n)]));
  return { result, good: b.and(b.and(usual(x), usual(y)), b.and(usual(z), normal(result, 'gt'))) };
}

/** Products and addends with the signs that the instruction gives them. */
function withSigns(b: Builder, signs: number, bits: 32 | 64, x: Value, z: Value): [Value, Value] {
  const sign = 1n << BigInt(bits - 1);
  const mask = (even: boolean, odd: boolean): Value => {
    const pair = (even ? sign : 0n) | ((odd ? sign : 0n) << BigInt(bits));
    return bits === 64 ? b.v128(even ? sign : 0n, odd ? sign : 0n) : b.v128(pair, pair);
  };
  const negate = (signs & Fused.NEGATE_PRODUCT) !== 0;
  const even = (signs & (Fused.SUBTRACT | Fused.SUBTRACT_EVEN)) !== 0;
  const odd = (signs & (Fused.SUBTRACT | Fused.SUBTRACT_ODD)) !== 0;
  return [negate ? b.xor(x, mask(true, true)) : x, even || odd ? b.xor(z, mask(even, odd)) : z];
}

const multiplyAdd =
  (signs: number, order: string, bits: 32 | 64, packed: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const third = packed ? readHalves(i, 1) : [readVector(i, 1)];
    const second = packed ? readHalves(i, 0) : [readVector(i, 0)];
    const operands = [destination(i, packed), second, third];
    const [x, y, z] = [...order].map((digit) => operands[Number(digit) - 1]);
    // What is above a scalar is the destination's own.
    const lane = bits === 64 ? 'i64x2' : 'i32x4';
    const merged = (result: Value): Value => {
      const value = b.op(`${lane}.extract_lane`, [result], [0]);
      return b.op(`${lane}.replace_lane`, [operands[0][0], value], [0]);
    };
    const long = (): void => {
      const count = packed ? (i.form.wide ? 256 : 128) / bits : 1;
      const status = callFloat(i, 'FMA', bits, count, x, y, b.i32(signs), z);
      writeHalves(i, packed ? resultHalves(i) : [merged(b.state(RESULT, 128))]);
      leaveUnlessTame(i, status);
    };
    // Worth its length only where the code is made for this very instruction.
    if (!isFixed(i)) {
      long();
      return;
    }
    if (fusesMultiplyAdd) {
      const n = new Numbers(b, bits, packed);
      const shape = bits === 64 ? 'f64x2' : 'f32x4';
      const number = (v: Value): Value => (packed ? v : lane0(b, bits, v));
      const verb = (signs & Fused.NEGATE_PRODUCT) !== 0 ? 'relaxed_nmadd' : 'relaxed_madd';
      const results = x.map((value, half) => {
        const [u, w] = withSigns(b, signs & ~Fused.NEGATE_PRODUCT, bits, value, z[half]);
        return number(b.op(`${shape}.${verb}`, [u, y[half], w]));
      });
      const [us, vs, ws] = [x, y, z].map((halves) => halves.map(number));
      // A sum that cancels may have lost what is below the least number.
      const exact = (zero: Value, half: number): Value => n.and(zero, n.or(n.isZero(us[half]), n.isZero(vs[half])));
      const tests = [plainMode(b), ...n.arithmetic([...us, ...vs, ...ws], results, exact)];
      b.if(
        tests.reduce((p, q) => b.and(p, q)),
        () => writeHalves(i, packed ? results : [b.op(`${shape}.replace_lane`, [operands[0][0], results[0]], [0])]),
        long,
      );
      return;
    }
    const parts = x.map((value, half) => {
      const [u, w] = withSigns(b, signs, bits, value, z[half]);
      return bits === 64 ? doubles(b, u, y[half], w) : singles(b, u, y[half], w, packed);
    });
    const goods = parts.map(({ good }) => good);
    const all = goods.length === 2 ? b.and(goods[0], goods[1]) : goods[0];
    const holds = packed ? b.op(`${lane}.all_true`, [all]) : b.and(b.op(`${lane}.bitmask`, [all]), b.i32(1));
    b.if(
      b.and(holds, plainMode(b)),
      () => {
        const results = parts.map(({ result }) => result);
        writeHalves(i, packed ? results : [merged(results[0])]);
      },
      long,
    );
  };

export const fused: Record<string, Emitter> = {
  VCVTPH2PS(i) {
    const y = readVector(i, 1);
    callFloat(i, 'FROM_HALF', 32, i.form.wide ? 8 : 4, y, y);
    writeHalves(i, resultHalves(i));
  },
};
for (const [name, signs] of Object.entries(SIGNS))
  for (const order of ['132', '213', '231'])
    for (const shape of ['PS', 'PD', 'SS', 'SD']) {
      if (name.length > 6 && shape[0] === 'S') continue;
      fused[`V${name}${order}${shape}`] = multiplyAdd(signs, order, shape[1] === 'S' ? 32 : 64, shape[0] === 'P');
    }

/** VCVTPS2PH, to a register or to memory of half the width. */
export const toHalves: Emitter = (i) => {
  const { b } = i;
  // A fault of the store comes before the flags in MXCSR.
  if (i.isMemory(0)) b.leave('probe_store', i.address(), b.i32(i.form.wide ? 16 : 8));
  callFloat(i, 'TO_HALF', 32, i.form.wide ? 8 : 4, readHalves(i, 1), readHalves(i, 1), immediate(i));
  const result = b.state(RESULT, 128);
  if (i.isMemory(0)) {
    if (i.form.wide) b.store(128, i.address(), result);
    else b.store(64, i.address(), b.state(RESULT, 64));
    return;
  }
  b.putSlot(i.slot(0), 128, result);
  b.putSlot(i.slot(0), 128, b.v128(0n, 0n), 16);
};
