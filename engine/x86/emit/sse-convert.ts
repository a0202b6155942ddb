/** Conversions between integers and floating point, and between precisions (SDM 1, 11.4.1.6; SDM 2 for each). */
import type { Builder, Value } from '../../ir/builder.ts';
import { marksTame, Tame } from '../../ir/tame.ts';
import type { Emitter, Instruction } from './context.ts';
import { lanes, readHalves, readVector, writeHalves, writeScalar, zero } from './sse-context.ts';
import {
  callFloat,
  fromInteger,
  lane0,
  leaveUnlessTame,
  Numbers,
  type Precision,
  plainMode,
  RESULT,
} from './sse-float-context.ts';
import { join, pick } from './sse-integer.ts';

/** CVTxS2SI and CVTTxS2SI. A result that converts back to what was truncated is right; 2^63 is the one that lies. */
const toGeneral =
  (bits: Precision, truncate: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const y = readVector(i, 1);
    const v = lane0(b, bits, y);
    const wide = i.size(0) === 64;
    const n = new Numbers(b, bits, false);
    const integral = n.op(truncate ? 'trunc' : 'nearest', v);
    const integer = b.op(`i${wide ? 64 : 32}.trunc_sat_f${bits}_s`, [integral]);
    const back = b.op(`f${bits}.convert_i${wide ? 64 : 32}_s`, [integer]);
    const limit = wide ? (bits === 64 ? 0x43e0000000000000n : 0x5f000000n) : bits === 64 ? 0x41e0000000000000n : 0x4f000000n;
    const fits = b.and(n.op('eq', back, integral), n.op('lt', integral, n.constant(limit)));
    const sure = b.and(fits, b.or(n.op('eq', v, integral), plainMode(b)));
    const result = b.variable(wide ? 'i64' : 'i32');
    b.set(result, integer);
    b.if(b.eqz(sure), () => {
      const name = truncate ? (wide ? 'TRUNCATE_I64' : 'TRUNCATE_I32') : wide ? 'TO_I64' : 'TO_I32';
      callFloat(i, name, bits, 1, y, y);
      b.set(result, b.state(RESULT, wide ? 64 : 32));
    });
    i.write(0, b.get(result));
  };

/** CVTSI2xS: exact where the integer has no more bits than the significand. */
const fromGeneral =
  (bits: Precision): Emitter =>
  (i) => {
    const { b } = i;
    const x = i.read(1);
    const wide = x.type === 'i64';
    const number = b.op(`f${bits}.convert_i${wide ? 64 : 32}_s`, [x]);
    if (bits === 64 && !wide) {
      writeScalar(i, 64, number);
      return;
    }
    const shift = bits === 64 ? 53 : 24;
    const small = wide
      ? b.ltU(b.add(x, b.i64(1n << BigInt(shift))), b.i64(2n << BigInt(shift)))
      : b.ltU(b.add(x, b.i32(1 << shift)), b.i32(2 << shift));
    b.if(
      b.or(small, plainMode(b)),
      () => writeScalar(i, bits, number),
      () => {
        const operand = fromInteger(b, x);
        callFloat(i, wide ? 'FROM_I64' : 'FROM_I32', bits, 1, operand, operand);
        writeScalar(i, bits, b.state(RESULT, bits));
      },
    );
  };

/** Writes `values` where `sure` holds, else the helper's result; `halves` of it. */
function settle(i: Instruction, sure: Value, values: readonly Value[], slow: () => void): void {
  const { b } = i;
  b.if(
    sure,
    () => writeHalves(i, values),
    () => {
      slow();
      writeHalves(
        i,
        values.map((_, half) => b.state(RESULT + 16 * half, 128)),
      );
    },
  );
}
const allHold = (b: Builder, tests: readonly Value[]): Value => (tests.length === 1 ? tests[0] : b.and(tests[0], tests[1]));

/** Packed to 32-bit integers; doubles fill half of what they were and clear the rest. */
const toIntegers =
  (bits: Precision, truncate: boolean): Emitter =>
  (i) => {
    const { b } = i;
    // The MMX forms read 64 bits of singles: the upper lanes are zero or not looked at.
    const half = bits === 32 && i.bits(1) === 64;
    const y = readHalves(i, 1).map((whole) => (half ? join(b, whole, zero(b)) : whole));
    const n = new Numbers(b, bits, true);
    const limit = n.constant(bits === 64 ? 0x41e0000000000000n : 0x4f000000n);
    const sures: Value[] = [];
    const plain = plainMode(b);
    let integers = y.map((value) => {
      const integral = n.op(truncate ? 'trunc' : 'nearest', value);
      const fits = n.holds(n.op('lt', n.op('abs', integral), limit));
      sures.push(b.and(fits, b.or(plain, n.holds(n.op('eq', value, integral)))));
      return b.op(bits === 64 ? 'i32x4.trunc_sat_f64x2_s_zero' : 'i32x4.trunc_sat_f32x4_s', [integral]);
    });
    if (bits === 64 && integers.length === 2) integers = [join(b, integers[0], integers[1])];
    const count = half ? 2 : (128 / bits) * y.length;
    settle(i, allHold(b, sures), integers, () => callFloat(i, truncate ? 'TRUNCATE_I32' : 'TO_I32', bits, count, y, y));
  };

