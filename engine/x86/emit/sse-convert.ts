/** Conversions between integers and floating point, and between precisions (SDM 1, 11.4.1.6; SDM 2 for each). */
import type { Value } from '../../ir/builder.ts';
import type { Emitter, Instruction } from './context.ts';
import { lanes, readVector, vectors, writeVector, zero } from './sse-context.ts';
import { asBits, callFloat, fromInteger, lane0, Numbers, type Precision, plainMode, RESULT } from './sse-float-context.ts';
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
      b.putSlot(i.slot(0), 64, asBits(b, number));
      return;
    }
    const shift = bits === 64 ? 53 : 24;
    const small = wide
      ? b.ltU(b.add(x, b.i64(1n << BigInt(shift))), b.i64(2n << BigInt(shift)))
      : b.ltU(b.add(x, b.i32(1 << shift)), b.i32(2 << shift));
    b.if(
      b.or(small, plainMode(b)),
      () => b.putSlot(i.slot(0), bits, asBits(b, number)),
      () => {
        const operand = fromInteger(b, x);
        callFloat(i, wide ? 'FROM_I64' : 'FROM_I32', bits, 1, operand, operand);
        b.putSlot(i.slot(0), bits, b.state(RESULT, bits));
      },
    );
  };

/** Writes `value` where `sure` holds, else the helper's result. */
function settle(i: Instruction, sure: Value, value: Value, slow: () => void): void {
  const { b } = i;
  b.if(
    sure,
    () => writeVector(i, 0, value),
    () => {
      slow();
      writeVector(i, 0, b.state(RESULT, 128));
    },
  );
}

/** Packed to 32-bit integers; doubles fill the low half and clear the upper one. */
const toIntegers =
  (bits: Precision, truncate: boolean): Emitter =>
  (i) => {
    const { b } = i;
    // The MMX forms read 64 bits of singles: the upper lanes are zero or not looked at.
    const half = bits === 32 && i.bits(1) === 64;
    const whole = readVector(i, 1);
    const y = half ? join(b, whole, zero(b)) : whole;
    const n = new Numbers(b, bits, true);
    const integral = n.op(truncate ? 'trunc' : 'nearest', y);
    const integers = b.op(bits === 64 ? 'i32x4.trunc_sat_f64x2_s_zero' : 'i32x4.trunc_sat_f32x4_s', [integral]);
    const limit = n.constant(bits === 64 ? 0x41e0000000000000n : 0x4f000000n);
    const fits = n.holds(n.op('lt', n.op('abs', integral), limit));
    const sure = b.and(fits, b.or(plainMode(b), n.holds(n.op('eq', y, integral))));
    settle(i, sure, integers, () => callFloat(i, truncate ? 'TRUNCATE_I32' : 'TO_I32', bits, half || bits === 64 ? 2 : 4, y, y));
  };

export const sseConversions: Record<string, Emitter> = vectors({
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
  CVTDQ2PD(i) {
    writeVector(i, 0, i.b.op('f64x2.convert_low_i32x4_s', [readVector(i, 1)]));
  },
  CVTPI2PD(i) {
    writeVector(i, 0, i.b.op('f64x2.convert_low_i32x4_s', [readVector(i, 1)]));
  },
  CVTDQ2PS(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const numbers = b.op('f32x4.convert_i32x4_s', [y]);
    const biased = b.op('i32x4.add', [
      y,
      lanes(
        b,
        32,
        Array.from({ length: 4 }, () => 1 << 24),
      ),
    ]);
    const small = b.op('i32x4.all_true', [
      b.op('i32x4.lt_u', [
        biased,
        lanes(
          b,
          32,
          Array.from({ length: 4 }, () => 1 << 25),
        ),
      ]),
    ]);
    settle(i, b.or(small, plainMode(b)), numbers, () => callFloat(i, 'FROM_I32', 32, 4, y, y));
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
    b.if(
      n.clean(v),
      () => b.putSlot(i.slot(0), 64, asBits(b, b.op('f64.promote_f32', [v]))),
      () => {
        callFloat(i, 'CONVERT', 32, 1, y, y);
        b.putSlot(i.slot(0), 64, b.state(RESULT, 64));
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
    const good = b.or(wide.isZero(v), b.and(narrow.normal(single), plainMode(b)));
    b.if(
      good,
      () => b.putSlot(i.slot(0), 32, asBits(b, single)),
      () => {
        callFloat(i, 'CONVERT', 64, 1, y, y);
        b.putSlot(i.slot(0), 32, b.state(RESULT, 32));
      },
    );
  },
  CVTPS2PD(i) {
    const { b } = i;
    const whole = readVector(i, 1);
    const y = b.op('i8x16.shuffle', [whole, whole], pick(8, [0, 0]));
    const n = new Numbers(b, 32, true);
    const sure = n.holds(n.clean(y));
    settle(i, sure, b.op('f64x2.promote_low_f32x4', [y]), () => callFloat(i, 'CONVERT', 32, 2, y, y));
  },
  CVTPD2PS(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const wide = new Numbers(b, 64, true);
    const narrow = new Numbers(b, 32, true);
    const singles = b.op('f32x4.demote_f64x2_zero', [y]);
    // The lanes that the instruction clears count as normal.
    const both = b.op('i8x16.shuffle', [singles, singles], pick(8, [0, 0]));
    const sure = b.or(wide.holds(wide.isZero(y)), b.and(narrow.holds(narrow.normal(both)), plainMode(b)));
    settle(i, sure, singles, () => callFloat(i, 'CONVERT', 64, 2, y, y));
  },
});