/** The operands of a conversion to twice the width: each in the low half of a vector. */
function lowAndHigh(i: Instruction): Value[] {
  const { b } = i;
  const whole = readVector(i, 1);
  return i.form.wide ? [whole, b.op('i8x16.shuffle', [whole, whole], pick(8, [1, 1]))] : [whole];
}
const integersToDoubles: Emitter = (i) =>
  writeHalves(
    i,
    lowAndHigh(i).map((value) => i.b.op('f64x2.convert_low_i32x4_s', [value])),
  );

export const sseConversions: Record<string, Emitter> = {
  CVTSI2SS: fromGeneral(32),
  CVTSI2SD: fromGeneral(64),
  CVTSS2SI: toGeneral(32, false),
  CVTSD2SI: toGeneral(64, false),
  CVTTSS2SI: toGeneral(32, true),
  CVTTSD2SI: toGeneral(64, true),
  CVTPS2DQ: toIntegers(32, false),
  CVTTPS2DQ: toIntegers(32, true),
  CVTPD2DQ: toIntegers(64, false),
  CVTTPD2DQ: toIntegers(64, true),
  CVTPS2PI: toIntegers(32, false),
  CVTTPS2PI: toIntegers(32, true),
  CVTPD2PI: toIntegers(64, false),
  CVTTPD2PI: toIntegers(64, true),
  CVTDQ2PD: integersToDoubles,
  CVTPI2PD: integersToDoubles,
  CVTDQ2PS(i) {
    const { b } = i;
    const y = readHalves(i, 1);
    const four = (value: number): Value => lanes(b, 32, [value, value, value, value]);
    const small = y.map((value) =>
      b.op('i32x4.all_true', [b.op('i32x4.lt_u', [b.op('i32x4.add', [value, four(1 << 24)]), four(1 << 25)])]),
    );
    const numbers = y.map((value) => b.op('f32x4.convert_i32x4_s', [value]));
    settle(i, b.or(allHold(b, small), plainMode(b)), numbers, () => callFloat(i, 'FROM_I32', 32, 4 * y.length, y, y));
  },
  /** Two integers to the low half; the upper half keeps. */
  CVTPI2PS(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const low = (value: Value): void => b.putSlot(i.slot(0), 64, b.op('i64x2.extract_lane', [value], [0]));
    b.if(
      plainMode(b),
      () => low(b.op('f32x4.convert_i32x4_s', [y])),
      () => {
        callFloat(i, 'FROM_I32', 32, 2, y, y);
        low(b.state(RESULT, 128));
      },
    );
  },
  CVTSS2SD(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const n = new Numbers(b, 32, false);
    const v = lane0(b, 32, y);
    const double = b.op('f64.promote_f32', [v]);
    b.if(
      // What is marked last is for what comes after it.
      b.and(n.clean([v]), marksTame(b.i32(1), { of: double, facts: Tame.NORMAL_D | Tame.ORDERED_D })),
      () => writeScalar(i, 64, double),
      () => {
        const status = callFloat(i, 'CONVERT', 32, 1, y, y);
        writeScalar(i, 64, b.state(RESULT, 64));
        leaveUnlessTame(i, status);
      },
    );
  },
  CVTSD2SS(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const wide = new Numbers(b, 64, false);
    const narrow = new Numbers(b, 32, false);
    const v = lane0(b, 64, y);
    const single = b.op('f32.demote_f64', [v]);
    b.if(
      b.and(
        plainMode(b),
        narrow.result(single, () => wide.isZero(v)),
      ),
      () => writeScalar(i, 32, single),
      () => {
        const status = callFloat(i, 'CONVERT', 64, 1, y, y);
        writeScalar(i, 32, b.state(RESULT, 32));
        leaveUnlessTame(i, status);
      },
    );
  },
  CVTPS2PD(i) {
    const { b } = i;
    const whole = readVector(i, 1);
    const n = new Numbers(b, 32, true);
    const lows = i.form.wide ? [whole, b.op('i8x16.shuffle', [whole, whole], pick(8, [1, 1]))] : [whole];
    const looked = i.form.wide ? whole : b.op('i8x16.shuffle', [whole, whole], pick(8, [0, 0]));
    const doubles = lows.map((value) => b.op('f64x2.promote_low_f32x4', [value]));
    settle(i, n.clean([looked]), doubles, () => callFloat(i, 'CONVERT', 32, 2 * lows.length, looked, looked));
  },
  CVTPD2PS(i) {
    const { b } = i;
    const y = readHalves(i, 1);
    const wide = new Numbers(b, 64, true);
    const narrow = new Numbers(b, 32, true);
    const plain = plainMode(b);
    let singles = y.map((value) => b.op('f32x4.demote_f64x2_zero', [value]));
    const sures = y.map((value, half) => {
      // The lanes that the instruction clears count as normal.
      const both = b.op('i8x16.shuffle', [singles[half], singles[half]], pick(8, [0, 0]));
      return b.or(b.and(narrow.result(both, undefined), plain), wide.holds(wide.isZero(value)));
    });
    if (singles.length === 2) singles = [join(b, singles[0], singles[1])];
    settle(i, allHold(b, sures), singles, () => callFloat(i, 'CONVERT', 64, 2 * y.length, y, y));
  },
};
